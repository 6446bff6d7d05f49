# %% [markdown]
# # 13. How do I write my own prior, likelihood, posterior, estimator and program?
#
# Each is a small class. The mistakes in them are quiet ones: a density that does not integrate to one, a dimension in
# the wrong place, a bound that is no bound. Training runs all the same, and what it reports is wrong. So each class is
# held to the laws of `pyro_vae.testing`, first with a mistake, to see what the message says, and then without.
#
# With `--full`: MNIST, two hidden layers of 500, 10 epochs, in about an hour on one CPU core.

# %%
import math
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.patches import Circle
from pyro import distributions as dist
from pyro.distributions import constraints

import pyro_vae as pv
from pyro_vae.programs import DataPlate, announce, observe
from pyro_vae.scales import positive
from pyro_vae.testing import LinearGaussian, check_estimator, check_part

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
train = data.train[: amount(smoke=256, default=None, full=None)]
test = data.test[:1000]  # a thousand do: many draws of each are held at once
passes, seeds = epochs(smoke=1, default=20, full=10), range(amount(smoke=2, default=3, full=3))
net = partial(pv.nets.MLP, hidden=pick(smoke=(32,), default=(128,), full=(500, 500)))
shape = data.shape


def verdict(what, check, *arguments):
    """Say whether the laws are kept, or which one is broken."""
    try:
        check(*arguments)
    except AssertionError as error:
        print(f"{what}: BROKEN, {error}")
    else:
        print(f"{what}: keeps every law")


# %% [markdown]
# ## A prior
#
# A part is a `pv.Conditional`, a module whose `forward` returns a Pyro distribution. Our prior is a *shell*: all
# directions are alike, and the distance $r = \lVert z \rVert$ from the origin has a log-normal density $f$, whose
# place and width are learned. In d dimensions the density of z is that of r, spread over the surface of a sphere:
#
# $$p(z) = \frac{f(\lVert z \rVert)}{S_d\, \lVert z \rVert^{d - 1}}, \qquad S_d = \frac{2 \pi^{d/2}}{\Gamma(d/2)} .$$


