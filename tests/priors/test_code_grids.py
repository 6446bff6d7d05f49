"""The PixelCNN prior over grids of codes: its mass, its samples and its order."""

import math

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import check_part

P = pv.priors


def small(grid=(2, 2), codes=3, **options):
    torch.manual_seed(2)
    part = P.PixelCNN(math.prod(grid) * codes, grid=grid, features=4, layers=2, **options)
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(3)
    return part


@pytest.mark.parametrize("context", [0, 2])
def test_it_sums_to_one_and_samples_from_its_density(context):
    """All 81 grids of 2 x 2 positions with 3 codes; counts of 4000 samples within 4.5 standard errors."""
    part, n = small(context=context), 4000
    with torch.no_grad():
        fn = part(*[torch.randn(2)] * bool(context))
        grids = fn.enumerate_support()
        assert len(grids.unique(dim=0)) == 3**4
        p = fn.log_prob(grids).double().exp()
        assert math.isclose(p.sum(), 1, abs_tol=1e-5)
        weights = 3 ** torch.arange(3, -1, -1)
        index, order = fn.codes(fn.sample((n,))) @ weights, fn.codes(grids) @ weights
        seen = torch.bincount(index, minlength=81)[order] / n
        assert ((seen - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


def test_each_position_depends_on_all_earlier_ones_and_no_other():
    part = small((3, 3), codes=2).double()
    z = part().sample((1,))
    h = part.position.detach()
    jacobian = torch.autograd.functional.jacobian(lambda v: part.logits(v, h.unsqueeze(0)).sum(-1), z)
    seen = jacobian.reshape(9, 9, 2).abs().sum(-1)
    assert (seen.triu() == 0).all()
    assert (seen.tril(-1) != 0).sum() > 0.9 * 36


def test_it_obeys_the_laws_of_parts_on_a_grid():
    check_part(small())
    check_part(small(context=2), (2,))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"grid": (2, 2)}, "grid"),
        ({"grid": (9,)}, "grid"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"layers": -1}, "layers"),
    ],
)
def test_wrong_arguments_are_refused(options, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        P.PixelCNN(9, **options)
