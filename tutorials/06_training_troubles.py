# %% [markdown]
# # 6. Why do some latents of a VAE carry nothing, and what can be done about it?
#
# A VAE may train without any complaint and end with latents that ignore the data: their posterior is the prior,
# whatever the input. This is called *posterior collapse*. Sometimes it is right, sometimes a failure of training, and
# the bound alone does not tell which. Here we learn to read the diagnostics, on a case with an exact answer, on one
# that fails, and on the plane where all remedies can be compared.
#
# With `--full`: MNIST, two hidden layers of 200, 30 and 50 epochs, in about an hour on one CPU core. Published, for
# OMNIGLOT and a PixelCNN: a rate of 1.5 nats, and 2.1 with warm-up (He et al., 2019).

# %%
import math
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

name = pick(smoke="digits", default="digits", full="mnist")
data = pv.data.load(name)
train = data.train[: amount(smoke=256, default=None, full=None)]
shape, seeds = data.shape, range(amount(smoke=2, default=3, full=3))

# %% [markdown]
# ## Rate and distortion
#
# The two terms of the bound have names in information theory. The **rate** is how many nats the code spends on a
# datum, the **distortion** how badly the datum is described given its code:
#
# $$-\text{ELBO} = \underbrace{\mathbb E_q[-\log p(x \mid z)]}_{D} +
#   \underbrace{\mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)}_{R} .$$
#
# A latent $z_j$ is *active* if its posterior mean moves with the datum,
# $\operatorname{Var}_x\big(\mathbb E_q[z_j]\big) > 0.01$; a collapsed one adds nothing to the rate. The estimate of
# `pv.evaluation.latents` prints both, and what could help.
#
# ## A collapse that is right
#
# With a linear decoder and the likelihood $\mathcal N(x; Wz + b, \sigma^2 I)$ everything is known: the best VAE is
# probabilistic PCA. Let $\lambda_1 \ge \lambda_2 \ge \dots$ be the eigenvalues of the covariance of the data. Then
#
# $$\operatorname{Var}_x\big(\mathbb E_q[z_j]\big) = \max(1 - \sigma^2 / \lambda_j,\ 0), \qquad
#   R = \tfrac12 \sum_j \max(\log (\lambda_j / \sigma^2),\ 0) .$$
#
# A direction in which the data vary less than the noise is not worth a latent, however long we train. The bound of a
# linear VAE has no local optimum that is not global (Lucas et al., 2019), so we should find just that.

# %%
LATENTS, THRESHOLD = 12, 0.03  # higher than usual, as training ends before zero
linear = partial(pv.nets.MLP, hidden=())


def linear_vae(sigma):
    pyro.set_rng_seed(0)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(LATENTS),
        likelihood=pv.likelihoods.Normal(LATENTS, shape, net=linear, scale=sigma),
        posterior=pv.posteriors.MeanFieldNormal(shape, LATENTS, net=linear),
    )
    # all data at once: without the noise of small batches what is not needed goes to zero
    for rate, size, passes in amount(
        smoke=((2e-2, 128, 5),),
        default=((2e-2, len(train), 350), (2e-3, len(train), 150)),
        full=((1e-3, 128, 10), (1e-3, 5000, 20), (1e-4, 5000, 20)),
    ):
        optimizer = partial(torch.optim.Adam, lr=rate)
        pv.fit(vae, train, epochs=passes, batch_size=size, optimizer=optimizer)
    return vae


eigenvalues = torch.linalg.eigvalsh(train.x.flatten(1).double().T.cov()).flip(0)[:LATENTS]
exact, found = {}, {}
for sigma in pick(smoke=(0.4, 0.8), default=(0.25, 0.4, 0.6), full=(0.6, 1.0, 1.6)):
    exact[sigma] = (1 - sigma**2 / eigenvalues).clamp(min=0)
    rate = 0.5 * (eigenvalues / sigma**2).log().clamp(min=0).sum()
    found[sigma] = pv.evaluation.latents(linear_vae(sigma), train.x, threshold=THRESHOLD)
    print(
        f"sigma {sigma}: active {found[sigma].active['z']}, exact {int((exact[sigma] > THRESHOLD).sum())}; "
        f"rate {found[sigma].rate['z']:.2f}, exact {rate:.2f} nats"
    )


