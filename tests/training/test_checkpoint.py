"""Checkpoints: whole or not there, never wrong without a word, and nothing in them is run."""

import errno
import functools
import hashlib
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import sys
import zipfile

import pytest
import torch
from helpers.runs import X, at_call, checkpoints, ending, essence, in_child, program, rubbish, train
from safetensors.torch import load_file, save

import pyro_vae as pv
from pyro_vae._util import durable
from pyro_vae.config import run
from pyro_vae.training import CheckpointError, SaveError
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.checkpoint import FILES, MANIFEST
from pyro_vae.training.checkpoint.packing import pack, unpack
from pyro_vae.training.checkpoint.weights import read_weights

ALL = (*FILES, MANIFEST)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("runs") / "made"
    train(folder, keep=99, epochs=1, callbacks=[pv.training.EarlyStopping()])
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of that run, to be damaged."""
    return shutil.copytree(made, tmp_path / "run")


def newest(folder):
    return checkpoint.complete(folder / "checkpoints")[-1]


def forge(path, name, data):
    """Put bytes in place of a file, with a manifest that agrees."""
    (path / name).write_bytes(data)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / MANIFEST).write_text(json.dumps(manifest))


def forge_state(path, change):
    state = json.loads((path / "state.json").read_text())
    change(state)
    forge(path, "state.json", json.dumps(state).encode())


def resume(folder, **options):
    return train(folder, callbacks=[pv.training.EarlyStopping()], epochs=2, **options)


@pytest.mark.parametrize("name", ALL)
def test_no_flipped_bit_is_read_as_something_else(name, folder):
    """1,000 flips in each file: an error, or (in the manifest's versions) the very same numbers."""
    path, draws = newest(folder), random.Random(0)
    good, found = (path / name).read_bytes(), checkpoint.read(path)
    wanted, refused = essence(found.state, found.weights), 0
    for _ in range(1000):
        bad = bytearray(good)
        bad[draws.randrange(len(bad))] ^= 1 << draws.randrange(8)
        (path / name).write_bytes(bad)
        try:
            read = checkpoint.read(path)
        except ValueError:
            refused += 1
        else:
            assert name == MANIFEST
            assert essence(read.state, read.weights) == wanted
    assert refused == 1000 if name != MANIFEST else refused > 500


@pytest.mark.parametrize("name", ALL)
def test_no_cut_file_is_read(name, folder):
    path = newest(folder)
    good = (path / name).read_bytes()
    for length in range(0, len(good), max(1, len(good) // 500)):
        (path / name).write_bytes(good[:length])
        with pytest.raises(ValueError, match=name):
            checkpoint.read(path)
    (path / name).write_bytes(good + b"\0")
    with pytest.raises(ValueError, match=name):
        checkpoint.read(path)


def test_the_weights_of_a_run_are_never_read_wrong(made, tmp_path):
    path, draws = tmp_path / "weights.safetensors", random.Random(0)
    good = (made / path.name).read_bytes()
    wanted = load_file(made / path.name)
    assert read_weights(made / path.name).keys() == wanted.keys()
    cuts = [good[:length] for length in range(0, len(good), 7)]
    flips = [bytearray(good) for _ in range(1000)]
    for bad in flips:
        bad[draws.randrange(len(bad))] ^= 1 << draws.randrange(8)
    for bad in cuts + flips:
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(path)


@pytest.mark.parametrize("name", ALL)
def test_a_damaged_checkpoint_is_told_with_the_last_good_one(name, folder):
    good, bad = checkpoint.complete(folder / "checkpoints")[-2:]
    other = checkpoint.complete(folder / "checkpoints")[0]
    (bad / name).write_bytes((bad / name).read_bytes()[:-1])
    kept = checkpoint.read(good)
    with pytest.raises(CheckpointError) as error:
        resume(folder)
    assert str(error.value).startswith(f"{bad}: damaged checkpoint: {name}")
    assert f"the last good one is {good}: move the damaged one away" in str(error.value)
    again = checkpoint.read(good)
    assert essence(again.state, again.weights) == essence(kept.state, kept.weights)
    shutil.rmtree(good)
    for path in (p for p in checkpoint.complete(folder / "checkpoints") if p not in (bad, other)):
        shutil.rmtree(path)
    (other / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="there is no good one before it"):
        resume(folder)
    for path in (bad, other):
        path.rename(folder / path.name)
    resume(folder)


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def zipped(folder, bad):
    with zipfile.ZipFile(folder / "bad.zip", "w") as file:
        file.writestr("../../canary", bad)
    return (folder / "bad.zip").read_bytes()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("agrees", [False, True])
@pytest.mark.parametrize("kind", ["pickle", "torch", "zip", "empty"])
def test_no_foreign_file_is_run(kind, agrees, name, folder, tmp_path):
    canary = tmp_path / "canary"
    bad = {"pickle": pickle.dumps(Canary(canary)), "empty": b""}
    torch.save(Canary(canary), tmp_path / "bad.pt")
    bad["torch"] = (tmp_path / "bad.pt").read_bytes()
    bad["zip"] = zipped(tmp_path, bad["pickle"])
    path = newest(folder)
    if agrees and name != MANIFEST:
        forge(path, name, bad[kind])
    else:
        (path / name).write_bytes(bad[kind])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder)
    (folder / "weights.safetensors").write_bytes(bad[kind])
    (folder / "config.json").write_bytes(bad[kind])
    with pytest.raises(CheckpointError):
        read_weights(folder / "weights.safetensors")
    with pytest.raises(ValueError, match="expected JSON"):
        run.read(folder)
    assert not canary.exists()


JSON = {
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge number": b'{"epoch": ' + b"9" * 100_000 + b"}",
    "NaN": b'{"epoch": NaN}',
    "infinity": b'{"epoch": Infinity}',
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "not UTF-8": b'{"\xff": 1}',
}


@pytest.mark.parametrize("kind", JSON)
def test_no_strange_json_is_followed(kind, folder):
    path = newest(folder)
    kept = (path / MANIFEST).read_bytes()
    forge(path, "state.json", JSON[kind])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder)
    (path / MANIFEST).write_bytes(JSON[kind][: 1 << 16])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder)
    assert kept


def in_adam(state, change):
    change(state["engine"]["optimizer"])


CHANGES = {
    "unknown mark": lambda s: s.update(epoch={"$call": "os.system"}),
    "tensor that is not there": lambda s: s.update(totals={"loss": {"$tensor": "os.system"}}),
    "text for a number": lambda s: s.update(epoch="os.system"),
    "negative": lambda s: s.update(batch=-1),
    "too large": lambda s: s.update(count=10**30),
    "too large for a name": lambda s: s["engine"].update(steps=10**30),
    "part of a number": lambda s: s.update(count=1.5),
    "another place": lambda s: s.update(epoch=7),
    "no key": lambda s: s.pop("streams"),
    "no engine": lambda s: s.update(engine=[]),
    "rows of something else": lambda s: s.update(rows=3),
    "too few callbacks": lambda s: s.update(hooks=[]),
    "a stream of another kind": lambda s: s["streams"].update(cpu={"$tensor": "engine.optimizer.state.0.step"}),
    "moments of another shape": lambda s: in_adam(
        s, lambda o: o["state"]["$items"][0][1].update(exp_avg=o["state"]["$items"][1][1]["exp_avg"])
    ),
    "moments of no parameter": lambda s: in_adam(s, lambda o: o["state"]["$items"][0].__setitem__(0, 99)),
    "no groups": lambda s: in_adam(s, lambda o: o.update(param_groups=[])),
    "settings of something else": lambda s: s.update(settings=None),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_forged_state_is_refused_before_the_first_step(kind, folder):
    forge_state(newest(folder), CHANGES[kind])
    vae = program()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder, program=vae)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_links_pipes_and_folders_are_no_files(folder, tmp_path):
    path = newest(folder)
    for name in ALL:
        good = (path / name).read_bytes()
        (tmp_path / "elsewhere").write_bytes(good)
        for make in (
            lambda at: at.symlink_to(tmp_path / "elsewhere"),
            lambda at: at.symlink_to(tmp_path / "nowhere"),
            os.mkfifo,
            os.mkdir,
        ):
            (path / name).unlink()
            make(path / name)
            with pytest.raises(CheckpointError, match="damaged checkpoint"):
                resume(folder)
            (path / name).rmdir() if (path / name).is_dir() else (path / name).unlink()
            (path / name).write_bytes(good)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="a link, not a folder"):
        resume(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(schema=2), "schema 2 is newer than 1, .*update pyro_vae"),
        (lambda m: m.update(schema="1"), "expected a schema number, got '1'"),
        (lambda m: m.update(schema=0), "expected a schema number, got 0"),
        (lambda m: m["files"].update({"../../weights": m["files"].pop("state.json")}), r"expected .*, got .*weights"),
        (lambda m: m["files"].pop("state.json"), "expected weights.safetensors, state.safetensors, state.json, got"),
        (lambda m: m["files"].update({"state.json": 3}), "TypeError"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m["files"]["state.json"].update(bytes="x"), "invalid literal"),
    ],
)
def test_a_manifest_of_something_else_is_refused(change, said, folder):
    path = newest(folder) / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=said):
        resume(folder)


def test_a_copy_that_broke_off_is_set_aside(folder, tmp_path):
    """Without its manifest a folder is no checkpoint: the one before it is gone on from, and nothing is deleted."""
    shutil.copytree(folder, tmp_path / "whole")
    resume(tmp_path / "whole")
    path = newest(folder)
    (path / MANIFEST).unlink()
    (folder / "checkpoints" / "notes.txt").write_text("mine")
    resume(folder)
    aside = path.with_name(f"{path.name}.unfinished-1")
    assert sorted(p.name for p in aside.iterdir()) == sorted(FILES)
    assert (folder / "checkpoints" / "notes.txt").read_text() == "mine"
    assert ending(folder) == ending(tmp_path / "whole")


def test_what_a_dead_process_left_is_swept(folder):
    left = folder / "checkpoints" / f".{newest(folder).name}.4711.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    (folder / ".weights.safetensors.4711.tmp").write_bytes(b"half")
    assert len(rubbish(folder)) == 2
    resume(folder)
    assert not rubbish(folder)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_no_failed_save_is_silent(every, tmp_path):
    """Every call that writes (or each fifth) fails once: a SaveError, no rubbish, the last checkpoint whole and named.

    Then the run is resumed, and ends as the one that nothing happened to.
    """

    def fail():
        raise OSError(number, os.strerror(number))

    train(tmp_path / "whole", keep=1, epochs=1)
    names = ("fsync", "rename", "replace", "mkdir")
    for k in itertools.count(1, every):
        folder, number = tmp_path / str(k), (errno.ENOSPC, errno.EROFS, errno.EXDEV, errno.EIO)[k % 4]
        with at_call(k, fail, names) as calls:
            try:
                train(folder, keep=1, epochs=1)
            except SaveError as error:
                said = str(error)
            else:
                break
        assert len(calls) >= k
        assert said.startswith("run_dir: cannot write ")
        assert os.strerror(number) in said
        assert not rubbish(folder) if folder.exists() else True
        last = list(checkpoints(folder)) if (folder / "checkpoints").exists() else []
        if "the last good checkpoint is " in said:
            # what was committed by the very call that failed may be newer
            assert said.rpartition("/")[2] in last
        else:
            assert "there is no checkpoint yet" in said
            assert len(last) <= 1
        train(folder, keep=1, epochs=1)
        assert ending(folder) == ending(tmp_path / "whole")
        shutil.rmtree(folder)
    assert k > 25


