# %% [markdown]
# # 14. Is a VAE an ordinary Pyro program, to be conditioned, sampled by NUTS and built into larger models?
#
# Yes: `vae.model` and `vae.guide` are functions with `pyro.sample` statements, and everything that Pyro has for such
# functions takes them. We look into one, ask it questions, hold its guide against an exact sampler, and make it one
# line of a regression.
#
# With `--full`: MNIST, two hidden layers of 200, 50 epochs, 2,000 draws of NUTS, 10 regressions, in about 30 minutes
# on one CPU core.

# %%
import math
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.figure import Figure
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import MCMC, NUTS, SVI, Predictive
from pyro.ops.stats import effective_sample_size

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, WIDTH, styled

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"), binarize=pv.data.Threshold())
shape, test = data.shape, data.test.x[:1000]  # a thousand do: many draws of each are held at once
net = partial(pv.nets.MLP, hidden=pick(smoke=(64,), default=(64,), full=(200, 200)))
pyro.set_rng_seed(0)
vae = pv.VAE(
    prior=pv.priors.StandardNormal(2),
    likelihood=pv.likelihoods.Bernoulli(2, shape, net=net),
    posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=net),
)
adam = partial(torch.optim.Adam, lr=pick(smoke=3e-3, default=3e-3, full=1e-3))
train = data.train[: amount(smoke=256, default=None, full=None)]
pv.fit(vae, train, epochs=epochs(smoke=2, default=40, full=50), batch_size=64, optimizer=adam)
# from here on nothing of it is trained
vae.requires_grad_(False)

# %% [markdown]
# ## What is in it?
#
# A trace lists the sites of one run: the plate of the data, the latent z, the observed image x, each with its shape.
# The joint density of a trace is that of the model,
#
# $$\log p(x, z) = \log p(z) + \log p(x \mid z) ,$$
#
# whichever way z was chosen: `pyro.condition` fixes it, `poutine.uncondition` lets x be drawn again.

# %%
x, z = test[:5], torch.tensor([1.0, -0.5]).expand(5, 2)
trace = poutine.trace(pyro.condition(vae.model, data={"z": z})).get_trace(x)
print(trace.format_shapes())
by_hand = vae.prior().log_prob(z) + vae.decode(z).log_prob(x)
print(f"log p(x, z): {trace.log_prob_sum():.4f} by the trace, {by_hand.sum():.4f} by hand")

# %% [markdown]
# ## Would the model have made these data?
#
# `Predictive` draws z from the guide and a new image from the model, for each test image. If the model is right, the
# amount of ink of the true image lies in the central 90% of those of its replicates nine times out of ten.

# %%
draws = Predictive(
    poutine.uncondition(vae.model), guide=vae.guide, num_samples=amount(smoke=20, default=200, full=400)
)
replicates = draws(test)["x"].flatten(2).sum(-1)
low, high = replicates.quantile(torch.tensor([0.05, 0.95]), 0)
ink = test.flatten(1).sum(-1)
inside = ((ink >= low) & (ink <= high)).float()
error = inside.std() / len(ink) ** 0.5
print(f"ink within the 90% interval: {inside.mean():.1%} ± {error:.1%} of {len(ink)} test images")
print(f"mean ink {ink.mean():.2f}, of the replicates {replicates.mean():.2f} pixels")

# %% [markdown]
# ## Is the guide the posterior?
#
# The guide answers in one pass of a network with a normal density whose axes are those of z. The posterior
# $p(z \mid x) \propto p(z)\, p(x \mid z)$ is what it is; NUTS samples from it by following gradients of the
# log-density of `vae.model(x)` for one image. It starts at the mean of the guide: a posterior may have several peaks,
# and a chain stays with that in which it begins. For each latent we print how far off the mean of the guide is (in
# standard deviations of the posterior, with the Monte Carlo error by the effective sample size), and how wide the
# guide is (1: as wide as the posterior).

