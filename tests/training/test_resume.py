"""A run that is interrupted and resumed ends bit for bit like one without the interruption."""

import functools
import importlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pyro
import pytest
import torch
from helpers import runs
from helpers.checks import slow_but
from helpers.runs import VALID, X, at_call, checkpoints, ending, in_child, leftovers, program, train
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae.cli import command as cli
from pyro_vae.data import Split
from pyro_vae.data.binarize import DrawBits
from pyro_vae.training.checkpoint import run_folder
from pyro_vae.training.svi import SVI

forks = pytest.mark.skipif(
    not hasattr(os, "fork") or torch.cuda.is_available(), reason="the device threads of autograd do not survive a fork"
)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    """Skip fsync, which waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Rows(Dataset):
    """A data set that draws random numbers."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return torch.bernoulli(0.1 + 0.8 * X[i])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


class NoisyStream(IterableDataset):
    """A stream that draws random numbers as it is read, and ends in a batch of one example."""

    def __iter__(self):
        return (torch.bernoulli(0.1 + 0.8 * x) for x in X[:16])


def optimizer(cls, **options):
    return lambda: {"optimizer": functools.partial(cls, **{"lr": 1e-2, **options})}


def falling_rate():
    """A callback halves the learning rate after each epoch."""
    vae = program()
    adam = torch.optim.Adam(vae.parameters(), lr=1e-2)

    def halve(metrics, step):
        adam.param_groups[0]["lr"] /= 2

    return {"program": vae, "optimizer": adam, "callbacks": [halve]}


def stopping(patience=1):
    """Early stopping that stops some epochs after the best one."""
    stop = pv.training.EarlyStopping(patience=patience)
    return {"callbacks": [stop], "epochs": 9, "optimizer": functools.partial(torch.optim.SGD, lr=0.7)}


#: Options of a run, created for each run.
RUNS = {
    "plain": dict,
    "warm-up": lambda: {"estimator": pv.estimators.ELBO(beta=pv.training.Linear(3)), "clip_norm": 1.0, "epochs": 3},
    "early stopping": stopping,
    "early stopping, patience 2": functools.partial(stopping, 2),
    "batch norm and dropout": lambda: {"program": program(runs.noisy_net), "batch_size": 6},
    "binary values sampled in each batch": lambda: {"data": Split(0.1 + 0.8 * X, None, DrawBits())},
    "Dataset with noise": lambda: {"data": Rows()},
    "loader": lambda: {"data": DataLoader(Rows(), batch_size=7, shuffle=True), "batch_size": 7},
    "loader with a generator": lambda: {
        "data": DataLoader(TensorDataset(X), 7, shuffle=True, generator=torch.Generator().manual_seed(1)),
        "batch_size": 7,
    },
    "loader with a last batch of one": lambda: {
        "data": DataLoader(Rows(), 3, sampler=range(16)),
        "batch_size": 3,
        "epochs": 3,
    },
    "stream": lambda: {"data": Stream()},
    "stream with noise": lambda: {"data": NoisyStream(), "batch_size": 3, "epochs": 3},
    "learned baseline": lambda: {
        "estimator": pv.estimators.NVIL(num_particles=2, baseline=torch.nn.Linear(6, 1)),
    },
    "estimator of Pyro": lambda: {"estimator": pyro.infer.Trace_ELBO()},
    "falling learning rate": falling_rate,
    "MultiStep": lambda: {"lr_schedule": pv.training.MultiStep([2, 5], 0.5), "epochs": 3},
    "SGD with momentum": optimizer(torch.optim.SGD, momentum=0.9),
    "Adamax": optimizer(torch.optim.Adamax),
    "NAdam": optimizer(torch.optim.NAdam),
    "AMSGrad": optimizer(torch.optim.AdamW, amsgrad=True),
    "unfused": optimizer(torch.optim.Adam, foreach=False),
    "float64": lambda: {"program": program().double(), "data": X.double(), "valid": VALID.double()},
    "without validation": lambda: {"valid": None},
    "compiled": lambda: {
        "compile": pv.training.eager_graph,  # compiling it each time would take minutes
        "batch_size": 7,
        "estimator": pv.estimators.ELBO(beta=pv.training.Linear(3)),
        "lr_schedule": pv.training.Cosine(6),
    },
    "compiled, binary values sampled, bfloat16": lambda: {
        "compile": pv.training.eager_graph,
        "data": Split(0.1 + 0.8 * X, None, DrawBits()),
        "precision": pv.training.Autocast(torch.bfloat16),
    },
}


