"""The public API as a user calls it, in fully typed code: it runs here, and mypy checks it under strict settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.testing import check_estimator, check_part, parts
from pyro_vae.trace import Terms

NET = partial(pv.nets.MLP, hidden=(8,))
X = torch.rand(40, 2, 3, generator=torch.Generator().manual_seed(0)).round()


def make_vae(*, missing: bool = False) -> pv.VAE:
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (2, 3), net=NET),
        posterior=pv.posteriors.MeanFieldNormal((2, 3), 2, net=NET),
        missing=missing,
    )


def train(program: pv.Program, x: Tensor = X, run_dir: Path | None = None) -> pv.training.History:
    return pv.fit(
        program,
        x,
        valid=x[:10],
        estimator=pv.estimators.IWAE(num_particles=3, beta=pv.training.Linear(2)),
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        epochs=1,
        batch_size=20,
        seed=1,
        run_dir=run_dir,
        callbacks=[pv.training.EarlyStopping(2)],
        progress=False,
    )


def test_train_and_load(tmp_path: Path) -> None:
    vae = make_vae()
    history = train(vae, run_dir=tmp_path / "run")
    loss: list[float] = history["loss"]
    assert len(loss) == len(history) == 1
    assert (tmp_path / "run" / "weights.safetensors").exists()


def test_program() -> None:
    vae = make_vae()
    prior: TorchDistributionMixin = vae.prior()
    q: TorchDistributionMixin = vae.encode(X)
    p: TorchDistributionMixin = vae.decode(q.rsample())
    images: Tensor = vae.sample(5, mean=True)
    assert prior.event_shape == q.event_shape == (2,)
    assert p.event_shape == vae.reconstruct(X).shape[1:] == images.shape[1:] == (2, 3)
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.ClippedAdam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
    assert math.isfinite(svi.step(X))


def test_amortize() -> None:
    program: pv.Program = pv.amortize(make_vae().model, X, net=NET, structure=pv.programs.Inverse())
    q: TorchDistributionMixin = pv.amortize(make_vae().model, X, net=NET).posteriors["z"](X)
    assert q.event_shape == (2,)
    assert len(train(program)) == 1


def test_estimator() -> None:
    vae, estimator = make_vae(), pv.estimators.ELBO(num_particles=2, particles_per_pass=1, free_bits=0.1)
    loss: Tensor = estimator.differentiable_loss(vae.model, vae.guide, X)
    loss.backward()
    per_example: Tensor = estimator.per_datum(vae.model, vae.guide, X)
    value: float = estimator.loss(vae.model, vae.guide, X)
    assert per_example.shape == (40,)
    assert math.isfinite(value)


def test_evaluation() -> None:
    vae = make_vae()
    found = pv.evaluation.log_likelihood(vae, X, num_particles=10)
    mean: float = found.mean
    per_example: Tensor = found.per_example
    assert math.isfinite(mean)
    assert per_example.shape == (40,)


def test_tasks() -> None:
    vae = train_missing()
    x = X.clone()
    x[:, 0, 0] = float("nan")
    imputation = pv.tasks.impute(vae, x[:4], num_particles=10)
    embedding = pv.tasks.embed(vae, X)
    detector = pv.tasks.Detector(vae, pv.tasks.NegativeBound(num_particles=2), X)
    assert imputation.x.shape == (4, 2, 3)
    assert embedding.mean.shape == (40, 2)
    assert detector.scores(X[:3]).shape == (3,)
    assert pv.tasks.generate(vae, 3).shape == (3, 2, 3)


def train_missing() -> pv.VAE:
    vae = make_vae(missing=True)
    train(vae)
    return vae


def test_data() -> None:
    digits: pv.data.Dataset = pv.data.load("digits", binarize="static")
    images: Tensor = digits.train.x
    assert images.shape[1:] == (8, 8)


def independent(fn: TorchDistributionMixin, event_dim: int) -> TorchDistributionMixin:
    """Call `to_event`, which Pyro leaves without types."""
    joined: TorchDistributionMixin = fn.to_event(event_dim)
    return joined


class Wide(pv.Conditional):
    """A part that a user writes: a prior with a learned scale."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(latent))

    def forward(self, *context: Tensor) -> TorchDistributionMixin:
        return independent(dist.Normal(torch.zeros_like(self.log_scale), self.log_scale.exp()), 1)


class SoftLaplace(pv.Conditional):
    """A likelihood that a user writes, with a network of the library inside."""

    def __init__(self, latent: int, shape: tuple[int, ...], *, net: Callable[..., nn.Module] = pv.nets.MLP) -> None:
        super().__init__()
        self.net = net((latent,), shape)
        self.event_dim = len(shape)

    def forward(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        return independent(dist.SoftLaplace(self.net(z), 1.0), self.event_dim)


class MeanWeight(pv.estimators.Estimator):
    """An estimator that a user writes: the mean log-weight of the particles."""

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        return terms.log_w(beta).mean(0)


class Coins(pv.Program):
    """A program that a user writes, without latents."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(()))

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        pv.programs.announce(coins=self)
        with pv.programs.DataPlate(x):
            return pv.programs.observe("x", dist.Bernoulli(logits=self.logits), x)

    def guide(self, x: Tensor, *context: Tensor) -> None:
        pass


def test_own_parts() -> None:
    check_part(Wide(2))
    check_part(SoftLaplace(2, (2, 3), net=NET), (2,))
    vae = pv.VAE(
        prior=Wide(2),
        likelihood=SoftLaplace(2, (2, 3), net=NET),
        posterior=pv.posteriors.MeanFieldNormal((2, 3), 2, net=NET),
    )
    check_estimator(vae, MeanWeight(num_particles=2), X[:5])


def test_own_program() -> None:
    history = pv.fit(Coins(), torch.ones(8), epochs=1, progress=False)
    assert len(history) == 1


def test_every_part_builds_an_example() -> None:
    examples: list[pv.Conditional] = [cls.example() for cls in parts(pv.posteriors)]
    assert len(examples) == len(list(parts(pv.posteriors)))
