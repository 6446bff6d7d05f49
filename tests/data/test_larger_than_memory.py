"""Arrays in files of .npy, HDF5 and Zarr, read at once or batch by batch, and examples of torch that are dicts."""

import importlib

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import pyro_vae as pv
from pyro_vae.data import read
from pyro_vae.data.lazy import LazyRows

READERS = [importlib.import_module(f"pyro_vae.data.readers.{name}") for name in ("numpy_files", "hierarchies")]
Y = ["b", "a"] * 10


def npy(folder, x):
    np.save(folder / "a.npy", x)
    return folder / "a.npy"


def hdf5(folder, x):
    module = pytest.importorskip("h5py", reason="needs the extra arrays")
    with module.File(folder / "a.h5", "w") as file:
        file["x"], file["y"] = x, Y
    return folder / "a.h5"


def zarr(folder, x):
    module = pytest.importorskip("zarr", reason="needs the extra arrays")
    group = module.open_group(str(folder / "a.zarr"), mode="w")
    group.create_array("x", data=x)
    group.create_array("y", data=np.arange(20) % 2)
    return folder / "a.zarr"


def zarr_array(folder, x):
    module = pytest.importorskip("zarr", reason="needs the extra arrays")
    module.save(str(folder / "a.zarr"), x)
    return folder / "a.zarr"


FILES = {"npy": npy, "hdf5": hdf5, "zarr": zarr, "zarr of one array": zarr_array}
ARRAYS = {
    "rows": np.random.default_rng(0).normal(size=(20, 5)),
    "images": np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), np.uint8),
    "counts": np.random.default_rng(0).poisson(3.0, (20, 5)),
}


def program(shape):
    torch.manual_seed(0)
    net = lambda i, o: pv.nets.MLP(i, o, hidden=(4,))  # noqa: E731
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=net),
    )


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("what", ARRAYS)
@pytest.mark.parametrize("kind", FILES)
def test_files_of_arrays(kind, what, large, tmp_path, monkeypatch):
    """Small and large files give the rows of the array in memory and, trained on, the same weights."""
    for module in READERS:
        monkeypatch.setattr(module, "LARGE", 0 if large else 2**30)
    x = ARRAYS[what]
    path = FILES[kind](tmp_path, x)
    found, known = read(path), read(x)
    assert isinstance(found.x, LazyRows) is large
    assert (found.shape, found.values, found.layout) == (known.shape, known.values, known.layout)
    assert torch.equal(found.batch(), known.batch())
    order = torch.tensor([7, 3, 3, 19])
    assert torch.equal(found[order].batch(slice(1, 4)), known[order].batch(slice(1, 4)))
    assert ("batch by batch" in str(found)) is large
    if kind in ("hdf5", "zarr"):
        assert found.y.tolist() == ([1, 0] * 10 if kind == "hdf5" else [0, 1] * 10)
    weights = []
    for data in (found, known):
        vae = program(found.shape)
        pv.fit(vae, data, epochs=2, batch_size=6, progress=False)
        weights.append(torch.cat([p.flatten() for p in vae.parameters()]))
    assert torch.equal(*weights)


def several(folder):
    module = pytest.importorskip("h5py", reason="needs the extra arrays")
    with module.File(folder / "a.h5", "w") as file:
        file["a"], file["b"] = ARRAYS["rows"], ARRAYS["counts"]
    return folder / "a.h5"


def test_arrays_by_name(tmp_path):
    path = several(tmp_path)
    assert read(path, key="b").batch().tolist() == ARRAYS["counts"].tolist()
    with pytest.raises(ValueError, match="key: .*a, b.*got several"):
        read(path)
    with pytest.raises(ValueError, match="key: .*a, b.*got 'c'"):
        read(path, key="c")


@pytest.mark.parametrize("name", ["a.h5", "a.zarr"])
def test_damaged_files(name, tmp_path):
    pytest.importorskip({"a.h5": "h5py", "a.zarr": "zarr"}[name], reason="needs the extra arrays")
    with pytest.raises(OSError, match=name):
        read(tmp_path / name)
    (tmp_path / name).write_text("text")
    with pytest.raises(ValueError, match=rf"{name}: .*damaged"):
        read(tmp_path / name)


class Named(Dataset):
    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return {name: torch.from_numpy(ARRAYS["rows"][i]).float() for name in self.names}


def test_examples_of_torch_are_dicts():
    x = torch.from_numpy(ARRAYS["rows"]).float()
    known = pv.evaluation.log_likelihood(program((5,)), x, num_particles=5, progress=False).per_example
    for data in (Named("x"), DataLoader(Named("x"), batch_size=6)):
        found = pv.evaluation.log_likelihood(program((5,)), data, num_particles=5, progress=False).per_example
        assert found.shape == known.shape
        assert len(pv.fit(program((5,)), data, epochs=1, progress=False)) == 1
    with pytest.raises(ValueError, match="data: expected 'x' .*image, label"):
        pv.fit(program((5,)), Named("image", "label"), epochs=1, progress=False)
    with pytest.raises(ValueError, match="context: expected none"):
        pv.fit(program((5,)), Named("label", "x"), epochs=1, progress=False)
