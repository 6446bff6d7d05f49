# %% [markdown]
# # 3. Why are the images of a VAE blurry, and what has the likelihood to do with it?
#
# The likelihood $p(x \mid z)$ says what the decoder's numbers *mean*: how far a pixel may be from what was decoded,
# and at which price. We look at five answers for grey pixels, compare them on one scale (bits per pixel), and measure
# blur.
#
# With `--full`: MNIST with its 256 levels; 20 latents, two hidden layers of 500, batches of 50 and noise on grey
# levels as in Loaiza-Ganem and Cunningham (2019), 50 epochs (theirs are not published, nor do we have dropout), in
# about 5 hours on one CPU core (estimated). `--share 0.4` ends within about two hours. Published, for 50 latents and a
# beta-binomial likelihood: 1.39 bits per pixel (Townsend et al., 2019).

# %%
import math
from dataclasses import replace
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.figure import Figure
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
levels = pick(smoke=17, default=17, full=256)
train = data.train[: amount(smoke=256, default=None, full=None)]
test = data.test[: amount(smoke=64, default=None, full=1000)]
passes, seeds = epochs(smoke=1, default=40, full=50), range(amount(smoke=2, default=3, full=3))
latent = pick(smoke=8, default=8, full=20)
net = partial(pv.nets.MLP, hidden=pick(smoke=(100,), default=(100,), full=(500, 500)))
adam = partial(torch.optim.Adam, lr=pick(smoke=4e-3, default=4e-3, full=1e-3))
shape, pixels = data.shape, data.shape[0] * data.shape[1]

# %% [markdown]
# ## Five likelihoods
#
# | likelihood | $\log p(x_i \mid z)$ of one pixel | |
# |---|---|---|
# | Bernoulli | $x_i \log \lambda_i + (1 - x_i) \log(1 - \lambda_i)$ | for bits; read at grey values no density |
# | continuous Bernoulli | the same $+ \log C(\lambda_i)$ | the missing normaliser |
# | normal, $\sigma = 1$ | $-\frac12 (x_i - \mu_i)^2 - \frac12 \log 2\pi$ | half the squared error |
# | normal, $\sigma$ learned | $-\frac1{2\sigma^2} (x_i - \mu_i)^2 - \frac12 \log 2\pi\sigma^2$ | one more parameter |
# | discretized logistic | $\log \int_{x_i - h}^{x_i + h} \mathrm{Logistic}(t; \mu_i, s_i)\, dt$ | of each level |
#
# **What does a Bernoulli do to grey pixels?** Many public VAEs feed grey values to the binary cross-entropy. As a
# function of x in [0, 1] it is a density only if its integral is 1,
#
# $$\int_0^1 \lambda^x (1 - \lambda)^{1 - x}\, dx = \frac{2\lambda - 1}{\log \lambda - \log(1 - \lambda)} =
#   \frac1{C(\lambda)} ,$$
#
# and it is at most a half. The more certain the decoder, the more mass is missing: the loss leaves out what certainty
# should earn, and its values cannot be compared with those of any other model.


# %%
@styled
def shapes():
    drawn = Figure(figsize=(1.5 * WIDTH, 2.9), layout="constrained")
    left, right = drawn.subplots(1, 2)
    odds = torch.linspace(-8, 8, 200)
    share = odds.sigmoid()
    left.plot(share, torch.where(odds.abs() < 1e-3, 0.5, (2 * share - 1) / odds), color=COLOURS[0])
    left.set(
        title="Mass of the Bernoulli form on [0, 1]", xlabel=r"$\lambda$", ylabel="integral over x", ylim=(0, 1.05)
    )
    left.axhline(1, color="black", linewidth=0.8, linestyle="--")
    left.annotate("a density", (0.5, 1), xytext=(0, -12), textcoords="offset points", ha="center")
    x = torch.linspace(0, 1, 300)
    lines = {
        r"Bernoulli form, $\lambda$ = 0.9": pv.likelihoods.Bernoulli(1, (1,), grey=True).family(0.9),
        r"continuous Bernoulli, $\lambda$ = 0.9": pv.distributions.ContinuousBernoulli(0.9),
        r"normal, $\mu$ = 0.7, $\sigma$ = 0.1": dist.Normal(0.7, 0.1),
    }
    for i, (name, family) in enumerate(lines.items()):
        right.plot(x, family.log_prob(x).exp(), color=COLOURS[i], label=name)
    grid = torch.arange(17) / 16
    mass = pv.distributions.DiscretizedLogistic(torch.tensor(0.7), torch.tensor(0.06), 17).log_prob(grid).exp()
    name = r"discretized logistic, $\mu$ = 0.7, s = 0.06"
    right.step(grid, mass * 16, where="mid", color=COLOURS[3], label=name)
    right.set(title="What a decoder can say of one pixel", xlabel="grey value x", ylabel="density (mass x 16)")
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return drawn