# %%
shown = amount(smoke=2, default=4, full=4)
samples = []
for i in range(shown):
    pyro.set_rng_seed(i)
    q = vae.encode(test[i : i + 1])
    sampler = MCMC(
        NUTS(vae.model),
        initial_params={"z": q.mean},
        num_samples=amount(smoke=20, default=250, full=2000),
        warmup_steps=amount(smoke=10, default=80, full=500),
        disable_progbar=True,
    )
    sampler.run(test[i : i + 1])
    samples.append(sampler.get_samples()["z"][:, 0])
    found = samples[-1]
    deviation, size = found.std(0), effective_sample_size(found[None])
    numbers = (q.mean[0] - found.mean(0)) / deviation, size.rsqrt(), q.stddev[0] / deviation, (2 * size).rsqrt()
    for j, (off, error, width, relative) in enumerate(zip(*(n.tolist() for n in numbers), strict=True), 1):
        print(f"image {i}, z{j}: mean off by {off:+.2f} ± {error:.2f}, width {width:.2f} ± {width * relative:.2f}")


# %%
@styled
def against_nuts():
    drawn = Figure(figsize=(1.5 * WIDTH, 3.3), layout="constrained")
    drawn.suptitle("Draws of NUTS from p(z|x) (points), over 50% and 95% of the guide's density (shaded)", fontsize=10)
    reach = max((s - s.mean(0)).abs().max() for s in samples).item() * 1.05
    for i, axes in enumerate(drawn.subplots(1, shown, squeeze=False)[0]):
        q, middle = vae.encode(test[i : i + 1]), samples[i].mean(0)
        angle = torch.linspace(0, 2 * torch.pi, 100)
        for mass in (0.95, 0.5):
            ring = math.sqrt(-2 * math.log(1 - mass)) * torch.stack([angle.cos(), angle.sin()], -1)
            axes.fill(*(q.mean + q.stddev * ring).T, color=COLOURS[1], alpha=0.35, linewidth=0)
        axes.scatter(*samples[i].T, s=5, alpha=0.6, linewidths=0, color=COLOURS[0])
        limits = [(m - reach, m + reach) for m in middle.tolist()]
        axes.set(xlabel="$z_1$", xlim=limits[0], ylim=limits[1], box_aspect=1)
        axes.set_title(f"test image {i}", y=1.06)
        inset = axes.inset_axes((0.0, 1.03, 0.2, 0.2))
        inset.imshow(test[i], cmap="Greys")
        inset.axis("off")
    drawn.axes[0].set_ylabel("$z_2$")
    return drawn


figure(against_nuts(), "14_nuts")

# %% [markdown]
# ## A regression whose covariate is a latent
#
# Some images come with an answer $y \in \{0, 1\}$, and we ask how it depends on what the image shows:
#
# $$w \sim \mathcal N(0, 5^2 I), \qquad z_n \sim p(z), \quad x_n \sim p(x \mid z_n), \quad
#   y_n \sim \mathrm{Bernoulli}\big(\operatorname{sigmoid}(w_0 + w_1 z_{n1} + w_2 z_{n2})\big) .$$
#
# The usual way has two stages: put the mean of $q(z \mid x_n)$ in the place of $z_n$ and regress. That pretends to
# know z, and the slopes come out too small. The other way is to write down the program. Its guide is the guide of the
# VAE for z, and a normal density for the one global latent w. As $q(z \mid x)$ has not seen y, the bound is the
# importance-weighted one, in which draws of z that explain y weigh more:
#
# $$\mathbb E_{q(w)} \Big[ \sum_n \log \frac1K \sum_{k=1}^K
#   \frac{p(z_{nk})\, p(x_n \mid z_{nk})\, p(y_n \mid z_{nk}, w)}{q(z_{nk} \mid x_n)} \Big]
#   - \mathrm{KL}\big(q(w) \,\|\, p(w)\big) .$$
#
# To know the truth we simulate images and answers, several times.

# %%
TRUTH = torch.tensor([0.5, 4.0, -3.0])


