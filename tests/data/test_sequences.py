"""Sequences as examples: arrays, lists of arrays of different lengths, PackedSequence, and files of them."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import pyro_vae as pv
from pyro_vae.data import read
from pyro_vae.data.tables import Features

LENGTHS = [3, 6, 1, 4, 6, 2]


def sequences(dtype=np.float32):
    """Return six sequences of two channels of different units, one entry of which is missing."""
    g = np.random.default_rng(0)
    found = [(g.normal(size=(n, 2)) * [1.0, 1e3] + [0.0, 5e3]).astype(dtype) for n in LENGTHS]
    found[1][2, 0] = np.nan
    return found


def array():
    """Return them as an array with numbers after the end of each sequence."""
    x = np.full((6, 6, 2), -7.0, np.float32)
    for row, steps in zip(x, sequences(), strict=True):
        row[: len(steps)] = steps
    return x


def npz(folder):
    np.savez(folder / "a.npz", x=array(), lengths=LENGTHS)
    return folder / "a.npz"


SOURCES = {
    "list of arrays": lambda folder: sequences(),
    "list of tensors": lambda folder: [torch.from_numpy(x) for x in sequences()],
    "list of masked arrays": lambda folder: [np.ma.masked_invalid(x) for x in sequences()],
    "PackedSequence": lambda folder: pack_sequence([torch.from_numpy(x) for x in sequences()], enforce_sorted=False),
    "nested tensor": lambda folder: torch.nested.nested_tensor(
        [torch.from_numpy(x) for x in sequences()], layout=torch.jagged
    ),
    "dict with a list": lambda folder: {"x": sequences()},
    "dict with an array": lambda folder: {"x": array(), "lengths": LENGTHS},
    "npz": npz,
}


def program(examples, inputs=0, latent=2):
    """Return a program whose likelihood and encoder work in standardized channels."""
    columns, net = examples.columns, partial(pv.nets.MLP, hidden=(8,))
    return pv.programs.SequenceVAE(
        prior=pv.priors.StandardNormal(latent),
        transition=pv.priors.ConditionalNormal(latent, context=latent + inputs, net=net),
        likelihood=pv.likelihoods.Heterogeneous(latent, (len(columns),), columns=columns, net=net, context=inputs),
        posterior=pv.posteriors.MeanFieldNormal((6,), latent, context=latent, net=net),
        summary=pv.programs.BackwardGRU(
            (len(columns),), 6, context=inputs, net=partial(Features, columns, net=net, missing=True)
        ),
        inputs=inputs,
        missing=True,
    )


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_sequences(kind, tmp_path):
    found = read(SOURCES[kind](tmp_path))
    assert (found.kind, found.layout, found.shape, found.values) == ("sequence", "tc", (6, 2), "real")
    assert found.lengths.tolist() == LENGTHS
    for row, n, steps in zip(found.x, LENGTHS, sequences(), strict=True):
        assert np.array_equal(row[:n].numpy(), steps, equal_nan=True)
        assert row[n:].isnan().all()
    flat = np.concatenate(sequences()).astype(np.float64)
    assert np.allclose([c.shift for c in found.columns], np.nanmean(flat, 0))
    assert np.allclose([c.scale for c in found.columns], np.nanstd(flat, 0))
    for words in ("6 sequences", "steps 6", "channels 2", "lengths: 1 to 6", "missing"):
        assert words in str(found)


def test_fit_evaluation_and_tasks_take_what_is_read_and_the_source(tmp_path):
    """Numbers are the same for what is read, lists, packed sequences and the tuple (x, lengths)."""
    known = read(sequences())
    bounds = []
    for source in (known, SOURCES["PackedSequence"](tmp_path), npz(tmp_path), (known.x, known.lengths)):
        torch.manual_seed(0)
        made = program(known)
        assert len(pv.fit(made, source, valid=source, epochs=1, batch_size=4, progress=False)) == 1
        found = pv.evaluation.log_likelihood(made, source, num_particles=5, progress=False)
        bounds.append(found.per_example)
        ahead = pv.tasks.forecast(made, source, num_steps=2, num_samples=20, progress=False)
        assert ahead.samples.shape == (20, 6, 2, 2)
    assert all(torch.allclose(bounds[0], other, rtol=1e-5) for other in bounds)


def test_standardized_channels_do_not_depend_on_units():
    """Other units shift the log-likelihood by the logarithm of their scale, per observed entry."""
    plain, scaled = read(sequences()), read([x * np.array([1e-3, 1e4], np.float32) for x in sequences()])
    found = []
    for examples in (plain, scaled):
        torch.manual_seed(0)
        made = program(examples)
        pv.fit(made, examples, epochs=2, progress=False)
        found.append(pv.evaluation.log_likelihood(made, examples, num_particles=20, progress=False).per_example)
    counts = (~plain.x.isnan()).sum(1).double()
    shift = counts @ torch.tensor([1e-3, 1e4]).double().log()
    assert torch.allclose(found[1] + shift, found[0].double(), atol=1e-3)


def test_inputs_come_with_the_sequences(tmp_path):
    """They may be longer than the sequences, for forecasts."""
    inputs = [np.full((n + 2, 1), float(n)) for n in LENGTHS]
    found = read({"x": sequences(), "inputs": inputs})
    assert found.inputs.shape == (6, 8, 1)
    assert found.inputs[2, :3, 0].tolist() == [1.0] * 3
    made = program(found, inputs=1)
    assert len(pv.fit(made, found, epochs=1, progress=False)) == 1
    assert pv.tasks.forecast(made, found, num_steps=2, num_samples=5, progress=False).samples.shape == (5, 6, 2, 2)
    np.savez(tmp_path / "b.npz", x=array(), lengths=LENGTHS, inputs=found.inputs.nan_to_num(0.0))
    assert read(tmp_path / "b.npz").inputs.shape == (6, 8, 1)


def test_arrays_are_sequences_with_the_layout_tc(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 4, 3))
    x[1, 2, 0] = np.nan
    np.save(tmp_path / "a.npy", x)
    for source in (x, torch.from_numpy(x), list(x), tmp_path / "a.npy", {"x": x}):
        found = read(source, layout="tc")
        assert (found.kind, found.shape, found.lengths.tolist()) == ("sequence", (4, 3), [4] * 5)
        assert read(source, layout="hw").kind == "image"
        with pytest.raises(ValueError, match="^layout: .*'tc'.*'hw'"):
            read(source)
    counts = read(np.arange(24).reshape(2, 4, 3), layout="tc")
    assert (counts.values, counts.x.dtype) == ("real", torch.float32)
    assert read(np.abs(x) / 9).kind == "image"  # grey levels


def test_parts_of_sequences_keep_lengths_inputs_and_units():
    whole = read({"x": sequences(), "inputs": [np.ones((n, 1)) for n in LENGTHS], "y": list("aababb")})
    part = whole[torch.tensor([4, 0])]
    assert (part.lengths.tolist(), part.y.tolist(), part.inputs.shape) == ([6, 3], [1, 0], (2, 6, 1))
    assert part.columns == whole.columns
    assert len(pv.fit(program(whole, inputs=1), whole[:4], valid=part, epochs=1, progress=False)) == 1


def changed(i, value):
    found = sequences()
    found[i] = value
    return found


BAD = {
    "no step": (lambda: changed(2, np.zeros((0, 2))), "^source: .*at least one step.*sequence 2"),
    "no step, array": (lambda: {"x": array(), "lengths": [3, 0, 1, 4, 6, 2]}, "^lengths: .*from 1 to 6.*empty"),
    "too long": (lambda: {"x": array(), "lengths": [3, 7, 1, 4, 6, 2]}, "^lengths: "),
    "lengths of others": (lambda: {"x": array(), "lengths": [3, 6]}, "^lengths: .*6 integers"),
    "channels": (lambda: changed(3, np.zeros((4, 3))), r"^source: .*2 channels.*\(4, 3\) \(sequence 3"),
    "no channels": (lambda: changed(3, np.zeros(4)), r"^source: .*\(steps, channels\).*sequence 3"),
    "all missing": (lambda: changed(4, np.full((6, 2), np.nan)), r"^source: .*observed entry.*x\[4\]"),
    "missing channel": (lambda: [x * [np.nan, 1.0] for x in sequences()], "^source: .*channel 0"),
    "text": (lambda: changed(0, np.array([["a", "b"]])), "^source: .*array of numbers"),
    "few inputs": (lambda: {"x": sequences(), "inputs": [np.ones((3, 1))] * 6}, "^inputs: .*3 steps in sequence 1"),
    "other inputs": (lambda: {"x": sequences(), "inputs": [np.ones((6, 1))] * 5}, "^inputs: .*6 sequences, got 5"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sequences_are_refused(kind):
    make, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        read(make())


def test_options_that_do_not_apply_are_refused():
    for option in ({"layout": "hw"}, {"levels": 255}, {"label": "y"}):
        with pytest.raises(ValueError, match=f"^{next(iter(option))}: "):
            read(sequences(), **option)
