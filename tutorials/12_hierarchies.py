# %% [markdown]
# # 12. What do two or five layers of latents bring, and why does it matter in which order they are inferred?
#
# A single layer of latents with a standard normal prior has to hold everything at once, what a digit is and how it is
# written. Layers can divide the work: the top says what, each layer below adds detail. Whether they do depends on the
# guide. We train one, two and five layers under two orders of inference and look at what each layer carries.
#
# With `--full`: MNIST by the protocol of Burda et al. (2016): bits drawn anew each time, 50 latents in one layer and
# 100 and 50 in two, hidden layers of 200 (tanh), batches of 20, eight stages of 1, 3, ... 2,187 epochs, 5,000 samples
# for log p(x); five layers have the widths of Sønderby et al. (2016). All of it in about 400 hours on one CPU core
# (estimated: 17 days). `--share 0.0025` ends within about two hours. Published: -86.8 nats for one layer, -85.3 for
# two (bottom up), -81.7 for five (top down, with batch normalization and wider networks). Here the weight rises, upper
# networks have 200 units as well (there 100), there are two seeds, and 2,000 test images are judged.

# %%
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, kept, pick
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, WIDTH, styled
from pyro_vae.programs import BottomUp, Hierarchical, TopDown

bits = pick(smoke=pv.data.Threshold(), default=pv.data.Threshold(), full=pv.data.Dynamic())
data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"), binarize=bits)
train, shape = data.train[: amount(smoke=128, default=None, full=None)], data.shape
test = data.test[: amount(smoke=200, default=None, full=2000)]
passes, seeds = epochs(smoke=1, default=16, full=3280), range(2)
batch_size = pick(smoke=64, default=64, full=20)
steps = passes * len(train) // batch_size
# with --full eight stages of 1, 3, 9, ... epochs, from a rate of 1e-3 to 1e-4
stages = pv.training.MultiStep([steps * (3**i - 1) // 6560 for i in range(1, 8)], factor=10 ** (-1 / 7))
adam = partial(torch.optim.Adam, lr=pick(smoke=3e-3, default=3e-3, full=1e-3))
# widths from z1, next to the data, up to the top
small = [(16,), (16, 6), (16, 10, 8, 6, 4)]
WIDTHS = pick(smoke=small, default=small, full=[(50,), (100, 50), (64, 32, 16, 8, 4)])
net = partial(pv.nets.MLP, hidden=pick(smoke=(32,), default=(64,), full=(200, 200)))
net = pick(smoke=net, default=net, full=partial(net, activation=torch.nn.Tanh))
part = partial(pv.posteriors.MeanFieldNormal, net=net)

# %% [markdown]
# ## The model
#
# Each layer is a normal distribution whose mean and scale a network makes of the layer above:
#
# $$p(x, z_{1:L}) = p(x \mid z_1) \prod_{l < L} p(z_l \mid z_{l + 1})\; p(z_L) .$$
#
# Seen from $z_1$ the layers above are nothing but a learned prior,
# $p(z_1) = \int \prod_{l<L} p(z_l \mid z_{l+1})\, p(z_L)\, dz_{2:L}$: a mixture of infinitely many normal
# distributions.
#
# ## Two guides
#
# **Bottom up**: each layer is guessed from the one below,
# $q(z_1 \mid x)\, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})$. The guess of $z_1$ comes first and cannot take into
# account what the layers above will expect of it. At the start of training $z_1$ is noise; what is above learns from
# noise, turns itself off, and may never come back.
#
# **Top down**: the guide goes the way of the model, $q(z_L \mid x) \prod_{l<L} q(z_l \mid x, z_{l+1})$, and every
# layer sees the image. This is the order of ladder networks. The bound falls apart into one divergence a layer,
#
# $$\mathbb E_q \log p(x \mid z_1) - \mathrm{KL}\big(q(z_L \mid x) \,\|\, p(z_L)\big)
#   - \sum_{l < L} \mathbb E_q\, \mathrm{KL}\big(q(z_l \mid x, z_{l+1}) \,\|\, p(z_l \mid z_{l+1})\big) .$$
#
# In code the two differ in what the posteriors see, and in nothing else.


# %%
def hierarchy(widths, order):
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    if order is BottomUp:
        posteriors = [part(shape, widths[0]), *(part((below,), above) for below, above in pairs)]
    else:
        posteriors = [*(part(shape, below, context=above) for below, above in pairs), part(shape, widths[-1])]
    return Hierarchical(
        prior=pv.priors.StandardNormal(widths[-1]),
        layers=[part((above,), below) for below, above in reversed(pairs)],
        likelihood=pv.likelihoods.Bernoulli(widths[0], shape, net=net),
        inference=order(posteriors),
    )


# %% [markdown]
# ## Training
#
# The weight of the divergences rises over the first third of the steps (the first sixteenth with `--full`), so that no
# layer is priced out before it is of use. The log-likelihood of the test images is by importance sampling. A unit is
# *active* where the mean of its posterior differs from image to image (a variance above 0.01).


# %%
def trained(widths, order, seed):
    pyro.set_rng_seed(seed)
    program = hierarchy(widths, order)
    pv.fit(
        program,
        train,
        estimator=pv.estimators.ELBO(beta=pv.training.Linear(max(1, steps // pick(smoke=3, default=3, full=16)))),
        optimizer=adam,
        lr_schedule=pick(smoke=None, default=None, full=stages),
        epochs=passes,
        batch_size=batch_size,
        seed=seed,
        **kept(f"12_{len(widths)}_{order.__name__}_{seed}"),
    )
    return program


def numbers(values):
    values = torch.as_tensor(values, dtype=torch.float64)
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


programs, found = {}, {}
for widths in WIDTHS:
    for order in (BottomUp, TopDown)[: len(widths)]:
        name = f"{len(widths)} layers, {order.__name__}" if len(widths) > 1 else "1 layer"
        programs[name] = [trained(widths, order, seed) for seed in seeds]
        particles = amount(smoke=10, default=50, full=5000)
        values = [pv.evaluation.log_likelihood(p, test.x, num_particles=particles).mean for p in programs[name]]
        found[name] = [pv.evaluation.latents(program, test.x) for program in programs[name]]
        bounds = [-(each.distortion + sum(each.rate.values())) for each in found[name]]
        print(f"{name:18} bound {numbers(bounds)}, log-likelihood {numbers(values)} nats ({len(seeds)} seeds)")
        for site, active in sorted(found[name][0].active.items()):
            rate = numbers([each.rate[site] for each in found[name]])
            print(f"    {site}: {active} of {len(found[name][0].variance[site])} active, {rate} nats")

# %% [markdown]
# A bar without height is a layer that the program does not use: it is drawn from its prior whatever the image is, and
# the model would be the same without it. Digits of 8 x 8 pixels need no five layers: the uppermost stay off under both
# orders. Do those of 28 x 28, with `--full`? (Bottom up, a layer's share is the mean of
# $\log q(z_l \mid z_{l-1}) - \log p(z_l \mid z_{l+1})$, which is no divergence by itself and can lie below zero; the
# sum over the layers cannot.)


# %%
@styled
def layers():
    drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    drawn.suptitle("What each layer costs, and its active units (of all) in the first seed", fontsize=10)
    panels = drawn.subplots(1, 2, sharey=True, width_ratios=(2, 5))
    for axes, widths in zip(panels, WIDTHS[1:], strict=True):
        for j, order in enumerate((BottomUp, TopDown)):
            every = found[f"{len(widths)} layers, {order.__name__}"]
            rates = torch.tensor([[each.rate[f"z{i + 1}"] for i in range(len(widths))] for each in every])
            means, errors = rates.mean(0), rates.std(0) / len(every) ** 0.5
            places = torch.arange(len(widths)) + 0.4 * j - 0.2
            axes.bar(places, means, yerr=errors, width=0.38, color=COLOURS[j], label=order.__name__)
            for i, width in enumerate(widths):
                active, top = every[0].active[f"z{i + 1}"], (means + errors).clamp(min=0)[i]
                look = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 7}
                axes.annotate(f"{active}/{width}", (places[i], top), **look)
        axes.set_xticks(range(len(widths)), [f"$z_{i + 1}$" for i in range(len(widths))])
        axes.set(title=f"{len(widths)} layers", xlabel="layer, from the data upwards")
    panels[0].set_ylabel("divergence (nats per image)")
    panels[0].margins(y=0.12)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


figure(layers(), "12_layers")

# %% [markdown]
# ## What does each layer know?
#
# We hold the upper layers at one draw and draw the layers below anew, with the same noise in each row of a program. If
# a row looks like the one where nothing is held, the layers held know nothing; where images of a row become alike, the
# layers held decide what they have in common.


# %%
def below(program, keep, n):
    """Draw images that have the layers from number ``keep`` upwards in common."""
    z = program.prior().expand((n,)).sample()
    for level, layer in zip(range(len(program.layers) + 1, 0, -1), [*program.layers, None], strict=True):
        if level >= keep:
            z = z[:1].expand_as(z)
        if layer is not None:
            z = layer(z).sample()
    return program.decode(z).mean


with torch.no_grad():
    rows = {}
    for depth, keep in ((2, 3), (2, 2), (5, 6), (5, 5), (5, 3), (5, 2)):
        pyro.set_rng_seed(4)
        held = "nothing" if keep > depth else f"z{depth}" + (f" to z{keep}" if keep < depth else "")
        rows[f"{depth} layers, {held}"] = below(programs[f"{depth} layers, TopDown"][0], keep, 12)
figure(pv.plots.image_rows(rows, title="Means of p(x|z) top down, with the named layers held"), "12_held")

pyro.set_rng_seed(5)
rows = {"test": test.x[:12]} | {name: each[0].sample(12, mean=True) for name, each in programs.items()}
figure(pv.plots.image_rows(rows, title="Test images and samples (means of p(x|z))"), "12_samples")

# %% [markdown]
# ## Exercise
#
# 1. Leave out the rising weight: `pv.estimators.ELBO()`. Which order loses more active units?
# 2. Give the decoder all layers: `Hierarchical(..., skip=True)` with `Bernoulli(16, shape, context=10 + 8 + 6 + 4)`.
#    Which layers become active, and are the samples better for it?
#
# ## References
#
# * Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
#   https://arxiv.org/abs/1401.4082
# * Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
# * Ladder variational autoencoders (Sønderby et al., 2016), https://arxiv.org/abs/1602.02282
# * Very deep VAEs generalize autoregressive models and can outperform them on images (Child, 2021),
#   https://arxiv.org/abs/2011.10650
