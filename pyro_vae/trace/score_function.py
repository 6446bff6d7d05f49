"""Score functions of distributions, those of rejection samplers included."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.distributions.distribution import Distribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import frames

__all__ = ["rejection_sampler", "score_function", "score_function_of", "score_masks", "unsummed_score_function"]

#: Distributions that change the shape or the mask of another one and not its values.
WRAPPERS = (Independent, MaskedDistribution, ExpandedDistribution)


def score_function(site: Any) -> Tensor:
    """Return what the gradient through the draw of a site leaves out, ``(particles, batch)``."""
    message = site.guide
    same = "score_function" not in message and site.score_mask is message["mask"] and not hides_mask(message["fn"])
    return site.log_q if same else site.layout.per_example(unsummed_score_function(site), message)


def unsummed_score_function(site: Any) -> Tensor:
    """Return the score function of a site for each entry of its batch shape."""
    message = site.guide
    known = message.get("score_function")  # computed together with the draw
    score = score_function_of(message["fn"], message["value"]) if known is None else known
    return masked(site.score_mask, score)


def score_masks(guide: dict[str, Any], model: dict[str, Any]) -> dict[str, Tensor]:
    """Return for each site of the guide which of its draws have terms of the loss that depend on them.

    A mask takes the log-density of a draw out of the loss, and not what depends on the draw. A draw is left out if all
    later sites are in the same plates and masked as well, such as those of a sequence that has ended.

    Args:
        guide: messages of the guide, in order
        model: messages of the model, in order

    Returns:
        The masks of the sites that have one.
    """
    if all(message["mask"] is None for message in guide.values()):
        return {}
    later = [later_masks(messages) for messages in (guide, model)]
    masks = {name: union(later[0][name], later[1].get(name, True)) for name in guide}
    return {name: mask for name, mask in masks.items() if isinstance(mask, Tensor)}


def later_masks(messages: dict[str, Any]) -> dict[str, Any]:
    """Return for each site the union of its mask and those of all later sites, True where it is not known."""
    found, plates = {}, None
    union_so_far: Any = False
    for name, message in reversed(messages.items()):
        own = [(frame.name, frame.dim) for frame in frames(message)]
        plates = own if plates is None else plates
        mask = True if message["mask"] is None or own != plates else message["mask"]
        union_so_far = found[name] = union(union_so_far, mask)
    return found


def union(a: Any, b: Any) -> Any:
    """Return the union of two masks, each a tensor or a bool."""
    if a is True or b is True:
        return True
    if a is False or a is b:
        return b
    return a if b is False else a | b


def rejection_sampler(fn: Any) -> Any:
    """Return the distribution within ``fn`` whose draws carry a part of the gradient only, None if there is none.

    It is the one that defines ``score_parts`` (Pyro's protocol for rejection samplers).
    """
    while fn is not None:
        own = getattr(type(fn), "score_parts", Distribution.score_parts)
        if own is not Distribution.score_parts and not isinstance(fn, WRAPPERS):
            return fn
        fn = getattr(fn, "base_dist", None)
    return None


def hides_mask(fn: Any) -> bool:
    """Whether a distribution sets entries of its own log-density to zero."""
    while fn is not None:
        if isinstance(fn, MaskedDistribution):
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def score_function_of(fn: Any, value: Tensor) -> Tensor:
    """Return the function whose gradient is what the gradient through a draw leaves out, of the batch shape of ``fn``.

    Args:
        fn: a distribution that is not fully reparameterized
        value: the draw itself, as a rejection sampler may know the proposal it was made of

    Raises:
        ValueError: a transformed rejection sampler.
    """
    if isinstance(fn, WRAPPERS):
        found = score_function_of(fn.base_dist, value)
        found = sum_rightmost(found, getattr(fn, "reinterpreted_batch_ndims", 0))
        return found.expand(torch.broadcast_shapes(found.shape, fn.batch_shape))
    inner = rejection_sampler(fn)
    if inner is not None and inner is not fn:
        raise ValueError(
            f"guide: the score function of {type(inner).__name__} is not known within {type(fn).__name__}: sample "
            f"from {type(inner).__name__} itself, and transform the value"
        )
    return fn.score_parts(value).score_function
