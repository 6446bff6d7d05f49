"""Checkpoints are complete or absent, damage is always reported, and reading one never runs code."""

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
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import X, at_call, checkpoints, ending, essence, in_child, leftovers, program, train
from safetensors.torch import load_file, save

import pyro_vae as pv
from pyro_vae._util.atomic_files import write_folder
from pyro_vae.config import run
from pyro_vae.training import CheckpointError, SaveError
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.checkpoint import FILES, MANIFEST
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.checkpoint.serialization import from_bytes, pack, read_weights, to_bytes, unpack

ALL = (*FILES, MANIFEST)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    """Skip fsync, which waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


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


def flips(good, n):
    """Yield n copies of some bytes, each with one random bit flipped."""
    draws = random.Random(0)
    for _ in range(n):
        bad = bytearray(good)
        bad[draws.randrange(len(bad))] ^= 1 << draws.randrange(8)
        yield bytes(bad)


def overwrite(path, data):
    """Replace the contents of a file in place, which is faster than creating it again."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def forge(path, name, data):
    """Replace a file, and adapt the manifest to it."""
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
def test_a_flipped_bit_is_always_detected(name, folder):
    """An error, or (for the versions in the manifest) exactly the same numbers."""
    path = newest(folder)
    found = checkpoint.read(path)
    expected, refused = essence(found.state, found.weights), 0
    for bad in flips((path / name).read_bytes(), 500):
        overwrite(path / name, bad)
        try:
            read = checkpoint.read(path)
        except ValueError:
            refused += 1
        else:
            assert name == MANIFEST
            assert essence(read.state, read.weights) == expected
    assert refused == 500 if name != MANIFEST else refused > 250


