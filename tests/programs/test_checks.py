"""The check before training: observed values of every program, shapes of sites, contexts, and NaN."""

import math

import pyro
import pytest
import torch
from helpers.programs import PROGRAMS, context, rows
from helpers.small_parts import SMALL
from pyro import distributions as dist
from pyro import poutine

import pyro_vae as pv
from pyro_vae.programs.compatibility import MORE_ROWS, ROWS

NAN = float("nan")


def own(likelihood, *, mask=None, event=None):
    """A user's own program with two normal latents; `likelihood` makes the distribution of x."""
    net = torch.nn.Linear(2, 2)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with poutine.mask(mask=True if mask is None else mask(x)):
                pyro.sample("x", likelihood(z), obs=x if event is None else event(x))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(net(torch.nan_to_num(x)), 1.0).to_event(1))

    return pv.programs.FunctionProgram(model, guide, net=net)


def with_value(value, row, n=300):
    x = torch.zeros(n, 2)
    x[row, 1] = value
    return x


def bernoulli(z, **options):
    return dist.Bernoulli(logits=z, **options).to_event(1)


@pytest.mark.parametrize("row", [0, ROWS - 1, ROWS, ROWS + MORE_ROWS, 299])
@pytest.mark.parametrize("value", [7.0, 0.5, NAN])
def test_a_bad_value_in_any_row_of_an_own_program_is_refused(row, value):
    x, program = with_value(value, row), own(bernoulli)
    before = [p.clone() for p in program.parameters()]
    with pytest.raises(ValueError, match=rf"^x: x\[{row}, 1\] .*") as error:
        pv.fit(program, x, epochs=1, progress=False)
    assert "Bernoulli" in str(error.value)
    assert all(torch.equal(p, b) for p, b in zip(program.parameters(), before, strict=True))


def test_a_bad_value_in_a_loader_is_refused():
    loader = torch.utils.data.DataLoader(with_value(7.0, 250), batch_size=100)
    with pytest.raises(ValueError, match=r"^x: x\[50, 1\] is 7, .*batch 2 of the data loader"):
        pv.fit(own(bernoulli), loader, epochs=1, progress=False)


def test_values_that_a_program_does_not_score_may_be_anything():
    """Rows behind a mask, and families whose validation the user has turned off."""
    x = with_value(7.0, 250)
    pv.fit(own(bernoulli, mask=lambda x: (x <= 1).all(-1)), x, epochs=1, progress=False)
    pv.fit(own(lambda z: bernoulli(z, validate_args=False)), x, epochs=1, progress=False)
    x[3, 0] = 7.0
    with pytest.raises(ValueError, match=r"x\[250, 1\]"):
        own(bernoulli, mask=lambda x: x[:, 0] <= 1).check(x)


def test_observations_are_validated_at_the_latents_of_the_guide():
    """A support that depends on the latents: x is inside at every sample of the guide, not at those of the prior."""

    shift = torch.nn.Linear(1, 1)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Uniform(torch.full_like(z, -5.0), z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(200 + shift(x.unsqueeze(-1)).squeeze(-1), 1.0))

    pv.programs.FunctionProgram(model, guide, shift=shift).check(100 + torch.rand(300))


class Extra(pv.VAE):
    """A VAE that observes one more thing, about which its check of the data does not know."""

    def model(self, x):
        super().model(x)
        with pv.programs.DataPlate(x):
            pyro.sample("positive", dist.Exponential(torch.ones(len(x))), obs=x[:, 0])


def test_a_subclass_with_a_model_of_its_own_is_checked_row_by_row():
    program = Extra.example()
    x = torch.rand(300, 4)
    program.check(x)
    x[200, 0] = -1.0
    with pytest.raises(ValueError, match=r"^positive: positive\[200\] is -1, .*Exponential"):
        program.check(x)


@pytest.mark.parametrize(
    ("likelihood", "event"),
    [
        (lambda z: dist.Normal(z.sum(-1), 1.0), lambda x: x[:, :1]),  # (n,) against (n, 1) is (n, n)
        (lambda z: dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), lambda x: x.unsqueeze(1)),
        (lambda z: dist.Normal(z, 1.0), None),  # no to_event
    ],
)
def test_values_and_distributions_that_broadcast_across_rows_are_refused(likelihood, event):
    with pytest.raises(ValueError, match="x"):
        pv.fit(own(likelihood, event=event), torch.zeros(30, 2), epochs=1, progress=False)


class Part(pv.Conditional):
    """A part whose forward is a given function."""

    def __init__(self, function, out=3):
        super().__init__()
        self.function, self.net = function, pv.nets.MLP((4,), (out,), hidden=(4,))

    def forward(self, *given):
        return self.function(self, *given)


def vae(**parts):
    return pv.VAE(
        **{
            "prior": pv.priors.StandardNormal(3),
            "likelihood": pv.likelihoods.Normal(3, (4,), net=SMALL),
            "posterior": pv.posteriors.MeanFieldNormal((4,), 3, net=SMALL),
            **parts,
        }
    )


