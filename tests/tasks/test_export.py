"""Exported functions return what the program returns, on other rows and in batches of other sizes."""

import inspect
import json
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from helpers.programs import PROGRAMS, build, columns, triples
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae._util.fixed_noise import FixedNoise
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.programs.program import evaluating
from pyro_vae.tasks import Onnx, TorchExport, export
from pyro_vae.tasks.graphs import GRAPHS, more_inputs

CASES = {"/".join(part.__name__ for part in case): case for case in triples()}
#: What cannot be exported, and why.
REFUSED = {("PixelCNN", "decoder"), ("FlowMatching", "score")}
REFUSED |= {("SemiAmortized", part) for part in ("encoder", "score")}
K = 4


def load(path):
    """Return the exported function as a user without this library loads it."""
    return torch.export.load(path).module()


def as_tuple(results):
    return results if isinstance(results, tuple) else (results,)


def check(program, batch, part, folder):
    """Export a part with some rows, and compare it with the program on all rows, and on a single one."""
    few = tuple(column[:5] for column in batch)
    function = load(export(program, folder, few, parts=[part], num_particles=K)[part])
    with evaluating(program):
        inputs = batch
        if part == "decoder":
            z = program.encode(*batch)
            z = z if isinstance(z, torch.Tensor) else z.sample()
            inputs = (z, *batch[1:], *(torch.full((len(z),), 2.0) for _ in more_inputs(program)))
        for start, stop in ((0, len(batch[0])), (3, 4)):
            some = tuple(column[start:stop] for column in inputs)
            for found, expected in zip(as_tuple(function(*some)), original(program, part, some, few), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def original(program, part, inputs, few):
    """Return what the program itself returns; random numbers are those that the exported function stores."""
    if part == "decoder":
        names = more_inputs(program)
        cut = len(inputs) - len(names)
        return (program.decode(*inputs[:cut], **dict(zip(names, inputs[cut:], strict=True))).mean,)

    def with_noise(function):
        for _ in range(2):
            with FixedNoise(seed=0) as noise:
                function(*(column[:1] for column in few))
        with FixedNoise(noise.values):
            return function(*inputs)

    def score(*batch):
        return -log_mean_exp(pv.trace.run(program.model, program.guide, batch, num_particles=K).split()[0].log_w())

    if part == "score":
        return (with_noise(score),)
    fn = program.encode(*inputs)
    if isinstance(fn, torch.Tensor):
        return fn, torch.zeros_like(fn)
    drawn = with_noise(lambda *batch: program.encode(*batch).sample((K,)))
    return moment(lambda: fn.mean, drawn.mean(0)), moment(lambda: fn.variance.sqrt(), drawn.std(0))


def moment(exact, sampled):
    try:
        return exact()
    except NotImplementedError:
        return sampled


def parts_of(case):
    """The functions that no earlier case has: an encoder is that of a posterior, a decoder that of a likelihood."""
    earlier = list(CASES.values())[: list(CASES.values()).index(case)]
    known = {part: {other[i] for other in earlier} for i, part in ((1, "decoder"), (2, "encoder"))}
    return [part for part, i in (("encoder", 2), ("decoder", 1)) if case[i] not in known[part]] + ["score"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_likelihood_posterior_and_prior_is_exported_or_refused_by_name(name, tmp_path):
    torch.manual_seed(0)
    program, batch = build(*CASES[name])
    for part in parts_of(CASES[name]):
        refused = {cls for cls, what in REFUSED if what == part} & {cls.__name__ for cls in CASES[name]}
        if refused:
            with pytest.raises(ValueError, match=f"{part} of VAE .*{min(refused)}"):
                export(program, tmp_path / part, batch, parts=[part], num_particles=K)
            assert not (tmp_path / part).exists()
        else:
            check(program, batch, part, tmp_path / part)


#: Parts of programs that cannot be exported: without `encode` and `decode`, or with a size that depends on the batch.
MISSING = {name: {"encoder", "decoder"} for name in ("Amortized", "FunctionProgram", "Hierarchical", "MixtureVAE")}
MISSING |= {"SemiSupervised": {"encoder", "decoder"}, "StackedSemiSupervised": {"encoder", "decoder"}}
MISSING |= {"SequenceVAE": set(GRAPHS), "VQVAE": {"score"}, "Multimodal": set(GRAPHS)}


@pytest.mark.slow
@pytest.mark.parametrize("name", [cls.__name__ for cls in PROGRAMS])
def test_every_program_is_exported_or_refused_by_name(name, tmp_path):
    torch.manual_seed(0)
    program = getattr(pv.programs, name).example()
    batch = columns(program, 8)
    for part in GRAPHS:
        if part in MISSING.get(name, ()):
            with pytest.raises(ValueError, match=f"^parts: .* {part} of {name}|^target: "):
                export(program, tmp_path / part, batch, parts=[part], num_particles=K)
        else:
            check(program, batch, part, tmp_path / part)


def test_encoder_and_score_are_those_of_the_other_tasks(tmp_path):
    """The posterior of the toy is exact, so that every weight is the evidence, whatever the random numbers."""
    toy = pv.testing.LinearGaussian()
    x = toy.draw(9)
    files = export(toy.program, tmp_path / "new", x[:3], parts=["encoder", "score"])
    found = pv.tasks.embed(toy.program, x, progress=False)
    mean, std = load(files["encoder"])(x)
    torch.testing.assert_close((mean, std), (found.mean, found.std), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(load(files["score"])(x), -toy.log_evidence(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_scores_are_importance_weighted(tmp_path):
    off = pv.testing.LinearGaussian(off=0.05)
    x = off.draw(9)
    scores = load(export(off.program, tmp_path / "off", x, parts=["score"], num_particles=4000)["score"])(x)
    torch.testing.assert_close(scores, pv.tasks.ImportanceWeighted(4000)(off.program, x), rtol=0, atol=0.1)


def vae(**options):
    return pv.VAE.example(**options)


@pytest.mark.slow
def test_missing_entries_and_a_context_are_exported(tmp_path):
    x = torch.randn(8, 4)
    x[::2, 1] = torch.nan
    check(vae(missing=True), (x,), "score", tmp_path / "missing")
    parts = {
        "prior": pv.priors.ConditionalNormal(2, context=3),
        "likelihood": pv.likelihoods.Normal(2, (4,), context=3),
        "posterior": pv.posteriors.MeanFieldNormal((4,), 2, context=3),
    }
    for part in GRAPHS:
        check(pv.VAE(**parts), (torch.randn(8, 4), torch.rand(8, 3)), part, tmp_path / part)


@pytest.mark.slow
def test_one_row_is_enough(tmp_path):
    program, x = vae(), torch.randn(6, 4)
    score = load(export(program, tmp_path / "new", x[:1], parts=["score"])["score"])
    torch.testing.assert_close(score(x)[:1], score(x[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fails", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_export_changes_nothing_in_any_thread(fails, tmp_path):
    """Distributions are validated in other threads meanwhile, and here afterwards, also after an error."""
    program, x = vae(), torch.randn(6, 4)
    if fails:
        program, (x, *_) = build(pv.priors.StandardNormal, pv.likelihoods.Normal, pv.posteriors.SemiAmortized)
    program.train()
    before = {name: value.clone() for name, value in program.state_dict().items()}
    state, accepted, done = torch.get_rng_state(), [], threading.Event()

    def watch():
        while not done.is_set():
            try:
                dist.Normal(0.0, torch.tensor(-1.0))
                accepted.append(1)
            except ValueError:
                pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if fails:
            with pytest.raises(ValueError, match="score of VAE .*SemiAmortized"):
                export(program, tmp_path / "new", x, parts=["score"])
        else:
            export(program, tmp_path / "new", x, parts=["score"])
    finally:
        done.set()
        watcher.join()
    assert not accepted
    with pytest.raises(ValueError, match="scale"):
        dist.Normal(0.0, torch.tensor(-1.0))
    assert (tmp_path / "new").exists() is not fails
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training for m in program.modules())
    after = program.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_files_hold_no_data_no_pickled_tensor_and_only_the_weights_of_the_function(tmp_path):
    path = export(vae(), tmp_path / "new", torch.randn(6, 4), parts=["encoder"])["encoder"]
    found = torch.export.load(path)
    assert found.example_inputs is None
    assert {name.split(".")[1] for name in found.state_dict if "noise" not in name} == {"posterior"}
    assert not found.constants
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json"):
                config = json.loads(archive.read(name))["config"]
                assert not any(entry["use_pickle"] for entry in config.values())


@pytest.mark.slow
def test_a_file_needs_torch_alone(tmp_path):
    """A new process loads the files without this library and Pyro, and returns the same numbers."""
    program, x = vae(), torch.randn(6, 4)
    folder = tmp_path / "new"
    export(program, folder, x[:3])
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        f"x = torch.load({str(tmp_path / 'x.pt')!r})\n"
        f"encoder, decoder = (torch.export.load(f'{folder}/{{n}}.pt2').module() for n in ('encoder', 'decoder'))\n"
        f"torch.save(decoder(encoder(x)[0]), {str(tmp_path / 'y.pt')!r})\n"
        "assert not {'pyro', 'pyro_vae'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)
    with evaluating(program):
        expected = program.decode(program.encode(x).mean).mean
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), expected, rtol=1e-5, atol=1e-5)


def test_bad_arguments_are_named(tmp_path):
    program, x = vae(), torch.randn(6, 4)
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match="folder"):
        export(program, tmp_path / "old", x)
    with pytest.raises(ValueError, match="parts"):
        export(program, tmp_path / "new", x, parts=["enkoder"])
    with pytest.raises(ValueError, match="num_particles"):
        export(program, tmp_path / "new", x, num_particles=1)
    with pytest.raises(ValueError, match="x: "):
        export(program, tmp_path / "new", x[:, :2])
    assert not (tmp_path / "new").exists()


def test_onnx_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pyro-vae\[onnx\]"):
        export(vae(), tmp_path / "new", torch.randn(6, 4), format=Onnx())


@pytest.mark.parametrize("name", ["Normal", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Bernoulli",))])
def test_onnx_models_return_what_the_program_returns(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    program, (x,) = build(pv.priors.StandardNormal, getattr(pv.likelihoods, name), pv.posteriors.MeanFieldNormal)
    expected = export(program, tmp_path / "torch", x[:3])
    for part, path in export(program, tmp_path / "onnx", x[:3], format=Onnx()).items():
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        z = load(expected["encoder"])(x)[0].detach()
        for rows_ in (z if part == "decoder" else x, (z if part == "decoder" else x)[:1]):
            found = session.run(None, {GRAPHS[part].names(program, 0)[0]: rows_.numpy()})
            assert [node.name for node in session.get_outputs()] == list(GRAPHS[part].outputs)
            for a, b in zip(found, as_tuple(load(expected[part])(rows_)), strict=True):
                torch.testing.assert_close(torch.from_numpy(a), b.detach(), rtol=1e-5, atol=1e-5)


def test_what_onnx_lacks_is_refused_by_name(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    program, batch = build(pv.priors.StandardNormal, pv.likelihoods.Poisson, pv.posteriors.MeanFieldNormal)
    with pytest.raises(ValueError, match="score of VAE .*Poisson.* Onnx"):
        export(program, tmp_path / "new", batch, parts=["score"], format=Onnx())


def test_formats_have_no_options():
    """So that the default of `export` can be one object."""
    assert all(not inspect.signature(kind).parameters for kind in (TorchExport, Onnx))
