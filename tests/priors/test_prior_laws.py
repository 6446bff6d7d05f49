"""Laws over all priors: samples follow the density, batches, float64, learned parameters and contexts."""

import copy
import functools
import inspect
import math
import sys

import pyro
import pytest
import torch
from helpers.small_parts import SMALL, context_of, example, perturbed

import pyro_vae as pv
from pyro_vae.priors import zuko_flow
from pyro_vae.testing import check_part, parts
from pyro_vae.testing.grids import grid_of
from pyro_vae.testing.part_laws import check_shapes

SHELF = list(parts(pv.priors))


def grid(fn):
    """Values and weights of a sum over the support; None if it would be too large."""
    if fn.event_shape == (2,) and fn.support is torch.distributions.constraints.real_vector:
        line = torch.linspace(-10, 10, 201)
        return torch.cartesian_prod(line, line), 0.01
    return grid_of(fn, 2001)


@pytest.mark.parametrize("latent", [1, 3])
@pytest.mark.parametrize("cls", SHELF)
def test_samples_follow_the_density(cls, latent):
    """Means of bounded functions of samples against sums over the support."""
    part = perturbed(example(cls, latent=latent), 0.1)
    with torch.no_grad():
        fn = part(*context_of(part))
        found = grid(fn)
        if found is None:
            pytest.skip("no grid in three real dimensions")
        values, weight = found
        mass = fn.log_prob(values).double().exp() * weight
        z = fn.sample((4000,))
        for function in (
            lambda z: z[:, 0].tanh(),
            lambda z: z[:, 0].tanh() ** 2,
            lambda z: (z[:, 0] * z[:, -1] + z[:, 0]).sin(),
        ):
            exact = (function(values).double() * mass).sum()
            error = function(z).std() / math.sqrt(4000)
            assert abs(float(function(z).mean() - exact)) < 4 * float(error) + 2e-3


@pytest.mark.parametrize("cls", SHELF)
def test_priors_work_in_float64_and_copy_after_use(cls):
    part = perturbed(example(cls))
    given = context_of(part)
    z = part(*given).sample((5,))
    found = part(*given).log_prob(z)
    wide = copy.deepcopy(part).double()
    assert wide(*(c.double() for c in given)).sample((2,)).dtype == torch.float64
    with pyro.validation_enabled(False):  # a point on the sphere in float32 is not on it in float64
        exact = wide(*(c.double() for c in given)).log_prob(z.double())
    assert exact.dtype == torch.float64
    assert torch.allclose(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [c for c in SHELF if "learned" in c.__init__.__annotations__])
def test_learned_parameters_start_at_the_fixed_ones(cls):
    torch.manual_seed(1)
    fixed, learned = cls(4), cls(4, learned=True)
    assert not list(fixed.parameters())
    assert list(learned.parameters())
    z = fixed().sample((5,))
    assert torch.allclose(fixed().log_prob(z), learned().log_prob(z))
    check_part(learned)


def vamp(**options):
    return pv.priors.VampPrior(pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL, **options), num_components=4)


def exemplar(**options):
    posterior = pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL, **options)
    return pv.priors.ExemplarPrior(posterior, torch.rand(4, 2, 2))


TAKING_CONTEXT = [cls.example for cls in SHELF if "context" in cls.__init__.__annotations__]


@pytest.mark.parametrize("build", [*TAKING_CONTEXT, vamp, exemplar], ids=lambda b: getattr(b, "__self__", b).__name__)
def test_priors_given_a_context(build):
    try:
        part = build(context=2)
    except ImportError as error:
        pytest.skip(str(error))
    if build is not exemplar:  # the raw scale of the encoder is no part of it and gets no gradient
        check_part(part, (2,))
    c = torch.randn(2, 5, 2)[:, :1]
    z = part(c[0, 0]).sample((7, 1))
    assert part.context == 2
    found = torch.stack([part(row).log_prob(z[:, 0]) for row in c[:, 0]], -1)
    assert torch.allclose(part(c[:, 0]).log_prob(z), found, atol=1e-4)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_context_in_several_tensors():
    part = pv.priors.ConditionalNormal(3, context=3, net=SMALL)
    c = torch.randn(5, 3)
    assert torch.equal(part(c).mean, part(c[:, :1], c[:, 1:]).mean)


# --- zuko ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flows(monkeypatch):
    """`zuko.flows` as on its first import."""
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        return zuko_flow.flows()
    except ImportError as error:
        pytest.skip(str(error))


def test_importing_zuko_keeps_validation(flows):
    assert torch.distributions.Distribution._validate_args
    assert pyro.settings.get("validate_distributions_torch")
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


def test_zuko_flow_is_the_flow_of_zuko(flows):
    part = pv.priors.ZukoFlow(3, flow=functools.partial(flows.NSF, transforms=1, hidden_features=(8,)), context=2)
    check_part(part, (2,))
    c, z = torch.randn(5, 2), torch.randn(5, 3)
    assert torch.equal(part(c).log_prob(z), part.flow(c).log_prob(z))
    assert part(c).rsample().requires_grad
    assert part(c)().shape == (5, 3)


@pytest.mark.parametrize("context", [0, 2])
def test_flows_of_zuko_have_mass_one_or_are_refused(flows, context):
    """Every class that builds a flow from a number of features and the width of a context.

    NAF, UNAF and SOSPF of zuko clip softly between their layers, which costs some mass in the tails.
    """
    builders = {
        name: cls
        for name, cls in vars(flows).items()
        if inspect.isclass(cls) and list(inspect.signature(cls).parameters)[:2] == ["features", "context"]
    }
    distributions = {name: cls for name, cls in builders.items() if issubclass(cls, flows.LazyDistribution)}
    assert {"GMM", "MAF", "NCSF", "NSF"} <= distributions.keys()
    c, refused = [torch.tensor([0.3, -0.2])] * bool(context), set()
    for name, cls in distributions.items():
        try:
            one, three = (pv.priors.ZukoFlow(latent, flow=cls, context=context) for latent in (1, 3))
        except ValueError as error:
            assert str(error).startswith("flow: ")  # noqa: PT017
            refused.add(name)
            continue
        # the pieces of a spline are steep
        values, weight = grid_of(one(*c), 200_001 if name == "NSF" else 2001)
        with torch.no_grad():
            mass = float((one(*c).log_prob(values).double().exp() * weight).sum())
        assert (0.9 if name in ("NAF", "UNAF", "SOSPF") else 0.998) < mass < 1.002, name
        check_shapes(three, c, ())
        with pyro.plate("data", 4):
            assert pyro.sample("z", three(*c)).shape == (4, 3)
    assert refused == {"GF", "NCSF"}


def test_flows_over_something_else_than_the_latents_are_refused(flows):
    transform = flows.MAF(3).transform
    for flow in (lambda n, c: flows.MAF(n + 1, c), lambda n, c: transform):
        with pytest.raises(ValueError, match="^flow: expected a distribution of 3 real numbers"):
            pv.priors.ZukoFlow(3, flow=flow)


def test_missing_zuko_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r"pyro-vae\[zuko\]"):
        pv.priors.ZukoFlow(3)
