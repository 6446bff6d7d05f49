"""The command on every kind of file: what it chooses and prints, and that new files of the kind fit its runs."""

import numpy as np
import pytest
from helpers.small_tables import NAMES, TINY, read_csv, table_rows, train, write_csv

from pyro_vae.cli import main
from pyro_vae.config import run


def chosen(folder, capsys, *options):
    """Train on data, and return the configuration and what was printed."""
    capsys.readouterr()
    train(folder / "run", *options)
    return run.read(folder / "run"), capsys.readouterr().out


def apply(folder, command, data, output, *options):
    """Apply a run to a file."""
    words = [command, folder / "run", data, "--output", folder / output, "--quiet", *options]
    assert main([*map(str, words)]) == 0
    return np.load(folder / output) if output.endswith(".npy") else read_csv(folder / output)


def pictures(folder, n, shape):
    image = pytest.importorskip("PIL.Image", reason="needs the extra images")
    x = np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
    for i, array in enumerate(x):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(array).save(path)
    return folder


def test_folder_of_images(tmp_path, capsys):
    """Colours come first; bytes in [0, 1] get a continuous Bernoulli; the same folder fits the run."""
    data = pictures(tmp_path / "photos", 20, (4, 6, 3))
    config, out = chosen(tmp_path, capsys, f"--data={data}")
    assert (config["shape"], config["likelihood"]["name"]) == ([3, 4, 6], "ContinuousBernoulli")
    for said in ("images: 20 files, in colour, 4 x 6", "levels 0 to 255, divided by 255", "2 classes: a, b"):
        assert said in out
    assert apply(tmp_path, "score", data, "scores.npy").shape == (20,)
    assert apply(tmp_path, "reconstruct", data, "x.npy").shape == (20, 3, 4, 6)
    assert main(["evaluate", str(tmp_path / "run"), "--num-particles=3", "--gaps=1", "--quiet"]) == 0


def test_size_of_images(tmp_path, capsys):
    data = pictures(tmp_path / "photos", 20, (4, 6))
    config, out = chosen(tmp_path, capsys, f"--data={data}", "--size=3")
    assert config["shape"] == [3, 3]
    assert "resized: 20 images to 3 x 3" in out
    assert apply(tmp_path, "score", data, "scores.npy").shape == (20,)
    np.save(tmp_path / "new.npy", np.zeros((2, 3, 3), np.float32))
    assert apply(tmp_path, "score", tmp_path / "new.npy", "more.npy").shape == (2,)


def test_labels_of_folders(tmp_path, capsys):
    data = pictures(tmp_path / "photos", 20, (4, 6))
    config, _ = chosen(tmp_path, capsys, f"--data={data}", "--program=SemiSupervised")
    assert config["classes"] == ["a", "b"]
    names, rows = apply(tmp_path, "classify", data, "classes.csv")
    assert (names, len(rows)) == (["file", "a", "b", "class"], 20)


