"""Networks see any number of leading dimensions and never mix them up with the batch."""

import pytest
import torch
from torch import nn

import pyro_vae as pv


class Hidden(nn.Module):
    """A user's network that counts dimensions: BatchNorm after Flatten, features equal to the batch."""

    def __init__(self, features, out):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features), nn.Linear(features, out))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("particles", [1, 2, 5])
@pytest.mark.parametrize("batch", [4, 6])
def test_batch_norm_sees_one_batch(particles, batch):
    net = pv.nets.build(lambda i, o: Hidden(i[0], o[0]), (4,), (3,))
    x = torch.randn(particles, batch, 4)
    expected = net.body.body[2](nn.functional.batch_norm(x.reshape(-1, 4), None, None, training=True))
    assert torch.allclose(net(x).reshape(-1, 3), expected, atol=1e-5)


@pytest.mark.parametrize("net", [pv.nets.MLP, pv.nets.ConvEncoder, pv.nets.ConvDecoder])
@pytest.mark.parametrize("context", [0, 3])
def test_leading_dimensions(net, context):
    module = net((2, 9, 7), (2, 6, 5), context=context)
    x, c = torch.randn(3, 4, 2, 9, 7), torch.randn(4, context)
    args = (c,) if context else ()
    y = module(x, *args)
    assert y.shape == (3, 4, 2, 6, 5)
    for k in range(3):
        for b in range(4):
            alone = module(x[k, b], *(a[b] for a in args))
            assert torch.allclose(alone, y[k, b], atol=1e-5)


@pytest.mark.parametrize("size", [(28, 28), (8, 8), (28, 20), (7, 5), (32, 32), (1, 9), (3, 16, 16)])
def test_convolutions_of_every_size(size):
    assert pv.nets.ConvEncoder(size, (2, 3))(torch.zeros(5, *size)).shape == (5, 2, 3)
    assert pv.nets.ConvDecoder((3,), (2, *size))(torch.zeros(5, 3)).shape == (5, 2, *size)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"in_shape \(4,\) got an input of shape \(5, 3\)"):
        pv.nets.MLP((4,), (2,))(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="takes a context of 3 numbers"):
        pv.nets.MLP((4,), (2,), context=3)(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="a convolution needs an image"):
        pv.nets.ConvEncoder((4,), (2,))
    with pytest.raises(TypeError, match="returned int"):
        pv.likelihoods.Bernoulli(2, (3,), net=lambda i, o: 5)
    with pytest.raises(ValueError, match="positive ints"):
        pv.nets.MLP((0,), (2,))


def test_any_callable_makes_a_network():
    part = pv.likelihoods.Normal(2, (3,), net=lambda i, o: nn.Linear(i[0], o[0]))
    assert part(torch.zeros(7, 5, 2)).batch_shape == (7, 5)