X = torch.randn(30, 4)
EVENT = r"batch shape .*event shape \(\)\. .*\.to_event"
PARTS = {
    "prior without to_event": (
        {"prior": Part(lambda self: dist.Normal(torch.zeros(3), 1.0))},
        f"prior Part: .*{EVENT}",
    ),
    "posterior without to_event": (
        {"posterior": Part(lambda self, x: dist.Normal(self.net(x), 1.0))},
        f"posterior Part: .*{EVENT}",
    ),
    "likelihood without to_event": (
        {"likelihood": Part(lambda self, z: dist.Normal(torch.cat([z, z[..., :1]], -1), 1.0))},
        f"likelihood Part: .*{EVENT}",
    ),
    "likelihood of a tensor": ({"likelihood": Part(lambda self, z: z)}, "likelihood Part: .*distribution, got Tensor"),
    "likelihood of another width": (
        {"likelihood": pv.likelihoods.Normal(5, (4,), net=SMALL)},
        r"\*batch, 5.*likelihood Normal.*prior StandardNormal: build both with the same `latent`",
    ),
    "posterior of another width": (
        {"posterior": pv.posteriors.MeanFieldNormal((4,), 2, net=SMALL)},
        "posterior MeanFieldNormal and prior StandardNormal .*same `latent`",
    ),
    "posterior of another shape": (
        {"posterior": pv.posteriors.MeanFieldNormal((6,), 3, net=SMALL)},
        r"\*batch, 6.*posterior MeanFieldNormal.*`shape`",
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_do_not_fit_are_named(name):
    given, message = PARTS[name]
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        pv.fit(vae(**given), X, epochs=1, progress=False)
    assert not str(error.value).startswith("x:")


C = torch.randn(30, 2)
CONDITIONAL = {
    "prior": pv.priors.ConditionalNormal(3, context=2, net=SMALL),
    "likelihood": pv.likelihoods.Normal(3, (4,), context=2, net=SMALL),
    "posterior": pv.posteriors.MeanFieldNormal((4,), 3, context=2, net=SMALL),
}


@pytest.mark.parametrize("role", CONDITIONAL)
def test_a_part_that_takes_no_context_is_named(role):
    forwards = {
        "prior": lambda self: dist.Normal(torch.zeros(3), 1.0).to_event(1),
        "likelihood": lambda self, z: dist.Normal(z, 1.0).to_event(1),
        "posterior": lambda self, x: dist.Normal(x[..., :3], 1.0).to_event(1),
    }
    rigid = type("Rigid", (pv.Conditional,), {"forward": forwards[role]})()
    with pytest.raises(ValueError, match=rf"^context: expected {role} Rigid .*\*context"):
        pv.fit(vae(**{**CONDITIONAL, role: rigid}), (X, C), epochs=1, progress=False)


def test_bad_contexts_are_named_without_advice_about_pixels_or_missing_entries():
    hole = torch.where(torch.arange(30).unsqueeze(-1) == 7, NAN, C)
    for missing in (False, True):
        with pytest.raises(ValueError, match=r"^context: .*context\[7, 0\] is NaN .*fill it in") as error:
            pv.fit(vae(**CONDITIONAL, missing=missing), (X, hole), epochs=1, progress=False)
        assert "missing=True" not in str(error.value)
    for dtype in (torch.int64, torch.uint8):
        with pytest.raises(ValueError, match=f"^context: .*{dtype}") as error:
            pv.fit(vae(**CONDITIONAL), (X, C.to(dtype)), epochs=1, progress=False)
        assert "pixels" not in str(error.value)
    with pytest.raises(ValueError, match="^x: .*uint8.*pixels 0..255"):
        pv.fit(vae(), (255 * X).byte(), epochs=1, progress=False)


ALWAYS_TAKE_MISSING = (pv.programs.MissingNotAtRandom, pv.programs.Multimodal)


@pytest.mark.parametrize("cls", [cls for cls in PROGRAMS if cls not in ALWAYS_TAKE_MISSING])
def test_advice_about_missing_entries_is_true(cls):
    """Where the error about NaN advises missing=True, the program takes it."""
    program = cls.example()
    x, more = rows(program, 30), context(program, 30)
    hole = x.clone()
    hole[5, ..., 0] = NAN
    with pytest.raises(ValueError, match=r"^x: .*x\[5.* is NaN") as error:
        pv.fit(program, (hole, *more), epochs=1, progress=False)
    if "missing=True to the program" in str(error.value):
        history = pv.fit(cls.example(missing=True), (hole, *more), epochs=1, progress=False)
        assert math.isfinite(history["loss"][-1])
    else:
        assert not getattr(program, "missing", False)


def test_skip_connections_to_a_likelihood_that_ignores_them_are_refused():
    q = pv.posteriors.MeanFieldNormal
    parts = {
        "prior": pv.priors.StandardNormal(2),
        "layers": [q((2,), 3, net=SMALL)],
        "inference": pv.programs.BottomUp([q((4,), 3, net=SMALL), q((3,), 2, net=SMALL)]),
        "skip": True,
    }
    with pytest.raises(ValueError, match="^likelihood: .*skip=True"):
        pv.programs.Hierarchical(**parts, likelihood=pv.likelihoods.Normal(3, (4,), net=SMALL))
    pv.programs.Hierarchical(**parts, likelihood=pv.likelihoods.Normal(3, (4,), net=SMALL, context=2)).check(X)


def test_messages_name_the_argument_and_the_way_out():
    with pytest.raises(TypeError, match=r"^announce: .*raw=Tensor"), poutine.trace():
        pv.programs.announce(raw=torch.zeros(3))
    x = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"^x: expected shape \(n,\), got \(5, 2\)"), pv.programs.DataPlate(x):
        pv.programs.observe("x", dist.Normal(torch.zeros(5), 1.0), x)
    with pytest.raises(TypeError, match=r"^x: .*got Dataset.*\.train"):
        pv.fit(vae(), pv.data.load("digits"), epochs=1, progress=False)
