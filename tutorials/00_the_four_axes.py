# %% [markdown]
# # 0. Which four choices make a variational autoencoder?
#
# A VAE describes data by latents: a **prior** $p(z)$ says where latents live, a **likelihood** $p(x \mid z)$ how data
# scatter around what a network makes of them, and a **posterior** $q(z \mid x)$ guesses, by another network, which
# latents made a datum. An **estimator** of the evidence lower bound
#
# $$ \log p(x) \ge \mathbb E_{q(z \mid x)} \left[\log p(z) + \log p(x \mid z) - \log q(z \mid x)\right] $$
#
# trains all of them. Here each of the four is swapped while the other three stay, and what changes is drawn: one row
# of the figure an axis. Later tutorials look at each for itself.
#
# With `--full`: MNIST, two hidden layers of 500, 20 epochs, in about 30 minutes on one CPU core (the bow has the same
# exact answer).

# %%
from functools import partial

import torch
from budget import amount, epochs, figure, pick
from matplotlib.figure import Figure
from torch import nn

import pyro_vae as pv
from pyro_vae._util.random_state import fork_rng
from pyro_vae.plots.style import COLOURS, WIDTH, styled

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
train, test = data.train.x[: amount(smoke=128, default=None, full=None)], data.test.x[:1000]
NET = partial(pv.nets.MLP, hidden=pick(smoke=(100,), default=(100,), full=(500, 500)))
SMALL = partial(pv.nets.MLP, hidden=(100,))  # for what has no image on either side
RATE, LEVELS = pick(smoke=4e-3, default=4e-3, full=1e-3), pick(smoke=17, default=17, full=256)
SHAPE, EPOCHS = data.shape, epochs(smoke=1, default=100, full=20)

# %% [markdown]
# ## The program
#
# Three parts and one call. Whatever is swapped below, nothing else of this changes.


# %%
def trained(prior=None, likelihood=None, posterior=None, estimator=None):
    """Fit a VAE with two latents to the digits."""
    with fork_rng(seed=0):
        posterior = posterior or pv.posteriors.MeanFieldNormal(SHAPE, 2, net=NET)
        vae = pv.VAE(
            prior=prior(posterior) if prior else pv.priors.StandardNormal(2),
            likelihood=likelihood or pv.likelihoods.DiscretizedLogistic(2, SHAPE, levels=LEVELS, net=NET),
            posterior=posterior,
        )
    pv.fit(
        vae,
        train,
        estimator=estimator or pv.estimators.ELBO(),
        optimizer=partial(torch.optim.Adam, lr=RATE),
        epochs=EPOCHS,
        progress=False,
    )
    return vae


def score(vae):
    """Importance-weighted log-likelihood of test data, mean and standard error."""
    found = pv.evaluation.log_likelihood(vae, test, num_particles=amount(smoke=10, default=200, full=1000))
    return f"{found.mean:8.2f} ± {found.std_error:.2f}"


# %% [markdown]
# ## Axis 1: the prior
#
# The blue surface is the density of the prior, the points are where the posterior puts the data. A standard normal
# stays round whatever the data do; the others are learned with the rest and move to where the data are.

# %%
PRIORS = {
    "StandardNormal": lambda posterior: pv.priors.StandardNormal(2),
    "MixtureOfNormals": lambda posterior: pv.priors.MixtureOfNormals(2, num_components=10),
    "VampPrior": lambda posterior: pv.priors.VampPrior(posterior, num_components=30),
    "NeuralSplineFlow": lambda posterior: pv.priors.NeuralSplineFlow(2, layers=2, net=SMALL),
}
by_prior = {name: trained(prior=make) for name, make in PRIORS.items()}
print("log-likelihood of test digits, nats, by prior")
for name, vae in by_prior.items():
    print(f"{name:20}{score(vae)}")

# %% [markdown]
# ## Axis 2: the likelihood
#
# For four latents, the mean of $p(x \mid z)$ above and a draw below. What people show as samples are mostly means; the
# draw shows what the likelihood says of the noise. The normal's values are cut to the range of grey only for drawing.

