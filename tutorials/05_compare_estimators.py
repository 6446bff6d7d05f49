# %% [markdown]
# # 5. Is a tighter bound always better to train with, and how would one find out?
#
# More particles K make the importance-weighted bound tighter. We measure, in a laboratory that takes any estimator,
# what that does to the *gradients* from which encoder and decoder learn, and meet a case where tighter is worse.
#
# With `--full`: K up to 256, and MNIST by the protocol of Burda et al. (2016): bits drawn anew each time, two hidden
# layers of 200 (tanh), 50 latents, batches of 20, eight stages of 1, 3, ... 2,187 epochs, 5,000 samples for log p(x);
# all in about 220 hours on one CPU core (estimated: nine days, which is what was published). `--share 0.005` ends
# within about two hours. Published: -86.8 nats with 19 active units for one sample, -84.8 with 25 for IWAE with 50; a
# public reproduction has -84.3 for DReG. Here 50,000 images are trained on and 2,000 judged (there 59,600 and 10,000),
# and layers start as torch starts them. Published powers of K: 1/2 for the model, -1/2 for the guide (Rainforth et
# al., 2018), 1/2 under DReG (Tucker et al., 2019).

# %%
from copy import deepcopy
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, kept, pick
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

# %% [markdown]
# ## Bounds with K particles
#
# $$\mathcal L_K = \mathbb E \log \frac1K \sum_{k=1}^K w_k, \qquad w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \quad
#   z_k \sim q(z \mid x)$$
#
# is the ELBO for K = 1, rises with K, and reaches $\log p(x)$ (the *evidence*). A training step follows one noisy draw
# g of its gradient. What counts for learning is how large the mean of g is beside its deviation, the
# *signal-to-noise ratio*
#
# $$\mathrm{SNR} = \frac{\lvert \mathbb E\, g \rvert}{\sqrt{\operatorname{Var} g}} .$$
#
# We take a model whose evidence is known exactly: a linear decoder with normal noise. Its encoder is moved away from
# the exact posterior, so that there is something to learn. The batch holds copies of one datum, whose draws are
# independent: they lift all ratios above the noise of their measurement.

# %%
toy = pv.testing.LinearGaussian(features=10, latent=5, off=0.1)
x = toy.draw(1).expand(amount(smoke=16, default=64, full=256), -1)
particles = pick(smoke=(1, 16), default=(1, 4, 16, 64), full=(1, 4, 16, 64, 256))
KINDS = {"IWAE": pv.estimators.IWAE, "DReG": pv.estimators.DReG}
found = pv.evaluation.compare_estimators(
    toy.program,
    x,
    {f"{name} ({k})": make(num_particles=k) for name, make in KINDS.items() for k in particles},
    reference=toy.log_evidence,
    num_samples=amount(smoke=16, default=100, full=1000),
)
for k in particles:
    row = found[f"IWAE ({k})"]
    print(f"K = {k:3}: evidence less bound {row.gap:.4f} ± {row.gap_error:.4f} nats")

# %% [markdown]
# The gap closes like 1/K. And the gradients? Rainforth et al. (2018) give the law: for the **model** (the decoder) the
# ratio *rises* like $\sqrt K$; for the **guide** (the encoder) it *falls* like $1/\sqrt K$. The reason: once $\mathcal
# L_K$ is nearly $\log p(x)$, which does not depend on the guide at all, the mean gradient of the guide vanishes, like
# 1/K, while its noise falls only like $1/\sqrt K$.
#
# We fit a straight line through the logarithms; its slope is the power of K.


# %%
def slope(ratios):
    """Least squares through the logarithms, without K = 1, where the law does not hold yet."""
    x, y = torch.tensor(particles[1:]).log(), torch.tensor(ratios[1:]).log()
    x = x - x.mean()
    return float(x @ y / x.square().sum()) if len(x) > 1 else float("nan")


ratios = {
    group: {name: [getattr(found[f"{name} ({k})"], group).snr for k in particles] for name in KINDS}
    for group in ("model", "guide")
}
for group, lines in ratios.items():
    for name, values in lines.items():
        print(f"{group}, {name}: SNR {', '.join(f'{v:.2f}' for v in values)}; power of K {slope(values):+.2f}")

