"""Data larger than memory: the order of the rows, and reading ahead from a file."""

import mmap
import threading
import time
import tracemalloc
from itertools import islice, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.programs import make_vae
from torch.utils.data import Dataset

import pyro_vae as pv
from pyro_vae.data import DrawBits, Split
from pyro_vae.data import mapped as mapped_rows
from pyro_vae.data.mapped import Mapped
from pyro_vae.training import Batches
from pyro_vae.training.data import order
from pyro_vae.training.data.order import Shuffled
from pyro_vae.training.data.prefetch import ReadAhead

X = torch.rand(300, 8, 8, generator=torch.Generator().manual_seed(0)).round()


def whole(n, seed=0, epoch=0):
    return Shuffled(n, seed=seed, epoch=epoch).rows(np.arange(n))


def excess(counts):
    """Chi-square statistic of counts with equal expectation, in standard deviations above its mean."""
    counts = np.asarray(counts, float).ravel()
    degrees = counts.size - 1
    return (((counts - counts.mean()) ** 2).sum() / counts.mean() - degrees) / np.sqrt(2 * degrees)


def bins(a, b, n):
    return np.histogram2d(a, b, bins=40, range=[[0, n], [0, n]])[0]


@pytest.mark.parametrize("block", [0, order.BLOCK])
def test_every_row_appears_once(monkeypatch, block):
    """Sorted by hash and with the Feistel network, for few rows and around the squares where the network changes."""
    monkeypatch.setattr(order, "BLOCK", block)
    for n in [*range(1, 70), 80, 81, 99, 100, 1023, 1024, 1025, 16384, 16385]:
        for seed, epoch in ((0, 0), (-7, 3)):
            assert np.array_equal(np.sort(whole(n, seed, epoch)), np.arange(n))


def test_all_orders_of_few_rows_are_equally_likely():
    """All 24 permutations of four rows, within four standard deviations."""
    seen = [tuple(whole(4, seed=i % 5, epoch=i)) for i in range(2400)]
    assert abs(excess([seen.count(p) for p in permutations(range(4))])) < 4