figure(shapes(), "03_shapes")

# %% [markdown]
# ## One scale for all: bits per pixel
#
# Stored pixels are levels $k = 0, \ldots, L - 1$, and a model of them is judged by $-\log_2 P(k) / \text{pixels}$. A
# discrete likelihood has these probabilities. A density gets them by *dequantization*: noise u, uniform on [0, 1], is
# added, and by Jensen's inequality
#
# $$\log P(k) = \log \int p\Big(\frac{k + u}{L}\Big) \frac{du}{L^D} \ge
#   \mathbb E_u \log p\Big(\frac{k + u}{L}\Big) - D \log L .$$
#
# In training, fresh noise with each batch keeps a density from growing without bound on values that all digits share.


# %%
def dequantize(x):
    return (x * (levels - 1) + torch.rand_like(x)) / levels


def grey_values(views, x):
    """Means or draws as they are shown, in the units of the data: dequantization added half a level on average."""
    return ((x * levels - 0.5) / (levels - 1) if views is noisy else x).clamp(0, 1)


def normal_learned(latent, shape, net):
    """A normal with a scale of its own: a part that is made once is shared by all that take it."""
    return pv.likelihoods.Normal(latent, shape, net=net, scale=pv.scales.OptimalSigma())


pyro.set_rng_seed(0)
noisy = {"train": replace(train, transform=dequantize), "test": dequantize(test.x)}
exact = {"train": train, "test": test.x}
LIKELIHOODS = {
    "Bernoulli form": (partial(pv.likelihoods.Bernoulli, grey=True), noisy),
    "continuous Bernoulli": (pv.likelihoods.ContinuousBernoulli, noisy),
    "normal, sigma 1": (partial(pv.likelihoods.Normal, scale=1.0), noisy),
    "normal, learned": (normal_learned, noisy),
    "discretized logistic": (partial(pv.likelihoods.DiscretizedLogistic, levels=levels), exact),
}


def trained(name, seed):
    pyro.set_rng_seed(seed)
    likelihood, views = LIKELIHOODS[name]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood(latent, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )
    batch_size = pick(smoke=128, default=128, full=50)
    pv.fit(vae, views["train"], epochs=passes, batch_size=batch_size, optimizer=adam, seed=seed)
    return vae


runs = {name: [trained(name, seed) for seed in seeds] for name in LIKELIHOODS}

# %% [markdown]
# ## Blur as a number
#
# A blurred image changes little from one pixel to the next. We take the mean absolute difference of neighbours,
# divided by that of test digits: 1 is as sharp as the data. We measure the means of $p(x \mid z)$, which papers show.


# %%
def contrast(x):
    return (x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()) / 2


@torch.no_grad()
def measured(name, vae):
    views = LIKELIHOODS[name][1]
    bound = pv.estimators.ELBO(num_particles=50).per_datum(vae.model, vae.guide, views["test"])
    density = views is noisy
    bits = -(bound.mean() - density * pixels * math.log(levels)) / (pixels * math.log(2))
    again, drawn = (grey_values(views, x) for x in (vae.reconstruct(views["test"]), vae.sample(500, mean=True)))
    kl = torch.distributions.kl_divergence(
        vae.encode(views["test"]), vae.prior().expand((len(test),))
    ).mean() / math.log(2)
    return [float(v) for v in (bits, kl, *(contrast(x) / contrast(test.x) for x in (again, drawn)))]


columns = ("bits per pixel", "bits of code", "sharpness, reconstructed", "sharpness, drawn")
results = {name: torch.tensor([measured(name, vae) for vae in vaes]) for name, vaes in runs.items()}
for name, values in results.items():
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    told = [f"{column} {m:.2f} ± {e:.2f}" for column, m, e in zip(columns, mean, error, strict=True)]
    told[0] = "no probabilities     " if name == "Bernoulli form" else told[0]
    print(f"{name:21}", ", ".join(told))

