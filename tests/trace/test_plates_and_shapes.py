"""Which plate is that of the data; plates and shapes that differ are refused by name before the first step."""

import functools
import math
import warnings

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.estimators.over_batch import OverBatch
from pyro_vae.testing import check_estimator

E = pv.estimators
ELBOS = (E.ELBO, E.Enumeration, E.ReinforceLOO)
ZERO = torch.zeros(()).double()


def data(n=4):
    return torch.randn(n, generator=torch.Generator().manual_seed(0)).double()


class Weights(torch.nn.Module):
    """A plate of weights and the plate of the data, both at dimension -1, and one latent for each example."""

    def __init__(self, number=4, guide_plate="weights", first=True):
        super().__init__()
        self.number, self.guide_plate, self.first = number, guide_plate, first
        self.loc, self.slope = (torch.nn.Parameter(torch.full((), v).double()) for v in (0.3, 0.5))

    def weights(self, plate, loc, scale):
        with pyro.plate(plate, self.number, dim=-1):
            return pyro.sample("w", dist.Normal(loc, scale))

    def model(self, x):
        w = self.weights("weights", ZERO, 1.0)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(ZERO, 1.0))
            pyro.sample("x", dist.Normal(z + w.sum(-1, keepdim=True) / math.sqrt(self.number), 1.0), obs=x)

    def guide(self, x):
        if self.first:
            self.weights(self.guide_plate, self.loc, 0.8)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.slope * x, 0.7))
        if not self.first:
            self.weights(self.guide_plate, self.loc, 0.8)

    def best(self, x, nodes=4001):
        """E_q[log p(x given w)] - KL(q(w) to p(w)): what importance weights of the examples can reach."""
        s = math.sqrt(self.number)  # the sum of the weights over its square root is N(s loc, 0.8)
        grid = torch.linspace(-8, 8, nodes).double()
        log_q = dist.Normal(s * self.loc.detach(), 0.8).log_prob(grid)
        log_px = dist.Normal(grid, math.sqrt(2)).log_prob(x.unsqueeze(-1)).sum(0)
        q, p = dist.Normal(self.loc.detach(), 0.8), dist.Normal(ZERO, 1.0)
        kl = self.number * torch.distributions.kl_divergence(q, p)
        return float((log_q.exp() * log_px).sum() * (grid[1] - grid[0]) - kl)


@pytest.mark.parametrize("toy", [Weights(), Weights(3), Weights(guide_plate="q_weights"), Weights(first=False)])
def test_a_plate_of_weights_is_not_that_of_the_data(toy):
    x = data()
    torch.manual_seed(0)
    ours = E.ELBO(analytic_kl=False).differentiable_loss(toy.model, toy.guide, x)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a plate of the guide with a name of its own
        theirs = pyro.infer.Trace_ELBO().differentiable_loss(toy.model, toy.guide, x)
    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(loss, list(toy.parameters())) for loss in (ours, theirs)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("toy", [Weights(), Weights(3), Weights(guide_plate="q_weights")])
@pytest.mark.parametrize("cls", [E.IWAE, *(pytest.param(cls, marks=pytest.mark.slow) for cls in (E.DReG, E.MIWAE))])
def test_importance_weights_are_those_of_the_examples(cls, toy):
    """With many particles the bound is that of the weights' own guide: 4 standard errors."""
    x, estimator = data(), shelf.build(cls, 200) if cls is not E.MIWAE else E.MIWAE(1, 200)
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.stack([-estimator.differentiable_loss(toy.model, toy.guide, x) for _ in range(200)])
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - toy.best(x)) < 4 * error + 0.01


class TwoPlates:
    """Observations and latents in two independent plates."""

    def __init__(self):
        self.slope = torch.tensor([0.5, 0.4]).double().requires_grad_()

    def model(self, x):
        for i, rows in enumerate((x, x[:2])):
            with pyro.plate(f"rows{i}", len(rows), dim=-1):
                z = pyro.sample(f"z{i}", dist.Normal(ZERO, 1.0))
                pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=rows)

    def guide(self, x):
        for i, rows in enumerate((x, x[:2])):
            with pyro.plate(f"rows{i}", len(rows), dim=-1):
                pyro.sample(f"z{i}", dist.Normal(self.slope[i] * rows, 0.7))


@pytest.mark.parametrize("cls", shelf.classes())
def test_data_in_two_plates_are_summed_or_refused(cls):
    toy, x = TwoPlates(), data()
    estimator = shelf.build(cls)
    if cls not in ELBOS:
        with pytest.raises(ValueError, match="'x1'|DisARM|antithetic|binary"):
            estimator.loss(toy.model, toy.guide, x)
        return
    exact = pyro.infer.Trace_ELBO(num_particles=6, vectorize_particles=True, max_plate_nesting=1)
    estimator.analytic_kl = False
    found = []
    for kind in (estimator, exact):
        torch.manual_seed(0)
        found.append(kind.differentiable_loss(toy.model, toy.guide, x))
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match="'x1'"):
        estimator.per_datum(toy.model, toy.guide, x)


