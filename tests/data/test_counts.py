"""Counts from sparse matrices and AnnData: exact rows, labels, covariates, and refusals of other numbers."""

import gzip
import importlib
import tracemalloc

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data import read
from pyro_vae.data.readers import cells

sparse = pytest.importorskip("scipy.sparse", reason="needs scipy")
from scipy.io import mmwrite  # noqa: E402

X = np.random.default_rng(0).poisson(0.6, (12, 5))
X[:, 0] += 1


def anndata(x=X, **layers):
    module = pytest.importorskip("anndata", reason="needs the extra singlecell")
    pandas = pytest.importorskip("pandas")
    found = module.AnnData(x if sparse.issparse(x) else np.asarray(x, np.float32))
    found.obs["kind"] = pandas.Categorical(["b", "a"] * (len(found) // 2))
    found.obs["batch"] = [f"run {i % 3}" for i in range(len(found))]
    for name, layer in layers.items():
        found.layers[name] = layer
    return found


def file_of(folder, found):
    found.write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


def backed(folder, make):
    path = file_of(folder, anndata(make(X.astype(np.float32))))
    return importlib.import_module("anndata").read_h5ad(path, backed="r")


def packed(make):
    def save(folder):
        sparse.save_npz(folder / "a.npz", make(X))
        return folder / "a.npz"

    return save


def market(folder):
    mmwrite(folder / "a.mtx", sparse.csr_matrix(X))
    return folder / "a.mtx"


def market_gz(folder):
    (folder / "a.mtx.gz").write_bytes(gzip.compress(market(folder).read_bytes()))
    return folder / "a.mtx.gz"


SOURCES = {
    "csr": lambda folder: sparse.csr_matrix(X),
    "csc": lambda folder: sparse.csc_matrix(X),
    "coo array": lambda folder: sparse.coo_array(X),
    "floats": lambda folder: sparse.csr_matrix(X.astype(np.float32)),
    ".npz of csr": packed(sparse.csr_matrix),
    ".npz of csc": packed(sparse.csc_matrix),
    ".npz of coo": packed(sparse.coo_matrix),
    ".mtx": market,
    ".mtx.gz": market_gz,
    "AnnData": lambda folder: anndata(),
    "AnnData, sparse": lambda folder: anndata(sparse.csr_matrix(X.astype(np.float32))),
    ".h5ad": lambda folder: file_of(folder, anndata()),
    ".h5ad, sparse": lambda folder: file_of(folder, anndata(sparse.csr_matrix(X.astype(np.float32)))),
    ".h5ad, by column": lambda folder: file_of(folder, anndata(sparse.csc_matrix(X.astype(np.float32)))),
    "AnnData in a file": lambda folder: backed(folder, np.asarray),
    "AnnData in a file, sparse": lambda folder: backed(folder, sparse.csr_matrix),
}


def program(context=0):
    torch.manual_seed(0)
    net = lambda i, o, context=0: pv.nets.MLP(i, o, hidden=(4,), context=context)  # noqa: E731
    return pv.programs.CountVAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.NegativeBinomial(2, (5,), context=context + 1, library=True, net=net),
        posterior=pv.posteriors.MeanFieldNormal((5,), 2, context=context, net=net),
    )


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", SOURCES)
def test_counts(kind, large, tmp_path, monkeypatch):
    """Every source gives the same rows and, trained on, the weights of dense rows."""
    if large and "file" not in kind and "h5ad" not in kind:
        pytest.skip("in memory")
    monkeypatch.setattr(cells, "LARGE", 0 if large else 2**30)
    source = SOURCES[kind](tmp_path)
    found = read(source)
    assert ("batch by batch" in str(found)) is large
    assert (found.kind, found.values, found.shape, len(found)) == ("counts", "sparse counts", (5,), 12)
    assert found.batch().tolist() == X.tolist()
    assert found.batch(slice(2, 4)).dtype == torch.float32
    weights = []
    for data in (source, found, torch.from_numpy(X).float()):
        vae = program()
        pv.fit(vae, data, epochs=2, batch_size=5, progress=False)
        weights.append(torch.cat([p.flatten() for p in vae.parameters()]))
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[1], weights[2])
    assert pv.tasks.embed(program(), source, progress=False).mean.shape == (12, 2)


