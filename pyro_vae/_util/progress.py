"""Bars that show how far long work is."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

__all__ = ["progress_bar"]


def progress_bar(*args: Any, progress: bool, **options: Any) -> tqdm:
    """Return a bar of tqdm, hidden unless ``progress``, and wherever the environment says ``TQDM_DISABLE``.

    Args:
        args: of ``tqdm``
        progress: whether to show it
        options: of ``tqdm``

    Example:
        >>> [i for i in progress_bar(range(3), progress=False)]
        [0, 1, 2]
    """
    # tqdm reads its environment only for what is not passed on, be it False or None
    hidden = {} if progress else {"disable": True}
    return tqdm(*args, **options, **hidden)
