"""A linear-Gaussian model with a class; its evidence and posteriors are known exactly."""

import torch
from pyro import distributions as dist

import pyro_vae as pv

CLASSES, LATENT, FEATURES, SIGMA = 3, 2, 4, 0.7


def given(seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    basis, _ = torch.linalg.qr(draw(FEATURES, LATENT))
    return basis * torch.tensor([1.2, 0.7]), 1.5 * draw(CLASSES, FEATURES), torch.tensor([0.5, 0.3, 0.2])


class Classes(pv.Conditional):
    def __init__(self, probs):
        super().__init__()
        self.register_buffer("probs", probs.double())

    def forward(self, *context):
        return dist.OneHotCategorical(self.probs)


class Decoder(pv.Conditional):
    """x given z and y: normal with mean W z + mu_y, or W z + mu_0 with `shift=False`."""

    def __init__(self, w, mu, shift=True):
        super().__init__()
        self.w, self.mu, self.shift = torch.nn.Parameter(w.clone()), torch.nn.Parameter(mu.clone()), shift

    def forward(self, z, y):
        mean = z @ self.w.T + (y @ self.mu if self.shift else self.mu[0])
        return dist.Normal(mean, SIGMA).to_event(1)


class Classifier(pv.Conditional):
    """The exact p(y given x), with logits shifted by multiples of `off`."""

    def __init__(self, model, off=0.0):
        super().__init__()
        self.model, self.off = [model], torch.nn.Parameter(off * torch.arange(CLASSES).double())

    def forward(self, x):
        return dist.OneHotCategorical(logits=self.model[0].log_joint(x) + self.off)


class Encoder(pv.Conditional):
    """The exact p(z given x, y), with its mean shifted by `off`."""

    def __init__(self, w, mu, off=0.0):
        super().__init__()
        self.w, self.mu = torch.nn.Parameter(w.clone()), torch.nn.Parameter(mu.clone())
        self.off = torch.nn.Parameter(torch.tensor(float(off), dtype=torch.float64))

    def forward(self, x, y):
        m = self.w.T @ self.w / SIGMA**2 + torch.eye(LATENT, dtype=torch.float64)
        mean = torch.linalg.solve(m, ((x - y @ self.mu) @ self.w / SIGMA**2).unsqueeze(-1)).squeeze(-1)
        return dist.Normal(mean + self.off, m.diagonal() ** -0.5).to_event(1)


class Toy:
    def __init__(self, off=0.0, alpha=0.0):
        self.w, self.mu, self.probs = given()
        self.program = pv.programs.SemiSupervised(
            classes=Classes(self.probs),
            prior=pv.priors.StandardNormal(LATENT),
            likelihood=Decoder(self.w, self.mu),
            classifier=Classifier(self, off),
            posterior=Encoder(self.w, self.mu, off),
            alpha=alpha,
        ).double()

    def log_joint(self, x):
        """Return the exact log p(x, y) for each class, of shape (n, classes)."""
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(FEATURES, dtype=torch.float64)
        fn = dist.MultivariateNormal(self.mu.double(), covariance)
        return fn.log_prob(x.unsqueeze(-2)) + self.probs.double().log()


def labels(n, known):
    """Return one-hot labels, NaN from row `known` on."""
    y = torch.nn.functional.one_hot(torch.arange(n) % CLASSES, CLASSES).double()
    y[known:] = float("nan")
    return y
