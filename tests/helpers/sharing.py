"""Programs with parameters that occur more than once in their modules, or that are not trained."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn

import pyro_vae as pv
from helpers.compiled import Case
from pyro_vae import estimators as E

ROWS = 16
MLP = functools.partial(pv.nets.MLP, hidden=(16, 16))


def binary(features: int = 8) -> Tensor:
    return torch.rand(ROWS, features, generator=torch.Generator().manual_seed(2)).round()


def vae(prior: Any = None, posterior: Any = None, net: Callable[..., nn.Module] = MLP) -> pv.VAE:
    return pv.VAE(
        prior=prior or pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Bernoulli(3, (8,), net=net),
        posterior=posterior or pv.posteriors.MeanFieldNormal((8,), 3, net=net),
    )


def discrete() -> pv.VAE:
    return vae(pv.priors.Bernoulli(3), pv.posteriors.Bernoulli((8,), 3, net=MLP))


class Centered(nn.Module):
    """Subtracts a running mean, which is a buffer."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        return x - self.mean


class Remembering(nn.Linear):
    """Stores its output as an attribute."""

    latest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.latest = super().forward(x)
        return self.latest


class TwoSites(pv.Program):
    """Two latent sites, whose encoder belongs to the program under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = self.also_encoder = pv.posteriors.MeanFieldNormal((8,), 3, net=MLP)
        self.top, self.down = pv.posteriors.MeanFieldNormal((3,), 2), pv.posteriors.MeanFieldNormal((2,), 3)
        self.prior, self.likelihood = pv.priors.Normal(2), pv.likelihoods.Bernoulli(3, (8,))

    def model(self, x: Tensor) -> Any:
        pv.programs.announce(program=self)
        with pv.programs.DataPlate(x):
            z = pyro.sample("z", self.down(pyro.sample("y", self.prior())))
            return pv.programs.observe("x", self.likelihood(z), x)

    def guide(self, x: Tensor) -> Any:
        with pv.programs.DataPlate(x):
            return pyro.sample("y", self.top(pyro.sample("z", self.encoder(x))))


def shared_posterior(prior: Callable[[Any], Any], net: Callable[..., nn.Module] = MLP) -> Callable[[], pv.VAE]:
    """Return what builds a VAE whose prior contains its posterior."""

    def make() -> pv.VAE:
        posterior = pv.posteriors.MeanFieldNormal((8,), 3, net=net)
        return vae(prior(posterior), posterior)

    return make


def changed(change: Callable[[pv.VAE], Any], net: Callable[..., nn.Module] = MLP) -> Callable[[], pv.VAE]:
    """Return what builds a VAE and then changes it."""

    def make() -> pv.VAE:
        program = vae(net=net)
        change(program)
        return program

    return make


def with_shared_buffer() -> pv.VAE:
    mean = torch.zeros(())
    return vae(net=lambda inputs, outputs: nn.Sequential(Centered(mean), MLP(inputs, outputs)))


def batch_norm(inputs: Sequence[int], outputs: Sequence[int]) -> nn.Module:
    return nn.Sequential(MLP(inputs, (6,)), nn.BatchNorm1d(6), MLP((6,), outputs))


def set_layer(net: Any, i: int, layer: nn.Module) -> None:
    net.body[i] = layer


def sharing_cases() -> dict[str, Case]:
    """Return programs with parameters that a module tree holds more than once, or that are not trained."""
    x = (binary(),)
    baseline = functools.partial(E.NVIL, num_particles=2, baseline=nn.Linear(8, 1))
    discriminator = nn.Sequential(nn.Linear(3, 3), layer := nn.Linear(3, 3), nn.ReLU(), layer, nn.Linear(3, 1))
    bayesian = functools.partial(pv.programs.BayesianDecoder, prior=pv.priors.StandardNormal(3), num_examples=ROWS)

    def twice(program: pv.VAE) -> None:
        set_layer(program.likelihood.net, 2, layer := nn.Linear(16, 16))
        set_layer(program.likelihood.net, 3, nn.Sequential(nn.Tanh(), layer))

    return {
        "VampPrior": Case(shared_posterior(pv.priors.VampPrior), x, E.IWAE),
        "VampPrior, batch norm": Case(shared_posterior(pv.priors.VampPrior, batch_norm), x),
        "VampPrior, frozen posterior": Case(
            lambda: freeze(shared_posterior(pv.priors.VampPrior)(), "posterior.net.body.2"), x
        ),
        "ExemplarPrior": Case(shared_posterior(lambda q: pv.priors.ExemplarPrior(q, binary()[:5])), x),
        "tied weights": Case(
            changed(lambda p: setattr(p.likelihood.net.body[2], "weight", p.posterior.net.body[2].weight)), x
        ),
        "layer in two parts": Case(
            changed(lambda p: set_layer(p.likelihood.net, 2, p.posterior.net.body[2])), x, E.DReG
        ),
        "layer used twice": Case(changed(twice), x),
        "encoder under two names, two sites": Case(TwoSites, x, E.StickingTheLanding),
        "Bayesian layer used twice": Case(lambda: bayesian_with(bayesian, twice), x),
        "shared buffer": Case(with_shared_buffer, x),
        "frozen layer": Case(lambda: freeze(vae(), "likelihood.net.body.0"), x),
        "parametrization": Case(changed(lambda p: nn.utils.parametrizations.weight_norm(p.likelihood.net.body[2])), x),
        "weight as an attribute": Case(changed(lambda p: nn.utils.spectral_norm(p.likelihood.net.body[2])), x),
        "output as an attribute": Case(changed(lambda p: set_layer(p.likelihood.net, 2, Remembering(16, 16))), x),
        "estimator with a module": Case(discrete, x, lambda: copy.deepcopy(baseline())),
        "estimator with a layer used twice": Case(
            vae, x, lambda: E.FactorVAE(discriminator=copy.deepcopy(discriminator))
        ),
    }


def bayesian_with(make: Callable[..., Any], change: Callable[[Any], None]) -> pv.Program:
    inner = changed(change)()
    return make(likelihood=inner.likelihood, posterior=inner.posterior)


def freeze(program: pv.VAE, name: str) -> pv.VAE:
    for p in program.get_submodule(name).parameters():
        p.requires_grad_(False)
    return program
