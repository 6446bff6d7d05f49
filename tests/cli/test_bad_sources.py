"""Bad files: one sentence that names the file, row or column and the way out, before training; nothing is written."""

import re

import numpy as np
import pytest

import pyro_vae as pv
from pyro_vae.cli import main

X = np.random.default_rng(0).poisson(2.0, (24, 6))


def images(folder, *made):
    image = pytest.importorskip("PIL.Image", reason="needs the extra images")
    for i, (mode, size) in enumerate(made):
        image.new(mode, size, 128).save(folder / f"{i}.png")
    return folder


def corrupt(folder):
    images(folder, *[("L", (8, 8))] * 12)
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:40])
    return folder


def text(folder, *lines):
    (folder / "a.csv").write_text("\n".join([*lines, ""]))
    return folder / "a.csv"


def array(folder, x):
    np.save(folder / "a.npy", x)
    return folder / "a.npy"


def counts(folder, row, column, value):
    sparse = pytest.importorskip("scipy.sparse", reason="needs scipy")
    x = X.astype(float)
    x[row, column] = value
    sparse.save_npz(folder / "a.npz", sparse.csr_matrix(x))
    return folder / "a.npz"


ROWS = [f"{i}.5,{i % 7}.25" for i in range(24)]
#: The source, options, and what the error says: where it is, and what to do.
CASES = {
    "a corrupt image": (corrupt, {}, r"7\.png: .*damaged.*Remove it"),
    "images of two sizes": (
        lambda folder: images(folder, *[("L", (8, 8))] * 12, ("L", (9, 8))),
        {},
        r"one size and mode, got 0\.png \(grey, 8 x 8\) and .*\.png \(grey, 8 x 9\).*size",
    ),
    "images of two modes": (
        lambda folder: images(folder, *[("L", (8, 8))] * 12, ("RGB", (8, 8))),
        {},
        r"0\.png \(grey, 8 x 8\) and .*\.png \(in colour, 8 x 8\).*Convert",
    ),
    "an empty folder": (lambda folder: folder, {}, "folder of images .* without any"),
    "a column twice": (
        lambda folder: text(folder, "a,b,a", *[f"{r},1" for r in ROWS]),
        {},
        r"a\.csv: .*name a.*Rename",
    ),
    "a missing cell": (lambda folder: text(folder, "a,b", *ROWS, "1.5"), {}, r"a\.csv: .*2 cells.*got 1 in line 26"),
    "no column of the label": (
        lambda folder: text(folder, "a,b", *ROWS),
        {"label": "kind"},
        r"label: .*a\.csv \(a, b\), got kind",
    ),
    "no column to leave out": (
        lambda folder: text(folder, "a,b", *ROWS),
        {"leave_out": ["c"]},
        r"leave.out: .*\(a, b\), got c",
    ),
    "a class per row": (
        lambda folder: text(folder, "a,b,kind", *[f"{r},k{i}" for i, r in enumerate(ROWS)]),
        {"label": "kind"},
        r"label: .*24 classes in 24 rows of .*a\.csv.*Choose",
    ),
    "negative counts": (lambda folder: counts(folder, 3, 2, -1), {}, r"a\.npz: .*-1 in row 3.*column 2.*Pass"),
    "fractional counts": (lambda folder: counts(folder, 3, 2, 0.5), {}, r"a\.npz: .*0.5 in row 3.*column 2.*Pass"),
    "no count at all": (lambda folder: counts(folder, slice(None), slice(None), 0), {}, r"a\.npz: .*24 rows of zeros"),
    "sequences of length 0": (lambda folder: array(folder, np.zeros((24, 0, 2))), {}, r"a\.npy: .*shape \(24, 0, 2\)"),
    "no rows": (lambda folder: array(folder, np.zeros((0, 4))), {}, r"a\.npy: .*shape \(0, 4\)"),
    "text among numbers": (
        lambda folder: text(folder, "a,b", *ROWS, "old,1"),
        {},
        r"a\.csv: column 'a': .*'old' in (row 24|line 26).*Leave such cells empty",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_sources(name, tmp_path, capsys):
    """In Python and by the command, which has the lines of a .csv."""
    make, options, said = CASES[name]
    folder = tmp_path / "data"
    folder.mkdir()
    source = make(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=said) as raised:
        pv.data.read(source, **options)
    assert "\n" not in str(raised.value)
    words = [
        w for key, v in options.items() for w in (f"--{key.replace('_', '-')}", v if isinstance(v, str) else v[0])
    ]
    assert main(["train", "--data", str(source), "--run-dir", str(tmp_path / "run"), "--epochs", "1", *words]) != 0
    output = capsys.readouterr()
    (line,) = [line for line in output.err.splitlines() if "expected" in line]
    assert re.search(said, line)
    assert sorted(tmp_path.rglob("*")) == before


def test_empty_rows_and_columns_of_counts_are_reported(tmp_path):
    """Cells without counts are left out, genes without counts are kept; a training stays finite."""
    sparse = pytest.importorskip("scipy.sparse", reason="needs scipy")
    x = X.copy()
    x[4], x[:, 1] = 0, 0
    found = pv.data.read(sparse.csr_matrix(x))
    assert len(found) == 23
    assert "1 row without any count: 4" in str(found)
    assert "1 column of 6 without any count" in str(found)
    parts = {"likelihood": pv.likelihoods.NegativeBinomial(2, (6,), context=1, library=True)}
    parts["posterior"] = pv.posteriors.MeanFieldNormal((6,), 2)
    vae = pv.programs.CountVAE(prior=pv.priors.StandardNormal(2), **parts)
    assert np.isfinite(pv.fit(vae, found, epochs=2, progress=False)["loss"]).all()