def options(name):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return RUNS[name]()


#: Runs that are resumed from each of their last nine checkpoints; the others from within an epoch and from its end.
EVERYWHERE = {
    "plain",
    "early stopping",
    "batch norm and dropout",
    "loader",
    "loader with a last batch of one",
    "stream with noise",
}


QUICK = {
    "plain",
    "warm-up",
    "early stopping",
    "Dataset with noise",
    "loader",
    "stream",
    "learned baseline",
    "compiled",
}


@pytest.mark.parametrize("name", slow_but(QUICK, RUNS))
def test_a_resumed_run_writes_the_same_checkpoints(name, tmp_path):
    """From within epochs, before and after validation, and from the end; most of these runs are resumed twice."""
    whole = tmp_path / "whole"
    vae, history = train(whole, keep=99, **options(name))
    wanted, end = checkpoints(whole), ending(whole)
    n = history[-1]["step"] // len(history)
    assert len(wanted) == history[-1]["step"] + len(history)
    for kept in range(max(1, len(wanted) - 8), len(wanted) + 1) if name in EVERYWHERE else (1, n + 1):
        folder = tmp_path / str(kept)
        shutil.copytree(whole, folder)
        for path in sorted((folder / "checkpoints").iterdir())[kept:]:
            shutil.rmtree(path)
        torch.manual_seed(kept)  # the state of the process must not matter
        train(folder, keep=99, **options(name))
        assert checkpoints(folder) == wanted
        assert ending(folder) == end


