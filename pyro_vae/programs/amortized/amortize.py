"""An amortized guide for any Pyro model with a plate of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.nets import NetBuilder
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.amortized.guide import Guide, seen_width
from pyro_vae.programs.amortized.inputs import Inputs
from pyro_vae.programs.amortized.inspection import ROWS, Inspection, dependencies_of, inspect_model
from pyro_vae.programs.amortized.local import Encoder, PosteriorBuilder, encoder_of
from pyro_vae.programs.amortized.shared import Shared
from pyro_vae.programs.amortized.structure import MeanField, Structure
from pyro_vae.programs.amortized.supports import to_support
from pyro_vae.programs.amortized.unobserved import Unobserved
from pyro_vae.programs.checks import describe
from pyro_vae.programs.function_program import FunctionProgram
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL

__all__ = ["Amortized", "amortize"]


class Amortized(FunctionProgram):
    """A user's own model with an amortized guide, made by ``pyro_vae.amortize``.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        model: ``model(x, *context)``, a Pyro model
        amortized_guide: its guide
        modules: the ``nn.Module`` objects with the parameters of the model, by name

    Example:
        >>> program = Amortized.example()
        >>> program.posteriors["z"](torch.zeros(5, 4)).event_shape
        torch.Size([3])
    """

    def __init__(self, model: Callable[..., Any], amortized_guide: Guide, **modules: nn.Module) -> None:
        super().__init__(model, amortized_guide, **modules)

    @classmethod
    def example(cls) -> FunctionProgram:
        """Amortize a small linear model."""
        return amortize(ExampleModel(), torch.zeros(6, 4), net=SMALL)

    @property
    def posteriors(self) -> dict[str, Conditional]:
        """The part of the shelf inside the encoder of each latent of an example, by name of the site."""
        guide: Any = self.parts["guide"]
        return {name: encoder.posterior for name, encoder in zip(guide.sites, guide.encoders, strict=True)}

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's model; entries that ``obs_mask`` leaves out are integrated out."""
        with Unobserved():
            return super().model(x, *context)

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data are not like the example arguments, or do not fit the model."""
        guide: Any = self.parts["guide"]
        if isinstance(x, Tensor):
            takes_missing = all(posterior.takes_missing for posterior in self.posteriors.values())
            guide.inputs.check(self.dtype, takes_missing, x, *context)
        super().check(x, *context)


def amortize(
    model: Callable[..., Any],
    *example_args: Tensor,
    posterior: PosteriorBuilder = MeanFieldNormal,
    net: NetBuilder | None = None,
    structure: Structure | None = None,
    shared: PosteriorBuilder = MeanFieldNormal,
    modules: Mapping[str, nn.Module] | None = None,
) -> Amortized:
    r"""Build an amortized guide for a Pyro model with a plate of data, and return both as a program.

    .. math:: q(w, z_{1:N} \mid x_{1:N}) = q(w) \prod_n \prod_i q\big(z_{n,i} \mid x_n, z_{n,\mathrm{pa}(i)}\big)

    Each latent :math:`z_{n,i}` of an example has an encoder, a network over the data of the example and, depending on
    ``structure``, over other latents of the example. A continuous latent of any support is the image of a real vector
    with a posterior of the shelf under the transform of its support, with the Jacobian in its density. A VAE is the
    special case of one latent. Latents w outside the plate of the data have one posterior, with parameters of its own;
    encoders do not see them. Discrete latents of an example (binary values, or one class) have a posterior over their
    values, for ``Enumeration`` or estimators with score functions; those that the model marks
    ``infer={"enumerate": "parallel"}`` are summed over and are not in the guide. The number of parameters does not
    grow with N, and new rows need no further training.

    A latent in a plate inside the plate of the data, such as one of repeated measurements, has one encoder for all
    entries of that plate. It sees the entry of x, of which that plate is the second dimension, and the whole row.
    Groups of unequal size have NaN in x, masked in the model, and a network that takes them: ``nets.SetEncoder``.

    The model is run a few times on the example arguments to find the plate of the data (the outermost one that all
    observed sites share), its latents and their supports. The program is a ``FunctionProgram``: parameters of the
    model (``pyro.param``, ``pyro.module``, a PyroModule) are trained along with the encoders, and the global parameter
    store stays empty. Entries that ``obs_mask`` leaves out are integrated out. In the plate of a subsample,
    ``pyro.plate("data", N, subsample=...)``, the guide has the scale of the model.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114; Faithful inversion
        of generative models for effective amortized inference (Webb et al., 2018), https://arxiv.org/abs/1712.00287

    Args:
        model: ``model(x, *context)``, a Pyro model that observes data given as arguments
        example_args: a batch of these arguments: tensors with one row per example. Encoders see all of them: x as the
            input of the network, the others as its context
        posterior: builds the posterior of a continuous latent over real vectors, ``posterior(shape, latent)``, with
            ``context=`` the number of further features: a class of ``pyro_vae.posteriors``
        net: builds the networks, as for the posteriors; that of the posterior if None
        structure: which latents an encoder sees: ``programs.MeanField()``, the default, ``programs.Forward()`` or
            ``programs.Inverse()``
        shared: builds the posterior of all latents outside the plate of the data, over their unconstrained values,
            with parameters in place of an encoder: a class of ``pyro_vae.posteriors``, such as ``LowRankNormal``, or
            ``programs.Point`` for a point estimate
        modules: the modules that a model calls which is a plain function, by name; without them, only parameters of
            ``pyro.module`` and ``pyro.param`` are trained, and the program cannot be copied

    Returns:
        A program with the model and its guide, in the dtype and on the device of x.

    Raises:
        TypeError: an example argument is not a tensor, or ``structure`` is not a Structure.
        ValueError: the example arguments have no common rows; or the model has no observed site, no plate of the data,
            sites, plates or supports that depend on its latents, or latents for which there is no amortized posterior.

    Example:
        >>> import pyro_vae as pv
        >>> from pyro import distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x), dim=-1):
        ...         rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        ...         pyro.sample("x", dist.Poisson(rate), obs=x)
        >>> x = torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0, 7.0])
        >>> program = pv.amortize(model, x)
        >>> len(pv.fit(program, x, epochs=1, progress=False))
        1
        >>> program.guide(torch.tensor([5.0]))["rate"].shape
        torch.Size([1])
    """
    check_arguments(example_args)
    structure = MeanField() if structure is None else structure
    if not isinstance(structure, Structure):
        raise TypeError(f"structure: expected MeanField(), Forward() or Inverse(), got {structure!r}")
    owner, known = getattr(model, "__self__", None), dict(modules or {})
    if isinstance(owner, nn.Module) and owner not in known.values():
        known["owner"] = owner
    unguided = FunctionProgram(model, no_guide, **known)
    found = inspect_model(unguided, example_args)
    check_latents(found)
    x, inputs = example_args[0], Inputs(example_args, found.plate)
    latents = {latent.name: latent for latent in found.local}
    inner = {name: next(iter(latent.inner(found.plate)), None) for name, latent in latents.items()}
    parents = structure.parents([*latents], lambda: dependencies_of(unguided, example_args, found.plate.name))
    encoders: dict[str, Encoder] = {}
    for name, others in parents.items():
        widths = [seen_width(inner[name], inner[other], encoders[other].width) for other in others]
        width = inputs.width(inner[name]) + sum(widths)
        options: dict[str, Any] = ({"net": net} if net else {}) | ({"context": width} if width else {})
        encoders[name] = encoder_of(latents[name], posterior, inputs.shape(inner[name]), **options)
    outside = Shared(found.shared, shared) if found.shared else None
    scales = {name: latent.scale for name, latent in latents.items()}
    guide = Guide(found.plate, inputs, encoders, parents, inner, scales, outside)
    guide.to(device=x.device, dtype=inputs.dtype)
    program = Amortized(model, guide, **known)
    program.check(*(column[:ROWS] for column in example_args))  # in which parameters of the model are created
    return program


def no_guide(*args: Tensor) -> None:
    """Sample nothing."""


def check_arguments(example_args: Sequence[Any]) -> None:
    """Raise unless all example arguments are tensors with the same number of rows."""
    if not example_args:
        raise ValueError("example_args: expected at least x, got none. Call amortize(model, x, *context)")
    for i, column in enumerate(example_args):
        name = f"example_args[{i}]"
        if not isinstance(column, Tensor):
            raise TypeError(f"{name}: expected a tensor with one row per example, got {type(column).__name__}")
        if not column.dim() or not len(column) or len(column) != len(example_args[0]):
            raise ValueError(
                f"{name}: expected as many rows as in x, one per example, got shape {tuple(column.shape)}. Give the "
                "model other values by functools.partial"
            )


def check_latents(found: Inspection) -> None:
    """Raise if the model has latents without an amortized posterior."""
    if not found.local:
        raise ValueError("model: expected a latent in the plate of the data, got none: there is nothing to amortize")
    plate = found.plate.name
    for latent in (*found.local, *found.shared):
        if latent.masked:
            raise ValueError(
                f"model: expected latents without a mask, got one at {latent.name!r}, whose value for another batch "
                "the guide does not know. Mask the observed sites alone"
            )
    for latent in found.local:
        inner = latent.inner(found.plate)
        if len(inner) > 1 or any(frame.size != frame.full_size for frame in inner):
            raise ValueError(
                f"model: expected latents in the plate of the data {plate!r} and at most one whole plate inside it, "
                f"got {latent.name!r}, which is also in {[frame.name for frame in inner]}. Declare the entries of one "
                "example by .expand(...).to_event(...)"
            )
    if len({latent.scale for latent in found.shared}) > 1:
        raise ValueError(
            f"model: expected one scale at all latents outside the plate of the data {plate!r}, got "
            f"{ {latent.name: latent.scale for latent in found.shared} }"
        )
    for latent in found.shared:
        if latent.discrete or to_support(latent.fn.support) is None:
            raise ValueError(
                f"model: expected continuous latents outside the plate of the data {plate!r}, got {latent.name!r}, "
                f"{describe(latent.fn.support)}. Let estimators sum over a discrete one by "
                'infer={"enumerate": "parallel"} in the model'
            )
        if part := [frame.name for frame in latent.frames if frame.size != frame.full_size]:
            raise ValueError(
                f"model: expected latents outside the plate of the data {plate!r} in whole plates, got "
                f"{latent.name!r} in a subsample of {part[0]!r}"
            )


class ExampleModel(nn.Module):
    """A linear model of four numbers given three latents."""

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.likelihood = StandardNormal(3), Normal(3, (4,), net=SMALL)

    def forward(self, x: Tensor) -> Tensor:
        """Sample the latents and observe the data."""
        announce(prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.likelihood(pyro.sample("z", self.prior())), x)
