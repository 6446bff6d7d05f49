"""Progress bars."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import notebook_tqdm, std_tqdm, tqdm

__all__ = ["can_show_bars", "progress_bar"]


def progress_bar(*args: Any, progress: bool = True, **options: Any) -> tqdm:
    """Return a tqdm bar, hidden if ``progress`` is False or there is nowhere to draw it.

    A bar is drawn in a terminal and in a notebook; the environment variable ``TQDM_DISABLE`` hides it there too.

    Args:
        args: passed to ``tqdm``
        progress: whether to show the bar
        options: passed to ``tqdm``

    Example:
        >>> [i for i in progress_bar(range(3), progress=False)]
        [0, 1, 2]
    """
    # tqdm reads TQDM_DISABLE only if no `disable` is passed, not even False or None
    hidden = {} if progress and can_show_bars() else {"disable": True}
    return tqdm(*args, **options, **hidden)


def can_show_bars() -> bool:
    """Whether bars can be drawn: standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or notebook_tqdm is not std_tqdm
