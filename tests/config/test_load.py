"""`load` builds what `fit(run_dir=)` wrote where the parts are the library's, and otherwise says what to rebuild."""

import functools
import json
import re

import pytest
import torch
from benchmarks.compile_everything import program_case
from helpers.programs import build, triples
from helpers.runs import SMALL, VALID, noisy_net, program, train
from pyro import poutine
from torch import nn

import pyro_vae as pv
from pyro_vae._util.describe import describe
from pyro_vae._util.differences import differences
from pyro_vae._util.shared_parameters import shared_parameters
from pyro_vae.config import run
from pyro_vae.config.parts import shelves
from pyro_vae.config.rebuild import classes
from pyro_vae.posteriors.sylvester_flow import Householder
from pyro_vae.testing import parts
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.checkpoint.serialization import weights_to_bytes


def write(folder, vae):
    """Write what `fit` writes, without a training."""
    with RunFolder(folder, keep=1) as files:
        frozen = [name for name, p in vae.named_parameters() if not p.requires_grad]
        files.write_config({"program": describe(vae), "shared": shared_parameters(vae), "frozen": frozen}, epochs=1)
        files.write_weights(weights_to_bytes(vae.state_dict()))
    return folder


def check_same(vae, found):
    """Raise unless a program is the same as another one, weights and noise included."""
    assert not differences({"": describe(vae)}, {"": describe(found)})
    assert not any(module.training for module in found.modules())
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in vae.parameters()]
    state = vae.state_dict()
    assert found.state_dict().keys() == state.keys()
    for name, value in found.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value.nan_to_num(), state[name].nan_to_num())
    assert shared_parameters(found) == shared_parameters(vae)


def perturb(vae):
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.1 * torch.rand_like(p))
    return vae.eval()


