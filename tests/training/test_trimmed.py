"""Training that leaves the least likely rows out."""

import functools

import pytest
import torch

import pyro_vae as pv
from pyro_vae.training import fit_trimmed

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


def test_a_cluster_of_anomalies_is_not_learned():
    """The cluster is 9% of the rows: plain training ends by finding it usual, trimmed training does not."""
    x, how = (
        contaminated(),
        {"epochs": 100, "progress": False, "optimizer": functools.partial(torch.optim.Adam, lr=3e-3)},
    )
    gaps = []
    for fit in (pv.fit, fit_trimmed):
        program = vae()
        fit(program, x, **how)
        scores = pv.tasks.ImportanceWeighted(50)(program, x)
        gaps.append(float(scores[400:].mean() - scores[:400].quantile(0.95)))
    plain, trimmed = gaps
    assert plain < 0 < trimmed


def test_no_trimming_is_fit():
    x = contaminated()
    one, two = vae(), vae()
    pv.fit(one, x, epochs=5, seed=3, progress=False)
    fit_trimmed(two, x, trim=0, epochs=5, seed=3, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_history_runs_on():
    """Epochs are counted through both parts; the second part has fewer rows, that is, fewer steps per epoch."""
    history = fit_trimmed(vae(), contaminated(), trim=0.5, epochs=8, batch_size=46, progress=False)
    assert history["epoch"] == list(range(8))
    assert history["step"] == [10, 20, 25, 30, 35, 40, 45, 50]
    assert history["seconds"] == sorted(history["seconds"])


def test_one_epoch_leaves_no_row_out():
    assert fit_trimmed(vae(), contaminated(), epochs=1, batch_size=46, progress=False)["step"] == [10]


@pytest.mark.parametrize("trim", [-0.1, 1.0, float("nan"), "few"])
def test_invalid_shares_are_refused(trim):
    with pytest.raises((TypeError, ValueError), match="trim"):
        fit_trimmed(vae(), contaminated(), trim=trim)
