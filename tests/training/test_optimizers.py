"""Optimizers: every option is honoured or refused by name; parameter groups by name; freezing between steps."""

import functools
import inspect
import warnings

import pyro
import pytest
import torch
from helpers.programs import bits, small
from helpers.runs import program, train

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.training import SVI, ParameterGroups, eager_graph

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
SGD = functools.partial(torch.optim.SGD, lr=1e-2)

#: Values of options that are neither bool nor None by default.
VALUES = {
    "lr": torch.tensor(5e-4),
    "betas": (0.8, 0.95),
    "eps": 1e-3,
    "weight_decay": 0.1,
    "momentum": 0.9,
    "dampening": 0.5,
    "rho": 0.7,
    "alpha": 0.8,
    "lambd": 1e-2,
    "t0": 2.0,
    "etas": (0.4, 1.3),
    "step_sizes": (1e-5, 10),
    "lr_decay": 0.1,
    "initial_accumulator_value": 0.3,
    "momentum_decay": 0.01,
    "beta2_decay": -0.6,
    "d": 2.0,
    "ns_coefficients": (3.0, -4.0, 2.0),
    "ns_steps": 3,
    "clip_norm": 1e-3,
    "lrd": 0.9,
    "eta": 0.7,
    "delta": 1e-3,
    "t": 0.3,
}
#: What an option needs in order to have an effect.
NEEDED = {
    "dampening": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "decoupled_weight_decay": {"weight_decay": 0.1},
}
#: Optimizers that need a closure, sparse gradients, or matrices only.
OTHER = (torch.optim.Optimizer, torch.optim.LBFGS, torch.optim.SparseAdam, getattr(torch.optim, "Muon", None))
CLASSES = [
    cls for cls in vars(torch.optim).values() if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
]
OF_PYRO = [pyro.optim.clipped_adam.ClippedAdam, pyro.optim.adagrad_rmsprop.AdagradRMSProp, pyro.optim.dct_adam.DCTAdam]


#: The others are tried by the slow tests.
QUICK = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, OF_PYRO[0])


def cases():
    """Yield every option of every optimizer with a value other than its default."""
    for cls in [*(cls for cls in CLASSES if cls not in OTHER), *OF_PYRO]:
        for name, parameter in inspect.signature(cls).parameters.items():
            if name == "params":
                continue
            values = [not parameter.default] if isinstance(parameter.default, bool) else [VALUES.get(name)]
            values = [True, False] if parameter.default is None else values
            if name == "eps" and isinstance(parameter.default, tuple):
                values = [(None, 1e-2)]
            for value in values:
                # large steps of RMSprop would amplify rounding
                tame = {"lr": 1e-4, "eps": 1e-3} if cls is torch.optim.RMSprop else {}
                needed = {**tame, **NEEDED.get(name, {})}
                yield cls, {name: value} | {key: needed[key] for key in needed.keys() - {name}}


#: No hidden layer: a step is recorded in a third of the time.
LINEAR = functools.partial(pv.nets.MLP, hidden=())


def linear():
    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Bernoulli(3, (8,), net=LINEAR),
        posterior=pv.posteriors.MeanFieldNormal((8,), 3, net=LINEAR),
    )


def weights_after(optimizer, compiler=None, steps=4, dtype=torch.float32, **options):
    torch.manual_seed(1)
    vae = linear().to(dtype)
    svi = SVI(vae, E.ELBO(), optimizer, compiler=compiler, **options)
    torch.manual_seed(2)
    for (x,) in bits(*[16] * steps):
        svi.update(x.to(dtype))
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


@pytest.mark.parametrize(
    ("cls", "options"),
    [pytest.param(*case, marks=[] if case[0] in QUICK else pytest.mark.slow) for case in cases()],
)
def test_every_option_is_honoured_or_refused_by_name(cls, options):
    """Fused, compiled and by a plain list of parameters the weights are the same, in double precision.

    Left out, most options would change some weight by 1e-5 and more.
    """
    (name, *_) = options
    after = functools.partial(weights_after, steps=8, dtype=torch.float64)
    try:
        plain = after(lambda parameters: cls(parameters, **options))
    except ValueError as error:
        assert str(error).startswith("optimizer: ")  # noqa: PT017
        assert name in str(error)  # noqa: PT017
        return
    makes = [functools.partial(cls, **options)] * 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compile: .* optimizer ")  # it runs as it does uncompiled
        for make, compiler in zip(makes, (None, eager_graph), strict=True):
            torch.testing.assert_close(after(make, compiler), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "SGD", "ClippedAdam", "AdagradRMSProp", "DCTAdam"])
