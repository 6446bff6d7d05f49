"""The linear-Gaussian model with missing entries, and the exact density of the observed ones."""

import torch

import pyro_vae as pv


def holes(x, share=0.4, seed=0):
    """Return x with a fraction of its entries NaN, none in the first column."""
    generator = torch.Generator().manual_seed(seed)
    missing = torch.rand(x.shape, generator=generator) < share
    missing[:, 0] = False
    return torch.where(missing, torch.full_like(x, float("nan")), x)


def with_missing(toy):
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood, "posterior": toy.program.posterior}
    return pv.VAE(**parts, missing=True)


def marginal(toy, row):
    """Return the exact log-density of the observed entries of one row."""
    seen = ~torch.isnan(row)
    w, mean = toy.decoder.weight[seen], toy.decoder.bias[seen]
    noise = toy.program.likelihood.scale() ** 2 * torch.eye(int(seen.sum()), dtype=w.dtype)
    return torch.distributions.MultivariateNormal(mean, w @ w.T + noise).log_prob(row[seen])