# %%
class ShellDistribution(dist.TorchDistribution):
    """Points whose distance from the origin is log-normal, in any direction."""

    arg_constraints, support, has_rsample = {}, constraints.real_vector, True

    def __init__(self, place, width, latent):
        self.place, self.width, self.latent = place, width, latent
        super().__init__(place.shape, torch.Size([latent]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return type(self)(self.place.expand(batch_shape), self.width.expand(batch_shape), self.latent)

    def rsample(self, sample_shape=()):
        direction = torch.randn(self.shape(sample_shape))
        radius = dist.LogNormal(self.place, self.width).rsample(sample_shape)
        return direction / direction.norm(dim=-1, keepdim=True) * radius.unsqueeze(-1)

    def log_prob(self, z):
        d, radius = self.latent, z.norm(dim=-1).clamp(min=1e-6)
        surface = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
        return dist.LogNormal(self.place, self.width).log_prob(radius) - surface - (d - 1) * radius.log()


class Shell(pv.Conditional):
    """p(z): a shell whose radius and thickness are learned."""

    def __init__(self, latent, *, of=ShellDistribution):
        super().__init__()
        self.latent, self.of = latent, of
        self.place, self.raw = torch.nn.Parameter(torch.zeros(())), torch.nn.Parameter(torch.zeros(()))

    def forward(self, *context):
        return self.of(self.place, positive(self.raw), self.latent)


# %% [markdown]
# Who forgets that the shell spreads over a sphere gets a density that integrates to something else. Every bound would
# be off by an amount that depends on z, and no error would come up. `check_part` integrates one- and two-dimensional
# densities:


# %%
class NoSurface(ShellDistribution):
    def log_prob(self, z):
        return dist.LogNormal(self.place, self.width).log_prob(z.norm(dim=-1))


verdict("shell without its surface", check_part, Shell(2, of=NoSurface))
verdict("shell", check_part, Shell(2))

# %% [markdown]
# ## A likelihood
#
# Errors of pixels often have heavier tails than a normal density. Pyro's soft Laplace distribution is smooth in the
# middle and falls off like $e^{-\lvert x \rvert / \sigma}$:
#
# $$p(x \mid z) = \prod_i \frac{1}{\pi \sigma \cosh\big((x_i - m_i) / \sigma\big)} , \qquad m = \mathrm{net}(z) .$$


# %%
class SoftLaplace(pv.Conditional):
    """p(x given z): soft Laplace pixels with one learned scale."""

    def __init__(self, latent, shape, *, net=pv.nets.MLP, to_event=True):
        super().__init__()
        self.net, self.dims = net((latent,), shape), len(shape) if to_event else 0
        self.raw = torch.nn.Parameter(torch.tensor(-2.0))

    def forward(self, z, *context):
        return dist.SoftLaplace(self.net(z), positive(self.raw)).to_event(self.dims)


# %% [markdown]
# The most common slip in Pyro is a missing `.to_event`: the dimensions of one datum are then taken for further data.
# The law names the batch shape that came and the batch of the context:

# %%
verdict("soft Laplace without to_event", check_part, SoftLaplace(3, shape, to_event=False), (3,))
verdict("soft Laplace", check_part, SoftLaplace(3, shape), (3,))

# %% [markdown]
# ## A posterior
#
# Independent logistic latents, again with heavier tails. Here the slip is a scale that the network makes and nobody
# uses; such a parameter gets no gradient, and stays where it was initialized:


# %%
class Logistic(pv.Conditional):
    """q(z given x): independent logistic latents."""

    def __init__(self, shape, latent, *, net=pv.nets.MLP, forget=False):
        super().__init__()
        self.place, self.width, self.forget = net(shape, (latent,)), net(shape, (latent,)), forget

    def forward(self, x, *context):
        place = self.place(x)
        width = torch.ones_like(place) if self.forget else positive(self.width(x))
        return dist.Logistic(place, width).to_event(1)


verdict("logistic of width 1", check_part, Logistic(shape, 3, forget=True), shape)
verdict("logistic", check_part, Logistic(shape, 3), shape)

# %% [markdown]
# ## An estimator
#
# One formula, from the weights $w_k = p(x, z_k) / q(z_k \mid x)$ of the draws of each datum to one number. The mean of
# positive numbers is at least the largest of them divided by their number, so that
#
# $$\mathbb E \log \frac{\max_k w_k}{K} \;\le\; \mathbb E \log \frac1K \sum_k w_k \;\le\; \log p(x)$$
#
# is a bound that only the best of the draws has to fit. `check_estimator` holds it to its contract: a finite loss, the
# same one from `SVI`, from the engine and from `fit`; all parameters move. A formula whose gradient is cut off says
# so. That it *is* a bound can only be seen where the evidence is known, as for `LinearGaussian`: with the $\log K$
# forgotten, the contract would be kept and the promise broken.


# %%
class BestOfMany(pv.estimators.Estimator):
    """The best draw of each datum, less log K."""

    def bound(self, terms, beta):
        return terms.log_w(beta).max(0).values - math.log(terms.num_particles)


class CutOff(BestOfMany):
    def bound(self, terms, beta):
        return super().bound(terms, beta).detach()


toy = LinearGaussian(off=0.1)
x, truth, best = toy.draw(1000), toy.log_evidence(toy.draw(1000)).detach(), BestOfMany(num_particles=8)
verdict("best of many, detached", check_estimator, toy.program, CutOff(num_particles=8), x[:8])
verdict("best of many", check_estimator, toy.program, best, x[:8])
pyro.set_rng_seed(0)
with torch.no_grad():
    gap = best.per_datum(toy.program.model, toy.program.guide, x) - truth
for name, off in {"BestOfMany": gap, "without log K": gap + math.log(8)}.items():
    print(f"{name:14} bound - log p(x) = {off.mean():+.3f} ± {off.std() / len(x) ** 0.5:.3f} nats")

# %% [markdown]
# ## All together
#
# The parts go where those of the library go. The log-likelihood of held-out digits is by importance sampling, and the
# change from the parts on the shelf is paired by seed. (Densities of pixels with few levels: compare these rows with
# one another only; tutorial 3 says more.) A part is not better for being one's own: look at what the shell gains.


# %%
def trained(prior, likelihood, posterior, estimator, seed):
    pyro.set_rng_seed(seed)
    vae = pv.VAE(prior=prior(2), likelihood=likelihood(2, shape, net=net), posterior=posterior(shape, 2, net=net))
    pv.fit(vae, train, estimator=estimator(num_particles=8), epochs=passes, batch_size=64, seed=seed, optimizer=adam)
    found = pv.evaluation.log_likelihood(vae, test.x, num_particles=amount(smoke=20, default=200, full=1000))
    return vae, found.mean


def normal(latent, shape, *, net):
    return pv.likelihoods.Normal(latent, shape, net=net, scale=pv.scales.Shared(0.2))


adam = partial(torch.optim.Adam, lr=pick(smoke=3e-3, default=3e-3, full=1e-3))
shelf = pv.priors.StandardNormal, normal, pv.posteriors.MeanFieldNormal, pv.estimators.IWAE
swaps = {"shelf": shelf, "own prior": (Shell, *shelf[1:]), "all own": (Shell, SoftLaplace, Logistic, BestOfMany)}
vaes, values = {}, {}
for name, parts in swaps.items():
    vaes[name], found = zip(*(trained(*parts, seed) for seed in seeds), strict=True)
    values[name] = torch.tensor(found)
    change = values[name] - values["shelf"]
    error = change.std() / len(change) ** 0.5
    print(f"{name:10} {values[name].mean():7.2f} nats, {change.mean():+6.2f} ± {error:.2f} over {len(change)} seeds")

with torch.no_grad():
    maps = {name: vaes[name][0].encode(train.x).mean for name in ("shelf", "own prior")}
    radii = math.sqrt(2 * math.log(2)), vaes["own prior"][0].prior.place.exp().item()
drawn = pv.plots.latent_map(maps, train.y, title="Means of q(z|x); half of each prior lies within the dashed circle")
for axes, radius in zip(drawn.axes, radii, strict=True):
    axes.add_patch(Circle((0, 0), radius, fill=False, linewidth=1.5, linestyle="--"))
    axes.set_aspect("equal")
figure(drawn, "13_priors")

# %% [markdown]
# ## A program
#
# A model with another structure is a `pv.Program` with `model` and `guide`. Here one z explains the upper and the
# lower half of a digit by two likelihoods, and each half has an *expert* that says what it knows of z. The experts and
# the prior are multiplied, which for normal densities adds precisions (Wu and Goodman, 2018):
#
# $$q(z \mid x_S) \propto p(z) \prod_{i \in S} \mathcal N(z; \mu_i, \tau_i^{-1}) , \qquad
#   \tau = 1 + \sum_{i \in S} \tau_i, \quad \mu = \tau^{-1} \sum_{i \in S} \tau_i \mu_i .$$
#
# An expert for any set S of seen halves gives a valid bound on $\log p(x)$, so in training each datum draws a set.


# %%
class Halves(pv.Program):
    """One latent explains both halves of an image, and each half can be encoded alone."""

    sets = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])

    def __init__(self, latent):
        super().__init__()
        half = shape[0] // 2, *shape[1:]
        self.prior = pv.priors.StandardNormal(latent)
        self.likelihoods = torch.nn.ModuleList(SoftLaplace(latent, half, net=net) for _ in range(2))
        self.experts = torch.nn.ModuleList(net(half, (2, latent)) for _ in range(2))

    def model(self, x):
        announce(prior=self.prior, likelihoods=self.likelihoods)
        with DataPlate(x):
            z = pyro.sample("z", self.prior())
            for i, (likelihood, half) in enumerate(zip(self.likelihoods, x.chunk(2, 1), strict=True)):
                observe(f"half {i}", likelihood(z), half)

    def guide(self, x):
        announce(experts=self.experts)
        with DataPlate(x):
            seen = self.sets[torch.randint(3, (len(x),))] if self.training else torch.ones(len(x), 2)
            pyro.sample("z", self.posterior(x, seen))

    def posterior(self, x, seen):
        answers = torch.stack([expert(half) for expert, half in zip(self.experts, x.chunk(2, 1), strict=True)])
        tau = positive(answers[:, :, 1]) * seen.T.unsqueeze(-1)
        precision = 1 + tau.sum(0)
        return dist.Normal((tau * answers[:, :, 0]).sum(0) / precision, precision.rsqrt()).to_event(1)


