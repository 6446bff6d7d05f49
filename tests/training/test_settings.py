"""A resumed run compares everything that changes its result: a law for every option of fit and of every part."""

import copy
import functools
import inspect
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from benchmarks.compile_everything import estimator_case, program_case
from helpers.runs import SMALL, VALID, X, noisy_net, program, train
from helpers.small_parts import example
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae._util.describe import constructor, describe
from pyro_vae._util.differences import differences
from pyro_vae.conditional import UnitNormal
from pyro_vae.config.parts import shelves
from pyro_vae.posteriors.sylvester_flow import Householder
from pyro_vae.testing import parts
from pyro_vae.training import SVI, Batches, Callback, eager_graph
from pyro_vae.training.checkpoint.settings import check_settings, settings_of
from pyro_vae.training.data.fingerprint import fingerprint

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def settings(
    vae=None, estimator=None, optimizer=ADAM, data=X, valid=None, callbacks=(), batch_size=10, seed=3, **options
):
    """The settings of a run with these arguments, as a checkpoint has them."""
    svi = SVI(vae or program(), estimator or E.ELBO(), optimizer, **options)
    sources = [Batches(x, batch_size=batch_size, seed=seed) for x in (data, valid) if x is not None]
    found = settings_of(svi, sources[0], (*sources, None)[1], callbacks)
    return json.loads(json.dumps(found))


def refused(saved, now):
    """The message of the error, or an empty text if the run is resumed."""
    try:
        check_settings(now, saved, "folder")
    except ValueError as error:
        return str(error)
    return ""


#: Another value of each option of fit that changes the result, and what the error names.
CHANGED = {
    "program": (lambda: {"program": program(functools.partial(SMALL, activation=nn.Tanh))}, "program"),
    "data": (lambda: {"data": 1 - X}, "data"),
    "estimator": (lambda: {"estimator": E.IWAE()}, "estimator"),
    "optimizer": (lambda: {"optimizer": functools.partial(torch.optim.Adam, lr=2e-3)}, "optimizer.lr"),
    "batch_size": (lambda: {"batch_size": 5}, "batch_size"),
    "weights": (lambda: {"weights": torch.arange(len(X))}, "weights"),
    "valid": (lambda: {"valid": 1 - VALID}, "valid"),
    "seed": (lambda: {"seed": 4}, "seed"),
    "clip_norm": (lambda: {"clip_norm": 2.0}, "clip_norm"),
    "lr_schedule": (lambda: {"lr_schedule": pv.training.Cosine(4)}, "lr_schedule"),
    "compile": (lambda: {"compile": eager_graph}, "compile"),
    "precision": (lambda: {"precision": pv.training.TF32()}, "precision"),
    "skip_nonfinite": (lambda: {"skip_nonfinite": True}, "skip_nonfinite"),
    "callbacks": (lambda: {"callbacks": [pv.training.EarlyStopping()]}, "callbacks"),
}
#: Options of fit that a resumed run may change.
FREE = {"epochs", "device", "run_dir", "resume", "keep", "checkpoint_every", "progress"}


@pytest.mark.parametrize("option", inspect.signature(pv.fit).parameters)
def test_every_option_of_fit_is_compared_or_free(option, tmp_path):
    """A new option of fit needs a line in one of the two tables above."""
    if option in FREE:
        return
    change, named = CHANGED[option]
    train(tmp_path, epochs=1)
    with pytest.raises(ValueError, match=f"resume: .*{named}"):
        train(tmp_path, **change())


def test_free_options_and_functions_may_change(tmp_path):
    train(tmp_path, epochs=1)
    train(tmp_path, epochs=2, keep=9, checkpoint_every=1e9, device="cpu", callbacks=[lambda metrics, step: None])