def test_optimizers_of_pyro_are_those_of_torch(name):
    """Stock SVI makes one optimizer per parameter; the weights are the same."""
    make = getattr(pyro.optim, name)
    options = {"eta": 0.1} if name == "AdagradRMSProp" else {"lr": 1e-2}

    def stock():
        torch.manual_seed(1)
        vae = linear()

        def model(x):
            with pyro.poutine.scale(scale=1 / len(x)):  # a step of fit follows the mean per example
                return vae.model(x)

        def guide(x):
            with pyro.poutine.scale(scale=1 / len(x)):
                return vae.guide(x)

        svi = pyro.infer.SVI(model, guide, make(dict(options)), pyro.infer.TraceMeanField_ELBO())
        torch.manual_seed(2)
        for batch in bits(*[16] * 4):
            svi.step(*batch)
        return torch.cat([p.detach().flatten() for p in vae.parameters()])

    torch.testing.assert_close(weights_after(make(dict(options))), stock(), rtol=1e-4, atol=1e-5)


def loaded():
    optimizer = pyro.optim.Adam({"lr": 1e-3})
    optimizer.set_state({"posterior": {}})
    return optimizer


class Own(pyro.optim.PyroOptim):
    """A subclass whose methods fit does not call."""


SCHEDULERS = {
    "ExponentialLR": {"gamma": 0.9},
    "StepLR": {"step_size": 3},
    "CosineAnnealingLR": {"T_max": 9},
    "ReduceLROnPlateau": {},
}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pyro.optim.Adam({"lr": 1e-3}, {"clip_norm": 1.0}), "clip_args .*clip_norm=1.0.*clip_norm"),
        (lambda: pyro.optim.SGD({"lr": 1e-3}, {"clip_value": 1.0}), "clip_args .*clip_value"),
        (lambda: pyro.optim.Adam({"lr": 1e-3}, lambda module, name: {"clip_norm": 1.0}), "clip_args .*function"),
        (lambda: pyro.optim.Adam(lambda name: {"lr": 1e-3}), "by parameter name.*ParameterGroups"),
        (lambda: Own(torch.optim.Adam, {"lr": 1e-3}), "Own"),
        (loaded, "state .*resume"),
        *[
            (
                lambda name=name, options=options: getattr(pyro.optim, name)(
                    {"optimizer": torch.optim.SGD, "optim_args": {"lr": 1e-3}, **options}
                ),
                f"{name}.*lr_schedule",
            )
            for name, options in SCHEDULERS.items()
        ],
    ],
)
def test_what_an_optimizer_of_pyro_would_lose_is_refused_by_name(make, said):
    with pytest.raises(TypeError, match=f"optimizer: .*{said}"):
        train(optimizer=make())


def test_a_learning_rate_that_something_else_changes_is_refused():
    """ClippedAdam lowers its own rate; a callback may set it. Alone both work."""
    falling = functools.partial(pyro.optim.clipped_adam.ClippedAdam, lr=1e-2, lrd=0.9)
    with pytest.raises(ValueError, match="lr_schedule: .*ClippedAdam"):
        train(optimizer=falling, lr_schedule=pv.training.Cosine(4))
    train(optimizer=falling)
    with pytest.raises(ValueError, match="lr_schedule: .*AdagradRMSProp"):
        train(optimizer=pyro.optim.AdagradRMSProp({"eta": 0.1}), lr_schedule=pv.training.Cosine(4))
    vae = program()
    adam = torch.optim.Adam(vae.parameters(), lr=1e-2)

    def halve(metrics, step):
        adam.param_groups[0]["lr"] /= 2

    with pytest.raises(ValueError, match="lr_schedule: .*callback"):
        train(program=vae, optimizer=adam, callbacks=[halve], lr_schedule=pv.training.Cosine(4))