# %% [markdown]
# The normal with $\sigma = 1$ is the clearest case. Its loss is half the squared error, and an error of the whole grey
# scale costs half a nat, which is cheaper than a code that would avoid it. For linear networks this can be computed
# (Lucas et al., 2019): a latent is used only if the data vary along some direction by more than $\sigma^2$.

# %%
grey = noisy["test"].flatten(1)
print(f"largest variance of the digits along one direction: {torch.linalg.eigvalsh(grey.T.cov())[-1]:.2f}")
learned = [float(vae.likelihood.scale()) for vae in runs["normal, learned"]]
print("learned scales:", ", ".join(f"{scale:.3f}" for scale in learned))

# %% [markdown]
# With a learned $\sigma$ the same squared error is weighed by $1 / 2\sigma^2$: codes carry more bits, and the images
# are sharper. So to compare pixel by pixel is not at fault; the *wrong price* of an error is. The Bernoulli shows it
# too: once the normaliser rewards certainty, codes carry more bits.
#
# But sharp is not yet good. The normal gives all pixels one width, those of the border that are always black and those
# where strokes come and go; the discretized logistic gives each its own, and needs fewer bits per pixel although its
# means are less sharp.


# %%
@styled
def sharpness_figure(results):
    drawn = Figure(figsize=(1.5 * WIDTH, 2.9), layout="constrained")
    for axes, (column, label) in zip(
        drawn.subplots(1, 2), ((2, "of reconstructions"), (3, "of drawings")), strict=True
    ):
        for i, (name, values) in enumerate(results.items()):
            mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
            look = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "none", "label": name}
            axes.errorbar(mean[1], mean[column], xerr=error[1], yerr=error[column], **look)
        axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axes.set(
            title=f"Sharpness {label} (1: test digits)", xlabel="bits of code per image", ylabel="ratio", ylim=(0, 1.1)
        )
        axes.grid(True)
    handles, labels = axes.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper")
    return drawn


figure(sharpness_figure(results), "03_sharpness")

# %% [markdown]
# ## And with the eye
#
# First the means of test digits, then for each likelihood new digits: the mean above, below it a *draw* from
# $p(x \mid z)$ at the same code. The draw is what the program says the world looks like. Pixels are independent given
# z: what the code does not say comes out as noise in a draw, and as blur in a mean.

# %%
pyro.set_rng_seed(1)
first = {name: vaes[0] for name, vaes in runs.items()}
rows = {"test digits": test.x[:12]}
for name, vae in first.items():
    views = LIKELIHOODS[name][1]
    rows[name] = grey_values(views, vae.reconstruct(views["test"][:12]))
figure(pv.plots.image_rows(rows, title="Reconstructions: means of p(x|z)"), "03_reconstructions")

z = torch.randn(12, latent)
rows = {}
for name, vae in first.items():
    with torch.no_grad():
        p = vae.decode(z)
    views = LIKELIHOODS[name][1]
    rows |= {name: grey_values(views, p.mean), f"{name}, draw": grey_values(views, p.sample())}
figure(pv.plots.image_rows(rows, title="New digits: means and draws at the same codes"), "03_samples")

# %% [markdown]
# ## Exercise
#
# 1. Fix the scale of the normal to 0.5, 0.2, 0.1 and 0.05. Which one has the lowest bits per pixel, and how far is it
#    from what `OptimalSigma` finds? Sharpness goes on rising below it: what becomes worse?
# 2. Weigh the divergence by `estimator=pv.estimators.ELBO(beta=s**2)` under a normal with $\sigma = 1$, or set
#    $\sigma = s$ at beta 1. Show on paper that the two have the same optimum for decoder means and posterior.
# 3. `pv.likelihoods.PixelCNN` draws pixels one after the other. What happens to the bits of code?
#
# ## References
#
# * The continuous Bernoulli: fixing a pervasive error in variational autoencoders (Loaiza-Ganem and Cunningham, 2019),
#   https://arxiv.org/abs/1907.06845
# * Don't blame the ELBO! A linear VAE perspective on posterior collapse (Lucas et al., 2019),
#   https://arxiv.org/abs/1911.02469
# * Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021), https://arxiv.org/abs/2006.13202
# * A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844
# * Improved variational inference with inverse autoregressive flow (Kingma et al., 2016; discretized logistic),
#   https://arxiv.org/abs/1606.04934
# * Practical lossless compression with latent variables using bits back coding (Townsend et al., 2019),
#   https://arxiv.org/abs/1901.04866