def answers(w, z):
    return dist.Bernoulli(logits=w[..., 0] + (w[..., 1:] * z).sum(-1))


def coefficients():
    return pyro.sample("w", dist.Normal(torch.zeros(3), 5.0).to_event(1))


def two_stages(x, y):
    w = coefficients()
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("y", answers(w, vae.encode(x).mean), obs=y)


def one_program(x, y):
    w = coefficients()
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", vae.prior())
        pyro.sample("x", vae.decode(z), obs=x)
        pyro.sample("y", answers(w, z), obs=y)


def infer_z(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", vae.encode(x))


def regress(model, x, y, *, local, estimator):
    """Return mean and standard deviation of q(w)."""
    pyro.clear_param_store()

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(3))
        scale = pyro.param("scale", torch.full((3,), 0.2), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))
        local(x)

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.08}), estimator)
    for _ in range(amount(smoke=5, default=150, full=300)):
        svi.step(x, y)
    return torch.stack([pyro.param("loc"), pyro.param("scale")]).detach()


n, repeats = amount(smoke=100, default=800, full=1000), amount(smoke=2, default=5, full=10)
found = {"two stages": [], "one program": []}
for seed in range(repeats):
    pyro.set_rng_seed(seed)
    z = vae.prior().expand((n,)).sample()
    x, y = vae.decode(z).sample(), answers(TRUTH, z).sample()
    plain, weighted = pv.estimators.ELBO(), pv.estimators.IWAE(num_particles=amount(smoke=10, default=10, full=30))
    found["two stages"].append(regress(two_stages, x, y, local=lambda x: None, estimator=plain))
    found["one program"].append(regress(one_program, x, y, local=infer_z, estimator=weighted))
for name, results in found.items():
    means, deviations = torch.stack(results).unbind(1)
    print(f"{name}, {repeats} data sets of {n} images:")
    for i, true in enumerate(TRUTH.tolist()):
        mean, error = means[:, i].mean(), means[:, i].std() / repeats**0.5
        print(f"    w{i}: {mean:+.2f} ± {error:.2f} (truth {true:+.1f}), q(w) has width {deviations[:, i].mean():.2f}")


# %%
@styled
def slopes():
    drawn = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    drawn.suptitle("Means and 95% intervals of q(w), one row a data set; black: the truth", fontsize=10)
    for i, axes in enumerate(drawn.subplots(1, 3, sharey=True)):
        for j, (name, results) in enumerate(found.items()):
            means, deviations = torch.stack(results).unbind(1)
            rows = [seed + 0.3 * j for seed in range(repeats)]
            look = {"color": COLOURS[(3, 0)[j]], "marker": "so"[j], "linestyle": "none", "markersize": 4}
            axes.errorbar(means[:, i], rows, xerr=1.96 * deviations[:, i], label=name, **look)
        axes.axvline(TRUTH[i], color="black", linewidth=1)
        axes.set(title=f"$w_{i}$", xlabel="coefficient", yticks=range(repeats))
    drawn.axes[0].set_ylabel("data set")
    drawn.legend(*drawn.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


figure(slopes(), "14_regression")

# %% [markdown]
# The slopes of the one program are nearer to the truth, and still short of it: with few draws from a guide that has
# not seen y the bound lies below $\log p(x, y \mid w)$, by about half the relative variance of the weights over K, and
# it does so the more the steeper the slope. The gap closes with the number of draws, or with a guide that sees y.

# %% [markdown]
# ## Exercise
#
# 1. Take 1, 3, 30 and 100 draws: how do the slopes go? Then let the guide see y, by a small network that moves
#    `vae.encode(x)`, and take one draw again.
# 2. Hide the lower half of the images from the model (`poutine.mask` at x): how do both ways take it?
#
# ## References
#
# * Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538
# * The No-U-Turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo (Hoffman and Gelman, 2014),
#   https://arxiv.org/abs/1111.4246
# * Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
