"""The wheel holds the whole package, and works from another folder without the repository."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources: a folder `build/` in the repository could hold deleted modules."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "pyro_vae", source / "pyro_vae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", "dist"]
    run(*pip, cwd=source)
    (found,) = (source / "dist").iterdir()
    return found


@pytest.mark.slow
def test_wheel_holds_every_file(wheel):
    """Modules, data, pages and the marker of typed packages; the license with the metadata."""
    files = {str(p.relative_to(ROOT)) for p in (ROOT / "pyro_vae").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in packed if name.startswith("pyro_vae/")} == files
    assert {"pyro_vae/py.typed", "pyro_vae/data/digits.npz", "pyro_vae/pages/page.css"} <= packed
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.mark.slow
def test_installed_wheel_trains_from_another_folder(wheel, tmp_path):
    """An environment that sees this one's dependencies but not its pyro_vae."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # folders named in a .pth file come last on the path, and their own .pth files (editable installs) are not read
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = run(python, "-c", "import pyro_vae; print(pyro_vae.__file__)", cwd=elsewhere, env=env)
    assert Path(where.strip()).is_relative_to(packages)
    train = [tmp_path / "venv" / "bin" / "pyro-vae", "train", "--epochs", "1", "--quiet", "--run-dir", "run"]
    run(*train, cwd=elsewhere, env=env)
    assert (elsewhere / "run" / "weights.safetensors").exists()