def others(name, parameter, known):
    """Yield other values of an option, given its default and what an example was described to have."""
    yield from OBJECTS.get(name, ())
    for value in (known, parameter.default):
        if isinstance(value, bool):
            yield not value
        elif isinstance(value, int):
            yield from (value + 1, value + 2, value - 1, 2 * value, 100)
        elif isinstance(value, float):
            yield from (0.9 * value, 0.5 * value + 0.1, value + 1.0)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
            yield from ((*value[:-1], value[-1] + 1), (*value, value[-1]))
    yield from (3, 0.5, (2, 2))


def wide(in_shape, out_shape, **options):
    return pv.nets.MLP(in_shape, out_shape, hidden=(3,), **options)


#: Values of options other than numbers.
OBJECTS = {
    "net": [wide],
    "activation": [nn.Tanh],
    "scale": [pv.scales.Shared(0.5)],
    "df": [pv.scales.Shared(4.0)],
    "inverse_dispersion": [pv.scales.Shared(0.5)],
    "concentration": [pv.scales.Shared(0.5)],
    "squash": [nn.Sigmoid()],
    "kernel": [E.RBF(0.3)],
    "capacity": [E.Capacity(1.0, 3)],
    "grid": [(1, 3)],
    "beta": [pv.training.Linear(4)],
    "free_bits": [E.PerSite(0.5)],
    "baseline": [pv.nets.MLP((4,), (1,), hidden=(2,))],
    "discriminator": [pv.nets.MLP((3,), (2,), hidden=(2,))],
    "surrogate": [pv.nets.MLP((3,), (1,), hidden=(2,))],
    "values": [(0, 1, 2)],
    "name": ["other"],
    "columns": [[pv.data.tables.Real(name) for name in "abcd"], [pv.data.tables.Real("a"), pv.data.tables.Real("b")]],
    "basis": [Householder(1)],
    "initial": [torch.ones(9, 2, 2)],
    "exemplars": [torch.ones(5, 2, 2)],
    "counts": [torch.full((4,), 3.0)],
    "library": [True],
    "low": [0.5],
    "high": [60.0],
}
#: Required arguments of classes without `example`.
REQUIRED = {
    "in_shape": (2, 3),
    "out_shape": (4,),
    "nats": 0.5,
    "num_steps": 7,
    "milestones": (2, 5),
    "midpoint": 4.0,
    "width": 2.0,
    "name": "a",
    "columns": [pv.data.tables.Real("a"), pv.data.tables.Binary("b")],
}
#: Arguments of other classes.
SPECIAL = {
    pv.data.tables.Features: {"in_shape": (2,)},
    pv.nets.ConvDecoder: {"in_shape": (4,), "out_shape": (8, 8)},
    pv.nets.ConvEncoder: {"in_shape": (8, 8)},
    pv.nets.ResNetDecoder: {"in_shape": (4,), "out_shape": (8, 8)},
    pv.nets.ResNetEncoder: {"in_shape": (8, 8)},
    pv.nets.RecurrentEncoder: {"in_shape": (8, 2)},
    pv.nets.TemporalConvEncoder: {"in_shape": (8, 2)},
    pv.nets.TransformerEncoder: {"in_shape": (8, 2)},
    pv.priors.ExemplarPrior: {"posterior": UnitNormal((2, 2), (3,)), "exemplars": torch.zeros(5, 2, 2)},
    E.BetaTC: {"data_size": 1000},
    E.FactorVAE: {"discriminator": nn.Linear(3, 1)},
}
#: Options without another value, as the class refuses all.
REFUSED = {"num_particles", "particles_per_pass", "capacity"}
#: What an option needs in addition.
TOGETHER = {"library": {"context": 1}, "low": {"low": 0.25, "high": 50.0}, "high": {"low": 0.25, "high": 50.0}}
SHELVES = ("prior", "likelihood", "posterior", "estimator", "network", "scale", "penalty", "schedule", "lr_schedule")
MORE = (pv.training.EarlyStopping, pv.data.tables.Features, E.RBF, E.InverseMultiquadratic)


def build(cls, **options):
    """Build a small object of any class of a shelf."""
    if hasattr(cls, "example") and cls not in SPECIAL:
        return example(cls, **options)
    needed = REQUIRED | SPECIAL.get(cls, {})
    required = {n: needed[n] for n, p in constructor(cls).items() if n in needed and p.default is p.empty}
    return cls(**{**required, **options})


