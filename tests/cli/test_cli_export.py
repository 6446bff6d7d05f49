"""`pyro-vae export`: the printed code loads the files."""

import re
import subprocess
import sys

import pytest
import torch
from helpers.small_tables import small_run

import pyro_vae as pv
from pyro_vae.cli import main


@pytest.mark.slow
def test_the_printed_code_runs_without_this_library(tmp_path, capsys):
    run, folder = small_run("binary"), tmp_path / "new"
    words = ["export", str(run), "--parts=encoder,score", "--num-particles=5", f"--output={folder}", "--quiet"]
    capsys.readouterr()
    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"encoder.pt2 +0\.\d\d MB", out)
    code = out[out.index("import torch") :]
    torch.save(x := torch.rand(7, 2, 3).round(), tmp_path / "x.pt")
    code = f"import torch\nx = torch.load({str(tmp_path / 'x.pt')!r})\n{code}\n"
    code += f"import sys\nassert 'pyro_vae' not in sys.modules\ntorch.save([mean, scores], {str(tmp_path / 'y.pt')!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)
    mean, scores = torch.load(tmp_path / "y.pt")
    torch.testing.assert_close(mean, pv.load(run).encode(x).mean, rtol=1e-5, atol=1e-5)
    assert scores.shape == (7,)
    assert main(words) == 1
    assert "exists" in capsys.readouterr().err


def test_mistakes_are_named(capsys):
    run = str(small_run("binary"))
    assert main(["export", run, "--format=jit"]) == 2
    assert "format" in capsys.readouterr().err
    assert main(["export", run, "--parts=enkoder"]) == 1
    assert "parts" in capsys.readouterr().err
