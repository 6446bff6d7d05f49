"""How the latents of a run are drawn: handlers that record every sample statement of a guide or model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import VALUES_DIM
from pyro_vae.trace.site import Site

__all__ = ["Enumerated", "Recorder", "Reparameterized", "Sampled"]

#: The largest number of values of one site that are enumerated at once: those of 12 binary values.
MAX_VALUES = 4096

#: The largest number of enumerated sites, each with a dimension of its own: a tensor has at most 64.
MAX_SITES = 48

#: What torch says of a tensor of several values that is read as one number or one truth value.
ONE_VALUE = ("converted to Python scalars", "converted to Scalar", "converted to an index", "Boolean value of Tensor")


class Recorder(Messenger):
    """Record the messages of all sample statements, and replay the values of an earlier run.

    A discrete site marked ``infer={"enumerate": "parallel"}`` gets all its values at once, in a dimension of its own.
    Every other latent is drawn as the guide says, with a gradient through the draw where its family has one.

    Args:
        replay: messages of an earlier run, by name; their values are used in place of new draws
        earlier: names of the sites that the earlier run enumerated

    Attributes:
        sites: the recorded messages, by name, without those that have no density of their own
        subsamples: those of subsampled plates
        enumerated: names of the enumerated sites, in order
        layout: where the plate of the data is, known from an earlier run of the model

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> with Recorder() as recorder:
        ...     _ = toy.program.guide(toy.draw(5))
        >>> list(recorder.sites)
        ['z']
    """

    #: Whether the handler has to know the plate of the data while it runs.
    needs_layout: ClassVar[bool] = False

    def __init__(self, replay: dict[str, Any] | None = None, earlier: Sequence[str] = ()) -> None:
        super().__init__()
        self.replay, self.earlier = replay or {}, earlier
        self.sites: dict[str, Any] = {}
        self.subsamples: dict[str, Any] = {}
        self.enumerated: list[str] = []
        self.layout = Layout()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if error is not None and (self.earlier or self.enumerated) and any(words in str(error) for words in ONE_VALUE):
            raise ValueError(
                f"infer: all values of sites {[*self.earlier, *self.enumerated]} are given at once, but the program "
                "reads one as a Python number: use torch functions of it, or draw it, such as by ReinforceLOO"
            ) from error

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["infer"].get("_do_not_trace"):
            return
        earlier = self.replay.get(msg["name"])
        if earlier is not None:
            msg["done"], msg["value"] = True, earlier["value"]
        elif self.enumerates(msg):
            msg["done"], msg["value"] = True, self.all_values(msg)
            self.enumerated.append(msg["name"])

    def _pyro_resample(self, msg: Any) -> None:
        resampling = self.replay.get(msg["name"], {}).get("resampling")
        if resampling is not None:
            msg["done"], msg["value"] = True, resampling.select(msg["args"][0])

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if type(msg["fn"]) is _Subsample:
            earlier = self.subsamples.setdefault(name, msg)
            if earlier is not msg and not torch.equal(earlier["value"], msg["value"]):
                raise ValueError(
                    f"name: expected the same rows in all plates named {name!r}, got others: use one `pyro.plate`"
                )
            return
        # draws inside a reparameterization, and named values: neither has a density of its own
        if msg["infer"].get("_do_not_trace") or (msg["is_observed"] and is_named_value(msg["fn"])):
            return
        if name in self.sites or name in self.subsamples:
            other = "sample statement" if name in self.sites else "plate"
            raise ValueError(f"name: another {other} is named {name!r} too: give each its own name")
        self.sites[name] = msg

    def enumerates(self, msg: Any) -> bool:
        """Whether a latent site is enumerated."""
        return bool(msg["infer"]) and msg["infer"].get("enumerate") == "parallel"

    def all_values(self, msg: Any) -> Tensor:
        """Return all values of a site in a dimension of their own; ``num_samples`` of Pyro is not needed for that."""
        name, fn, number = msg["name"], msg["fn"], len(self.earlier) + len(self.enumerated)
        if number >= MAX_SITES:
            raise ValueError(f"infer: expected at most {MAX_SITES} enumerated sites, got also {name!r}: draw some")
        try:
            values = self.values(msg)
        except NotImplementedError as error:
            raise ValueError(
                f"infer: {type(fn).__name__} at site {name!r} has no list of values to enumerate: leave out "
                '"enumerate" and draw it with num_particles, or use a distribution such as Categorical'
            ) from error
        values = values.reshape(-1, *[1] * (number - 1 - VALUES_DIM), *fn.event_shape)
        return (
            values.expand(torch.broadcast_shapes(values.shape, fn.shape())) if msg["infer"].get("expand") else values
        )

    def values(self, msg: Any) -> Tensor:
        """Return all values of a site, ``(values, *event)``."""
        return msg["fn"].enumerate_support(expand=False)

    def check(self, site: Site, user: str) -> None:
        """Raise if an estimator, of the name ``user``, cannot use a latent site that is drawn in this way."""


def is_named_value(fn: Any) -> bool:
    """Whether the distribution of an observed site is that of ``pyro.deterministic``."""
    return getattr(fn, "_mask", None) is False and isinstance(fn.base_dist, Delta)


class Sampled(Recorder):
    """Draw every latent once per particle, discrete sites marked for enumeration included.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), draws=Sampled)
        >>> terms.latent[0].enumerated
        False
    """

    def enumerates(self, msg: Any) -> bool:
        """Whether a latent site is enumerated: never."""
        return False


class Reparameterized(Recorder):
    """Draw with a gradient through each draw; refuse a site without a reparameterized sampler.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), draws=Reparameterized)
        >>> terms.draws[0].rows("z").requires_grad
        True
    """

    def check(self, site: Site, user: str) -> None:
        """Raise if no gradient goes through the draw of a site that is not enumerated either."""
        if site.reparameterized or site.enumerated:
            return
        family = site.guide["fn"]
        found = f"site {site.name!r} is drawn from {type(getattr(family, 'base_dist', family)).__name__}"
        if site.has_path:
            raise ValueError(
                f"guide: {user} needs a gradient through each draw, but {found}, a rejection sampler whose draws "
                "carry a part of it only: use ReinforceLOO, or a family with a reparameterized sampler"
            )
        more = ", VIMCO or ReweightedWakeSleep; or sum over a small discrete site by Enumeration" if site.local else ""
        raise ValueError(
            f"guide: {user} needs a reparameterized sampler, but {found}. Use a posterior that has one, such as "
            f"MeanFieldNormal; or use an estimator that needs none, such as ReinforceLOO{more}"
        )


class Enumerated(Reparameterized):
    """Enumerate every latent with finitely many values, marked for enumeration or not.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> pv.trace.run(vae.model, vae.guide, (torch.zeros(5, 4),), draws=Enumerated).log_ratio().shape
        torch.Size([8, 1, 5])
    """

    def enumerates(self, msg: Any) -> bool:
        """Whether a latent site is enumerated."""
        return super().enumerates(msg) or factor(msg["fn"]).has_enumerate_support

    def values(self, msg: Any) -> Tensor:
        """Return all values of a site, those of a product of discrete factors included."""
        name, fn, one = msg["name"], msg["fn"], factor(msg["fn"])
        count = fn.event_shape.numel() // one.event_shape.numel()
        values = one.enumerate_support(expand=False)
        values = values.reshape(-1, *one.event_shape)
        if len(values) ** count > MAX_VALUES:
            size = f"{len(values)}^{count}" if count > 1 else f"{len(values):,}"
            raise ValueError(
                f"guide: site {name!r} has {size} values, and at most {MAX_VALUES:,} are enumerated at once: use "
                "fewer latents, or VIMCO or ReinforceLOO"
            )
        index = torch.cartesian_prod(*[torch.arange(len(values), device=values.device)] * count)
        return values[index].reshape(-1, *fn.event_shape)


def factor(fn: Any) -> Any:
    """Return the distribution of one factor of an independent product."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