def test_parquet(tmp_path, capsys):
    """A table of pandas with a row index, an empty row and an empty column is read; both are reported."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="needs the extra tables")
    rows = table_rows()
    frame = pandas.DataFrame({n: [r[i] for r in rows] for i, n in enumerate(NAMES[:2])}).astype({"age": float})
    frame["none"] = pandas.Series([None] * len(frame), dtype="Int64")
    frame.loc[3, ["age", "colour"]] = None
    frame.reset_index(names="Unnamed: 0").to_parquet(tmp_path / "a.parquet")
    config, out = chosen(tmp_path, capsys, f"--data={tmp_path / 'a.parquet'}", "--missing")
    assert [c["options"]["name"] for c in config["columns"]] == ["age", "colour"]
    for said in (
        "column 'Unnamed: 0'",
        "1 row without any value: 3",
        "1 column without any value: none",
        "Heterogeneous",
    ):
        assert said in out
    frame.drop(3).to_parquet(tmp_path / "b.parquet")
    assert apply(tmp_path, "score", tmp_path / "b.parquet", "scores.npy").shape == (59,)
    names, found = apply(tmp_path, "impute", tmp_path / "b.parquet", "filled.csv", "--num-particles=5")
    assert set(NAMES[:2]) <= set(names)
    assert len(found) == 59


def test_compressed_table(tmp_path, capsys):
    import gzip

    path = write_csv(tmp_path / "a.csv", NAMES, table_rows())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    config, _ = chosen(tmp_path, capsys, f"--data={tmp_path / 'a.csv.gz'}", "--label=group")
    assert len(config["columns"]) == 4


@pytest.mark.parametrize("bad", ["empty", "damaged"])
def test_bad_folders_leave_nothing(bad, tmp_path, capsys):
    data = tmp_path / "photos"
    data.mkdir()
    if bad == "damaged":
        pictures(data, 12, (4, 6))
        (data / "a" / "zz.png").write_bytes(b"text")
    capsys.readouterr()
    assert main(["train", *TINY, f"--data={data}", f"--run-dir={tmp_path / 'run'}"]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert ("zz.png" if bad == "damaged" else "folder of images") in err
    assert not (tmp_path / "run").exists()


def test_h5ad(tmp_path, capsys):
    """Counts of cells get a program with a library size; a cell without counts is left out."""
    anndata = pytest.importorskip("anndata", reason="needs the extra singlecell")
    sparse = pytest.importorskip("scipy.sparse")
    x = np.random.default_rng(0).poisson(2.0, (40, 6)).astype(np.float32)
    x[5] = 0
    anndata.AnnData(sparse.csr_matrix(x)).write_h5ad(tmp_path / "a.h5ad")
    data = tmp_path / "a.h5ad"
    config, out = chosen(tmp_path, capsys, f"--data={data}")
    assert (config["program"]["name"], config["likelihood"]["name"]) == ("CountVAE", "NegativeBinomial")
    for said in ("1 row without any count: 5", "6 genes", "as the data are sparse counts"):
        assert said in out
    np.save(tmp_path / "new.npy", x[:5].astype(int))
    assert np.isfinite(apply(tmp_path, "score", tmp_path / "new.npy", "scores.npy")).all()
    config, _ = chosen(tmp_path / "plain", capsys, f"--data={data}", "--program=VAE")
    assert config["program"]["name"] == "VAE"


def test_integers_are_counts(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).poisson(1000.0, (40, 6)))
    config, out = chosen(tmp_path, capsys, f"--data={tmp_path / 'a.npy'}")
    assert (config["program"]["name"], config["likelihood"]["name"]) == ("VAE", "NegativeBinomial")
    assert "as the data are counts" in out
    assert np.isfinite(apply(tmp_path, "score", tmp_path / "a.npy", "scores.npy")).all()


@pytest.mark.slow
def test_columns_of_an_array_are_standardized(tmp_path, capsys):
    """Units of columns do not matter: the log-likelihoods differ by the logarithms of the units alone."""
    rng, units = np.random.default_rng(0), np.array([1e-3, 1.0, 1e3, 1e6])
    x = (rng.normal(size=(200, 1)) + 0.5 * rng.normal(size=(200, 4))).astype(np.float32)
    scores = []
    for name, scale in (("plain", np.ones(4)), ("units", units)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", x * scale + 3 * scale)
        config, out = chosen(tmp_path / name, capsys, f"--data={tmp_path / name / 'a.npy'}", "--epochs=30")
        assert config["likelihood"]["name"] == "Heterogeneous"
        for said in ("column  type  unit (std)", "as the data are real columns", "missing"):
            assert said in out
        scores.append(apply(tmp_path / name, "score", tmp_path / name / "a.npy", "s.npy").mean())
        assert apply(tmp_path / name, "reconstruct", tmp_path / name / "a.npy", "r.npy").shape == (200, 4)
        assert apply(tmp_path / name, "embed", tmp_path / name / "a.npy", "e.npy").shape == (200, 2, 2)
        words = [
            "sample",
            str(tmp_path / name / "run"),
            "--quiet",
            "--output",
            str(tmp_path / name / "new.npy"),
            "--mean",
        ]
        assert main(words) == 0
        assert np.load(tmp_path / name / "new.npy").shape == (16, 4)
    assert scores[1] - scores[0] == pytest.approx(np.log(units).sum(), abs=0.1)
    assert scores[0] < 10


def test_holes_of_an_array(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(60, 3)) * [1e-3, 1, 1e5]
    x[::4, 1] = np.nan
    np.save(tmp_path / "a.npy", x)
    _, out = chosen(tmp_path, capsys, f"--data={tmp_path / 'a.npy'}", "--missing")
    assert any(line.split()[:2] == ["1", "Real"] and line.split()[-1] == "15" for line in out.splitlines())
    filled = apply(tmp_path, "impute", tmp_path / "a.npy", "filled.npy", "--num-particles=5")
    assert np.isfinite(filled).all()
    assert np.array_equal(filled[1::4], x[1::4].astype(np.float32))
    write_csv(tmp_path / "a.csv", ["a", "b", "c"], [[f"{v:.6g}" for v in row] for row in x[1:4]])
    assert len(apply(tmp_path, "score", tmp_path / "a.csv", "scores.npy")) == 3


def test_a_chosen_likelihood_models_the_array_as_it_is(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 3)))
    config, _ = chosen(tmp_path, capsys, f"--data={tmp_path / 'a.npy'}", "--likelihood=Normal")
    assert "units" not in config


@pytest.mark.parametrize("dtype", ["float64", *(pytest.param(t, marks=pytest.mark.slow) for t in ("uint8", "int64"))])
def test_files_that_are_read_batch_by_batch(dtype, tmp_path, capsys, monkeypatch):
    """A large file trains the weights of a small one."""
    x = np.random.default_rng(0).integers(0, 256, (40, 4, 4) if dtype == "uint8" else (40, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", x / 7 if dtype == "float64" else x)
    outs, scores = [], []
    for limit in (2**30, 0):
        monkeypatch.setattr("pyro_vae.data.readers.numpy_files.LARGE", limit)
        (folder := tmp_path / str(limit)).mkdir()
        outs.append(chosen(folder, capsys, f"--data={tmp_path / 'a.npy'}")[1])
        scores.append(apply(folder, "score", tmp_path / "a.npy", "scores.npy"))
    assert ["batch by batch" in out for out in outs] == [False, True]
    assert np.allclose(*scores, rtol=1e-4)