LATENTS = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)


def plated(size, inside):
    return pyro.plate("data", size, dim=-1) if inside else pyro.poutine.scale(scale=1.0)


class Plates:
    """A VAE of functions whose plates may be missing."""

    def __init__(self, prior=True, likelihood=True, posterior=True):
        self.inside = prior, likelihood, posterior
        self.net = torch.nn.Linear(2, 2).double()
        self.program = pv.programs.FunctionProgram(self.model, self.guide, net=self.net)

    def model(self, x):
        with plated(len(x), self.inside[0]):
            z = pyro.sample("z", LATENTS)
        with plated(len(x), self.inside[1]):
            pyro.sample("x", dist.Normal(z.expand(*z.shape[:-2], len(x), 2), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with plated(len(x), self.inside[2]):
            pyro.sample("z", dist.Normal(self.net(x), 0.7).to_event(1))


MISSING = {
    "everywhere": (False, False, False),
    "in the model": (False, False, True),
    "in the guide": (True, True, False),
    "around the latent": (False, True, True),
    "around the data": (True, False, True),
    "around both latents": (False, True, False),
}


@pytest.mark.parametrize("where", MISSING)
@pytest.mark.parametrize("cls", shelf.classes())
def test_a_missing_plate_is_refused_by_name(cls, where):
    toy, x = Plates(*MISSING[where]), torch.randn(8, 2).double()
    if cls in shelf.discrete() and cls not in (E.Enumeration, E.ReinforceLOO):
        pytest.skip("the same check")
    with pytest.raises(ValueError, match="'[xz]'"):
        shelf.build(cls).loss(toy.program.model, toy.program.guide, x)


def test_the_laws_of_an_estimator_see_a_missing_plate():
    with pytest.raises(ValueError, match="'x' .*plate"):
        check_estimator(Plates(False, False, False).program, E.IWAE(), torch.randn(8, 2).double())


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (LATENTS, lambda x: dist.Normal(x[:, :1], 1.0).to_event(1)),
        (dist.Normal(torch.zeros(1).double(), 1.0).to_event(1), lambda x: dist.Normal(x, 1.0).to_event(1)),
        (LATENTS, lambda x: dist.Normal(x[:, 0], 1.0)),
        (dist.Normal(ZERO, 1.0), lambda x: dist.Normal(x, 1.0).to_event(1)),
        (dist.Normal(torch.zeros(2, 2), 1.0).to_event(2), lambda x: dist.Normal(x, 1.0).to_event(1)),
    ],
)
def test_prior_and_posterior_of_different_shape_are_refused(prior, posterior, num_particles):
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            pyro.sample(
                "x",
                dist.Normal(z.flatten(-1).mean(-1), 1.0) if z.dim() < 2 else dist.Normal(z.mean(-1), 1.0),
                obs=x[:, 0],
            )

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", posterior(x))

    x = torch.randn(5, 2).double()
    shapes = f"{tuple(prior.event_shape)}.*{tuple(posterior(x).event_shape)}"
    with pytest.raises(ValueError, match="'z'.*" + shapes.replace("(", r"\(").replace(")", r"\)")):
        E.ELBO(num_particles=num_particles).loss(model, guide, x)


def test_parts_of_different_size_are_refused_before_the_first_step():
    """A prior of three latents and a posterior of one: each entry would be compared with the same draw."""
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Normal(1, (4,)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 1),
    )
    for estimator in (E.ELBO(), E.IWAE()):
        stock = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), estimator)
        with pytest.raises(ValueError, match=r"'z'.*\(3,\).*\(1,\)"):
            stock.step(torch.zeros(5, 4))


def test_plates_of_one_name_have_one_dimension():
    """As many parts as examples: only the names differ."""

    def run(dims, fn):
        with pyro.plate("data", 3, dim=dims[0]), pyro.plate("part", 3, dim=dims[1]):
            return fn()

    def model(x):
        z = run((-1, -2), lambda: pyro.sample("z", dist.Normal(ZERO, 1.0)))
        run((-1, -2), lambda: pyro.sample("x", dist.Normal(z, 1.0), obs=x))

    def guide(x):
        run((-2, -1), lambda: pyro.sample("z", dist.Normal(x, 1.0)))

    with pytest.raises(ValueError, match="'data'.*'z'"):
        E.ELBO().loss(model, guide, torch.zeros(3, 3).double())