def test_a_learning_rate_in_a_tensor_may_change_in_place():
    rates = [torch.tensor(1e-2), torch.tensor(1e-2)]
    found = []
    for rate, compiler in zip(rates, (None, eager_graph), strict=True):
        torch.manual_seed(1)
        vae = small()
        svi = SVI(vae, E.ELBO(), functools.partial(torch.optim.Adam, lr=rate), compiler=compiler)
        torch.manual_seed(2)
        for batch in bits(*[16] * 4):
            svi.update(*batch)
            rate.mul_(0.1)
        found.append(torch.cat([p.detach().flatten() for p in vae.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["optimizer", "gradient", "accumulated"])
def test_hooks_are_called_also_where_a_step_is_compiled(kind):
    """A step with hooks runs uncompiled, and a warning says so."""
    calls = []
    vae = small()
    adam = torch.optim.Adam(vae.parameters(), lr=1e-3)
    weight = next(vae.parameters())
    if kind == "optimizer":
        adam.register_step_post_hook(lambda *arguments: calls.append(1))
    elif kind == "gradient":
        weight.register_hook(lambda gradient: calls.append(1))
    else:
        weight.register_post_accumulate_grad_hook(lambda p: calls.append(1))
    svi = SVI(vae, E.ELBO(), adam, compiler=eager_graph)
    with pytest.warns(UserWarning, match="compile: .*hooks"):
        svi.update(*bits(16)[0])
    for batch in bits(16, 16):
        svi.update(*batch)
    assert len(calls) == 3


@pytest.mark.parametrize("make", [ADAM, pyro.optim.Adam({"lr": 1e-2})])
@pytest.mark.parametrize("compiler", [None, eager_graph])
def test_groups_by_name_are_those_made_manually(make, compiler):
    names = [name for name, _ in linear().named_parameters()]
    guide = [i for i, name in enumerate(names) if name.startswith("posterior.")]

    def two(parameters):
        rest = [p for i, p in enumerate(parameters) if i not in guide]
        return torch.optim.Adam([{"params": rest}, {"params": [parameters[i] for i in guide], "lr": 1e-4}], lr=1e-2)

    groups = ParameterGroups(make, {"posterior.*": {"lr": 1e-4}})
    torch.testing.assert_close(weights_after(groups, compiler), weights_after(two, compiler), rtol=0, atol=1e-6)
    schedule = {"lr_schedule": pv.training.MultiStep([2], 0.1)}
    found, expected = (weights_after(each, compiler, **schedule) for each in (groups, two))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_rate_of_zero_keeps_the_matched_parameters():
    vae = program()
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    train(program=vae, optimizer=ParameterGroups(ADAM, {"*.bias": {"lr": 0.0}, "likelihood.*": {"lr": 0.1}}))
    for name, p in vae.named_parameters():
        assert torch.equal(p, before[name]) == name.endswith(".bias")


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"encoder.*": {"lr": 1e-4}}, r"'encoder.\*'.*posterior.net.body.0.weight"),
        ({"*": {"lr": 1e-4}, "posterior.*": {}}, r"'posterior.\*'"),
        ({"posterior.*": {"learning_rate": 1e-4}}, "learning_rate"),
    ],
)
def test_wrong_patterns_are_refused(patterns, said):
    with pytest.raises(ValueError, match=f"optimizer: .*{said}"):
        train(optimizer=ParameterGroups(ADAM, patterns))


def thaw(vae, steps, changes, compiler=None, optimizer=ADAM):
    """Take steps and set which parts are trained before some of them; return the weights after each step."""
    torch.manual_seed(1)
    svi = SVI(vae, E.ELBO(), optimizer, compiler=compiler)
    torch.manual_seed(2)
    seen = []
    for i, batch in enumerate(bits(*[16] * steps)):
        for part, trained in changes.get(i, {}).items():
            getattr(vae, part).requires_grad_(trained)
        svi.update(*batch)
        seen.append({name: p.detach().clone() for name, p in vae.named_parameters()})
    return seen, svi


CHANGES = {
    "unfrozen": {0: {"posterior": False}, 3: {"posterior": True}},
    "frozen": {3: {"posterior": False}},
    "frozen and unfrozen": {2: {"likelihood": False}, 5: {"likelihood": True}},
    "each in turn": {0: {"likelihood": False}, 3: {"likelihood": True, "posterior": False}, 6: {"posterior": True}},
    "all frozen": {2: {"posterior": False, "likelihood": False}, 5: {"posterior": True, "likelihood": True}},
}


def fresh(changes):
    """A program in which what is frozen at step 0 is frozen before the optimizer is made."""
    torch.manual_seed(1)
    vae = small()
    for part, trained in changes.get(0, {}).items():
        getattr(vae, part).requires_grad_(trained)
    return vae


def stock(vae, steps, changes):
    """The same by stock SVI with plain SGD, without momentum, under which a frozen parameter stays where it is."""
    scaled = [pyro.poutine.scale(f, 1 / 16) for f in (vae.model, vae.guide)]
    svi = pyro.infer.SVI(*scaled, pyro.optim.SGD({"lr": 1e-2}), pyro.infer.TraceMeanField_ELBO())
    torch.manual_seed(2)
    seen = []
    for i, batch in enumerate(bits(*[16] * steps)):
        for part, trained in changes.get(i, {}).items():
            getattr(vae, part).requires_grad_(trained)
        svi.step(*batch)
        seen.append({name: p.detach().clone() for name, p in vae.named_parameters()})
    return seen