# %%
@styled
def linear_figure(exact, found):
    drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = drawn.subplots()
    units = range(1, LATENTS + 1)
    for i, sigma in enumerate(exact):
        axes.plot(units, exact[sigma], color=COLOURS[i], label=f"$\\sigma$ = {sigma}, exact")
        trained = found[sigma].variance["z"].sort(descending=True).values
        look = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "none"}
        axes.plot(units, trained, markerfacecolor="none", label=f"$\\sigma$ = {sigma}, trained", **look)
    axes.axhline(THRESHOLD, color="black", linewidth=0.8, linestyle="--")
    axes.set(title="A linear VAE keeps the directions that vary more than the noise", xticks=units)
    axes.set(xlabel="latent, in falling order", ylabel="variance of the posterior mean", ylim=(-0.03, 1.03))
    axes.grid(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return drawn


figure(linear_figure(exact, found), "06_linear")

# %% [markdown]
# So a collapsed latent is no fault by itself: ask first whether the likelihood is too noisy to need it. (The turn of
# the latents onto single directions comes last, and slowly where eigenvalues are close; until then two latents may
# share a weak direction, and both be counted. The rate is right long before.)
#
# ## A decoder that does not need the code
#
# A decoder that sees the pixels drawn so far can describe digits well without any code. Here each pixel is a logistic
# regression on those before it, and the code adds to its offset:
#
# $$p(x \mid z) = \prod_i p(x_i \mid x_{<i}, z), \qquad
#   \operatorname{logit} p(x_i = 1 \mid x_{<i}, z) = h_i(z) + \textstyle\sum_{j < i} w_{ji}\, x_j .$$
#
# (`pv.likelihoods.PixelCNN` has convolutions in place of the sum; tutorial 13 tells how a likelihood is written.)
# Early in training the code is noise to the decoder, so it learns to do without, and every nat of rate is a loss.


# %%
class PixelsBefore(pv.Conditional):
    def __init__(self, latent, shape, *, net):
        super().__init__()
        size = math.prod(shape)
        self.shape, self.net = shape, net((latent,), (size,))
        self.weight = torch.nn.Parameter(torch.zeros(size, size))

    def logits(self, x, h):
        on = h + x.flatten(-2) @ self.weight.triu(1)
        return torch.stack([torch.zeros_like(on), on], -1).unflatten(-2, self.shape)

    def forward(self, z):
        return pv.distributions.Autoregressive(self.logits, self.net(z), self.shape, range(math.prod(self.shape)), 2)


# %% [markdown]
# The remedies change the bound that is followed, not the model:
#
# | hint | what is made large |
# |---|---|
# | none | $-D - R$ |
# | warm-up | $-D - \beta_t R$ with $\beta_t$ rising from 0 to 1 |
# | free bits | $-D - \sum_j \max(R_j, \lambda)$ with $R_j$ the mean rate of latent j in the batch |
# | small beta | $-D - \beta R$ with $\beta < 1$ for good |

# %%
bits = pv.data.load(name, binarize="static")
seen = bits.train[: amount(smoke=256, default=None, full=None)]
test = bits.test[: amount(smoke=200, default=None, full=None)]
size, batch_size, passes = 8, 128, epochs(smoke=2, default=24, full=30)
small = partial(pv.nets.MLP, hidden=pick(smoke=(64,), default=(64,), full=(200, 200)))
strong = pick(smoke=5e-3, default=5e-3, full=1e-3)  # rate of learning
REMEDIES = {
    "none": {},
    "warm-up": {"beta": pv.training.Linear(max(1, passes // 2 * -(-len(seen) // batch_size)))},
    "free bits": {"free_bits": 0.75},
    "small beta": {"beta": 0.3},
}


def strong_decoder(options, seed):
    pyro.set_rng_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(size),
        likelihood=PixelsBefore(size, shape, net=small),
        posterior=pv.posteriors.MeanFieldNormal(shape, size, net=small),
    )
    how = {"estimator": pv.estimators.ELBO(**options), "optimizer": partial(torch.optim.Adam, lr=strong)}
    return vae, pv.fit(vae, seen, **how, epochs=passes, batch_size=batch_size, seed=seed)


runs = {hint: [strong_decoder(options, seed) for seed in seeds] for hint, options in REMEDIES.items()}


# %% [markdown]
# The bound is one number; beside it stand its two parts, and how well the code tells the class of a digit (the share
# of test digits whose nearest training digit, by the posterior means, is of the same class).


# %%
@torch.no_grad()
def told_class(vae):
    nearest = torch.cdist(vae.encode(test.x).mean, vae.encode(seen.x).mean).argmin(1)
    return float((seen.y[nearest] == test.y).double().mean())


def mean_and_error(values):
    values = torch.tensor(values, dtype=torch.float64)
    return f"{values.mean():6.2f} ± {values.std() / len(values) ** 0.5:.2f}"


told = {hint: [pv.evaluation.latents(vae, test.x) for vae, _ in each] for hint, each in runs.items()}
print("hint      bound            rate             distortion (nats)  class told")
for hint, each in told.items():
    rate, distortion = [t.rate["z"] for t in each], [t.distortion for t in each]
    bound = [-r - d for r, d in zip(rate, distortion, strict=True)]
    classes = [told_class(vae) for vae, _ in runs[hint]]
    print(f"{hint:10}", *map(mean_and_error, (bound, rate, distortion, classes)), sep="  ")
print(f"(test digits; mean over {len(seeds)} seeds with its standard error)")

# %% [markdown]
# How to read it: a rate near zero means that the latents are dead, and the program is a plain autoregressive model.
# With this decoder the plain bound is content with a code of little rate. A warm-up builds up more while it is cheap,
# and gives it back once $\beta$ has reached one: the bound did not want it. (Where training is stuck, and more rate
# would make the bound better, the warm-up keeps what it has won.) Free bits and a small $\beta$ hold the rate up, and
# pay for it in the bound. So *the bound does not ask for a useful code*: decide what the code is for, and measure
# that, as the last column does. What a larger rate tells need not be the class.


# %%
@styled
def rate_figure(runs):
    drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = drawn.subplots()
    for i, (hint, each) in enumerate(runs.items()):
        for j, (_, history) in enumerate(each):
            label = hint if j == 0 else None
            axes.plot(range(1, passes + 1), history["kl"], color=COLOURS[i], linewidth=1.2, label=label)
    axes.axvline(passes // 2, color="black", linewidth=0.8, linestyle="--", label="warm-up ends")
    axes.set(title="The rate in training, with a decoder that hardly needs it", xlabel="epoch")
    axes.set(ylabel="rate (nats per image)", ylim=(0, None))
    axes.grid(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="a line a seed")
    return drawn


figure(rate_figure(runs), "06_rates")
print(told["none"][0])
figure(told["free bits"][0].plot(), "06_units")

# %% [markdown]
# ## The plane of rate and distortion
#
# Beta asks: how many nats of distortion is a nat of rate worth? The best pairs (R, D) form a convex curve, and a
# program trained at $\beta$ minimises $D + \beta R$: it lies where the slope is $-\beta$. At $\beta = 1$ the bound on
# $\log p(x)$ is best; smaller ones buy sharper reconstructions and a prior that fits the codes less, larger ones a
# short code. The decoder is now a plain one, whose pixels are independent given the code.

# %%
BETAS = pick(smoke=(0.5, 2.0), default=(0.1, 0.3, 0.6, 1.0, 2.0), full=(0.1, 0.3, 1.0, 3.0, 10.0))
adam = partial(torch.optim.Adam, lr=pick(smoke=3e-3, default=3e-3, full=1e-3))


def at(beta):
    pyro.set_rng_seed(0)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(size),
        likelihood=pv.likelihoods.Bernoulli(size, shape, net=small),
        posterior=pv.posteriors.MeanFieldNormal(shape, size, net=small),
    )
    pv.fit(
        vae, seen, estimator=pv.estimators.ELBO(beta=beta), optimizer=adam, epochs=epochs(smoke=2, default=40, full=50)
    )
    return vae


programs = {beta: at(beta) for beta in BETAS}
plane = pv.evaluation.rate_distortion(programs, test.x)
print(plane)
figure(plane.plot(), "06_plane")
tiles = torch.cat([test.x[:12], *(vae.reconstruct(test.x[:12]) for vae in programs.values())])
title = f"Test digits, then reconstructions at beta = {', '.join(f'{b:g}' for b in BETAS)} (from above)"
figure(pv.plots.image_grid(tiles, rows=1 + len(BETAS), title=title), "06_reconstructions")

# %% [markdown]
# ## When training goes wrong
#
# | what you see | look at | try |
# |---|---|---|
# | active units near 0 | does a smaller noise of the likelihood change it? | warm-up, free bits, a weaker decoder |
# | some units idle, bound fine | the linear case above | nothing: they cost no rate |
# | high rate, samples bad | marginal KL of the report | larger beta, a learned prior (tutorial 2) |
# | bound on valid falls, on train rises | `history.plot()` | early stopping, fewer weights |
# | loss NaN | the error names step and parameter | smaller rate, `clip_norm=` |
#
# ## Exercise
#
# 1. Derive the rate of the linear VAE from $q(z_j \mid x) = \mathcal N(m_j, \sigma^2 / \lambda_j)$.
# 2. Let $\sigma$ be learned (`scale=pv.scales.Shared()`). Which directions stay active now, and why are they more?
# 3. Replace the warm-up by `pv.training.Cyclical` and by `capacity=pv.estimators.Capacity(...)`.
#    Which keeps its rate at the end?
# 4. From the printed table of the plane, estimate the slope between neighbours: does it lie between their betas?
#
# ## References
#
# * Don't blame the ELBO! A linear VAE perspective on posterior collapse (Lucas et al., 2019),
#   https://arxiv.org/abs/1911.02469
# * Probabilistic principal component analysis (Tipping and Bishop, 1999), https://doi.org/10.1111/1467-9868.00196
# * Fixing a broken ELBO (Alemi et al., 2018), https://arxiv.org/abs/1711.00464
# * Lagging inference networks and posterior collapse in variational autoencoders (He et al., 2019),
#   https://arxiv.org/abs/1901.05534
# * Generating sentences from a continuous space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349
# * Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
#   https://arxiv.org/abs/1606.04934
# * beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl
