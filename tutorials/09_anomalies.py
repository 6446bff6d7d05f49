# %% [markdown]
# # 9. Is an unusual image one of low probability, and when should the alarm go off?
#
# A VAE learns p(x) of normal data; so an anomaly should be what it finds improbable. That is a good first idea with a
# surprising hole in it. Here we fix the number of false alarms first, which can be done honestly for any score, then
# see on which anomalies plain probability fails, what corrects it, and which pixels are to blame for an alarm.
#
# With `--full`: MNIST with 256 levels, 20 latents, a hidden layer of 400, 20 epochs, in about 20 minutes on one CPU
# core. There is no published figure for these anomalies.

# %%
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
levels, latent = pick(smoke=17, default=17, full=256), pick(smoke=8, default=8, full=20)
seeds = range(amount(smoke=2, default=3, full=3))
net = partial(pv.nets.MLP, hidden=pick(smoke=(64,), default=(128,), full=(400,)))
shape = data.shape

# %% [markdown]
# ## Normal images, and a model of them
#
# Digits before a camera that adds some noise. Its pixels are `levels` steps of grey, and the likelihood gives each
# step a probability: so $-\log p(x)$ is a code length, in nats, and can be compared with that of a file compressor
# below.

# %%
generator = torch.Generator().manual_seed(0)


def camera(x, noise=0.1):
    seen = 0.25 + 0.5 * x + noise * torch.randn(x.shape, generator=generator)
    return (seen.clamp(0, 1) * (levels - 1)).round() / (levels - 1)


train = camera(data.train.x[: amount(smoke=256, default=None, full=None)])


# %%
def trained(seed):
    pyro.set_rng_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.DiscretizedLogistic(latent, shape, net=net, levels=levels),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )
    adam = partial(torch.optim.Adam, lr=pick(smoke=2e-3, default=2e-3, full=1e-3))
    pv.fit(vae, train, epochs=epochs(smoke=2, default=40, full=20), optimizer=adam, seed=seed)
    return vae


programs = [trained(seed) for seed in seeds]

# %% [markdown]
# ## Anomalies, made by hand
#
# Each is made of the same test digits, so that nothing but the fault differs:
#
# * *shuffled*: the pixels of each digit in a random order: the same greys, no form;
# * *mirrored*: strokes as they should be, in a form that is seldom one of the ten;
# * *spot*: two by two pixels inverted;
# * *still*: the noise of the camera is gone, as in a picture that was smoothed on the way.

# %%
digits = data.test.x[:300]


def shuffled(x):
    order = torch.rand(x.flatten(1).shape, generator=generator).argsort(1)
    return x.flatten(1).gather(1, order).view_as(x)


def spot(x):
    x, size = x.clone(), pick(smoke=2, default=2, full=5)
    places = torch.randint(1, x.shape[-1] - size, (len(x), 2), generator=generator).tolist()
    for image, (i, j) in zip(x, places, strict=True):
        image[i : i + size, j : j + size] = 1 - image[i : i + size, j : j + size]
    return x


spotted = spot(digits)
normal, calibration = camera(digits), camera(data.valid.x[: amount(smoke=200, default=None, full=2000)])
ODD = {
    "shuffled": camera(shuffled(digits)),
    "mirrored": camera(digits.flip(-1)),
    "spot": camera(spotted),
    "still": camera(digits, noise=0.0),
}
shown = torch.cat([x[:16] for x in (normal, *ODD.values())])
title = f"Normal images, and below them anomalies: {', '.join(ODD)}"
figure(pv.plots.image_grid(shown, rows=1 + len(ODD), title=title), "09_anomalies")

# %% [markdown]
# ## A threshold that keeps its promise
#
# Let $s_1 \le \dots \le s_n$ be the scores of normal data that the program was **not** trained on, and put the
# threshold at number $\lceil (n + 1)(1 - \alpha) \rceil$. A new normal datum is as likely to take any place among
# them, so that
#
# $$\Pr(\text{false alarm}) \le \alpha ,$$
#
# however bad the model is: a bad model is paid for in missed anomalies, not in false alarms. The same threshold on
# *training* data promises nothing, as these have been fitted.