@pytest.mark.parametrize("name", ALL)
def test_a_truncated_file_is_always_detected(name, folder):
    path = newest(folder)
    good = (path / name).read_bytes()
    overwrite(path / name, good + b"\0")
    for length in range(len(good), -1, -max(1, len(good) // 200)):
        with pytest.raises(ValueError, match=name):
            checkpoint.read(path)
        os.truncate(path / name, length - 1 if length else 0)


def test_damaged_weights_are_always_detected(made, tmp_path):
    path = tmp_path / "weights.safetensors"
    good = (made / path.name).read_bytes()
    assert read_weights(made / path.name).keys() == load_file(made / path.name).keys()
    path.touch()
    for bad in itertools.chain((good[:length] for length in range(0, len(good), 7)), flips(good, 500)):
        overwrite(path, bad)
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(path)
    overwrite(path, save({"x": X}))
    with pytest.raises(CheckpointError, match="digest"):
        read_weights(path)


@pytest.mark.parametrize("name", ALL)
def test_the_error_names_the_last_good_checkpoint(name, folder):
    first, *_, good, bad = checkpoint.complete(folder / "checkpoints")
    (bad / name).write_bytes((bad / name).read_bytes()[:-1])
    before = checkpoint.read(good)
    with pytest.raises(CheckpointError) as error:
        resume(folder)
    assert str(error.value).startswith(f"{bad}: damaged checkpoint: {name}")
    assert str(good) in str(error.value)
    after = checkpoint.read(good)
    assert essence(after.state, after.weights) == essence(before.state, before.weights)
    for path in checkpoint.complete(folder / "checkpoints"):
        if path not in (first, bad):
            shutil.rmtree(path)
    (first / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match="No checkpoint before it is good"):
        resume(folder)
    for path in (bad, first):
        path.rename(folder / path.name)
    resume(folder)


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip", "empty"])
def test_foreign_files_are_refused_and_never_run(kind, folder, tmp_path):
    """In place of each file of a checkpoint, also with a matching manifest, and of the weights and configuration."""
    canary = tmp_path / "canary"
    bad = {"pickle": pickle.dumps(Canary(canary)), "empty": b""}
    torch.save(Canary(canary), tmp_path / "bad.pt")
    bad["torch"] = (tmp_path / "bad.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("../../canary", bad["pickle"])
    bad["zip"] = (tmp_path / "bad.zip").read_bytes()
    path = newest(folder)
    good = {name: (path / name).read_bytes() for name in ALL}
    for name in ALL:
        for matching in (False, True) if name != MANIFEST else (False,):
            (path / name).write_bytes(bad[kind])
            if matching:
                forge(path, name, bad[kind])
            with pytest.raises(CheckpointError, match="damaged checkpoint"):
                resume(folder)
            for restored in (name, MANIFEST):
                (path / restored).write_bytes(good[restored])
    (folder / "weights.safetensors").write_bytes(bad[kind])
    (folder / "config.json").write_bytes(bad[kind])
    with pytest.raises(CheckpointError):
        read_weights(folder / "weights.safetensors")
    with pytest.raises(ValueError, match="expected JSON"):
        run.read(folder)
    assert not canary.exists()


JSON = {
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
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
def test_malformed_json_is_refused(kind, folder):
    path = newest(folder)
    forge(path, "state.json", JSON[kind])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder)
    (path / MANIFEST).write_bytes(JSON[kind][: 1 << 16])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder)


def in_adam(state, change):
    change(state["engine"]["optimizer"])


CHANGES = {
    "unknown key of a value": lambda s: s.update(epoch={"$call": "os.system"}),
    "missing tensor": lambda s: s.update(totals={"loss": {"$tensor": "os.system"}}),
    "text as a number": lambda s: s.update(epoch="os.system"),
    "negative": lambda s: s.update(batch=-1),
    "too large": lambda s: s.update(count=10**30),
    "too large for a folder name": lambda s: s["engine"].update(steps=10**30),
    "not an integer": lambda s: s.update(count=1.5),
    "another epoch": lambda s: s.update(epoch=7),
    "missing value": lambda s: s.pop("random"),
    "unknown value": lambda s: s.update(code="os.system"),
    "no random state": lambda s: s.update(random=[]),
    "no engine": lambda s: s.update(engine=[]),
    "rows that are not rows": lambda s: s.update(rows=3),
    "too few callbacks": lambda s: s.update(callbacks=[]),
    "random state of another shape": lambda s: s["random"][0]["now"].update(
        cpu={"$tensor": "engine.optimizer.state.0.step"}
    ),
    "moments of another shape": lambda s: in_adam(
        s, lambda o: o["state"]["$items"][0][1].update(exp_avg=o["state"]["$items"][1][1]["exp_avg"])
    ),
    "moments of an unknown parameter": lambda s: in_adam(s, lambda o: o["state"]["$items"][0].__setitem__(0, 99)),
    "no parameter groups": lambda s: in_adam(s, lambda o: o.update(param_groups=[])),
    "settings that are not settings": lambda s: s.update(settings=None),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_forged_state_is_refused_before_the_first_step(kind, folder):
    forge_state(newest(folder), CHANGES[kind])
    vae = program()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        resume(folder, program=vae)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_links_pipes_and_folders_are_refused(folder, tmp_path):
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
    with pytest.raises(CheckpointError, match="link"):
        resume(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=2), "schema: .*got 2.*pyro_vae"),
        (lambda m: m.update(schema="1"), "schema"),
        (lambda m: m.update(schema=0), "schema"),
        (lambda m: m.update(schema=True), "schema"),
        (lambda m: m["files"].update({"../../weights": m["files"].pop("state.json")}), r"expected .*, got .*weights"),
        (lambda m: m["files"].pop("state.json"), "state.json, got"),
        (lambda m: m["files"].update({"state.json": 3}), "TypeError"),
        (lambda m: m.pop("files"), "files"),
        (lambda m: m["files"]["state.json"].update(bytes="x"), "invalid literal"),
    ],
)
def test_a_malformed_manifest_is_refused(change, message, folder):
    path = newest(folder) / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=message):
        resume(folder)


def test_an_incomplete_copy_is_set_aside(folder, tmp_path):
    """A folder without manifest is no checkpoint: the one before it is resumed, and nothing is deleted."""
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


