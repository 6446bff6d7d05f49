"""Data sets by name: their content, splits, binarizations and downloads."""

import gzip
import hashlib
import io
import os
import random
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from pyro_vae.data import Dataset, DrawBits, Split, Threshold, fetch, load, names, sources
from pyro_vae.data.fetch import parse_amat, parse_idx

# Labels 0 to 9 in the published training and test files.
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.fixture(scope="module")
def shared():
    """Return the folder of the data files, and set PYRO_VAE_DATA to it for this module."""
    folder = Path(os.environ.get("PYRO_VAE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the data files: set PYRO_VAE_DATA (there is no folder {folder})")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_VAE_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def mnist(shared):
    return load("mnist")


@pytest.fixture(scope="module")
def mnist_static(shared):
    return load("mnist_static")


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Serve the files of a dict from file name to bytes at the public addresses, with an empty cache."""
    content = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = content.get(self.path.rpartition("/")[2])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.delenv("PYRO_VAE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    for folder in fetch.ADDRESSES:
        address = f"http://127.0.0.1:{server.server_port}/{folder}/"
        monkeypatch.setitem(fetch.ADDRESSES, folder, address)
    yield content
    server.shutdown()
    thread.join()
    server.server_close()


def rows(dataset):
    return torch.cat([split.x for split in dataset.splits]).flatten(1).numpy()


def within_four_errors(bits, grey):
    error = (grey.double() * (1 - grey.double())).sum().sqrt()
    return (bits.double().sum() - grey.double().sum()).abs() < 4 * error


def test_small_mnist_is_part_of_mnist():
    """Each image and its label are in the same split of MNIST; classes are equally frequent, no image occurs twice."""
    small = load("mnist_small")
    assert [len(split) for split in small.splits] == [5000, 500, 500]
    assert small.shape == (28, 28)
    for split in small.splits:
        assert torch.bincount(split.y).tolist() == [len(split) // 10] * 10
    assert len(np.unique(rows(small), axis=0)) == 6000
    if "PYRO_VAE_DATA" not in os.environ:
        pytest.skip("needs MNIST: set PYRO_VAE_DATA")
    for ours, whole in zip(small.splits, load("mnist").splits, strict=True):
        labels = {x.tobytes(): int(y) for x, y in zip(whole.x.numpy(), whole.y, strict=True)}
        assert [labels[x.tobytes()] for x in ours.x.numpy()] == ours.y.tolist()


def test_digits_are_those_of_scikit_learn():
    given = pytest.importorskip("sklearn.datasets").load_digits()
    order = np.random.default_rng(0).permutation(1797)
    digits = load("digits")
    assert [len(split) for split in digits.splits] == [1297, 200, 300]
    assert (rows(digits) == given.data[order] / 16).all()
    assert (torch.cat([split.y for split in digits.splits]).numpy() == given.target[order]).all()
    assert digits.train.x.dtype == torch.float32
    assert digits.train.y.dtype == torch.int64
    assert digits.shape == (8, 8)
    assert digits.kind == "grey"
    assert len(np.unique(rows(digits), axis=0)) == 1797  # so no image is in two splits
    # the same splits in every version
    assert [split.y[:4].tolist() for split in digits.splits] == [[6, 6, 6, 2], [1, 7, 6, 5], [6, 5, 5, 0]]


def test_mnist(mnist, shared):
    assert [len(split) for split in mnist.splits] == [50000, 10000, 10000]
    both = torch.cat([mnist.train.y, mnist.valid.y])
    assert both.bincount().tolist() == MNIST_TRAIN
    assert mnist.test.y.bincount().tolist() == MNIST_TEST
    for split in mnist.splits:
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
        assert (split.x.min(), split.x.max()) == (0, 1)
    raw = parse_idx(gzip.decompress((shared / "mnist" / sources.IDX_NAMES[0]).read_bytes()))
    pixels = torch.cat([mnist.train.x[::100], mnist.valid.x[::100]]) * 255
    assert (pixels.round().numpy() == raw[::100]).all()
    assert mnist.test.x.mean().item() == pytest.approx(0.1325, abs=5e-5)
    assert repr(mnist) == ("Dataset('mnist': train 50000, valid 10000, test 10000; shape (28, 28); grey; labels)")


def test_fashion_mnist(shared):
    fashion = load("fashion_mnist")
    assert [len(split) for split in fashion.splits] == [50000, 10000, 10000]
    assert (fashion.train.y.bincount() + fashion.valid.y.bincount()).tolist() == [6000] * 10
    assert fashion.test.y.bincount().tolist() == [1000] * 10
    assert fashion.test.x.mean().item() == pytest.approx(0.2868, abs=5e-5)
    assert fashion.kind == "grey"


def test_mnist_static(mnist_static):
    assert [len(split) for split in mnist_static.splits] == [50000, 10000, 10000]
    assert mnist_static.shape == (28, 28)
    assert mnist_static.kind == "binary"
    for split, ones in zip(mnist_static.splits, (0.13056, 0.13113, 0.13251), strict=True):
        assert split.y is None
        assert ((split.x == 0) | (split.x == 1)).all()
        assert split.x.mean().item() == pytest.approx(ones, abs=5e-6)
    images = {row.tobytes() for row in np.packbits(rows(mnist_static) == 1, axis=1)}
    assert len(images) == 70000  # so no image is in two splits
    with pytest.raises(ValueError, match="binarize: .*mnist_static"):
        load("mnist_static", binarize="dynamic")


@pytest.mark.parametrize("part", [pytest.param("train", marks=pytest.mark.slow), "valid", "test"])
def test_mnist_static_is_the_published_text(mnist_static, part):
    """Written as text, the packed data have the published checksums, and the text is parsed to the same data."""
    bits = getattr(mnist_static, part).x.numpy().astype(np.uint8).reshape(-1, 784)
    text = np.full((len(bits), 1568), ord(" "), np.uint8)
    text[:, ::2] = bits + ord("0")
    text[:, -1] = ord("\n")
    text = text.tobytes()
    assert f"md5:{hashlib.md5(text).hexdigest()}" == sources.STATIC_TEXTS[part].checksum
    assert (parse_amat(text, (784,)) == bits).all()


def test_freyfaces(shared):
    frey = load("freyfaces")
    assert [len(split) for split in frey.splits] == [1565, 200, 200]
    assert frey.shape == (28, 20)
    assert frey.train.y is None
    assert frey.kind == "grey"
    pixels = rows(frey) * 256 - 0.5
    assert (pixels.min(), pixels.max()) == (8, 238)
    assert pixels.mean(dtype=np.float64) == pytest.approx(154.46, abs=5e-3)
    assert len(np.unique(pixels, axis=0)) == 1965  # so no frame is in two splits


@pytest.mark.parametrize("binarize", ["dynamic", "static", "threshold"])
def test_binarizations_keep_labels(binarize):
    grey, bits = load("digits"), load("digits", binarize=binarize)
    assert bits.kind == "binary"
    for before, after in zip(grey.splits, bits.splits, strict=True):
        assert (before.y == after.y).all()
    assert bits.test.x.unique().tolist() == [0, 1]
    assert bits.test.x.dtype == torch.float32


def test_dynamic_samples_again_only_in_training():
    grey, bits, again = load("digits"), *(load("digits", binarize="dynamic") for _ in range(2))
    assert (bits.train.x == grey.train.x).all()
    torch.manual_seed(0)
    first, second = (bits.train.transform(bits.train.x) for _ in range(2))
    assert first.unique().tolist() == [0, 1]
    assert (first != second).any()
    assert within_four_errors(first, grey.train.x)
    torch.manual_seed(0)
    assert (bits.train.transform(bits.train.x) == first).all()
    for split, same in zip(bits.splits[1:], again.splits[1:], strict=True):
        assert split.transform is None
        assert (split.x == same.x).all()


def test_static_samples_once():
    grey, dynamic = load("digits"), load("digits", binarize="dynamic")
    bits, again = (load("digits", binarize="static") for _ in range(2))
    for before, split, same in zip(grey.splits, bits.splits, again.splits, strict=True):
        assert split.transform is None
        assert (split.x == same.x).all()
        assert within_four_errors(split.x, before.x)
    assert (bits.valid.x == dynamic.valid.x).all()
    assert (bits.test.x == dynamic.test.x).all()
    # the same in every version, so that results can be compared
    assert [int(split.x.sum()) for split in bits.splits] == [25384, 3925, 5777]


def test_threshold():
    grey = load("digits")
    assert (load("digits", binarize="threshold").valid.x == (grey.valid.x > 0.5)).all()
    assert (load("digits", binarize=Threshold(0.2)).valid.x == (grey.valid.x > 0.2)).all()


@pytest.mark.parametrize("binarize", [None, "dynamic", "static", "threshold"])
def test_load_keeps_the_global_random_states(binarize):
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    load("digits", binarize=binarize)
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1][1]).all()
    assert np.random.get_state()[2:] == before[1][2:]
    assert random.getstate() == before[2]


def test_unknown_names():
    with pytest.raises(ValueError, match=r"name: .*digits, mnist.*did you mean 'fashion_mnist'"):
        load("Fashion-MNIST")
    with pytest.raises(ValueError, match=f"name: .*{', '.join(names())}.*'zzz'"):
        load("zzz")
    with pytest.raises(ValueError, match="binarize: .*'dynamic', 'static', 'threshold'.*'round'"):
        load("digits", binarize="round")


def test_a_split_is_indexed():
    split = Split(torch.arange(12.0).reshape(6, 2), torch.arange(6), DrawBits())
    for part in (slice(1, 5, 2), torch.tensor([1, 3]), torch.tensor([0, 1, 0, 1, 0, 0]) == 1):
        taken = split[part]
        assert taken.x.tolist() == [[2, 3], [6, 7]]
        assert taken.y.tolist() == [1, 3]
        assert taken.transform is split.transform
    assert repr(split) == "Split(6 x (2,), labels, transform=DrawBits())"
    with pytest.raises(TypeError, match="index: "):
        split[0]
    with pytest.raises(ValueError, match="y: "):
        Split(torch.zeros(3, 2), torch.zeros(2))


def test_kind_depends_on_every_split():
    bits, grey = Split(torch.ones(2000, 3)), Split(torch.ones(2000, 3))
    grey.x[-1, -1] = 0.5
    assert Dataset("all bits", bits, bits, bits).kind == "binary"
    assert Dataset("one grey", bits, bits, grey).kind == "grey"
    with pytest.raises(ValueError, match="train, valid, test: "):
        Dataset("uneven", bits, bits, Split(torch.ones(2, 4)))


def test_parsers_reject_other_content():
    with pytest.raises(ValueError, match="idx file"):
        parse_idx(b"<html>")
    with pytest.raises(ValueError, match="10 bytes .*got 9"):
        parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1]))
    with pytest.raises(ValueError, match="amat file"):
        parse_amat(b"0 1\n0 2\n", (2,))


def test_folder_without_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        load("mnist")
    for word in ("PYRO_VAE_DATA", str(tmp_path), "mnist/train-images-idx3-ubyte.gz"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "mnist/train-images-idx3-ubyte.gz"),
        ("mnist_static", "binarized_mnist_static/binarized_mnist.npz"),
        ("freyfaces", "freyfaces/freyfaces.npz"),
    ],
)
def test_folder_with_a_corrupted_file(monkeypatch, tmp_path, name, file):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_bytes(b"other")
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    got = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(ValueError, match=f"{file}: expected sha256 .*got {got}"):
        load(name)


def test_download_checks_and_caches(served, tmp_path):
    good = b"the content"
    file = fetch.File("mnist", "toy.bin", f"sha256:{hashlib.sha256(good).hexdigest()}")
    served["toy.bin"] = b"something else"
    with pytest.raises(ValueError, match="toy.bin.*does not match"):
        fetch.download(file)
    assert not (tmp_path / "pyro_vae" / "mnist" / "toy.bin").exists()
    served["toy.bin"] = good
    path = fetch.download(file)
    assert path == tmp_path / "pyro_vae" / "mnist" / "toy.bin"
    assert path.read_bytes() == good
    served.clear()
    assert fetch.download(file) == path  # now from the cache
    path.write_bytes(b"broken")
    with pytest.raises(OSError, match=r"could not download .*toy.bin.*set PYRO_VAE_DATA"):
        fetch.download(file)


def test_mnist_by_download(served, monkeypatch):
    """Small files in the format of MNIST: images, labels and splits come back."""
    rng, checksums = np.random.default_rng(0), []
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((50_010, 1, 2), (50_010,), (7, 1, 2), (7,))]
    for name, array in zip(sources.IDX_NAMES, arrays, strict=True):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        served[name] = gzip.compress(head + array.tobytes(), compresslevel=1)
        checksums.append(f"sha256:{hashlib.sha256(served[name]).hexdigest()}")
    monkeypatch.setitem(sources.IDX_CHECKSUMS, "mnist", tuple(checksums))
    found = load("mnist")
    assert [len(split) for split in found.splits] == [50_000, 10, 7]
    pixels, labels = (np.concatenate(arrays[part::2]) for part in (0, 1))
    assert ((rows(found) * 255).round() == pixels.reshape(-1, 2)).all()
    assert (torch.cat([split.y for split in found.splits]).numpy() == labels).all()


def test_mnist_static_by_download(served, monkeypatch):
    for part, first in (("train", b"1"), ("valid", b"0"), ("test", b"1")):
        text = (first + b" 0" * 783 + b"\n") * 3
        file = fetch.File("binarized_mnist_static", f"{part}.amat", f"md5:{hashlib.md5(text).hexdigest()}")
        monkeypatch.setitem(sources.STATIC_TEXTS, part, file)
        served[file.name] = text
    static = load("mnist_static")
    assert [split.x.sum().item() for split in static.splits] == [3, 0, 3]
    assert static.train.x.shape == (3, 28, 28)


def test_freyfaces_by_download(shared, served, tmp_path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    with monkeypatch.context() as patch:
        patch.setenv("PYRO_VAE_DATA", str(shared))
        local = load("freyfaces")
    with np.load(shared / "freyfaces" / "freyfaces.npz", allow_pickle=False) as packed:
        columns = packed["images"].reshape(1965, 560).T
    for wrong in (columns[:, ::-1], None):
        served["frey_rawface.mat"] = b"<html>" if wrong is None else matlab(scipy_io, wrong)
        with pytest.raises(ValueError, match="expected the Frey faces"):
            load("freyfaces")
        assert not (tmp_path / "pyro_vae" / "freyfaces" / "frey_rawface.mat").exists()
    served["frey_rawface.mat"] = matlab(scipy_io, columns)
    assert (load("freyfaces").train.x == local.train.x).all()
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        load("freyfaces")


def matlab(scipy_io, columns):
    stream = io.BytesIO()
    scipy_io.savemat(stream, {"ff": columns})
    return stream.getvalue()