# %%
score = pv.tasks.ImportanceWeighted(amount(smoke=20, default=100, full=200))
ALPHAS = (0.05, 0.1, 0.2)
for alpha in ALPHAS:
    rates = {}
    for name, reference in {"held-out": calibration, "training": train[: len(calibration)]}.items():
        detector = pv.tasks.Detector(programs[0], score, reference, false_alarm_rate=alpha)
        rates[name] = float(detector.alarms(normal).double().mean())
    error = (alpha * (1 - alpha) * (1 / len(normal) + 1 / len(calibration))) ** 0.5
    print(
        f"asked for {alpha:.0%} false alarms: {rates['held-out']:.1%} with held-out data, {rates['training']:.1%} "
        f"with training data (standard error of an honest rate {error:.1%})"
    )

# %% [markdown]
# ## Where plain probability fails
#
# An image without noise is easy: all of its pixels are near the most probable level. So it gets a *higher* probability
# than the images the model was trained on, none of which looked like this. The density of a datum does not tell how
# typical it is: the most probable outcome of a hundred throws of a biased coin is a row of heads, which never comes.

# %%
scores = {name: score(programs[0], x) for name, x in {"normal": normal, **ODD}.items()}


@styled
def score_figure(scores, threshold):
    drawn = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels = drawn.subplots(len(scores), 1, sharex=True, sharey=True)
    low, high = min(float(s.min()) for s in scores.values()), float(torch.cat(list(scores.values())).quantile(0.98))
    for i, (axes, (name, values)) in enumerate(zip(panels, scores.items(), strict=True)):
        axes.hist(values.clamp(max=high), bins=40, range=(low, high), color=COLOURS[i])
        axes.axvline(threshold, color="black", linewidth=0.9, linestyle="--")
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.grid(axis="x")
    panels[0].set_title("Dashed: the threshold for 5% false alarms; alarms are to the right of it")
    panels[-1].set_xlabel("minus log-likelihood (nats per image; the last bin holds all above)")
    return drawn


detector = pv.tasks.Detector(programs[0], score, calibration, false_alarm_rate=0.05)
figure(score_figure(scores, detector.threshold), "09_scores")

# %% [markdown]
# ## Other scores
#
# | score | idea |
# |---|---|
# | reconstruction | $-\mathbb E_q \log p(x \mid z)$: how badly the datum is described by its own code |
# | typicality | $\lvert s(x) - \bar s_{\text{train}} \rvert$: too probable is unusual as well |
# | less complexity | $-\log p(x)$ less the length of the compressed file: what is simple for all does not count |
# | likelihood regret | $\max_q \mathcal L(x, q) - \mathcal L(x, q(z \mid x))$: what the encoder misses for x |
#
# A score is judged without a threshold by the probability that an anomaly scores higher than a normal datum (the area
# under the ROC curve): 0.5 is a coin, below 0.5 the score says the opposite of what it should.

# %%
few = amount(smoke=20, default=100, full=300)
bound = pv.tasks.NegativeBound(16)
SCORES = {
    "minus log p(x)": score,
    "minus the bound": bound,
    "reconstruction": pv.tasks.Reconstruction(16),
    "typicality": pv.tasks.Typicality(bound, train[:500]),
    "less complexity": pv.tasks.InputComplexity(bound, levels=levels),
    "likelihood regret": pv.tasks.LikelihoodRegret(num_steps=amount(smoke=5, default=30, full=100), num_particles=4),
}


def area(odd, usual):
    return (odd[:, None] > usual).double().mean() + 0.5 * (odd[:, None] == usual).double().mean()


def areas(program, one):
    usual = one(program, normal[:few])
    return [area(one(program, x[:few]), usual) for x in ODD.values()]


