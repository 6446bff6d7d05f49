"""Progress bars are shown in a terminal only."""

import io
import sys

import pytest

from pyro_vae._util import progress


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
