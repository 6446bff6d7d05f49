"""Laws over the constructors of all priors, likelihoods and posteriors."""

import inspect

import numpy as np
import pytest
import torch
from helpers.small_parts import example

import pyro_vae as pv
from pyro_vae.testing import parts

SHELVES = {pv.priors: ["latent"], pv.likelihoods: ["latent", "shape"], pv.posteriors: ["shape", "latent"]}
PARTS = [(cls, first) for shelf, first in SHELVES.items() for cls in parts(shelf)]
WITH_LATENT = [(cls, first) for cls, first in PARTS if "latent" in inspect.signature(cls).parameters]
latent_law = pytest.mark.parametrize(("cls", "first"), WITH_LATENT, ids=lambda v: getattr(v, "__name__", ""))


def build(cls, first, latent=4, shape=(2, 2), **options):
    """An instance from the shared first arguments; skip if its optional package is not installed."""
    if issubclass(cls, pv.likelihoods.Heterogeneous):
        shape, options = (len(COLUMNS),), {"columns": COLUMNS, **options}
    given = {"latent": latent, "shape": shape}
    try:
        return cls(*(given[name] for name in first), **options)
    except ImportError as error:
        pytest.skip(str(error))


COLUMNS = (pv.data.tables.Real("a", 0.0, 1.0), pv.data.tables.Count("b", 2.0))


@latent_law
def test_first_arguments_are_shared_and_others_are_keywords_with_defaults(cls, first):
    parameters = list(inspect.signature(cls).parameters.values())
    assert [p.name for p in parameters[: len(first)]] == first
    rest = [p for p in parameters[len(first) :] if p.name != "columns"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)


@latent_law
def test_invalid_numbers_of_latents_are_refused(cls, first):
    for latent in (0, -1, True, False, 2.5, "3", None, np.float64(3.0), np.bool_(True)):
        with pytest.raises((ValueError, TypeError), match=rf"latent: .*\({cls.__name__}\)"):
            build(cls, first, latent=latent)


@latent_law
def test_invalid_widths_of_context_are_refused(cls, first):
    if "context" in inspect.signature(cls).parameters:
        for context in (-1, True, 1.5, "1"):
            with pytest.raises((ValueError, TypeError), match="context"):
                build(cls, first, context=context)


@latent_law
def test_numpy_integers_are_accepted(cls, first):
    """The part is the same as for Python integers."""
    options = {"context": 2} if "context" in inspect.signature(cls).parameters else {}
    numpy_options = {name: np.int64(value) for name, value in options.items()}
    torch.manual_seed(1)
    one = build(cls, first, **options)
    torch.manual_seed(1)
    other = build(cls, first, latent=np.int32(4), shape=(np.int64(2), np.uint8(2)), **numpy_options)
    assert one.context == other.context == options.get("context", 0)
    given = {1: [], 2: [torch.rand(3, 4)]}[len(first)] if first[0] == "latent" else [torch.rand(3, 2, 2)]
    given += [torch.rand(3, 2)] if options else []
    with torch.no_grad():
        fn = one(*given)
        x = fn.sample()
        assert torch.allclose(fn.log_prob(x), other(*given).log_prob(x), atol=1e-5)


def test_examples_are_small():
    """With the networks of the users' defaults it would be ten times as many parameters."""
    sizes = [sum(p.numel() for p in example(cls).parameters()) for cls, _ in PARTS if cls is not pv.priors.ZukoFlow]
    assert sum(sizes) < 45_000
    assert sorted(sizes)[-2] < 5_000  # but for the logits of 256 levels


def test_defaults_of_users_are_not_those_of_examples():
    assert [m.out_features for m in pv.posteriors.MeanFieldNormal((2, 2), 3).net.body[::2]] == [500, 500, 6]
    assert [m.out_features for m in pv.posteriors.MeanFieldNormal.example().net.body[::2]] == [16, 6]


class NeedsMore(pv.Conditional):
    def __init__(self, latent, *, width, net=pv.nets.MLP):
        super().__init__(latent=latent)
        self.net = net((width,), (latent,))

    def forward(self, x):
        return torch.distributions.Normal(self.net(x), 1.0)


def test_example_passes_options_on_and_names_what_it_lacks():
    part = NeedsMore.example(width=5)
    assert (part.net.in_shape, part.net.out_shape) == ((5,), (3,))
    assert part.net.body[0].out_features == 16
    with pytest.raises(TypeError, match="width"):
        NeedsMore.example()
