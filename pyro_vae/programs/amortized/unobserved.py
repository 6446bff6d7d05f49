"""Entries that ``obs_mask`` leaves out, integrated out instead of drawn by the guide."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["Unobserved"]


class Unobserved(Messenger):
    """Sample the entries that ``pyro.sample(..., obs_mask=)`` leaves out from the model, without a density.

    That is the bound of a guide that draws them from the model given all earlier latents. They are integrated out
    exactly where no later site depends on them.
    """

    def __enter__(self) -> Any:
        self.seen: set[str] = set()
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        self.seen.add(msg["name"])
        whole = msg["name"].removesuffix("_unobserved")
        if whole != msg["name"] and f"{whole}_observed" in self.seen and not msg["is_observed"]:
            msg["infer"] = {**msg["infer"], "_do_not_trace": True, "is_auxiliary": True}