verdict("halves", check_estimator, Halves(8), pv.estimators.ELBO(), train.x[:16])

# %% [markdown]
# We complete the lower half from the upper one, $z \sim q(z \mid x_{\text{upper}})$, and score the true lower half by
# $\log \frac1K \sum_k p(x_{\text{lower}} \mid z_k)$. To compare with: z from the prior, which has seen nothing.

# %%
pyro.set_rng_seed(0)
program = Halves(8)
pv.fit(program, train, epochs=2 * passes, batch_size=64, optimizer=adam)


def complete(x, seen, k):
    z = program.posterior(x, torch.tensor(seen).expand(len(x), 2)).sample((k,))
    return program.likelihoods[1](z)


with torch.no_grad():
    upper, lower = test.x.chunk(2, 1)
    draws = {name: complete(test.x, seen, 200) for name, seen in {"no": [0.0, 0.0], "upper": [1.0, 0.0]}.items()}
    scores = {name: fn.log_prob(lower).logsumexp(0) - math.log(200) for name, fn in draws.items()}
    gain = scores["upper"] - scores["no"]
for name, score in {**scores, "gain of the upper": gain}.items():
    print(f"{name + ' half':22} {score.mean():6.2f} ± {score.std() / len(score) ** 0.5:.2f} nats per image")

rows = {"test digit": test.x[:12], "upper half": torch.cat([upper, torch.ones_like(lower)], 1)[:12]}
rows |= {f"completed {i + 1}": torch.cat([upper, draws["upper"].mean[i]], 1)[:12] for i in range(3)}
figure(pv.plots.image_rows(rows, title="Lower halves drawn from the upper ones"), "13_halves")

# %% [markdown]
# ## Exercise
#
# Write a prior that is a grid of nine normals with equal weights. Leave out the weight 1/9 first and read what
# `check_part` says; then train with it. Does it lead to nine clusters?
#
# ## References
#
# * Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
# * Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
# * Multimodal generative models for scalable weakly-supervised learning (Wu and Goodman, 2018),
#   https://arxiv.org/abs/1802.05335
# * Accurate and diverse sampling of sequences based on a "best of many" sample objective (Bhattacharyya et al., 2018),
#   https://arxiv.org/abs/1806.07772
