# %% [markdown]
# # 10. Ten kinds of digits and no label: does a VAE find the kinds, and how sure is it of each code?
#
# Codes are a *representation*: what is alike should lie close. A VAE gives more than a point for each datum, namely a
# distribution, and with a mixture for its prior it also says to which of a number of clusters the datum belongs. The
# labels are used only at the end, to see what was found.
#
# With `--full`: MNIST by the protocol of Jiang et al. (2017): 784-500-500-2000-10 and back (ReLU), batches of 100, a
# rate of 2e-3 that falls by 0.9 every ten epochs down to 2e-4, 3,000 epochs, after 50 without clusters; five seeds of
# each program in about 250 hours on one CPU core (estimated). `--share 0.006` ends within about two hours. Published:
# an accuracy of 94% at best; 74% on average and 88% at best with ten clusters (Dilokthanakul et al., 2016). There a
# stacked autoencoder comes first, all 70,000 images are used and pixels are scored as bits; here a VAE comes first,
# and the 50,000 for training are clustered.

# %%
import copy
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, kept, pick
from matplotlib.figure import Figure
from sklearn.cluster import KMeans

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, MARKERS, WIDTH, styled

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
train = data.train[: amount(smoke=256, default=None, full=None)]
test = data.test[: amount(smoke=200, default=None, full=None)]
shape, latent, clusters = data.shape, 10, 10
seeds, widths = range(amount(smoke=2, default=5, full=5)), pick(smoke=(64,), default=(128,), full=(500, 500, 2000))
activation = pick(smoke=torch.nn.SiLU, default=torch.nn.SiLU, full=torch.nn.ReLU)
net, back = (partial(pv.nets.MLP, hidden=hidden, activation=activation) for hidden in (widths, widths[::-1]))
adam = partial(torch.optim.Adam, lr=2e-3)
first = {"epochs": epochs(smoke=2, default=20, full=50), "optimizer": adam}
second = {"epochs": epochs(smoke=2, default=20, full=3000), "optimizer": adam}
if pick(smoke=False, default=False, full=True):
    # times 0.9 after every 10 of 3,000 epochs, down to 2e-4
    falls = [second["epochs"] * -(-len(train) // 100) * i // 300 for i in range(1, 23)]
    second |= {"optimizer": partial(adam, eps=1e-4), "lr_schedule": pv.training.MultiStep(falls, factor=0.9)}

# %% [markdown]
# ## A VAE first
#
# Several runs, since what is found depends on the start. Their posterior is
# $q(z \mid x) = \mathcal N(m(x), \operatorname{diag} s(x)^2)$; `pv.tasks.embed` returns m and s of each datum.


# %%
def fit(name, program, seed, how):
    pyro.set_rng_seed(seed)
    pv.fit(program, train, batch_size=100, seed=seed, **how, **kept(f"10_{name}_{seed}"))
    return program


def plain(seed):
    pyro.set_rng_seed(seed)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.ContinuousBernoulli(latent, shape, net=back),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )
    return fit("start", vae, seed, first)


starts = [plain(seed) for seed in seeds]

# %% [markdown]
# ## Clusters as a latent
#
# Give each datum a cluster k, and each cluster a normal of its own in the space of codes:
#
# $$p(x) = \sum_k p(k) \int p(z \mid k)\, p(x \mid z)\, dz .$$
#
# Here $q(z \mid x)$ does not see the cluster, and then the best probabilities of clusters are known in closed form,
#
# $$q(k \mid x) \propto p(k) \exp\big(-\mathrm{KL}(q(z \mid x) \,\|\, p(z \mid k))\big) ,$$
#
# which `pv.programs.Responsibilities` computes: there is no classifier to train, nor one that could forget a cluster.
# The sum over k is exact (tutorial 8). From a random start clusters often stay empty, so we go on from a trained VAE,
# and place the clusters where a mixture of normals finds them among its codes.


# %%
def mixture(vae, seed):
    linear = partial(pv.nets.MLP, hidden=())  # a mean and a scale for each cluster
    parts = {
        "classes": pv.priors.OneHotCategorical(clusters, learned=True),
        "prior": pv.priors.ConditionalNormal(latent, context=clusters, net=linear),
        "posterior": vae.posterior,
    }
    responsibilities = pv.programs.Responsibilities(**parts)
    program = pv.programs.MixtureVAE(**parts, likelihood=vae.likelihood, classifier=responsibilities)
    pv.tasks.init_clusters(program, train.x, seed=seed)
    return fit("mixture", program, seed, second)


mixtures = [mixture(copy.deepcopy(vae), seed) for seed, vae in enumerate(starts)]
vaes = [fit("plain", vae, seed, second) for seed, vae in enumerate(starts)]  # as long without clusters, to compare
print(pv.tasks.cluster(mixtures[0], train.x))

# %% [markdown]
# ## Beside k-means
#
# The numbers of clusters mean nothing, so that accuracy is that of the best one-to-one match of clusters and classes.
# Normalised mutual information (NMI) and the adjusted Rand index (ARI) need no match; ARI is 0 for a random division.
# All methods find clusters of the training digits, without labels, and one start a seed.


# %%
def k_means(rows, seed):
    return KMeans(clusters, n_init=1, random_state=seed).fit_predict(rows.flatten(1).double().numpy())


def assigned(seed):
    return {
        "k-means, pixels": k_means(train.x, seed),
        "k-means, codes": k_means(pv.tasks.embed(vaes[seed], train.x).mean, seed),
        "MixtureVAE": pv.tasks.cluster(mixtures[seed], train.x).assigned.numpy(),
    }


truth = train.y.numpy()
found = [
    {name: pv.evaluation.clustering_scores(truth, each) for name, each in assigned(seed).items()} for seed in seeds
]
scores = {name: {key: torch.tensor([run[name][key] for run in found]) for key in found[0][name]} for name in found[0]}
for name, by_score in scores.items():
    cells = [f"{key} {v.mean():.3f} ± {v.std() / len(v) ** 0.5:.3f}" for key, v in by_score.items()]
    print(f"{name:16}", "   ".join(cells))
gain = scores["MixtureVAE"]["accuracy"] - scores["k-means, pixels"]["accuracy"]
print(f"gain in accuracy over k-means of pixels {gain.mean():+.3f} ± {gain.std() / len(gain) ** 0.5:.3f} (same seeds)")
print(f"(means over {len(found)} seeds with their standard errors)")


# %%
@styled
def score_figure(scores):
    drawn = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = drawn.subplots()
    for i, (name, by_score) in enumerate(scores.items()):
        for j, values in enumerate(by_score.values()):
            place = j + 0.25 * (i - 1)
            look = {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": "none"}
            axes.plot([place - 0.05] * len(values), values, markerfacecolor="none", markersize=4, **look)
            error = float(values.std() / len(values) ** 0.5)
            label = name if j == 0 else None
            axes.errorbar(place + 0.05, float(values.mean()), yerr=error, markersize=6, label=label, **look)
    names = {"accuracy": "accuracy", "nmi": "NMI", "ari": "ARI"}
    axes.set_xticks(range(len(names)), [names[key] for key in by_score])
    axes.set(title="Clusters against classes", ylabel="score (1: the classes)", ylim=(-0.03, 1))
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="open: one seed\nfull: mean, s.e.")
    return drawn


figure(score_figure(scores), "10_scores")

# %% [markdown]
# With few, small and centred images k-means of pixels comes first: pixels are a good representation of them, and a
# VAE spends its code on whatever makes pixels likely, be it the class or the weight of the pen. (Does `--full` change
# the order?) What the program gives beyond a division is a density: probabilities of clusters, draws, and p(x).
#
# ## What the clusters are
#
# A cluster of k-means is a set. A cluster of the program is a distribution that we can draw from: first z from
# $p(z \mid k)$, then x. First column: the decoded mean. Clusters need not be classes: a digit written in two ways may
# take two of them, and two alike digits share one. That is no fault, for nobody has said that the class is what
# matters.

# %%
best = mixtures[int(scores["MixtureVAE"]["accuracy"].argmax())]
pyro.set_rng_seed(0)
with torch.no_grad():
    normal = best.prior(torch.eye(clusters))
    z = torch.cat([normal.mean.unsqueeze(0), normal.sample((17,))])
    tiles = best.likelihood(z).mean.transpose(0, 1).flatten(0, 1)
title = "A row a cluster: the decoded mean (first), and draws"
figure(pv.plots.image_grid(tiles, rows=clusters, title=title), "10_clusters")


# %%
@styled
def table_figure(program):
    counts = torch.zeros(clusters, 10, dtype=torch.long)
    numbers = pv.tasks.cluster(program, test.x).assigned
    counts.index_put_((numbers, test.y), torch.tensor(1), accumulate=True)
    drawn = Figure(figsize=(0.75 * WIDTH, 3.6), layout="constrained")
    axes = drawn.subplots()
    image = axes.imshow(counts, cmap="cividis", vmin=0)
    for k in range(clusters):
        for label in range(10):
            n = int(counts[k, label])
            if n:
                colour = "black" if n > 0.6 * counts.max() else "white"
                axes.text(label, k, n, ha="center", va="center", color=colour, fontsize=8)
    axes.set(title="Test digits, by cluster and class", xlabel="class", ylabel="cluster (row of the figure above)")
    axes.set(xticks=range(10), yticks=range(clusters))
    drawn.colorbar(image, label="digits")
    return drawn


figure(table_figure(best), "10_table")

# %% [markdown]
# ## A map with its uncertainty
#
# Each ellipse is one standard deviation of q(z|x), in the plane of the first two principal components of the means.
# Overlapping ellipses are data that the code does not tell apart.

# %%
embedding = pv.tasks.embed(vaes[0], test.x[:1000])
figure(embedding.plot(test.y[:1000]), "10_map")

# %% [markdown]
# The deviations are part of the representation. Two data may be compared by the distance of their means alone, or by
# how much their distributions overlap (Bhattacharyya):
#
# $$D = \tfrac14 \sum_j \frac{(m_j - m'_j)^2}{s_j^2 + s_j'^2} +
#   \tfrac12 \sum_j \log \frac{s_j^2 + s_j'^2}{2 s_j s'_j} .$$
#
# In it a latent counts by how well it is known; a collapsed one (tutorial 6) not at all. We ask of each distance: is
# the nearest training digit of the same class?


# %%
def overlap(a, b):
    total = a.std.square()[:, None] + b.std.square()
    apart = (a.mean[:, None] - b.mean).square() / total
    spread = (total / (2 * a.std[:, None] * b.std)).log()
    return (0.25 * apart + 0.5 * spread).sum(-1)


shown = test.x[: amount(smoke=50, default=300, full=300)]
nearest = []
for vae in vaes:
    a, b = pv.tasks.embed(vae, shown), pv.tasks.embed(vae, train.x[:2000])
    distances = torch.cdist(a.mean, b.mean), overlap(a, b)
    nearest.append([(train.y[d.argmin(1)] == test.y[: len(shown)]).double().mean() for d in distances])
nearest = torch.tensor(nearest)
for name, values in zip(("means alone", "overlap"), nearest.T, strict=True):
    print(f"{name:12} nearest digit of the same class: {values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}")
apart = nearest[:, 1] - nearest[:, 0]
print(f"difference   {apart.mean():+.3f} ± {apart.std() / len(apart) ** 0.5:.3f} (same programs)")

# %% [markdown]
# ## Exercise
#
# 1. Take 5 and 20 clusters. Compare the held-out bound (`pv.evaluation.log_likelihood`): does it know how many there
#    are?
# 2. Leave out `init_clusters`, and look at the sizes that `pv.tasks.cluster` prints. How many clusters are alive?
# 3. Explain why codes of two seeds cannot be compared axis by axis, while distances within each can.
#
# ## References
#
# * Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148
# * Deep unsupervised clustering with Gaussian mixture variational autoencoders (Dilokthanakul et al., 2016),
#   https://arxiv.org/abs/1611.02648
# * Comparing partitions (Hubert and Arabie, 1985), https://doi.org/10.1007/BF01908075
# * On a measure of divergence between two multinomial populations (Bhattacharyya, 1946),
#   https://www.jstor.org/stable/25047882