@pytest.mark.parametrize("name", ["plain", "loader", "batch norm and dropout", "early stopping"])
def test_saving_changes_nothing(name, tmp_path):
    vae, history = train(tmp_path, **options(name))
    other, plain = train(**options(name))
    assert all(torch.equal(p, q) for p, q in zip(vae.state_dict().values(), other.state_dict().values(), strict=True))
    assert history["loss"] == plain["loss"]
    assert history["valid_bound"] == plain["valid_bound"]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    vae, history = train(tmp_path, **options("early stopping"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"}
    again, same = train(tmp_path, **options("early stopping"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"} == before
    assert list(same) == list(history)
    assert all(torch.equal(p, q) for p, q in zip(vae.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_finished_run_can_be_resumed_for_more_epochs(tmp_path):
    """With the estimator of the finished run, whose step is no setting of the run."""
    elbo = pv.estimators.ELBO()
    train(tmp_path / "a", epochs=4)
    train(tmp_path / "b", epochs=2, estimator=elbo)
    assert elbo.step > 0
    train(tmp_path / "b", epochs=4, estimator=elbo)
    assert ending(tmp_path / "a") == ending(tmp_path / "b")


def with_parameter(name, value):
    """A program with another parameter, as only its weights show."""
    vae = program()
    module = vae.likelihood.net.body[0]
    setattr(module, name, torch.nn.Parameter(value))
    return {"program": vae}


def partially_frozen():
    vae = program()
    vae.likelihood.requires_grad_(False)
    return {"program": vae}


REFUSED = {
    "batch_size 10 (now 9)": lambda: {"batch_size": 9},
    "seed 3 (now 4)": lambda: {"seed": 4},
    "clip_norm None (now 1.0)": lambda: {"clip_norm": 1.0},
    "optimizer Adam(lr=0.001, betas": lambda: {"optimizer": functools.partial(torch.optim.SGD, lr=1e-3)},
    "optimizer.lr 0.001 (now 0.01)": optimizer(torch.optim.Adam),
    "lr_schedule None (now MultiStep(milestones=(2,), factor=0.1))": lambda: {
        "lr_schedule": pv.training.MultiStep([2])
    },
    "estimator.beta 1.0 (now Linear(num_steps=3,": lambda: {
        "estimator": pv.estimators.ELBO(beta=pv.training.Linear(3))
    },
    "estimator.num_particles 1 (now 2)": lambda: {"estimator": pv.estimators.ELBO(num_particles=2)},
    "data.rows 20 (now 19)": lambda: {"data": X[:19]},
    "valid {rows: 9,": lambda: {"valid": None},
    "callbacks () (now (EarlyStopping(patience=10,": lambda: {"callbacks": [pv.training.EarlyStopping()]},
    "program.likelihood.net.hidden (5,) (now (7,))": lambda: {
        "program": program(functools.partial(pv.nets.MLP, hidden=(7,)))
    },
    "frozen () (now (likelihood.net.body.0.weight": partially_frozen,
    "of another shape or type: ": lambda: with_parameter("bias", torch.zeros(1)),
    "missing: ": lambda: with_parameter("spare", torch.zeros(5)),
}


@pytest.mark.parametrize("said", REFUSED)
def test_other_settings_are_refused_by_name(said, tmp_path):
    train(tmp_path, epochs=1)
    before = checkpoints(tmp_path)
    changed = REFUSED[said]()
    vae = changed.pop("program", None) or program()
    weights = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(ValueError, match="resume: ") as error:
        train(tmp_path, program=vae, **changed)
    assert said in str(error.value)
    assert checkpoints(tmp_path) == before
    assert all(torch.equal(value, weights[name]) for name, value in vae.state_dict().items())


def test_a_used_folder_is_refused_without_resume(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(ValueError, match="run_dir: .*resume=True"):
        train(tmp_path, resume=False)
    with pytest.raises(ValueError, match="resume"):
        pv.fit(program(), X, resume=True)
    with pytest.raises(ValueError, match="keep"):
        train(tmp_path, keep=0)


@forks
@pytest.mark.parametrize(("epochs", "every"), [(1, 5), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_killed_at_every_call_that_writes(epochs, every, tmp_path):
    """End the process before each fsync and rename (or every fifth) until a run finishes; each run is resumed."""

    def killed(folder, k):
        with at_call(k, lambda: os._exit(9)):
            train(folder, **{**options("early stopping"), "epochs": epochs, "keep": 1})

    killed(tmp_path / "whole", -1)
    wanted = ending(tmp_path / "whole")

    for k in itertools.count(1, every):
        folder = tmp_path / str(k)
        status = in_child(functools.partial(killed, folder, k))
        if status == 0:
            break
        assert status == 9
        assert in_child(functools.partial(killed, folder, -1)) == 0
        assert ending(folder) == wanted
        assert not leftovers(folder)
        shutil.rmtree(folder)
    assert k > 25 * epochs


def command(folder, *more, epochs=4):
    small = "--posterior.net.hidden=[4] --likelihood.net.hidden=[4] --latent=2 --num-particles=2 --quiet"
    beta = "--estimator.beta Linear --estimator.beta.num_steps 10"
    settings = f"--epochs={epochs} --batch-size=200 --patience=2 {beta} {small}"
    resume = ["--resume"] if (folder / "config.json").exists() else []
    return cli.main(["train", *resume, f"--run-dir={folder}", *settings.split(), *more])


def silent(work):
    """Return a function that runs another without any output."""

    def quiet():
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        return work()

    return quiet


@forks
@pytest.mark.slow
def test_the_command_killed_twenty_times(tmp_path):
    """kill -9 at random times between the start and the end of the command."""
    start = time.perf_counter()
    assert in_child(silent(functools.partial(command, tmp_path / "whole"))) == 0
    took = time.perf_counter() - start
    wanted, times, runs_done = ending(tmp_path / "whole"), random.Random(0), 0
    kills = 0
    while kills < 20:
        folder = tmp_path / f"run {runs_done}"
        pid = runs.fork(silent(functools.partial(command, folder)))
        time.sleep(times.uniform(0, 0.7 * took))
        os.kill(pid, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            kills += 1
            if kills % 3:  # every third run may finish
                continue
        assert in_child(silent(functools.partial(command, folder))) == 0
        assert ending(folder) == wanted
        assert not leftovers(folder)
        runs_done += 1
    assert runs_done > 5


@pytest.mark.slow
def test_the_exit_status_of_a_process_after_a_signal(tmp_path):
    """SIGTERM, SIGINT and kill -9 in turn, each to the run that the previous one left."""
    words = "train --epochs=60 --batch-size=16 --patience=60 --latent=2 --num-particles=2 --quiet".split()
    line = [sys.executable, "-m", "pyro_vae", *words, f"--run-dir={tmp_path}"]
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
        before = set((tmp_path / "checkpoints").glob("*")) if (tmp_path / "checkpoints").exists() else set()
        resume = ["--resume"] if before else []
        process = subprocess.Popen([*line, *resume], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        while not (tmp_path / "checkpoints").exists() or set((tmp_path / "checkpoints").glob("step*")) <= before:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status
        if status > 0:
            assert f"{signal.Signals(number).name}: saved in " in err
            assert str(max((tmp_path / "checkpoints").glob("step*"))) in err


def test_the_command_resumes_only_the_same_run(tmp_path, capsys, monkeypatch):
    train = importlib.import_module("pyro_vae.cli.train")
    monkeypatch.setattr(train, "results", lambda *args, **how: {})
    monkeypatch.setattr(train, "summary", lambda found: "")
    monkeypatch.setattr(train, "figures", lambda *args: {})
    monkeypatch.setattr(train, "save", lambda *args: None)
    folder = tmp_path / "run"
    assert command(folder, epochs=2) == 0
    wanted = ending(folder)
    assert command(folder, epochs=2) == 0  # a finished run is evaluated again
    assert ending(folder) == wanted
    capsys.readouterr()
    for option in ("--epochs=5", "--posterior.net.hidden=[5]", "--prior=VampPrior"):
        assert command(folder, option, epochs=2) == 2
        err = capsys.readouterr().err
        assert f"error: {option[2:].partition('=')[0]}: " in err
        assert len(err.splitlines()) == 1
    assert cli.main(["train", "--resume"]) == 2
    assert "resume: expected the folder of the run in --run-dir" in capsys.readouterr().err
    assert cli.main(["train", f"--run-dir={folder}"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    config = folder / "config.json"
    text = config.read_text()
    for old, new, said in (
        ('"Linear"', '"os.system"', "estimator.beta: expected one of"),
        ('"epochs": 2', '"epochs": "import os"', "epochs: expected an integer"),
        ('"mnist_small"', '"/etc/passwd"', "data: expected one of"),
    ):
        assert old in text
        config.write_text(text.replace(old, new))
        assert cli.main(["train", "--resume", f"--run-dir={folder}"]) in (1, 2)
        assert said in capsys.readouterr().err


class Sends:
    """Sends signals to this process during a training step."""

    def __init__(self, monkeypatch, *numbers, step=2):
        update = SVI.update

        def updated(svi, *batch, **options):
            found = update(svi, *batch, **options)
            if svi.steps == step:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return found

        monkeypatch.setattr(SVI, "update", updated)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_the_step_is_finished_and_saved(number, tmp_path, monkeypatch):
    train(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        Sends(patch, number, step=3)
        with pytest.raises(KeyboardInterrupt) as end:
            train(tmp_path / "cut", checkpoint_every=1e9)
    assert isinstance(end.value, pv.training.Interrupted)
    assert end.value.number == number
    assert end.value.checkpoint == tmp_path / "cut" / "checkpoints" / "step-00000003-epoch-0001"
    assert f"{signal.Signals(number).name}: saved in {end.value.checkpoint}" in str(end.value)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert list(checkpoints(tmp_path / "cut")) == ["step-00000002-epoch-0001", "step-00000003-epoch-0001"]
    train(tmp_path / "cut")
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")


def test_signal_handlers_are_restored_after_training(tmp_path):
    def handlers():
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def fail(metrics, step):
        seen.append(handlers())
        raise RuntimeError("stop")

    before, seen = handlers(), []
    train(tmp_path, epochs=1)
    assert handlers() == before
    for folder in (tmp_path, None):
        with pytest.raises(RuntimeError, match="stop"):
            train(folder, callbacks=[fail])
        assert handlers() == before
    assert not set(seen[0]) & set(before)
    assert seen[1] == before


def test_a_signal_during_validation_stops_it(tmp_path, monkeypatch):
    train(tmp_path / "whole", valid=VALID.repeat(9, 1), **options("warm-up"))
    settings, calls = options("warm-up"), []
    own = settings["estimator"].per_datum

    def per_datum(*args):
        calls.append(1)
        if len(calls) == 1:  # a second signal would end the process
            os.kill(os.getpid(), signal.SIGTERM)
        return own(*args)

    settings["estimator"].per_datum = per_datum
    with pytest.raises(pv.training.Interrupted) as end:
        train(tmp_path / "cut", valid=VALID.repeat(9, 1), **settings)
    assert len(calls) == 1
    assert end.value.checkpoint.name == "step-00000002-epoch-0000"
    train(tmp_path / "cut", valid=VALID.repeat(9, 1), **options("warm-up"))
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")


def test_a_signal_during_a_save_waits_for_the_save(tmp_path):
    train(tmp_path / "whole")
    with (
        at_call(9, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(pv.training.Interrupted) as end,
    ):
        train(tmp_path / "cut")
    assert not leftovers(tmp_path / "cut")
    assert end.value.checkpoint == sorted((tmp_path / "cut" / "checkpoints").iterdir())[-1]
    train(tmp_path / "cut")
    assert ending(tmp_path / "cut") == ending(tmp_path / "whole")


@forks
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process(second, tmp_path, monkeypatch):
    def work():
        Sends(monkeypatch, signal.SIGTERM, second)
        try:
            train(tmp_path)
        except KeyboardInterrupt as end:
            return 7 if not isinstance(end, pv.training.Interrupted) else 8

    assert in_child(silent(work)) == (-signal.SIGTERM if second == signal.SIGTERM else 7)
    train(tmp_path)


def test_training_in_another_thread(tmp_path):
    thread = threading.Thread(target=train, args=(tmp_path / "thread",))
    thread.start()
    thread.join()
    train(tmp_path / "main")
    assert ending(tmp_path / "thread") == ending(tmp_path / "main")


@forks
def test_a_second_process_in_the_folder_is_refused(tmp_path):
    """The error names the first process; once that is killed, the run can be resumed."""
    train(tmp_path / "whole")
    ready, wait = os.pipe(), os.pipe()

    def first():
        def hold(metrics, step):
            os.write(ready[1], b"1")
            os.read(wait[0], 1)

        train(tmp_path / "run", callbacks=[hold])

    pid = runs.fork(first)
    os.read(ready[0], 1)
    before = checkpoints(tmp_path / "run")
    with pytest.raises(pv.training.RunInUseError, match=f"in use by process {pid} on "):
        train(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == before
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    train(tmp_path / "run")
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")
    assert (tmp_path / "run" / "lock").read_text() == ""


def test_a_system_without_locks_warns(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "fcntl", None)
    with pytest.warns(UserWarning, match="run_dir: cannot lock"):
        train(tmp_path, epochs=1)