def test_temporary_files_of_dead_processes_are_removed(folder):
    left = folder / "checkpoints" / f".{newest(folder).name}.4711.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    (folder / ".weights.safetensors.4711.tmp").write_bytes(b"half")
    assert len(leftovers(folder)) == 2
    resume(folder)
    assert not leftovers(folder)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_failed_save_raises_and_the_run_can_be_resumed(every, tmp_path):
    """Every call that writes (or each fifth) fails once: a SaveError, no leftovers, and the last checkpoint is named.

    The resumed run then ends like one without the failure.
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
                message = str(error)
            else:
                break
        assert len(calls) >= k
        assert message.startswith("run_dir: cannot write ")
        assert os.strerror(number) in message
        assert not leftovers(folder) if folder.exists() else True
        saved = list(checkpoints(folder)) if (folder / "checkpoints").exists() else []
        if "the last good checkpoint is " in message:
            # a checkpoint whose very last call failed may be newer
            assert message.rpartition("/")[2] in saved
        else:
            assert "there is no checkpoint yet" in message
            assert len(saved) <= 1
        train(folder, keep=1, epochs=1)
        assert ending(folder) == ending(tmp_path / "whole")
        shutil.rmtree(folder)
    assert k > 25


@pytest.mark.skipif(not hasattr(os, "fork") or torch.cuda.is_available(), reason="needs a forked process")
@pytest.mark.parametrize("bytes_left", [100, 3_000, 8_000])
def test_a_full_disk(bytes_left, tmp_path):
    """The operating system refuses to write; the metrics contain complete lines only."""
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
    assert not leftovers(tmp_path / "run")
    assert len(checkpoints(tmp_path / "run")) > 1
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    train(tmp_path / "run")
    assert ending(tmp_path / "run") == ending(tmp_path / "whole")


def test_a_line_of_the_metrics_is_complete_or_absent(tmp_path):
    """A row that the disk has no room for leaves the earlier rows intact."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunFolder(tmp_path, keep=1) as folder:
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
        with pytest.raises(SaveError, match="run_dir: .*file.*no checkpoint yet"):
            train(folder)
    assert (tmp_path / "file").read_text() == "mine"
    train(tmp_path / "Läufe und mehr" / "ein Lauf", epochs=1)
    assert ending(tmp_path / "Läufe und mehr" / "ein Lauf")["name"] == "step-00000002-epoch-0001"

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SaveError, match="Permission denied"):
        train(tmp_path / "run")


def test_the_newest_and_the_best_checkpoint_are_kept(tmp_path):
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


def test_an_old_checkpoint_is_removed_after_the_new_one_is_complete(tmp_path, monkeypatch):
    """With keep=1 there is a complete checkpoint after each rename, from the first one on."""
    rename, seen = os.rename, []

    def watched(old, new):
        rename(old, new)
        seen.append(len(checkpoints(tmp_path)))

    monkeypatch.setattr(os, "rename", watched)
    train(tmp_path, keep=1, epochs=2, valid=None)
    assert len(seen) > 6
    assert min(seen) == 1
    assert max(seen) == 2


def test_files_are_flushed_to_the_disk_before_the_rename(tmp_path, monkeypatch):
    """Each file, then its folder, then the rename, then the parent folder."""
    log, rename = [], os.rename
    monkeypatch.setattr(os, "fsync", lambda number: log.append(os.path.realpath(f"/proc/self/fd/{number}")))
    monkeypatch.setattr(os, "rename", lambda old, new: (log.append(f"-> {new}"), rename(old, new)))
    write_folder(tmp_path / "made", {"a": b"1", "b": b"2"})
    new = tmp_path / f".made.{os.getpid()}.tmp"
    assert log == [*map(str, (new / "a", new / "b", new)), f"-> {tmp_path / 'made'}", str(tmp_path)]


def test_state_is_restored_bit_for_bit():
    values = [0.1, 1e-323, -0.0, float("inf"), float("-inf"), 2**62, True, None, "é", (1, [2.5, ()]), {3: {}}, {}]
    state = {"values": values, "tensor": torch.randn(3).bfloat16(), "scalar": torch.tensor(1e-45)}
    found = from_bytes(*to_bytes(state))
    assert repr(found["values"]) == repr(values)
    assert torch.equal(found["tensor"], state["tensor"])
    assert repr(from_bytes(*to_bytes([np.float64(0.1), np.int64(3), np.float32("nan")]))) == "[0.1, 3, nan]"
    with pytest.raises(TypeError, match=r"a\.1: .* got function"):
        pack({"a": [1, print and (lambda: 0)]}, {})
    with pytest.raises(TypeError, match="got dict"):
        pack({"$tensor": "x"}, {})
    with pytest.raises(ValueError, match="call"):
        unpack({"$call": "x"}, {})


def test_tensorboard_logs_every_metric_and_resumes(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def board():
        return [pv.training.TensorBoard(tmp_path / "events")]

    train(tmp_path / "run", callbacks=board(), epochs=3, keep=99)
    for path in checkpoint.complete(tmp_path / "run" / "checkpoints")[5:]:  # keeps half of the second epoch
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
    with pytest.raises(ImportError, match=r"pip install 'pyro-vae\[tensorboard\]'"):
        pv.training.TensorBoard(Path(tmp_path))