def test_a_batch_is_made_dense_alone(monkeypatch):
    """No more rows than those of a batch are dense at a time."""
    from pyro_vae.data.readers.sparse import SparseRows

    sizes, own = [], SparseRows.read
    monkeypatch.setattr(SparseRows, "read", lambda self, index: sizes.append(len(index)) or own(self, index))
    wide = sparse.random(600, 40_000, 0.001, random_state=0, format="csr")
    wide.data = np.ceil(wide.data)
    found = read(wide)
    assert max(sizes) <= 256
    sizes.clear()
    batches = pv.training.data.batches.Batches(found, batch_size=50)
    assert [len(x) for (x,) in batches.epoch(0)] == [50] * 12
    assert sizes == [50] * 12
    batches.close()


@pytest.mark.parametrize("key", [None, "counts"])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_a_file_of_cells_larger_than_memory(make, key, tmp_path, monkeypatch):
    """Reading, checking and training take less than half of the memory of the matrix."""
    x = np.random.default_rng(0).poisson(1.0, (10_000, 600)).astype(np.float32)
    path = file_of(tmp_path, anndata(make(x)) if key is None else anndata(x / 2, counts=make(x)))
    monkeypatch.setattr(cells, "LARGE", 2**20)
    monkeypatch.setattr(pv.training.data.batches, "CHUNK", 256)
    tracemalloc.start()
    found = read(path, key=key, label="kind")
    batches = pv.training.data.batches.Batches(found, batch_size=100)
    for order in (batches.epoch(0), batches.chunks()):
        assert sum(float(rows.sum()) for (rows,) in order) == x.sum(dtype=float)
    batches.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 2 < path.stat().st_size
    some = torch.tensor([7, 3, 3, 9_999])
    assert found[some].batch().tolist() == x[some].tolist()


def test_layers_labels_and_covariates(tmp_path):
    source = anndata(np.log1p(X), counts=sparse.csr_matrix(X), spliced=X)
    for stored in (source, file_of(tmp_path, source)):
        found = read(stored, key="counts", label="kind", covariates=["batch"])
        assert found.batch().tolist() == X.tolist()
        assert (found.classes, found.y[:4].tolist()) == (("a", "b"), [1, 0, 1, 0])
        assert found.context[:3].tolist() == torch.eye(3).tolist()
        assert "batch=run 0, batch=run 1" in str(found)
        assert len(pv.fit(program(context=3), found, epochs=1, progress=False)) == 1
    with pytest.raises(ValueError, match=r"got \d\.\d+ in row .*key names a layer"):
        read(source)


def test_rows_without_counts_are_left_out():
    x = X.copy()
    x[3] = 0
    x[:, 2] = 0
    found = read(sparse.csr_matrix(x))
    assert found.batch().tolist() == np.delete(x, 3, 0).tolist()
    assert any("1 row without any count: 3 " in note for note in found.notes)
    assert any("1 column of 5 without any count" in note for note in found.notes)
    assert len(read(sparse.csr_matrix(x), keep_empty=True)) == 12
    labelled = read(anndata(x), label="kind", covariates=["batch"])
    assert len(labelled.y) == len(labelled.context) == 11


def changed(value):
    x = X.astype(float)
    x[2, 3] = value
    return sparse.csr_matrix(x)


REFUSED = {
    "a fraction": (lambda folder: changed(0.5), {}, "got 0.5 in row 2, column 3"),
    "a negative number": (lambda folder: changed(-1), {}, "got -1 in row 2, column 3"),
    "NaN": (lambda folder: changed(np.nan), {}, "got nan in row 2, column 3"),
    "zeros": (lambda folder: sparse.csr_matrix((5, 4)), {}, "5 rows of zeros"),
    "no rows": (lambda folder: sparse.csr_matrix((0, 4)), {}, r"got shape \(0, 4\)"),
    "layout": (lambda folder: changed(1), {"layout": "hw"}, "layout: "),
    "types": (lambda folder: changed(1), {"types": {"0": "Count"}}, "types: "),
    "unknown layer": (lambda folder: anndata(a=X), {"key": "b"}, r"key: .*\(a\)"),
    "unknown label": (lambda folder: anndata(), {"label": "type"}, "label: .*kind, batch"),
    "unknown covariate": (lambda folder: anndata(), {"covariates": ["run"]}, "covariates: .*kind, batch"),
    "damaged .mtx": (lambda folder: (folder / "a.mtx").write_text("a") and folder / "a.mtx", {}, r"a\.mtx: .*damaged"),
    "damaged .h5ad": (
        lambda folder: anndata() and (folder / "a.h5ad").write_text("a") and folder / "a.h5ad",
        {},
        r"a\.h5ad: .*damaged",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals(kind, tmp_path):
    make, options, said = REFUSED[kind]
    source = make(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){said}") as raised:
        read(source, **options)
    assert "\n" not in str(raised.value)