@pytest.mark.parametrize("compiler", [None, eager_graph])
@pytest.mark.parametrize("changes", CHANGES)
def test_freezing_and_unfreezing_works_as_in_stock_svi(changes, compiler):
    changes = CHANGES[changes]
    expected = stock(fresh(changes), 8, changes)
    found, svi = thaw(fresh(changes), 8, changes, compiler, SGD)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-5, msg=lambda m, i=i: f"step {i}: {m}")
    assert compiler is None or svi.compiled is not None


@pytest.mark.parametrize("changes", CHANGES)
def test_a_frozen_parameter_does_not_move_by_momentum_compiled_or_not(changes):
    changes = CHANGES[changes]
    (found, _), (compiled, svi) = (thaw(fresh(changes), 8, changes, c) for c in (None, eager_graph))
    frozen = set()
    for i, seen in enumerate(found):
        frozen = {**dict.fromkeys(frozen, False), **changes.get(i, {})}
        frozen = {part for part, trained in frozen.items() if not trained}
        for name, value in seen.items():
            moved = i and not torch.equal(value, found[i - 1][name])
            assert moved == (i > 0 and name.partition(".")[0] not in frozen)
            torch.testing.assert_close(compiled[i][name], value, rtol=0, atol=1e-4)
    assert svi.compiled is not None


def test_parameters_that_change_all_the_time_are_not_compiled_all_the_time():
    """As in adversarial training, where two parts take turns."""
    changes = {i: {"posterior": i % 2 == 0, "likelihood": i % 2 == 1} for i in range(20)}
    graphs = []
    with pytest.warns(UserWarning, match="compile: .*too often"):
        found, svi = thaw(fresh(changes), 20, changes, lambda graph, example: graphs.append(1) or graph)
    assert svi.compiled is None
    assert len(graphs) <= 5
    expected, _ = thaw(fresh(changes), 20, changes)
    for name, value in expected[-1].items():
        torch.testing.assert_close(found[-1][name], value, rtol=0, atol=1e-4)


def test_an_unfrozen_parameter_that_the_optimizer_lacks_is_refused():
    vae = program()
    vae.posterior.requires_grad_(False)
    adam = torch.optim.Adam([p for p in vae.parameters() if p.requires_grad], lr=1e-3)
    with pytest.raises(RuntimeError, match="program: .*the optimizer.*lacks .*posterior"):
        train(program=vae, optimizer=adam, callbacks=[lambda *args: vae.posterior.requires_grad_(True) and None])


@pytest.mark.parametrize("compile", [False, eager_graph])
def test_a_resumed_run_trains_the_parameters_that_the_interrupted_one_did(compile, tmp_path):
    def run(folder, stop=None):
        vae = program()
        vae.posterior.requires_grad_(False)

        def change(metrics, step):
            if metrics["epoch"] == 1:
                vae.posterior.requires_grad_(True)
            if metrics["epoch"] == stop:
                raise RuntimeError("cut")

        try:
            train(folder, program=vae, callbacks=[change], epochs=5, compile=compile, batch_size=10, keep=99)
        except RuntimeError as error:
            assert str(error) == "cut"  # noqa: PT017
        return vae.state_dict()

    whole = run(tmp_path / "whole")
    for stop in (0, 2, 3):
        run(tmp_path / str(stop), stop)
        found = run(tmp_path / str(stop))
        assert all(torch.equal(value, found[name]) for name, value in whole.items())


ESTIMATORS = [cls for cls in vars(pyro.infer).values() if inspect.isclass(cls) and issubclass(cls, pyro.infer.ELBO)]


@pytest.mark.parametrize("cls", [cls for cls in ESTIMATORS if cls is not pyro.infer.ELBO])
def test_every_estimator_of_pyro_trains_or_is_refused_by_name(cls):
    """With a finite loss and a finite validation bound."""
    options = {"kernel": pyro.contrib.gp.kernels.RBF(2)} if "kernel" in inspect.signature(cls).parameters else {}
    if cls is pyro.infer.TraceTailAdaptive_ELBO or not issubclass(cls, pyro.infer.Trace_ELBO):
        options |= {"num_particles": 4, "vectorize_particles": True}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found no sample sites")
            history = train(estimator=cls(**options))[1]
    except TypeError as error:
        assert str(error).startswith("estimator: ")  # noqa: PT017
        assert cls.__name__ in str(error)  # noqa: PT017
        return
    assert all(torch.tensor(history[name]).isfinite().all() for name in ("loss", "valid_bound"))