@pytest.mark.parametrize("n", [16385, 20000, 100003])
def test_the_order_of_many_rows_is_random(n):
    """Rows are independent of their position, of the previous row, and of the next epoch and seed."""
    first, epoch, seed = whole(n), whole(n, epoch=1), whole(n, seed=1)
    for a, b in ((np.arange(n), first), (first[:-1], first[1:]), (first, epoch), (first, seed)):
        assert abs(excess(bins(a, b, n))) < 4
        assert (a == b).sum() < 8  # one is expected
    assert abs(excess(np.bincount(np.diff(first) % n * 64 // n))) < 4


class Billion(Dataset):
    def __len__(self):
        return 10**9

    def __getitem__(self, i):
        return torch.tensor([float(i)], dtype=torch.float64)


def test_a_billion_rows_need_no_memory():
    """Any batch of any epoch is available at once, within 2 MiB."""
    batches = Batches(Billion(), batch_size=128, dtype=torch.float64)
    assert batches.steps == 7_812_500
    list(islice(batches.epoch(0), 2))
    tracemalloc.start()
    try:
        seen = torch.cat(
            [x for (x,) in [*islice(batches.epoch(1), 3), *islice(batches.epoch(1, 7_812_498), 3)]]
        ).flatten()
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    assert len(seen.unique()) == 5 * 128
    assert 0.4e9 < seen.mean() < 0.6e9


@pytest.mark.parametrize("n", [1, 16, 17, 40, 20000])
def test_an_epoch_can_start_at_any_batch(n):
    batches = Batches(torch.arange(float(n))[:, None], batch_size=16, seed=4)
    whole_epoch = list(batches.epoch(2))
    assert len(whole_epoch) == batches.steps
    assert torch.equal(torch.cat([x for (x,) in whole_epoch]).flatten().sort().values, torch.arange(float(n)))
    for start in {0, batches.steps // 2, batches.steps - 1, batches.steps}:
        later = list(batches.epoch(2, start))
        assert len(later) == batches.steps - start
        assert all(torch.equal(a, b) for (a,), (b,) in zip(later, whole_epoch[start:], strict=True))


def mapped(folder, x, mode="r"):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode=mode)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_training_on_a_memmap_equals_training_in_memory(tmp_path, dtype):
    """The same losses and weights bit for bit, with binary values sampled in each batch, for files of any type."""
    levels = (X * 0.5 + 0.25 if dtype != "uint8" else X * 200).numpy().astype(dtype)

    def present(x):
        return DrawBits()(x.float() / 255 if dtype == "uint8" else x.float())

    found = []
    for x in (torch.from_numpy(levels), mapped(tmp_path, levels)):
        torch.manual_seed(0)
        vae = make_vae()
        history = pv.fit(vae, Split(x, transform=present), valid=X, epochs=2, batch_size=16, progress=False)
        found.append((history["loss"], history["valid_bound"], torch.cat([p.flatten() for p in vae.parameters()])))
    assert found[0][:2] == found[1][:2]
    assert torch.equal(found[0][2], found[1][2])


def test_all_rows_of_a_memmap_are_checked(tmp_path, vae, monkeypatch):
    """In chunks of bounded size."""
    monkeypatch.setattr("pyro_vae.training.data.batches.CHUNK_BYTES", 64 * 8 * 8 * 4)
    bad = X.numpy().copy()
    bad[298, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"x\[42, 1, 2\].*row 256"):
        pv.fit(vae, mapped(tmp_path, bad), batch_size=16, progress=False)
    assert {len(x) for (x,) in Batches(mapped(tmp_path, bad), batch_size=16).chunks()} == {64, 300 - 256}


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("pyro_vae")]


def test_threads_are_stopped_after_training(tmp_path, vae):
    x = mapped(tmp_path, X.numpy())
    pv.fit(vae, x, valid=x, epochs=1, progress=False)
    assert not threads()

    def stop(metrics, step):
        assert threads()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        pv.fit(vae, x, epochs=2, progress=False, callbacks=[stop])
    assert not threads(), caught


def test_read_ahead_keeps_the_order():
    def slow(i):
        time.sleep(0.002 * (7 * i % 5))
        return i

    ahead = ReadAhead(slow)
    assert list(ahead(range(40))) == list(range(40))
    ahead.close()


def test_an_error_is_raised_in_place_of_its_result():
    done = []

    def fail_at_5(i):
        if i == 5:
            raise OSError("the disk is gone")
        return i

    ahead = ReadAhead(fail_at_5)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        done.extend(ahead(range(100)))
    assert done == [0, 1, 2, 3, 4]
    assert caught.traceback[-1].name == "fail_at_5"
    ahead.close()


def test_few_jobs_are_started_ahead():
    asked = iter(range(1000))
    ahead = ReadAhead(abs, depth=3)
    for _ in zip(range(2), ahead(asked)):  # noqa: B905
        pass
    ahead.close()
    assert next(asked) <= 2 + 3 + 1


def resident(array):
    """KiB of a mapped file in the memory of this process."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(str(Path(array.filename).resolve())))
    return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs the memory map of Linux")
def test_pages_are_released(tmp_path, monkeypatch):
    """All of a file of 50 MiB stays in memory unless its pages are released."""
    x = mapped(tmp_path, np.ones((16384, 784), np.float32))
    for bound, expected in ((2**40, lambda kib: kib > 40_000), (2**22, lambda kib: kib < 8192)):
        monkeypatch.setattr(mapped_rows, "RESIDENT", bound)
        batches = Batches(x, batch_size=64)
        assert sum(len(b) for (b,) in batches.epoch(0)) == 16384
        batches.close()
        assert expected(resident(x))


def test_writes_to_a_private_map_are_kept(tmp_path, monkeypatch):
    """They exist only in its pages, which must not be released."""
    monkeypatch.setattr(mapped_rows, "RESIDENT", 0)
    x = mapped(tmp_path, np.zeros((500, 100), np.float32), mode="c")
    x[7] = 1.0
    rows = Mapped(x)
    for _ in range(2):
        assert rows.read(np.array([7, 8])).sum(1).tolist() == [100.0, 0.0]
    assert rows.map is None
    assert isinstance(Mapped(mapped(tmp_path, np.zeros((5, 2)))[1:, :1]).map, mmap.mmap)
