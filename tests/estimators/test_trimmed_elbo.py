"""TrimmedELBO leaves the least likely rows of each batch out."""

import functools

import pytest
import torch

import pyro_vae as pv
from pyro_vae.estimators import ELBO, TrimmedELBO

NET = functools.partial(pv.nets.MLP, hidden=(16,))


def vae(latent=2, columns=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pv.VAE(
            prior=pv.priors.StandardNormal(latent),
            likelihood=pv.likelihoods.Laplace(latent, (columns,), net=NET, scale=pv.scales.Shared()),
            posterior=pv.posteriors.MeanFieldNormal((columns,), latent, net=NET),
        )


def contaminated():
    """Return 400 rows on a plane, followed by 40 of a dense cluster far from it."""
    g = torch.Generator().manual_seed(0)
    plane = torch.randn(400, 2, generator=g) @ torch.tensor([[1.0, 0.5, -0.5, 0.2], [0.0, 1.0, 0.5, -1.0]])
    cluster = torch.tensor([3.0, -3.0, 3.0, 3.0]) + 0.2 * torch.randn(40, 4, generator=g)
    return torch.cat([plane + 0.1 * torch.randn(400, 4, generator=g), cluster])


def bounds(estimator, x):
    program = vae()
    torch.manual_seed(0)
    return estimator.per_datum(program.model, program.guide, x)


@pytest.mark.parametrize(("trim", "rows", "kept"), [(0.25, 8, 6), (0.2, 7, 6), (0.9, 10, 1), (0.5, 1, 1), (0.0, 5, 5)])
def test_mean_is_that_of_the_most_likely_rows(trim, rows, kept):
    x = contaminated()[-rows:] * torch.linspace(1, 2, rows).unsqueeze(1)
    whole, found = bounds(ELBO(), x), bounds(TrimmedELBO(trim=trim), x)
    assert int((found != 0).sum()) == kept
    torch.testing.assert_close(found.mean(), whole.sort(descending=True).values[:kept].mean())


def test_a_cluster_of_anomalies_is_not_learned():
    """The cluster is 9% of the rows: plain training ends by finding it usual, trimmed training does not."""
    x, how = (
        contaminated(),
        {"epochs": 100, "progress": False, "optimizer": functools.partial(torch.optim.Adam, lr=3e-3)},
    )
    gaps = []
    for estimator in (ELBO(), TrimmedELBO()):
        program = vae()
        pv.fit(program, x, estimator=estimator, **how)
        scores = pv.tasks.ImportanceWeighted(50)(program, x)
        gaps.append(float(scores[400:].mean() - scores[:400].quantile(0.95)))
    plain, trimmed = gaps
    assert plain < 0 < trimmed


@pytest.mark.parametrize("trim", [-0.1, 1.0, float("nan"), "few"])
def test_invalid_shares_are_refused(trim):
    with pytest.raises((TypeError, ValueError), match="trim"):
        TrimmedELBO(trim=trim)