# %% [markdown]
# ## The repair
#
# Where does the noise come from? The gradient of the guide has a part that goes *through the draws* $z_k$, and one
# that goes through the density q alone, whose noise stays when the guide is right. Tucker et al. (2019) reparameterize
# this second part once more and find
#
# $$\nabla_\phi \mathcal L_K = \mathbb E \sum_k \bar w_k^2\,
#   \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}, \qquad
#   \bar w_k = \frac{w_k}{\sum_j w_j} .$$
#
# The same bound, the same mean of the gradient, but its noise now vanishes together with its mean: with **DReG** the
# ratio of the guide rises with K.


# %%
@styled
def signal_figure():
    drawn = Figure(figsize=(1.5 * WIDTH, 2.9), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    gaps = [found[f"IWAE ({k})"] for k in particles]
    left.errorbar(particles, [r.gap for r in gaps], yerr=[r.gap_error for r in gaps], color="black", marker="o")
    left.axhline(0, color="black", linewidth=0.8)
    left.set(title="Evidence less bound", ylabel="nats per datum (bars: s.e.)")
    for axes, (group, lines) in zip((middle, right), ratios.items(), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            # for the model the two have the same gradient: the lower line is drawn wider
            width = 4.0 - 2.4 * i if group == "model" else 1.6
            axes.plot(particles, values, color=COLOURS[i], marker=MARKERS[i], label=name, linewidth=width)
        axes.set(title=f"Signal of the {group}'s gradient", ylabel="signal-to-noise ratio")
    for axes in (left, middle, right):
        axes.set(xlabel="particles K", xscale="log")
        axes.set_xticks(particles, [str(k) for k in particles])
        axes.minorticks_off()
        axes.grid(True)
    for axes in (middle, right):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    drawn.legend(*right.get_legend_handles_labels(), loc="outside right center")
    return drawn


figure(signal_figure(), "05_signal")

# %% [markdown]
# ## The laboratory on a VAE of images
#
# The same call takes any program, data and estimators, also those of Pyro. Here it looks at a VAE of digits after a
# few epochs, on a batch of 32 test digits. Read the tables column by column:
#
# * **gap**: log p(x) less the bound. Large is not wrong; it is what an estimator leaves to be desired.
# * **SNR, variance**: how noisy one step is.
# * **bias**: how far the mean gradient points away from the gradient of the evidence (model) or the ELBO (guide).
# * **own bias**: the relative error against the estimator's *own* objective. Zero is right. Sticking the landing with
#   several weighted particles is not zero: it leaves out a part of the gradient. A dash stands where the mean gradient
#   is not told from zero.
# * **milliseconds**: what a step costs.

# %%
bits = pick(smoke="static", default="static", full="dynamic")
data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"), binarize=bits)
train, test = data.train[: amount(smoke=256, default=None, full=None)], data.test[:1000]
small = partial(pv.nets.MLP, hidden=(64,))
net = pick(smoke=small, default=small, full=partial(pv.nets.MLP, hidden=(200, 200), activation=torch.nn.Tanh))
shape, latent = data.shape, pick(smoke=8, default=8, full=50)


def new(seed):
    pyro.set_rng_seed(seed)
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )


vae = new(0)
adam = partial(torch.optim.Adam, lr=pick(smoke=3e-3, default=3e-3, full=1e-3))
passes, batch_size = epochs(smoke=2, default=15, full=3280), pick(smoke=128, default=128, full=20)
steps = passes * -(-len(train) // batch_size)
# with --full eight stages of 1, 3, 9, ... epochs, from a rate of 1e-3 to 1e-4
stages = pv.training.MultiStep([steps * (3**i - 1) // 6560 for i in range(1, 8)], factor=10 ** (-1 / 7))
lr_schedule = pick(smoke=None, default=None, full=stages)
how = {"epochs": passes, "batch_size": batch_size, "optimizer": adam, "lr_schedule": lr_schedule}
pv.fit(vae, train, **how, **kept("05_ELBO_1"))
K = pick(smoke=8, default=32, full=50)
looked_at = pv.evaluation.compare_estimators(
    vae,
    test.x[:32],
    [
        pv.estimators.ELBO(num_particles=1),
        pyro.infer.Trace_ELBO(num_particles=K, vectorize_particles=True, max_plate_nesting=1),
        pv.estimators.ELBO(num_particles=K),
        pv.estimators.IWAE(num_particles=K),
        pv.estimators.DReG(num_particles=K),
        pv.estimators.StickingTheLanding(num_particles=K),
    ],
    reference_num_particles=amount(smoke=200, default=2000, full=5000),
    num_samples=amount(smoke=8, default=40, full=200),
)
print(looked_at)
figure(looked_at.plot(), "05_laboratory")

# %% [markdown]
# ## Does it matter for learning?
#
# We keep the decoder of that VAE as it is and train a new encoder for it, under the ELBO, IWAE and DReG, from the same
# weights on the same batches. A good encoder draws codes that fit: of K draws many count (the effective sample size),
# and the bound with K particles is tight. Means over seeds on test digits, with standard errors; the last column is
# paired by seed.

# %%
seeds = range(amount(smoke=2, default=3, full=3))
RIVALS = {"ELBO": pv.estimators.ELBO, "IWAE": pv.estimators.IWAE, "DReG": pv.estimators.DReG}


def encoder_trained_under(make, seed):
    learner = new(seed)
    learner.likelihood = deepcopy(vae.likelihood).requires_grad_(False)
    passes = epochs(smoke=1, default=8, full=5)
    pv.fit(learner, train, estimator=make(num_particles=K), epochs=passes, optimizer=adam, seed=seed)
    told = pv.evaluation.log_likelihood(learner, test.x, num_particles=K)
    return told.mean, float(told.ess.mean())


scores = {name: torch.tensor([encoder_trained_under(make, s) for s in seeds]) for name, make in RIVALS.items()}
for name, values in scores.items():
    columns = {f"bound of {K} particles": values[:, 0], "effective sample size": values[:, 1]}
    columns["bound less that of IWAE"] = values[:, 0] - scores["IWAE"][:, 0]
    told = [f"{key} {v.mean():.3f} ± {v.std() / len(v) ** 0.5:.3f}" for key, v in columns.items()]
    print(f"{name}:", ", ".join(told))


@styled
def learning_figure():
    drawn = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    labels = (f"Bound of {K} particles", "nats per image"), ("Effective sample size", f"draws of {K}")
    for i, (axes, (title, unit)) in enumerate(zip(drawn.subplots(1, 2), labels, strict=True)):
        for j, values in enumerate(scores.values()):
            axes.plot([j] * len(values), values[:, i], "o", color=COLOURS[j], markerfacecolor="none")
            error = values[:, i].std() / len(values) ** 0.5
            axes.errorbar(j + 0.2, values[:, i].mean(), yerr=error, color=COLOURS[j], marker="D")
        axes.set_xticks([j + 0.1 for j in range(len(scores))], list(scores))
        axes.set(title=title, ylabel=unit, xlim=(-0.4, len(scores) - 0.4), xlabel="encoder trained under")
        axes.grid(axis="y")
    return drawn


figure(learning_figure(), "05_encoders")

# %% [markdown]
# And whole models, where the decoder learns as well? With `--full`, and only then, each is trained from the start by
# the published schedule.

# %%
if pick(smoke=False, default=False, full=True):
    wholes = {"ELBO (1)": vae}
    for name, make in RIVALS.items():
        wholes[f"{name} ({K})"] = whole = new(0)
        pv.fit(whole, train, estimator=make(num_particles=K), **how, **kept(f"05_{name}_{K}"))
    for name, whole in wholes.items():
        rows = data.test.x[: amount(smoke=200, default=None, full=2000)]
        told = pv.evaluation.log_likelihood(whole, rows, num_particles=amount(smoke=10, default=100, full=5000))
        print(f"{name}: log p(x) {told.mean:.2f} nats, {pv.evaluation.latents(whole, rows).active['z']} active units")

# %% [markdown]
# ## Exercise
#
# 1. Let the encoder of the toy be exact (`off=0.0`). Which estimators have a gradient without any noise, and why?
# 2. `pv.estimators.PIWAE` gives the model $\mathcal L_{MK}$ and the guide M bounds of K particles. Put it into the
#    laboratory with M = K = 8 beside `IWAE(num_particles=64)` and `MIWAE`. Which part of the program gains?
# 3. Write your own estimator (a subclass of `pv.estimators.Estimator` with one formula, `bound`), and let the column
#    *own bias* check your gradient.
#
# ## References
#
# * Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
# * Tighter variational bounds are not necessarily better (Rainforth et al., 2018), https://arxiv.org/abs/1802.04537
# * Sticking the landing (Roeder et al., 2017), https://arxiv.org/abs/1703.09194
# * Doubly reparameterized gradient estimators for Monte Carlo objectives (Tucker et al., 2019),
#   https://arxiv.org/abs/1810.04152
