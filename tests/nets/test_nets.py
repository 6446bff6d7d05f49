"""Networks accept any number of batch dimensions and never confuse them with features."""

import functools

import pytest
import torch
from torch import nn

import pyro_vae as pv


class Normalized(nn.Module):
    """A user's network that counts dimensions: BatchNorm after Flatten, with as many features as rows."""

    def __init__(self, features, out):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features), nn.Linear(features, out))

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("num_particles", [1, 2, 5])
@pytest.mark.parametrize("batch", [4, 6])
def test_batch_norm_sees_one_batch(num_particles, batch):
    net = pv.nets.build(lambda i, o: Normalized(i[0], o[0]), (4,), (3,))
    x = torch.randn(num_particles, batch, 4)
    expected = net.body.body[2](nn.functional.batch_norm(x.reshape(-1, 4), None, None, training=True))
    assert torch.allclose(net(x).reshape(-1, 3), expected, atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        functools.partial(pv.nets.MLP, hidden=(8,)),
        functools.partial(pv.nets.ConvEncoder, hidden=8),
        functools.partial(pv.nets.ConvDecoder, hidden=8),
    ],
    ids=lambda net: net.func.__name__,
)
@pytest.mark.parametrize("context", [0, 3])
def test_rows_do_not_depend_on_batch_dimensions(net, context):
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


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="x"):
        pv.nets.MLP((4,), (2,))(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="context"):
        pv.nets.MLP((4,), (2,), context=3)(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="in_shape"):
        pv.nets.ConvEncoder((4,), (2,))
    with pytest.raises(ValueError, match="out_shape"):
        pv.nets.ConvDecoder((4,), (2,))
    with pytest.raises(TypeError, match="net"):
        pv.likelihoods.Bernoulli(2, (3,), net=lambda i, o: 5)
    for shape in ((0,), (2.5,), (True,), ("3",)):
        with pytest.raises(ValueError, match="shape"):
            pv.nets.MLP(shape, (2,))


def test_any_callable_builds_a_network():
    part = pv.likelihoods.Normal(2, (3,), net=lambda i, o: nn.Linear(i[0], o[0]))
    assert part(torch.zeros(7, 5, 2)).batch_shape == (7, 5)
