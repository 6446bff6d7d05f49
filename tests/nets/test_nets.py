"""Networks accept any number of batch dimensions and never confuse them with features."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.training import eager_graph


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
        functools.partial(pv.nets.MLP, hidden=(8,), linear=True),
        functools.partial(pv.nets.ConvEncoder, hidden=8),
        functools.partial(pv.nets.ConvDecoder, hidden=8),
        functools.partial(pv.nets.ConvEncoder, hidden=8, dims=1),
        functools.partial(pv.nets.ConvDecoder, hidden=8, dims=3),
        functools.partial(pv.nets.ResNetEncoder, channels=(8, 12)),
        functools.partial(pv.nets.ResNetDecoder, channels=(12, 8)),
        functools.partial(pv.nets.RecurrentEncoder, hidden=4, layers=2),
        functools.partial(pv.nets.TemporalConvEncoder, channels=4),
        functools.partial(pv.nets.TransformerEncoder, width=8, heads=2),
    ],
    ids=lambda net: "-".join([net.func.__name__, *map(str, net.keywords.values())]),
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
    for encoder in (pv.nets.ConvEncoder, pv.nets.ResNetEncoder):
        assert encoder(size, (2, 3))(torch.zeros(5, *size)).shape == (5, 2, 3)
    for decoder in (pv.nets.ConvDecoder, pv.nets.ResNetDecoder):
        assert decoder((3,), (2, *size))(torch.zeros(5, 3)).shape == (5, 2, *size)


@pytest.mark.parametrize("size", [(1,), (9,), (3, 16), (5, 6, 7), (2, 5, 6, 7), (1, 1, 1)])
def test_convolutions_of_one_and_three_dimensions(size):
    dims = 3 if len(size) > 2 else 1
    assert pv.nets.ConvEncoder(size, (2, 3), dims=dims)(torch.zeros(5, *size)).shape == (5, 2, 3)
    assert pv.nets.ConvDecoder((3,), (2, *size), dims=dims)(torch.zeros(5, 3)).shape == (5, 2, *size)


@pytest.mark.parametrize("channels", [(), (8,), (6, 3, 1), (64, 32)])
@pytest.mark.parametrize("blocks", [0, 2])
def test_residual_networks_of_every_size(channels, blocks):
    options = {"channels": channels, "blocks": blocks}
    assert pv.nets.ResNetEncoder((3, 9, 6), (2,), **options)(torch.rand(4, 3, 9, 6)).shape == (4, 2)
    assert pv.nets.ResNetDecoder((2,), (3, 9, 6), **options)(torch.rand(4, 2)).shape == (4, 3, 9, 6)


def pixels_read(transposed):
    """How many weights of the last layer each pixel of an image reads, for a decoder of two stages."""
    decoder = (pv.nets.ConvDecoder if transposed else pv.nets.ResNetDecoder)((1,), (32, 32), channels=(8, 8))
    last = [m for m in decoder.modules() if isinstance(m, (nn.ConvTranspose2d if transposed else nn.Conv2d))][-1]
    inside = []
    last.register_forward_pre_hook(lambda module, inputs: inside.append(torch.ones_like(inputs[0])))
    decoder(torch.zeros(1, 1))
    with torch.no_grad():
        last.weight.fill_(1.0)
        last.bias.zero_()
        return last(inside[0])[0, 0, 2:-2, 2:-2]


def test_a_residual_decoder_reads_as_many_weights_in_every_pixel():
    """A transposed convolution does not: its images have a checkerboard."""
    assert pixels_read(transposed=False).unique().numel() == 1
    assert pixels_read(transposed=True).unique().numel() > 1


def test_steps_of_a_sequence_are_read_in_order_and_elements_of_a_set_are_not():
    x, order = torch.randn(3, 7, 2), torch.tensor([3, 1, 0, 6, 5, 2, 4])
    nets = pv.nets
    for net in (nets.RecurrentEncoder, nets.TemporalConvEncoder, nets.TransformerEncoder):
        module = net((7, 2), (4,))
        assert not torch.allclose(module(x), module(x[:, order]), atol=1e-4)
    module = nets.TransformerEncoder((7, 2), (4,), positions=False)
    assert torch.allclose(module(x), module(x[:, order]), atol=1e-5)


@pytest.mark.parametrize(
    ("net", "likelihood"), [(pv.nets.ResNetEncoder, pv.nets.ResNetDecoder), (pv.nets.ConvEncoder, pv.nets.ConvDecoder)]
)
def test_networks_of_images_train_compiled_as_uncompiled(net, likelihood):
    x = (torch.rand(16, 3, 9, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    losses = []
    for compiler in (False, eager_graph):
        torch.manual_seed(0)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.Bernoulli(2, (3, 9, 8), net=functools.partial(likelihood, channels=(4, 4))),
            posterior=pv.posteriors.MeanFieldNormal((3, 9, 8), 2, net=functools.partial(net, channels=(4, 4))),
        )
        losses.append(pv.fit(vae, x, epochs=3, batch_size=8, compile=compiler, progress=False)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="x"):
        pv.nets.MLP((4,), (2,))(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="context"):
        pv.nets.MLP((4,), (2,), context=3)(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="in_shape"):
        pv.nets.ConvEncoder((4,), (2,))
    with pytest.raises(ValueError, match="out_shape"):
        pv.nets.ConvDecoder((4,), (2,))
    with pytest.raises(ValueError, match="dims"):
        pv.nets.ConvDecoder((4,), (2, 8, 8), dims=4)
    with pytest.raises(ValueError, match="in_shape"):
        pv.nets.RecurrentEncoder((4,), (2,))
    with pytest.raises(ValueError, match="width"):
        pv.nets.TransformerEncoder((4, 2), (2,), width=9)
    with pytest.raises(TypeError, match="net"):
        pv.likelihoods.Bernoulli(2, (3,), net=lambda i, o: 5)
    for shape in ((0,), (2.5,), (True,), ("3",), True):
        with pytest.raises(ValueError, match="shape"):
            pv.nets.MLP(shape, (2,))


def test_a_number_is_the_shape_of_a_vector():
    for size in (4, np.int64(4)):
        net = pv.nets.MLP(size, 3)
        assert (net.in_shape, net.out_shape) == ((4,), (3,))


def test_any_callable_builds_a_network():
    part = pv.likelihoods.Normal(2, (3,), net=lambda i, o: nn.Linear(i[0], o[0]))
    assert part(torch.zeros(7, 5, 2)).batch_shape == (7, 5)


@pytest.mark.parametrize(
    ("net", "name", "values"),
    [
        ("MLP", "hidden", [(0,), (True,)]),
        ("ConvEncoder", "hidden", [0, 2.0]),
        ("ConvDecoder", "channels", [(0,), (8.0,)]),
        ("ResNetEncoder", "blocks", [-1, True]),
        ("ResNetDecoder", "channels", [(0,), (8.0,)]),
        ("RecurrentEncoder", "hidden", [0, 4.0]),
        ("RecurrentEncoder", "layers", [0, True]),
        ("TemporalConvEncoder", "channels", [0, 4.0]),
        ("TemporalConvEncoder", "layers", [0, True]),
        ("TransformerEncoder", "width", [0, 4.0]),
        ("TransformerEncoder", "heads", [0, 2.0]),
        ("TransformerEncoder", "layers", [0, True]),
        ("BagEncoder", "hidden", [(0,), (True,)]),
        ("SetEncoder", "embedding", [0, True]),
        ("SetEncoder", "features", [0, 4.0]),
    ],
)
def test_integer_arguments_are_checked_by_name(net, name, values):
    build = functools.partial(getattr(pv.nets, net), (8, 8), (8, 8))
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}"):
            build(**{name: value})
    valid = (np.int64(8),) if isinstance(values[0], tuple) else np.int64(8)
    assert build(**{name: valid})(torch.zeros(2, 8, 8)).shape == (2, 8, 8)


def test_networks_of_counts_read_logarithms():
    net = pv.nets.LogCounts((3,), (2,), context=1)
    x, c = torch.tensor([[0.0, 9.0, 1e6], [2.0, 1.0, 0.0]]), torch.randn(2, 1)
    assert torch.equal(net(x, c), net.body(x.log1p(), c))
    assert torch.allclose(net(x.expand(4, 2, 3), c)[3], net(x, c), atol=1e-5)