def test_masks_need_a_plate_too():
    """A mask of all examples at a latent that they share would count it once for each."""

    def model(x):
        with pyro.poutine.mask(mask=torch.ones(len(x), dtype=torch.bool)):
            w = pyro.sample("w", dist.Normal(ZERO, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(x.mean(), 1.0))

    with pytest.raises(ValueError, match="model: site 'w'"):
        E.ELBO().loss(model, guide, data())


@pytest.mark.parametrize("scale", [torch.tensor(3.0), torch.full((1,), 3.0), torch.full((4,), 3.0)])
@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE])
def test_scales_of_shared_latents(cls, scale):
    """One number scales a latent that examples share; numbers of examples or weights are refused there."""
    toy, x = Weights(), data()
    model, guide = (pyro.poutine.scale(f, scale=scale) for f in (toy.model, toy.guide))
    if scale.numel() > 1:
        with pytest.raises(ValueError, match="scale: .*'w'"):
            cls().loss(model, guide, x)
        return
    torch.manual_seed(0)
    exact = 3 * cls().loss(toy.model, toy.guide, x)
    torch.manual_seed(0)
    assert cls().loss(model, guide, x) == pytest.approx(exact)


def test_scales_are_those_of_the_dimension_of_the_data():
    """Four parts of four examples: numbers at dimension -1 are those of the parts."""

    def run(x, observe):
        with pyro.plate("data", 4, dim=-2), pyro.plate("part", 4, dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0) if observe else dist.Normal(0.5 * x, 0.7))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x, scale = torch.randn(4, 4).double(), torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    model, guide = (functools.partial(run, observe=observe) for observe in (True, False))
    with pytest.raises(ValueError, match="scale: .*'[xz]'"):
        E.ELBO().loss(*(pyro.poutine.scale(f, scale=scale) for f in (model, guide)), x)
    model, guide = (pyro.poutine.scale(f, scale=scale.unsqueeze(-1)) for f in (model, guide))
    torch.manual_seed(0)
    exact = pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x)
    torch.manual_seed(0)
    torch.testing.assert_close(E.ELBO(analytic_kl=False).differentiable_loss(model, guide, x), exact)


def test_a_number_and_a_tensor_of_it_are_one_scale():
    toy, x = Weights(), data()
    model, guide = pyro.poutine.scale(toy.model, scale=3.0), pyro.poutine.scale(toy.guide, scale=torch.tensor(3.0))
    assert math.isfinite(E.ELBO().loss(model, guide, x))
    with pytest.raises(ValueError, match="guide: .*scaled"):
        E.ELBO().loss(model, pyro.poutine.scale(toy.guide, scale=torch.tensor(2.0)), x)


def test_plates_and_sites_have_names_of_their_own():
    """Two random subsamples under one name would be two sets of rows."""

    def run(observed, name="data"):
        for site in ("z", "y"):
            with pyro.plate(name, 8, subsample_size=4, dim=-1):
                y = pyro.sample(site, dist.Normal(ZERO, 1.0))
        with pyro.plate("rows", 4, dim=-1):
            if observed:
                pyro.sample("x", dist.Normal(y, 1.0), obs=data())

    for name in ("data", "z"):
        with pytest.raises(ValueError, match=f"'{name}'"):
            E.ELBO().loss(functools.partial(run, True, name), functools.partial(run, False, name))


@pytest.mark.parametrize("cls", shelf.classes())
def test_plates_of_an_argument_with_more_dimensions(cls):
    """The same functions run on rows and on images."""
    if cls in shelf.discrete() and cls not in (E.Enumeration, E.VIMCO) or issubclass(cls, OverBatch):
        pytest.skip("nothing else happens there")

    def run(x, observed):
        plates = [
            pyro.plate("data", len(x), dim=-1),
            *([pyro.plate("part", x.shape[0], dim=-2)] if x.dim() > 1 else []),
        ]
        for plate in plates:
            plate.__enter__()
        z = pyro.sample("z", dist.Normal(ZERO, 1.0) if observed else dist.Normal(0.5 * x, 0.7))
        if observed:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        for plate in reversed(plates):
            plate.__exit__(None, None, None)

    model, guide = (functools.partial(run, observed=observed) for observed in (True, False))
    for x in (data(3), data(9).reshape(3, 3), data(3)):
        estimator = shelf.build(cls)
        torch.manual_seed(0)
        estimator.loss(model, guide, x)
        assert estimator.per_datum(model, guide, x).shape == (3,)


@pytest.mark.parametrize(("text", "hint"), [("the sensor is off", False), ("The size of tensor a must match", True)])
def test_only_errors_about_shapes_get_the_hint_about_particles(text, hint):
    toy = pv.testing.LinearGaussian()
    likelihood = toy.program.likelihood.forward

    def broken(z):
        if z.dim() > 2:
            raise RuntimeError(text)
        return likelihood(z)

    toy.program.likelihood.forward = broken
    with pytest.raises(RuntimeError, match=text) as error:
        pv.estimators.IWAE(num_particles=3).loss(toy.program.model, toy.program.guide, toy.draw(4))
    assert ("There are 3 particles" in str(error.value)) is hint