def options_of_parts():
    """Return every option of every class on the shelves."""
    classes = [cls for kind in (*SHELVES, "column") for cls in shelves()[kind].values()] + [*MORE]
    found = {(cls, name): p for cls in classes for name, p in constructor(cls).items()}
    return {key: p for key, p in found.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


#: Options that are modules or functions, whose own options and code are compared.
MODULES = {"posterior", "likelihood", "prior", "flow"}


@pytest.mark.parametrize(("cls", "name"), options_of_parts())
def test_every_option_of_every_part_is_compared(cls, name):
    """Another value with which an object can be built is named by the error."""

    def described(**options):
        torch.manual_seed(0)
        return json.loads(json.dumps(describe(build(cls, **options))))

    together = {key: value for key, value in TOGETHER.get(name, {}).items() if key in constructor(cls)}
    saved = described(**together)
    tried = 0
    for value in others(name, options_of_parts()[cls, name], saved.get("options", {}).get(name)):
        try:
            after = described(**{**together, name: value})
        except (TypeError, ValueError, RuntimeError, KeyError, AttributeError, IndexError):
            continue
        if after.get("options", {}).get(name) == saved.get("options", {}).get(name) and after == saved:
            continue  # the value that it had
        tried += 1
        message = refused({"part": saved}, {"part": after})
        assert name in message, message
    fixed = cls is pv.data.tables.Features and name == "in_shape"  # one number per column
    assert tried or fixed or name in MODULES | REFUSED, f"no other value of {name} was found: add one to OBJECTS"


@pytest.mark.parametrize("cls", list(parts(pv.programs, pv.Program)))
def test_every_option_of_every_program_is_compared(cls):
    """Plain options by name, parts by their class."""
    torch.manual_seed(0)
    saved = describe(cls.example())
    for name, parameter in constructor(cls).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        torch.manual_seed(0)
        now = describe(cls.example())
        if name not in now["options"]:  # a keyword of `super().__init__`, such as the functions of Amortized
            continue
        option = now["options"][name]
        if isinstance(option, dict):
            option["name" if "name" in option else "function"] = "Another"
        elif isinstance(option, list):
            option[0]["name"] = "Another"
        else:
            now["options"][name] = not option if isinstance(option, bool) else 17
        assert f"part.{name}" in refused({"part": saved}, {"part": now})


@pytest.mark.parametrize("cls", list(parts(pv.programs, pv.Program)))
def test_parts_of_a_program_are_described_as_they_are_now(cls):
    torch.manual_seed(0)
    vae = cls.example()
    saved = describe(vae)
    likelihood = next((n for n, m in vae.named_modules() if isinstance(m, pv.likelihoods.Normal)), None)
    net = next(n for n, m in vae.named_modules() if isinstance(m, nn.SiLU))
    owner, _, name = net.rpartition(".")
    setattr(vae.get_submodule(owner), name, nn.Tanh())
    assert "SiLU" in refused({"program": saved}, {"program": describe(vae)})
    if likelihood:
        vae.get_submodule(likelihood).scale = pv.scales.Fixed(0.25)
        assert "0.25" in refused({"program": saved}, {"program": describe(vae)})


@pytest.mark.parametrize("cls", [*parts(pv.programs, pv.Program), *parts(E, E.Estimator)])
def test_training_does_not_change_the_settings(cls):
    """So the same objects can be used to resume a run."""
    case = program_case(cls) if issubclass(cls, pv.Program) else estimator_case(cls)
    torch.manual_seed(0)
    vae, estimator = case.make(), case.estimator()
    svi = SVI(vae, estimator, ADAM, precision=pv.training.TF32())
    batches = Batches(case.data, batch_size=8)
    before = settings_of(svi, batches, None)
    pv.fit(vae, case.data, valid=case.data, estimator=estimator, epochs=2, batch_size=8, progress=False)
    svi.update(*case.data)
    assert differences(before, settings_of(SVI(vae, estimator, ADAM, precision=svi.precision), batches, None)) == []


DEFAULT = 0.5


def constant(step):
    return DEFAULT


def schedules():
    """Pairs of functions that are equal, and of those that differ, with what the error names."""

    def scaled(factor):
        return lambda step: factor * step

    def by_default(step, factor=0.5):
        return factor

    def other_default(step, factor=0.6):
        return factor

    other_default.__qualname__ = by_default.__qualname__

    class Slope:
        def __init__(self, slope):
            self.slope = slope

        def __call__(self, step):
            return self.slope

    @dataclass
    class Plain:
        slope: float

        def __call__(self, step):
            return self.slope

    yield "equal", scaled(0.5), scaled(0.5), None
    yield "closure", scaled(0.5), scaled(0.6), "lr_schedule.factor 0.5"
    yield "constant", lambda step: 0.5, lambda step: 0.6, "code of lr_schedule"
    yield "name", lambda step: np.exp(0.0), lambda step: np.cos(0.0), "code of lr_schedule"
    yield "default", by_default, other_default, "lr_schedule"
    yield "object", Slope(0.5), Slope(0.6), "lr_schedule.slope"
    yield "equal object", Slope(0.5), Slope(0.5), None
    yield "dataclass", Plain(0.5), Plain(0.6), "lr_schedule.slope"
    yield "partial", functools.partial(by_default, factor=0.5), functools.partial(by_default, factor=0.4), "factor"
    yield "method", Slope(0.5).__call__, Slope(0.4).__call__, "slope"
    yield "cached", functools.cache(scaled(0.5)), functools.cache(scaled(0.4)), "factor"
    yield "tensor", scaled(torch.tensor(0.5)), scaled(torch.tensor(0.4)), "values of lr_schedule.factor"
    yield "type", scaled(0.5), pv.training.Linear(3, start=0.5), "lr_schedule"
    yield "other kind", pv.training.Linear(3), pv.training.Cosine(3), "Linear"


@pytest.mark.parametrize(("name", "one", "other", "said"), [pytest.param(*case, id=case[0]) for case in schedules()])
def test_functions_are_compared_by_what_they_do(name, one, other, said):
    found = [settings(lr_schedule=schedule) for schedule in (one, other)]
    message = refused(*found)
    assert (said or "") in message
    assert bool(said) == bool(message)
    assert refused(*[settings(estimator=E.ELBO(beta=schedule)) for schedule in (one, other)]).count("beta") >= bool(
        said
    )


def test_globals_of_a_function_are_compared(monkeypatch):
    before = settings(lr_schedule=constant)
    assert refused(before, settings(lr_schedule=constant)) == ""
    monkeypatch.setitem(globals(), "DEFAULT", 0.6)
    assert "lr_schedule.DEFAULT 0.5 (now 0.6)" in refused(before, settings(lr_schedule=constant))


def test_code_of_another_version_of_python_is_not_compared():
    before, now = (settings(lr_schedule=f) for f in (lambda step: 0.5, lambda step: 0.6))
    before["lr_schedule"]["code"] = "cpython-999:" + before["lr_schedule"]["code"].partition(":")[2]
    assert refused(before, now) == ""


class Locked:
    """A schedule with a part that has no plain description."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, step):
        return 1.0


def test_what_cannot_be_compared_is_named_by_a_warning(tmp_path):
    train(tmp_path, epochs=1, lr_schedule=Locked())
    with pytest.warns(UserWarning, match="resume: .*lr_schedule.lock"):
        train(tmp_path, epochs=2, lr_schedule=Locked())


class Own(nn.Module):
    """A user's network, with an option that no weight shows."""

    def __init__(self, in_shape, out_shape, power):
        super().__init__()
        self.power, self.layer = power, nn.Linear(in_shape[0], int(np.prod(out_shape)))
        self.out_shape = tuple(out_shape)

    def forward(self, x):
        return self.layer(x**self.power).reshape(-1, *self.out_shape)


def test_a_users_own_networks_are_compared(monkeypatch):
    def own(power):
        return lambda in_shape, out_shape: Own(in_shape, out_shape, power)

    def plain(activation):
        def net(i, o):
            return nn.Sequential(nn.Linear(i[0], 5), activation(), nn.Linear(5, int(np.prod(o))), nn.Unflatten(-1, o))

        return net

    before = settings(program(own(1)))
    assert refused(before, settings(program(own(1)))) == ""
    assert "likelihood.net.body.power 1 (now 2)" in refused(before, settings(program(own(2))))
    silu, tanh = (settings(program(plain(activation))) for activation in (nn.SiLU, nn.Tanh))
    assert "SiLU" in refused(silu, tanh)
    dropout = [settings(program(plain(functools.partial(nn.Dropout, p)))) for p in (0.1, 0.2)]
    assert "likelihood.net.body.1.p 0.1 (now 0.2)" in refused(*dropout)
    monkeypatch.setattr(Own, "forward", lambda self, x: self.layer(x).reshape(-1, *self.out_shape))
    assert "code of program.likelihood.net.body (Own" in refused(before, settings(program(own(1))))


def test_a_part_is_the_same_object_elsewhere():
    """A VampPrior with an encoder of its own is another program than one that shares the encoder."""

    def vamp(shared):
        torch.manual_seed(0)
        posteriors = [pv.posteriors.MeanFieldNormal((6,), 2, net=SMALL) for _ in range(2)]
        return pv.VAE(
            prior=pv.priors.VampPrior(posteriors[0], num_components=3),
            likelihood=pv.likelihoods.Bernoulli(2, (6,), net=SMALL),
            posterior=posteriors[0 if shared else 1],
        )

    assert refused(settings(vamp(True)), settings(vamp(True))) == ""
    assert "program.posterior" in refused(settings(vamp(True)), settings(vamp(False)))


def test_copies_and_pickles_keep_their_description():
    vae = program()
    wanted = describe(vae)
    assert wanted["options"]["posterior"]["options"]["net"]["options"] == {"hidden": [5]}
    copies = [copy.deepcopy(vae), copy.copy(vae), pickle.loads(pickle.dumps(vae))]
    buffer = io.BytesIO()
    torch.save(vae, buffer)
    buffer.seek(0)
    copies.append(torch.load(buffer, weights_only=False))
    assert all(describe(other) == wanted for other in copies)
    assert describe(copy.deepcopy(E.IWAE(num_particles=3))) == describe(E.IWAE(num_particles=3))


PROCESS = """
import json, sys
sys.path.insert(0, "tests")
from training.test_settings import settings_of_a_process
print(json.dumps(settings_of_a_process()))
"""


def settings_of_a_process():
    """The settings of a run with a set in its code, whose order depends on the process."""
    return settings(program(noisy_net), lr_schedule=lambda step: 0.5 if step in {1, 2, 3, "a", "b"} else 1.0)


def test_settings_are_the_same_in_every_process():
    here = json.dumps(settings_of_a_process())
    other = subprocess.run(
        [sys.executable, "-c", PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(1 + hash("seed") % 1000)},
    )
    assert other.stdout.strip() == here


class Rows(Dataset):
    """Rows of a tensor, or random ones."""

    def __init__(self, x, noise=0.0):
        self.x, self.noise = x, noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + self.noise * torch.rand(()) if self.noise else self.x[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def prints(data, **options):
    return json.loads(json.dumps({"data": fingerprint(Batches(data, batch_size=8, **options))}))


LONG = torch.rand(500, 3, generator=torch.Generator().manual_seed(2))


def mapped(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def test_the_same_rows_have_the_same_fingerprint_in_every_form(tmp_path):
    forms = (LONG, LONG.numpy(), LONG.numpy()[:, ::-1][:, ::-1], mapped(tmp_path, LONG.numpy()), Rows(LONG), (LONG,))
    found = [prints(form) for form in forms]
    assert all(refused(found[0], other) == "" and refused(other, found[0]) == "" for other in found)
    assert prints(LONG.double(), dtype=torch.float32) == found[0]


@pytest.mark.parametrize("row", [0, 1, 250, 498, 499])
def test_any_row_of_data_in_memory_counts(row):
    other = LONG.clone()
    other[row, 1] += 1e-6
    assert "data" in refused(prints(LONG), prints(other))


def test_what_else_differs_between_data(tmp_path):
    swapped = LONG.clone()
    swapped[[100, 101]] = LONG[[101, 100]]
    others = [swapped, LONG[:-1], LONG[:, :2], LONG.flip(0), LONG.round(), (LONG, LONG), LONG.to(torch.int64)]
    others += [pv.data.Split(LONG, transform=pv.data.DrawBits()), Rows(LONG[:-1]), mapped(tmp_path, 1 - LONG.numpy())]
    for other in others:
        assert "data" in refused(prints(LONG), prints(other))
    labels = torch.arange(500)
    assert "data.columns.1" in refused(prints((LONG, labels)), prints((LONG, labels.flip(0))))


def test_data_sets_that_draw_their_rows_are_compared_by_their_shape():
    noisy = prints(Rows(LONG, noise=0.1))
    assert refused(noisy, prints(Rows(1 - LONG, noise=0.1))) == ""
    assert "data.rows" in refused(noisy, prints(Rows(LONG[1:], noise=0.1)))


def test_loaders_are_compared_by_rows_and_batches():
    def loader(x=LONG, size=8, **options):
        return prints(DataLoader(TensorDataset(x), batch_size=size, **options))

    assert refused(loader(), loader(num_workers=1)) == ""
    for other in (loader(1 - LONG), loader(size=9), loader(shuffle=True), loader(drop_last=True)):
        assert "data" in refused(loader(), other)
    assert refused(prints(Stream()), prints(Stream())) == ""
    assert "data" in refused(prints(Stream()), loader())


def test_a_fingerprint_reads_few_rows_of_a_file_or_data_set(tmp_path):
    reads = []

    class Counting(Rows):
        def __getitem__(self, i):
            reads.append(i)
            return super().__getitem__(i)

    prints(Counting(LONG.repeat(100, 1)))
    assert len(reads) < 80


class Options(Callback):
    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = threshold


def test_options_of_callbacks_are_compared():
    stop = pv.training.EarlyStopping
    assert "callbacks.0.patience 3 (now 4)" in refused(settings(callbacks=[stop(3)]), settings(callbacks=[stop(4)]))
    own = [settings(callbacks=[Options(t)]) for t in (0.5, 0.6)]
    assert "callbacks.0.threshold" in refused(*own)


def test_parameter_groups_are_compared():
    groups = pv.training.ParameterGroups
    saved = settings(optimizer=groups(ADAM, {"posterior.*": {"lr": 1e-4}}))
    assert refused(saved, settings(optimizer=groups(ADAM, {"posterior.*": {"lr": 1e-4}}))) == ""
    for other in ({"posterior.*": {"lr": 2e-4}}, {"prior.*": {}, "likelihood.*": {"lr": 1e-4}}, {}):
        other = {k: v for k, v in other.items() if k != "prior.*"}
        assert "optimizer" in refused(saved, settings(optimizer=groups(ADAM, other)))


def test_an_optimizer_of_the_user_may_have_another_rate_by_now(tmp_path):
    vae = program()
    adam = torch.optim.Adam(vae.parameters(), lr=1e-2)

    def halve(metrics, step):
        adam.param_groups[0]["lr"] /= 2

    train(tmp_path, program=vae, optimizer=adam, callbacks=[halve], epochs=2)
    train(tmp_path, program=vae, optimizer=adam, callbacks=[halve], epochs=4)
    assert adam.param_groups[0]["lr"] == 1e-2 / 16


def test_nothing_warns_about_what_is_compared(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tmp_path, program=program(noisy_net), epochs=1, batch_size=7)
        train(tmp_path, program=program(noisy_net), epochs=2, batch_size=7)
