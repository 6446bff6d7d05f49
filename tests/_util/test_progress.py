"""Progress bars are shown in a terminal only."""

import io
import sys

import pytest
from helpers.small_tables import small_run

import pyro_vae as pv
from pyro_vae._util import progress
from pyro_vae.cli import main


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("progress_argument", [True, False])
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_bar_is_shown_in_a_terminal_unless_it_is_turned_off(stream, progress_argument, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(progress.progress_bar(range(3), progress=progress_argument)) == [0, 1, 2]
    assert bool(sys.stderr.getvalue()) == (stream is Terminal and progress_argument)


def test_a_bar_is_shown_in_a_notebook(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "notebook_tqdm", None)
    assert list(progress.progress_bar(range(3))) == [0, 1, 2]
    assert sys.stderr.getvalue()


def test_the_environment_can_hide_the_bar(monkeypatch):
    """Tqdm reads TQDM_DISABLE only if no `disable` is passed."""
    passed = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "tqdm", lambda *args, **options: passed.append(options))
    progress.progress_bar(range(3), unit="step")
    progress.progress_bar(range(3), unit="step", progress=False)
    assert passed == [{"unit": "step"}, {"unit": "step", "disable": True}]


def test_a_log_file_gets_at_most_one_line_per_epoch(monkeypatch):
    toy, log = pv.testing.LinearGaussian(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    pv.fit(toy.program, toy.draw(64), epochs=3, batch_size=4)
    assert len(log.getvalue().replace("\r", "\n").splitlines()) <= 3


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("evaluate RUN --num-particles=30 --gaps=2 --bounds=1 --num-steps=4", marks=pytest.mark.slow),
        "score RUN DATA --score.num_particles=2",
        "embed RUN DATA",
        "sample RUN",
        "reconstruct RUN DATA",
    ],
)
def test_quiet_commands_draw_no_bar(words, monkeypatch, capsys):
    run = small_run("binary")
    monkeypatch.setattr(progress, "can_show_bars", lambda: True)
    capsys.readouterr()
    words = words.replace("RUN", str(run)).replace("DATA", f"{run}.npy")
    assert main([*words.split(), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