def log_joint(vae, data):
    """Return the log-densities of one run of guide and model, with the same noise for every program."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        guide = poutine.trace(vae.guide).get_trace(*data)
        model = poutine.trace(poutine.replay(vae.model, trace=guide)).get_trace(*data)
        return [float(trace.log_prob_sum()) for trace in (guide, model)]


@pytest.mark.parametrize("cls", list(parts(pv.programs, pv.Program)))
def test_every_program_is_loaded_after_fit(cls, tmp_path):
    torch.manual_seed(0)
    vae, data = cls.example(), program_case(cls).data
    pv.fit(vae, data, epochs=1, batch_size=len(data[0]), run_dir=tmp_path, progress=False)
    if issubclass(cls, pv.programs.FunctionProgram):
        with pytest.raises(
            ValueError, match=r"run_dir: .*(model .*guide|guide .*model) .*pyro_vae.load\(run_dir, program\)"
        ):
            pv.load(tmp_path)
        found = pv.load(tmp_path, cls.example())
    else:
        found = pv.load(tmp_path)
    check_same(vae, found)
    assert log_joint(found, data) == log_joint(vae, data)


#: Examples with parts of another library, and with parts that are not those of the program.
OTHERS = {pv.priors.ZukoFlow: "prior.flow ", pv.posteriors.SemiAmortized: "posterior.prior "}


@pytest.mark.parametrize("triple", list(triples()), ids=lambda triple: "-".join(part.__name__ for part in triple))
def test_every_part_is_loaded(triple, tmp_path):
    torch.manual_seed(0)
    try:
        vae, data = build(*triple)
    except ImportError as error:
        pytest.skip(str(error))
    write(tmp_path, perturb(vae))
    others = [OTHERS[part] for part in triple if part in OTHERS]
    if others:
        with pytest.raises(ValueError, match=f"run_dir: .*{others[0]}"):
            pv.load(tmp_path)
    found = pv.load(tmp_path, build(*triple)[0]) if others else pv.load(tmp_path)
    check_same(vae, found)
    assert log_joint(found, data) == log_joint(vae, data)


def vamp():
    posterior = pv.posteriors.MeanFieldNormal((6,), 2, net=SMALL)
    return pv.VAE(
        prior=pv.priors.VampPrior(posterior, initial=torch.rand(9, 6), num_components=3, squash=nn.Hardtanh(0.0, 0.9)),
        likelihood=pv.likelihoods.Normal(2, (6,), net=SMALL, scale=pv.scales.Shared(0.3)),
        posterior=posterior,
    )


def exemplars():
    posterior = pv.posteriors.MeanFieldNormal((6,), 2, net=SMALL)
    prior = pv.priors.ExemplarPrior(posterior, torch.rand(9, 6))
    return pv.VAE(prior=prior, likelihood=pv.likelihoods.Bernoulli(2, (6,), net=SMALL), posterior=posterior)


def semi_amortized(prior=None):
    vae = program()
    parts = {"prior": vae.prior, "likelihood": vae.likelihood}
    posterior = pv.posteriors.SemiAmortized(
        vae.posterior, **(parts | ({"prior": prior} if prior else {})), num_steps=2
    )
    return pv.VAE(**parts, posterior=posterior)


def with_missing():
    vae = program(functools.partial(pv.nets.ZeroImputed, net=functools.partial(pv.nets.MLP, hidden=(4,))))
    return pv.VAE(prior=vae.prior, likelihood=vae.likelihood, posterior=vae.posterior, missing=True)


def announced():
    vae = program()
    vae.posterior.takes_missing = True
    return vae


def of_table():
    columns = [pv.data.tables.Real("a", 3.0, 2.0), pv.data.tables.Categorical("b", ("x", "y", "z"))]
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Heterogeneous(2, (2,), columns=columns, net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((2,), 2, net=functools.partial(pv.data.tables.Features, columns)),
    )


def of_topics():
    net = functools.partial(pv.nets.ProductOfTopics, counts=torch.arange(6.0))
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Multinomial(2, (6,), net=net, total=9),
        posterior=pv.posteriors.SylvesterFlow((6,), 2, net=SMALL, basis=Householder(1)),
    )


PROGRAMS = {
    "shared encoder": vamp,
    "exemplars": exemplars,
    "semi-amortized": semi_amortized,
    "double precision": lambda: program().double(),
    "missing": with_missing,
    "an attribute set afterwards": announced,
    "table": of_table,
    "topics": of_topics,
    "activation": lambda: program(functools.partial(pv.nets.MLP, hidden=(4,), activation=nn.Tanh)),
    "activation with options": lambda: program(
        functools.partial(pv.nets.MLP, hidden=(4,), activation=functools.partial(nn.LeakyReLU, 0.3))
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_unusual_programs_are_loaded(name, tmp_path):
    torch.manual_seed(0)
    vae = perturb(PROGRAMS[name]())
    found = pv.load(write(tmp_path, vae))
    check_same(vae, found)
    assert torch.equal(found.sample(4, seed=3), vae.sample(4, seed=3))


def test_a_shared_encoder_stays_shared(tmp_path):
    torch.manual_seed(0)
    found = pv.load(write(tmp_path, vamp()))
    assert found.prior.posterior is found.posterior


def test_after_fit_and_after_a_resumed_fit(tmp_path):
    vae, _ = train(tmp_path, epochs=1)
    check_same(vae, pv.load(tmp_path))
    before = (tmp_path / "config.json").read_bytes()
    vae, _ = train(tmp_path, epochs=3, program=pv.load(tmp_path).train())
    check_same(vae, pv.load(tmp_path))
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert config == {**json.loads(before), "epochs": 3}
    assert (config["fit"]["batch_size"], config["fit"]["estimator"]["name"]) == (10, "estimators.ELBO")


def test_a_run_that_was_never_saved_may_start_again_with_another_program(tmp_path):
    """Its configuration is replaced; that of the command is not."""

    def fail(metrics, step):
        raise RuntimeError("before the first checkpoint")

    with pytest.raises(RuntimeError, match="before"):
        train(tmp_path, callbacks=[pv.training.Log(fail, every=1)], checkpoint_every=1e9)
    vae, _ = train(tmp_path, program=program(functools.partial(pv.nets.MLP, hidden=(3,))))
    check_same(vae, pv.load(tmp_path))
    other = tmp_path / "command"
    other.mkdir()
    (other / "config.json").write_text('{"schema": 2, "latent": 2}')
    train(other)
    assert (other / "config.json").read_text() == '{"schema": 2, "latent": 2}'


class Own(pv.Conditional):
    """A user's prior."""

    def __init__(self, latent):
        super().__init__(latent=latent)
        self.inner = pv.priors.StandardNormal(latent)

    def forward(self, *context):
        return self.inner()


