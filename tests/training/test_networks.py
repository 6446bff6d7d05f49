"""Warnings about networks that cannot learn from the data: outputs of one sign as logits, and large inputs."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

import pyro_vae as pv

SMALL = partial(pv.nets.MLP, hidden=(4,))
X = torch.rand(30, 4, generator=torch.Generator().manual_seed(0))
BITS = X.round()


class Functional(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z):
        return torch.sigmoid(self.net(z)).reshape(len(z), 2, 2).flatten(1)


ENDS = {
    "Sigmoid": lambda i, o: nn.Sequential(SMALL(i, o), nn.Sigmoid()),
    "Softmax": lambda i, o: nn.Sequential(SMALL(i, o), nn.Softmax(-1)),
    "Softplus": lambda i, o: nn.Sequential(SMALL(i, o), nn.Softplus()),
    "ReLU in place": lambda i, o: nn.Sequential(SMALL(i, o), nn.ReLU(inplace=True)),
    "a function": lambda i, o: Functional(SMALL(i, o)),
}


def vae(likelihood=pv.likelihoods.Bernoulli, encoder=SMALL, **options):
    torch.manual_seed(0)
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=likelihood(2, (4,), **{"net": SMALL, **options}),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, net=encoder),
    )


def train(program, data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        pv.fit(program, data, epochs=1, batch_size=10, progress=False)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("likelihood", [pv.likelihoods.Bernoulli, pv.likelihoods.ContinuousBernoulli])
def test_logits_of_one_sign(likelihood, end):
    (said,) = train(vae(likelihood, net=ENDS[end]), BITS)
    assert said.startswith("likelihood: ")
    assert "Leave the last activation out" in said


@pytest.mark.parametrize("end", [*ENDS, "MLP", "Tanh"])
def test_means_may_have_one_sign(end):
    """Means of a Normal may be in [0, 1], and no warning follows from outputs that happen to have one sign."""
    nets = {**ENDS, "MLP": SMALL, "Tanh": lambda i, o: nn.Sequential(SMALL(i, o), nn.Tanh())}
    assert train(vae(pv.likelihoods.Normal, net=nets[end]), X) == []
    program = vae()
    with torch.no_grad():
        program.likelihood.net.body[-1].bias.fill_(0.5)
    assert train(program, BITS) == []


def test_large_inputs():
    """One warning with the column and the cure, also for a loader; none with the cure, and none for the decoder."""
    x = X.clone()
    x[:, 2] *= 1e6
    columns = pv.data.tables.schema(x.numpy())
    options = {"likelihood": pv.likelihoods.Heterogeneous, "columns": columns}
    for data in (x, torch.utils.data.DataLoader(x, batch_size=10)):
        found = train(vae(**options), data)
        assert len(found) == 1, found
        (said,) = found
        assert said.startswith("posterior: ")
        assert "input 2" in said
        assert "Features" in said
    assert train(vae(encoder=partial(pv.data.tables.Features, columns, net=SMALL), **options), x) == []