found = {name: torch.tensor([areas(program, one) for program in programs]) for name, one in SCORES.items()}
print("area under the ROC curve, mean over seeds ± standard error")
print(f"{'':18}", "  ".join(f"{name:>15}" for name in ODD))
for name, values in found.items():
    mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
    print(f"{name:18}", "  ".join(f"{m:6.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True)))


# %%
@styled
def area_figure(found):
    drawn = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = drawn.subplots()
    for i, name in enumerate(ODD):
        mean = torch.stack([values[:, i].mean() for values in found.values()])
        error = torch.stack([values[:, i].std() / len(values) ** 0.5 for values in found.values()])
        places = torch.arange(len(found)) + 0.14 * (i - 1.5)
        look = {"color": COLOURS[i + 1], "marker": MARKERS[i], "markersize": 5, "linestyle": "none"}
        axes.errorbar(mean, places, xerr=error, label=name, **look)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set(title="Which score finds which anomaly (dashed: a coin)", xlim=(-0.02, 1.02))
    axes.set_xlabel("area under the ROC curve (bars: one standard error over seeds)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="anomaly")
    return drawn


figure(area_figure(found), "09_areas")

# %% [markdown]
# No score wins everywhere: each stands for another idea of what is unusual. Choose it before you see anomalies, by
# what you are afraid of, and then keep the threshold of held-out data.
#
# ## Which pixels are to blame?
#
# The reconstruction score is a sum over pixels, $a_i = -\mathbb E_q[\log p(x_i \mid z)]$. Less its mean over normal
# data, it shows where the image is not what the model expects.

# %%
usual = pv.tasks.attribution(programs[0], calibration).mean(0)
blame = pv.tasks.attribution(programs[0], ODD["spot"]) - usual
changed = spotted != digits
hit = changed.flatten(1).gather(1, blame.flatten(1).argmax(1, keepdim=True)).double()
chance = float(changed.double().mean())
print(
    f"the pixel blamed most was changed in {hit.mean():.0%} ± {(hit.std() / len(hit) ** 0.5):.0%} of the images "
    f"(a pixel drawn at random: {chance:.0%})"
)


@styled
def blame_figure(n=8):
    drawn = Figure(figsize=(1.5 * WIDTH, 2.6), layout="constrained")
    panels = drawn.subplots(2, n)
    reach = float(blame[:n].abs().quantile(0.98))
    for i in range(n):
        panels[0, i].imshow(ODD["spot"][i], cmap="gray", vmin=0, vmax=1)
        image = panels[1, i].imshow(blame[i], cmap="PuOr_r", vmin=-reach, vmax=reach)
        top, left = changed[i].nonzero().min(0).values.tolist()
        height, width = (changed[i].nonzero().max(0).values - torch.tensor([top, left]) + 1).tolist()
        for axes, colour in ((panels[0, i], COLOURS[1]), (panels[1, i], "black")):
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=colour, linewidth=1.5))
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    panels[0, 0].set_ylabel("spot")
    panels[1, 0].set_ylabel("blame")
    drawn.colorbar(image, ax=panels[1].tolist(), label="nats", extend="both")
    drawn.suptitle("Digits with a spot (frame), and what each pixel adds to the score beyond the usual", fontsize=10)
    return drawn


figure(blame_figure(), "09_blame")

# %% [markdown]
# ## Exercise
#
# 1. Invent an anomaly that *typicality* does not find, although you see it at once.
# 2. Calibrate with 30 held-out images and 5% false alarms, for many draws of the 30. How far does the rate of false
#    alarms spread, and why is its mean still right?
# 3. Average the p-values of `detector.p_values` of two scores. What must be done before the mean is a p-value again?
#
# ## References
#
# * Do deep generative models know what they don't know? (Nalisnick et al., 2019), https://arxiv.org/abs/1810.09136
# * Detecting out-of-distribution inputs to deep generative models using typicality (Nalisnick et al., 2019),
#   https://arxiv.org/abs/1906.02994
# * Input complexity and out-of-distribution detection with likelihood-based generative models (Serra et al., 2020),
#   https://arxiv.org/abs/1909.11480
# * Likelihood regret: an out-of-distribution detection score for variational auto-encoder (Xiao et al., 2020),
#   https://arxiv.org/abs/2003.02977
# * Algorithmic learning in a random world (Vovk et al., 2005), https://doi.org/10.1007/b106715