@pytest.mark.skipif(not hasattr(os, "fork") or torch.cuda.is_available(), reason="needs a forked process")
@pytest.mark.parametrize("bytes_left", [100, 3_000, 12_000])
def test_a_full_disk(bytes_left, tmp_path):
    """The system itself refuses bytes; the metrics keep whole lines."""
    train(tmp_path / "whole")

    def work():
        def fill(metrics, step):
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))

        try:
            train(tmp_path / "run", callbacks=[fill])
        except SaveError as error:
            last = list(checkpoints(tmp_path / "run"))[-1]
            return 7 if "File too large" in str(error) and str(error).endswith(last) else 8

    assert in_child(work) == 7
    assert not rubbish(tmp_path / "run")
    assert len(checkpoints(tmp_path / "run")) > 1
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    train(tmp_path / "run")
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_a_line_of_the_metrics_is_whole_or_not_there(tmp_path):
    """A row that the disk has no room for leaves the rows before it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pv.training.run_folder.RunFolder(tmp_path, keep=1) as folder:
        folder.append_row({"epoch": 0})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
            with pytest.raises(SaveError, match="metrics.jsonl"):
                folder.append_row({"epoch": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        folder.append_row({"epoch": 2})
    assert folder.metrics.read_text() == '{"epoch": 0}\n{"epoch": 2}\n'


def test_folders_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SaveError, match="cannot write the folder in .*file.*there is no checkpoint yet"):
            train(folder)
    assert (tmp_path / "file").read_text() == "mine"
    train(tmp_path / "Läufe und mehr" / "ein Lauf", epochs=1)
    assert ending(tmp_path / "Läufe und mehr" / "ein Lauf")["name"] == "step-00000002-epoch-0001"

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SaveError, match="Permission denied"):
        train(tmp_path / "run")


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    rising = functools.partial(torch.optim.SGD, lr=0.7)
    _, history = train(tmp_path / "a", optimizer=rising, epochs=8, keep=2, checkpoint_every=1e9)
    bounds = history["valid_bound"]
    best = bounds.index(max(bounds))
    assert best < 6
    assert list(checkpoints(tmp_path / "a")) == [f"step-{2 * e:08d}-epoch-{e:04d}" for e in (best + 1, 7, 8)]
    found = checkpoint.read(checkpoint.complete(tmp_path / "a" / "checkpoints")[0])
    vae = program()
    vae.load_state_dict(found.weights)
    assert found.state["rows"][-1]["valid_bound"] == max(bounds)
    train(tmp_path / "b", optimizer=rising, epochs=8, keep=2, checkpoint_every=1e9, valid=None)
    assert list(checkpoints(tmp_path / "b")) == ["step-00000014-epoch-0007", "step-00000016-epoch-0008"]


def test_an_old_checkpoint_goes_after_the_new_one_is_there(tmp_path, monkeypatch):
    """With keep=1 there is a whole checkpoint at each rename, from the first one on."""
    rename, seen = os.rename, []

    def watched(old, new):
        rename(old, new)
        seen.append([name for name in checkpoints(tmp_path)])

    monkeypatch.setattr(os, "rename", watched)
    train(tmp_path, keep=1, epochs=3, valid=None)
    assert len(seen) > 10
    assert all(seen)
    assert max(map(len, seen)) == 2


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Each file, then its folder, then the rename, then the folder of the name."""
    log = []
    own = {name: getattr(os, name) for name in ("fsync", "rename")}

    def fsync(number):
        log.append(os.path.realpath(f"/proc/self/fd/{number}"))
        own["fsync"](number)

    def rename(old, new):
        log.append(f"-> {new}")
        own["rename"](old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    durable.commit(tmp_path / "made", {"a": b"1", "b": b"2"})
    new = tmp_path / f".made.{os.getpid()}.tmp"
    assert log == [*map(str, (new / "a", new / "b", new)), f"-> {tmp_path / 'made'}", str(tmp_path)]


def test_state_comes_back_bit_for_bit():
    values = [0.1, 1e-323, -0.0, float("inf"), float("-inf"), 2**62, True, None, "é", (1, [2.5, ()]), {3: {}}, {}]
    state = {"values": values, "tensor": torch.randn(3).bfloat16(), "scalar": torch.tensor(1e-45)}
    tensors = {}
    text = json.dumps(pack(state, tensors))
    found = unpack(json.loads(text), tensors)
    assert repr(found["values"]) == repr(values)
    assert torch.equal(found["tensor"], state["tensor"])
    with pytest.raises(TypeError, match=r"a\.1: expected plain values and tensors.* got function"):
        pack({"a": [1, print and (lambda: 0)]}, {})
    with pytest.raises(TypeError, match="got dict"):
        pack({"$tensor": "x"}, {})


def test_tensorboard_gets_every_metric_and_resumes(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def board():
        return [pv.training.TensorBoard(tmp_path / "events")]

    train(tmp_path / "run", callbacks=board(), epochs=3, keep=99)
    for path in checkpoint.complete(tmp_path / "run" / "checkpoints")[5:]:  # to the middle of the second epoch
        shutil.rmtree(path)
    _, history = train(tmp_path / "run", callbacks=board(), epochs=3)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "reconstruction", "kl", "beta", "valid_bound", "seconds"}
    for name in ("loss", "valid_bound"):
        found = events.Scalars(name)
        assert [point.step for point in found] == [2, 4, 6]
        assert [point.value for point in found] == pytest.approx(history[name], rel=1e-6)


def test_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"TensorBoard needs tensorboard: pip install 'pyro-vae\[tensorboard\]'"):
        pv.training.TensorBoard(tmp_path)


def test_foreign_weights_are_refused(folder):
    (folder / "weights.safetensors").write_bytes(save({"x": X}))
    with pytest.raises(CheckpointError, match="the digest in its header"):
        read_weights(folder / "weights.safetensors")
