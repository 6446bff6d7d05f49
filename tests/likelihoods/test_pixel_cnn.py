"""The autoregressive decoder: its order, its mass and its samples."""

import math

import pytest
import torch

import pyro_vae as pv

L = pv.likelihoods


@pytest.mark.parametrize(("shape", "levels"), [((2, 3), 2), ((2, 1, 2), 3)])
def test_pixel_cnn_sums_to_one_and_samples_from_its_density(shape, levels):
    torch.manual_seed(2)
    part = L.PixelCNN(2, shape, levels=levels, features=4, layers=2)
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(3)
        fn = part(torch.randn(2))
        size = math.prod(shape)
        points = torch.cartesian_prod(*[torch.arange(levels) / (levels - 1)] * size).reshape(-1, *shape)
        p = fn.log_prob(points).double().exp()
        assert math.isclose(p.sum(), 1, abs_tol=1e-5)
        n = 4000
        codes = (fn.sample((n,)).flatten(1) * (levels - 1)).round().long()
        index = codes @ levels ** torch.arange(size - 1, -1, -1)
        seen = torch.bincount(index, minlength=levels**size) / n
        assert ((seen - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 3), (5,)])
def test_pixel_cnn_depends_on_earlier_pixels_only(shape):
    part = L.PixelCNN(2, shape, levels=3, features=4).double()
    h = part.net(torch.randn(1, 2, dtype=torch.float64)).detach()
    x = torch.rand(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: part.logits(v, h).sum(-1), x)
    order = torch.tensor(part.order)
    seen = jacobian.reshape(len(order), len(order))[order][:, order]
    assert (seen.triu() == 0).all()
    assert (seen.tril(-1) != 0).sum() > 0.9 * len(order) * (len(order) - 1) / 2
    z = torch.randn(1, 2, dtype=torch.float64)
    assert not torch.allclose(part(z).log_prob(torch.zeros_like(x)), part(z + 1).log_prob(torch.zeros_like(x)))