# %%
LIKELIHOODS = {
    "ContinuousBernoulli": pv.likelihoods.ContinuousBernoulli(2, SHAPE, net=NET),
    "Normal, learned scale": pv.likelihoods.Normal(2, SHAPE, scale=pv.scales.Shared(0.3), net=NET),
    "Binomial": pv.likelihoods.Binomial(2, SHAPE, total=LEVELS - 1, grid=True, net=NET),
    "DiscretizedLogistic": pv.likelihoods.DiscretizedLogistic(2, SHAPE, levels=LEVELS, net=NET),
}
by_likelihood = {name: trained(likelihood=likelihood) for name, likelihood in LIKELIHOODS.items()}
chosen = test[:4]


def mean_and_draw(vae):
    """Return four means, and a draw from each."""
    with torch.no_grad(), fork_rng(seed=1):
        p = vae.decode(vae.encode(chosen).mean)
        return torch.cat([p.mean, p.sample()]).clamp(0, 1)


# %% [markdown]
# ## Axis 3: the posterior
#
# One datum $x = 1$ of a model whose posterior is known: $z \sim \mathcal N(0, I)$ and
# $x \mid z \sim \mathcal N(z_1^2 + z_2, 0.3^2)$. In grey the exact posterior, a bow; the lines are the guide.
# Each guide is fitted by the same estimator, and what it misses of $\log p(x)$ is its approximation gap.


# %%
class Bow(nn.Module):
    """The mean of x, with nothing to learn."""

    def forward(self, z):
        return (z[..., :1].square() + z[..., 1:]).contiguous()


def bow(posterior):
    """Return the model of the bow under a guide."""
    likelihood = pv.likelihoods.Normal(2, (1,), net=lambda inputs, outputs: Bow(), scale=0.3)
    return pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior)


x = torch.ones(256, 1)
axis = torch.linspace(-3, 3, 181)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
with torch.no_grad():
    joint = bow(pv.posteriors.MeanFieldNormal((1,), 2))
    log_joint = joint.prior().log_prob(grid) + joint.decode(grid).log_prob(x[0])
log_evidence = (log_joint.double().logsumexp((0, 1)) + 2 * (axis[1] - axis[0]).log()).item()

POSTERIORS = {
    "MeanFieldNormal": pv.posteriors.MeanFieldNormal,
    "FullRankNormal": pv.posteriors.FullRankNormal,
    "MixtureOfNormals": pv.posteriors.MixtureOfNormals,
    "NeuralSplineFlow": pv.posteriors.NeuralSplineFlow,
}
by_posterior = {}
print(f"\nexact log p(x) = {log_evidence:.3f} nats; approximation gap by posterior")
for name, part in POSTERIORS.items():
    with fork_rng(seed=1):
        vae = by_posterior[name] = bow(part((1,), 2, net=SMALL))
    # copies of one datum in a batch: many draws a step
    pv.fit(vae, x, epochs=amount(smoke=5, default=600, full=3000), batch_size=len(x), progress=False)
    with torch.no_grad(), fork_rng(seed=2):
        bound = pv.estimators.ELBO(num_particles=100).per_datum(vae.model, vae.guide, x).double()
    print(f"{name:20}{log_evidence - bound.mean():8.3f} ± {bound.std() / len(x) ** 0.5:.3f}")

# %% [markdown]
# ## Axis 4: the estimator
#
# The same program once more, its mean-field guide as fitted: draws of the gradient in one of the guide's
# biases, per estimator. A narrow heap is a gradient that training can follow.

