"""The loop over data: the same results for every form of data, bounded memory, streams read once, nothing changed."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_vae.evaluation import over
from pyro_vae.testing import LinearGaussian


class Stream(IterableDataset):
    """Rows that can be read once."""

    def __init__(self, x):
        self.x, self.reads = x, 0

    def __iter__(self):
        self.reads += 1
        yield from self.x


@pytest.fixture
def toy():
    return LinearGaussian()


def memmap(x, tmp_path):
    rows = np.memmap(tmp_path / "x", dtype=np.float64, mode="w+", shape=tuple(x.shape))
    rows[:] = x.numpy()
    return rows


FORMS = {
    "numpy": lambda x, _: x.numpy(),
    "memmap": memmap,
    "tuple": lambda x, _: (x,),
    "dataset": lambda x, _: TensorDataset(x),
    "loader": lambda x, _: DataLoader(TensorDataset(x), batch_size=7),
    "stream": lambda x, _: Stream(x),
}


@pytest.mark.parametrize("form", FORMS)
def test_results_are_those_of_all_rows_at_once(toy, form, tmp_path):
    """Nested results of every form of data, in the order of the rows."""
    x = toy.draw(300)

    def function(rows, *context):
        return {"mean": toy.program.encode(rows).mean, "rows": (rows, [rows.sum(-1)])}

    with torch.no_grad():
        expected = function(x)
    found = over.over(toy.program, FORMS[form](x, tmp_path), function, num_particles=1000)
    assert torch.allclose(found["mean"], expected["mean"])
    assert torch.equal(found["rows"][0], x)
    assert torch.allclose(found["rows"][1][0], expected["rows"][1][0])


def test_context_comes_with_its_rows(toy):
    toy.program.check = lambda *batch: None
    x = toy.draw(20)
    found = over.over(toy.program, (x, torch.arange(20)), lambda x, c: (x, c), batch_size=3)
    assert torch.equal(found[0], x)
    assert torch.equal(found[1], torch.arange(20))


def test_memory_is_bounded(toy, monkeypatch):
    """Examples times particles times entries (512 at least) stay within the budget, and `batch_size` is a maximum."""
    monkeypatch.setattr(over, "BUDGET", 512 * 12)
    sizes = []

    def function(x):
        sizes.append(len(x))
        return x

    for options, size in (
        ({}, 12),
        ({"num_particles": 3}, 4),
        ({"num_particles": 100}, 1),
        ({"batch_size": np.int64(5)}, 5),
    ):
        sizes.clear()
        over.over(toy.program, DataLoader(Stream(toy.draw(20)), batch_size=10), function, **options)
        assert max(sizes) == min(size, 10)
        sizes.clear()
        over.over(toy.program, toy.draw(20), function, **options)
        assert max(sizes) == size
    assert over.passes(toy.draw(4), 7) == [3, 3, 1]
    assert over.passes(torch.zeros(1, 4096), 3) == [1, 1, 1]


def test_a_stream_is_read_once(toy):
    stream = Stream(toy.draw(20))
    over.over(toy.program, stream, lambda x: x)
    assert stream.reads == 1


def test_a_dataset_is_read_once(toy):
    """Also where an example is wrong, which is then found when it is read."""
    x = toy.draw(20)
    reads = []

    class Rows(Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            reads.append(i)
            return x[i]

    assert torch.equal(over.over(toy.program, Rows(), lambda x: x), x)
    assert reads == list(range(20))
    x[17] = torch.nan
    with pytest.raises(ValueError, match="x: "):
        over.over(toy.program, Rows(), lambda x: x)


def test_modes_gradients_and_random_state(toy):
    """Evaluation mode, no gradients and a seed inside; everything restored outside, also after an error."""
    toy.program.train()
    toy.program.posterior.eval()
    modes = [m.training for m in toy.program.modules()]
    state = torch.get_rng_state()

    def function(x):
        assert not torch.is_grad_enabled()
        assert not any(m.training for m in toy.program.modules())
        return torch.randn(len(x))

    first, same, other = (over.over(toy.program, toy.draw(9), function, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    with pytest.raises(ZeroDivisionError):
        over.over(toy.program, toy.draw(9), lambda x: 1 / 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in toy.program.modules()] == modes
    assert torch.is_grad_enabled()


def test_data_are_checked_before_the_work(toy):
    """A bad row near the end of long data: `function` was not called, and the row number is that of the data."""
    x, calls = toy.draw(5000), []
    x[4500, 0] = torch.nan
    with pytest.raises(ValueError, match="404.*row 4,096"):
        over.over(toy.program, x, calls.append)
    with pytest.raises(ValueError, match="x: expected"):
        over.over(toy.program, x[:, :2], calls.append)

    def refuse(x):
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        over.over(toy.program, x[:9], calls.append, check=refuse)
    with pytest.raises(ValueError, match=r"\b4\b.*row 4,496"):
        over.over(toy.program, DataLoader(Stream(x), batch_size=16), lambda x: x)
    assert calls == []


def test_no_data(toy):
    with pytest.raises(ValueError, match="x: expected at least one example"):
        over.over(toy.program, Stream([]), lambda x: x)
    with pytest.raises(ValueError, match="batch_size"):
        over.over(toy.program, toy.draw(3), lambda x: x, batch_size=0)


def test_one_batch(toy):
    x = toy.draw(300)
    (found,) = over.one_batch(toy.program, TensorDataset(x))
    assert torch.equal(found, x)
    with pytest.raises(TypeError, match="x: expected rows"):
        over.one_batch(toy.program, Stream(x))
    x[200, 0] = torch.nan
    with pytest.raises(ValueError, match="200"):
        over.one_batch(toy.program, x)