def tied():
    vae = program(functools.partial(pv.nets.MLP, hidden=()))
    vae.posterior.net.body[0].bias = nn.Parameter(torch.zeros(4))
    vae.likelihood.net.body[0].bias = nn.Parameter(torch.zeros(6))
    vae.prior.spare = vae.posterior.net.body[0].bias
    return vae


def shared():
    vae = program(functools.partial(pv.nets.MLP, hidden=(4, 4)))
    vae.posterior.net.body[0].bias = vae.posterior.net.body[2].bias
    return vae


def operated():
    vae = program()
    vae.posterior.net.body[1] = nn.Tanh()
    return vae


def hooked():
    vae = program()
    vae.posterior.net.register_forward_hook(lambda module, inputs, output: 3 * output)
    return vae


def of_own():
    vae = program()
    return pv.VAE(prior=Own(2), likelihood=vae.likelihood, posterior=vae.posterior)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: program(noisy_net), "likelihood.net .*noisy_net.*posterior.net .*load"),
        (lambda: program(lambda i, o: nn.Linear(i[0], o[0] if len(o) == 1 else 4)), "likelihood.net .*<lambda>"),
        (of_own, r"prior \(Own\(latent=2\)\)"),
        (lambda: semi_amortized(pv.priors.MixtureOfNormals(2)), "posterior.prior, which is outside the program"),
        (operated, "changed after it was built: posterior.net.body.1 Tanh"),
        (hooked, "changed after it was built: posterior.net.hooks"),
        (tied, "weights prior.spare"),
        (shared, "share memory"),
    ],
)
def test_parts_of_other_libraries_are_named(make, said, tmp_path):
    vae = make()
    write(tmp_path, vae)
    with pytest.raises(ValueError, match=f"(?s)run_dir: .*{said}"):
        pv.load(tmp_path)


def test_weights_are_loaded_into_a_given_program(tmp_path):
    vae, _ = train(tmp_path, program=program(noisy_net))
    given = program(noisy_net).train()
    found = pv.load(tmp_path, given)
    assert found is given
    check_same(vae, found)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (lambda: program(functools.partial(pv.nets.MLP, hidden=(3,))), ValueError, "program: .*another shape"),
        (lambda: program().posterior, TypeError, "program: .*MeanFieldNormal"),
        (lambda: program().double(), ValueError, "program: .*float64"),
    ],
)
def test_another_given_program_is_refused(given, error, said, tmp_path):
    train(tmp_path)
    with pytest.raises(error, match=said):
        pv.load(tmp_path, given())


def test_a_given_program_with_other_options_is_named(tmp_path):
    train(tmp_path)
    with pytest.warns(UserWarning, match="program: .*activation"):
        pv.load(tmp_path, program(functools.partial(pv.nets.MLP, hidden=(5,), activation=nn.Tanh)))


def test_early_stopping_leaves_the_best_weights(tmp_path):
    stop = pv.training.EarlyStopping(1)
    vae, history = train(
        tmp_path, epochs=30, callbacks=[stop], optimizer=functools.partial(torch.optim.Adam, lr=0.5), valid=VALID
    )
    assert stop.best_epoch + 1 < len(history) < 30
    check_same(vae, pv.load(tmp_path))


@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupted_run_gives_the_last_checkpoint_and_says_so(step, tmp_path):
    """The first epoch has two steps, and writes the first weights.safetensors."""
    weights = []

    def fail(metrics, steps):
        weights.append({name: value.clone() for name, value in vae.state_dict().items()})
        if steps > step:
            raise RuntimeError("power failure")

    vae = program()
    with pytest.raises(RuntimeError, match="power"):
        train(tmp_path, program=vae, callbacks=[pv.training.Log(fail, every=1)])
    with pytest.warns(UserWarning, match=f"run_dir: .*interrupted after step {step}, .* of 2 epochs"):
        found = pv.load(tmp_path)
    assert all(torch.equal(value, weights[step - 1][name]) for name, value in found.state_dict().items())
    vae, _ = train(tmp_path)
    check_same(vae, pv.load(tmp_path))