# %%
K = 16
ESTIMATORS = {
    "ELBO, 1 particle": pv.estimators.ELBO(),
    f"IWAE, {K}": pv.estimators.IWAE(num_particles=K),
    f"DReG, {K}": pv.estimators.DReG(num_particles=K),
    "StickingTheLanding, 1": pv.estimators.StickingTheLanding(),
}
vae = by_posterior["MeanFieldNormal"]
weight = [p for p in vae.posterior.parameters() if p.requires_grad][-1]  # the biases of mean and scale
gradients = {}
print("\ngradient in the guide's location: mean, standard deviation, signal-to-noise ratio")
for name, estimator in ESTIMATORS.items():
    draws = []
    with fork_rng(seed=3):
        for _ in range(amount(smoke=20, default=1000, full=10000)):
            loss = estimator.differentiable_loss(vae.model, vae.guide, x[:1])
            draws.append(torch.autograd.grad(loss, weight)[0].flatten()[1])
    gradients[name] = torch.stack(draws)
    mean, std = gradients[name].mean(), gradients[name].std()
    print(f"{name:24}{mean:8.3f} {std:8.3f} {(mean / std).abs():8.3f}")

# %% [markdown]
# ## All in one figure


# %%
@styled
def four_axes():
    """Draw one row an axis, within the same limits along a row."""
    drawn = Figure(figsize=(1.5 * WIDTH, 9.0), dpi=100, layout="constrained")
    rows = drawn.subfigures(4, 1, height_ratios=(1, 0.66, 1, 0.8))
    titles = ("prior: p(z), and the data's latents", "likelihood: means of p(x|z) above, draws below")
    titles += ("posterior: q(z|x) as lines on the exact posterior", "estimator: draws of one gradient of the guide")
    panels = []
    for row, title in zip(rows, titles, strict=True):
        row.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels.append(row.subplots(1, 4, sharex=True, sharey=True))
    wide = torch.linspace(-4, 4, 161)
    where = torch.stack(torch.meshgrid(wide, wide, indexing="xy"), -1)
    for axes, (name, vae) in zip(panels[0], by_prior.items(), strict=True):
        with torch.no_grad():
            density, z = vae.prior().log_prob(where).exp(), vae.encode(train[:300]).mean
        axes.contourf(wide, wide, density.clamp(max=0.4), levels=12, cmap="Blues")
        axes.scatter(*z.T, s=2, color=COLOURS[3], alpha=0.5, linewidths=0)
        axes.set(title=name, xlabel="$z_1$", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")
    for axes, (name, vae) in zip(panels[1], by_likelihood.items(), strict=True):
        tiles = nn.functional.pad(mean_and_draw(vae), (0, 1, 0, 1), value=1.0).unflatten(0, (2, 4))
        grid_of_tiles = tiles.transpose(1, 2).flatten(2).flatten(0, 1)
        axes.imshow(grid_of_tiles, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=name, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, (name, vae) in zip(panels[2], by_posterior.items(), strict=True):
        with torch.no_grad():
            q = vae.encode(x[:1]).log_prob(grid.unsqueeze(-2))[..., 0].exp()
        axes.contourf(axis, axis, (log_joint - log_evidence).exp(), levels=10, cmap="Greys")
        axes.contour(axis, axis, q, levels=q.max() * torch.arange(0.1, 1, 0.2), colors=COLOURS[0], linewidths=1.1)
        axes.set(title=name, xlabel="$z_1$", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    reach = 3 * max(draws.std() for draws in gradients.values()).item()
    bins = torch.linspace(-reach, reach, 61)
    for axes, (name, draws) in zip(panels[3], gradients.items(), strict=True):
        axes.hist(draws, bins, color=COLOURS[0])
        axes.axvline(draws.mean(), color=COLOURS[3])
        axes.set(title=name, xlabel="gradient (nats per unit)")
    for row, label in ((0, "$z_2$"), (2, "$z_2$"), (3, "draws")):
        panels[row][0].set_ylabel(label)
    return drawn


figure(four_axes(), "00_four_axes")

# %% [markdown]
# ## Exercise
#
# Take two of the choices at once: a `VampPrior` with a `Binomial` likelihood, trained under `IWAE` with five
# particles. Which line of `trained` has to change? Then look at `pyro-vae list` and take one you do not know.
#
# ## References
#
# * Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
# * Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
# * Sticking the landing (Roeder et al., 2017), https://arxiv.org/abs/1703.09194
# * Doubly reparameterized gradient estimators (Tucker et al., 2019), https://arxiv.org/abs/1810.04152