def test_frozen_parameters_stay_frozen(tmp_path):
    vae = program()
    vae.likelihood.requires_grad_(requires_grad=False)
    train(tmp_path, program=vae)
    check_same(vae, pv.load(tmp_path))


def test_parts_with_other_types_keep_them(tmp_path):
    vae = program()
    vae.likelihood.double()
    check_same(vae.eval(), pv.load(write(tmp_path, vae)))


def test_a_loaded_table_decodes(tmp_path):
    cells = {"age": [31.5, 40.0, 18.25], "visits": [3, 0, 2], "member": [True, False, True], "size": ["S", "M", "L"]}
    table = pv.data.Table(cells, types={"size": "Ordinal(S<M<L)"})
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Heterogeneous(2, (4,), columns=table.columns, net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal(
            (4,), 2, net=functools.partial(pv.data.tables.Features, table.columns)
        ),
    )
    pv.fit(vae, table.x, epochs=1, run_dir=tmp_path, progress=False)
    found = pv.load(tmp_path)
    check_same(vae, found)
    assert found.likelihood.columns == vae.likelihood.columns
    again = {c.name: c.decode(x) for c, x in zip(found.likelihood.columns, table.x.double().numpy().T, strict=True)}
    assert {name: values.tolist() for name, values in again.items()} == cells


def test_a_command_says_that_it_cannot_use_the_run(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match=r"run_dir: .*pyro_vae.fit.*pyro_vae.load"):
        run.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected JSON"),
        ("[]", "schema"),
        ('{"schema": 99, "fit": {}}', "schema 99 is newer.*Update pyro_vae"),
        ('{"schema": 2, "fit": {}}', r"expected a description.*pyro_vae.load\(run_dir, program\)"),
        ('{"schema": 2, "fit": 3}', r"expected a description.*pyro_vae.load\(run_dir, program\)"),
    ],
)
def test_a_damaged_file_is_named(text, said, tmp_path):
    train(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json: (?s:.*){said}"):
        pv.load(tmp_path)


def test_names_are_those_of_the_shelves():
    """Every class of a shelf of parts, and nothing else than classes of this package and activations."""
    for kind in ("prior", "likelihood", "posterior", "network", "scale", "program", "column", "activation"):
        assert set(shelves()[kind].values()) <= set(classes().values())
    assert {cls.__module__.partition(".")[0] for cls in classes().values()} == {"pyro_vae", "torch"}
    assert len(set(classes().values())) == len(classes())


def places(value, path=()):
    """Yield the path of every value inside of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


WRONG = [None, True, -1, 0.5, "os.system", [], {}, {"name": "os.system"}, ["x"], 10**8]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_damaged_configuration_is_refused_and_runs_nothing(wrong, tmp_path):
    """A value of another type gives the program, or a ValueError; each value in a third of all places."""
    write(tmp_path, vamp())
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for place in list(places(config["fit"]))[WRONG.index(wrong) % 3 :: 3]:
        changed = json.loads(json.dumps(config))
        inner = changed
        for key in ("fit", *place)[:-1]:
            inner = inner[key]
        inner[("fit", *place)[-1]] = wrong
        path.write_text(json.dumps(changed))
        try:
            assert isinstance(pv.load(tmp_path), pv.VAE)
        except ValueError as error:
            assert re.match(r"(run_dir|.*config\.json): ", str(error))  # noqa: PT017


def test_damaged_sizes_take_no_memory(tmp_path):
    """They are compared with the weights before any tensor of such a size is created."""
    write(tmp_path, vamp())
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["fit"]["program"]["options"]["likelihood"]["options"]["latent"] = 10**12
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: .*latent=1000000000000.*of the weights"):
        pv.load(tmp_path)
