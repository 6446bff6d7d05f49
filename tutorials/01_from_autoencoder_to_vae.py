# %% [markdown]
# # 1. What does a VAE change about an autoencoder, so that it can draw new digits?
#
# An autoencoder squeezes an image into a few numbers, the *code* $z$, and unpacks them again. If the codes of digits
# are just points, where is the code of a digit that nobody has written yet? We train an autoencoder, see where it
# fails, and repair it by three changes that turn it into a probabilistic program: a **variational autoencoder**.
#
# With `--full`: MNIST, a hidden layer of 500, batches of 100 and $10^8$ images (2,000 epochs), as in Kingma and
# Welling (2014), seven runs in about 28 hours on one CPU core (estimated). `--share 0.06` ends within about two hours.
# They use Adagrad and bits, and show their bounds as curves; here it is Adam and grey levels.

# %%
import math
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure, pick
from matplotlib.patches import Circle
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from torch.nn.functional import softplus

import pyro_vae as pv

data = pv.data.load(pick(smoke="digits", default="digits", full="mnist"))
train = data.train[: amount(smoke=256, default=None, full=None)]
test = data.test[:1000]  # a thousand do: many draws of each are held at once
passes, seeds = epochs(smoke=2, default=30, full=2000), range(amount(smoke=2, default=3, full=3))
batch_size, shape = pick(smoke=64, default=64, full=100), data.shape
net = partial(pv.nets.MLP, hidden=pick(smoke=(128,), default=(128,), full=(500,)))
rate = pick(smoke=3e-3, default=3e-3, full=1e-3)
adam = partial(torch.optim.Adam, lr=rate)
print(data)

# %% [markdown]
# ## An autoencoder
#
# The encoder $e$ makes two numbers of an image, the decoder $d$ makes an image of two numbers, and both are trained to
# make the squared error small:
#
# $$\sum_n \lVert x_n - d(e(x_n)) \rVert^2 .$$
#
# Up to constants this is minus the log-density of a normal distribution around $d(z)$ with a fixed scale $\sigma$. We
# take $\sigma = 0.2$, about the error per pixel that two numbers leave (tutorial 3 learns it).

# %%
SIGMA = 0.2


def autoencoder(seed):
    pyro.set_rng_seed(seed)
    program = pv.programs.Autoencoder(
        encoder=net(shape, (2,)), likelihood=pv.likelihoods.Normal(2, shape, net=net, scale=SIGMA)
    )
    pv.fit(program, train, epochs=passes, batch_size=batch_size, optimizer=adam, seed=seed)
    return program


autoencoders = [autoencoder(seed) for seed in seeds]

# %% [markdown]
# ## Three changes
#
# **A prior.** Before any image is seen, codes have a distribution that we know how to draw from:
# $p(z) = \mathcal N(0, I)$. To draw a new digit, draw $z$ from it and decode.
#
# **A posterior.** The encoder answers with a distribution in place of a point: "the code is near $\mu(x)$, give or
# take $\sigma(x)$", $q(z \mid x) = \mathcal N(\mu(x), \operatorname{diag} \sigma(x)^2)$.
#
# **A bound.** What should be large is the probability of the data, $p(x) = \int p(x \mid z)\, p(z)\, dz$. The integral
# has no closed form, but by Jensen's inequality
#
# $$\log p(x) \ge \underbrace{\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{\text{reconstruction}}
#   - \underbrace{\mathrm{KL}\big(q(z \mid x) \,\|\, p(z)\big)}_{\text{price of the code}} ,$$
#
# the *evidence lower bound* (ELBO). The first term wants codes from which the image can be made again; the second
# keeps codes where the prior is. Without the second term we are back at the autoencoder.
#
# In Pyro the two distributions are two functions: the **model** tells how data come about, the **guide** guesses the
# code of given data.

# %%
encoder, decoder = net(shape, (2, 2)), net((2,), shape)


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), SIGMA).to_event(len(shape)), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        mean, raw = encoder(x).unbind(-2)
        pyro.sample("z", dist.Normal(mean, softplus(raw) + 1e-4).to_event(1))


# %% [markdown]
# ## How can a gradient pass through a random draw?
#
# The bound is an expectation over draws from $q$, and $q$ itself is to be improved. The trick is to write the draw as
# a function of noise that does not depend on any parameter (*reparameterization*):
#
# $$z = \mu + \sigma \varepsilon, \quad \varepsilon \sim \mathcal N(0, 1), \qquad
#   \nabla_\mu \mathbb E f(z) = \mathbb E f'(\mu + \sigma \varepsilon) .$$
#
# Another way needs no derivative of $f$, $\mathbb E\, f(z)\, \nabla_\mu \log q(z)$. Both are right; for $f(z) = z^2$
# at $\mu = 1$, $\sigma = 0.5$, where the answer is 2, see how much noisier the second one is.

# %%
pyro.set_rng_seed(0)
mu, sigma, n = 1.0, 0.5, 10_000
z = mu + sigma * torch.randn(n)
ways = {"reparameterized": 2 * z, "score function": z**2 * (z - mu) / sigma**2}
for name, gradient in ways.items():
    deviation = gradient.std()
    print(f"{name:16} {gradient.mean():.3f} ± {deviation / n**0.5:.3f}   (deviation of one draw: {deviation:.2f})")

# %% [markdown]
# ## Training, written out in six lines
#
# `Trace_ELBO` runs the guide, replays the model at its draws, adds up the log-densities and lets the gradient pass
# through them: nothing here is special to autoencoders.

# %%
svi = SVI(model, guide, pyro.optim.Adam({"lr": rate}), Trace_ELBO())
for _ in range(passes):
    for rows in train.x[torch.randperm(len(train))].split(batch_size):
        loss = svi.step(rows)
    # the loss is minus the bound, summed over the batch
print(f"bound of the last batch: {-loss / len(rows):.2f} nats per image")

# %% [markdown]
# ## The same with this library
#
# A prior, a likelihood and a posterior are three objects; `pv.VAE` makes model and guide of them, and `pv.fit` is the
# loop above with a progress bar, a held-out bound and checkpoints. To see that nothing else has changed, we give the
# VAE the networks that were trained above and compare the bounds under the same random draws.

# %%
vae = pv.VAE(
    prior=pv.priors.StandardNormal(2),
    likelihood=pv.likelihoods.Normal(2, shape, net=lambda *_: decoder, scale=SIGMA),
    posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=lambda *_: encoder),
)
for name, program in {"plain Pyro": (model, guide), "pv.VAE": (vae.model, vae.guide)}.items():
    pyro.set_rng_seed(1)
    elbo = Trace_ELBO(num_particles=100, max_plate_nesting=1, vectorize_particles=True)
    print(f"{name:12} bound on test images {-elbo.loss(*program, test.x) / len(test):.4f} nats per image")

# %% [markdown]
# And trained by `pv.fit`? Where a training ends depends on its first weights and on the order of the data, so we take
# several seeds and say how far single runs spread.


# %%
def trained(seed):
    pyro.set_rng_seed(seed)
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, shape, net=net, scale=SIGMA),
        posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=net),
    )
    how = {"epochs": passes, "batch_size": batch_size, "optimizer": adam, "seed": seed}
    return program, pv.fit(program, train, valid=data.valid, **how)


def test_bound(program):
    with torch.no_grad():
        return pv.estimators.ELBO(num_particles=100).per_datum(program.model, program.guide, test.x).mean()


def mean_and_error(values):
    values = torch.as_tensor(values, dtype=torch.float64)
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


fitted = [trained(seed) for seed in seeds]
bounds = torch.tensor([test_bound(program) for program, _ in fitted])
print(f"six lines  {test_bound(vae):.2f} (one run)")
print(f"pv.fit     {mean_and_error(bounds)} (standard error over {len(seeds)} seeds; deviation {bounds.std():.2f})")
vae, history = fitted[0]
figure(history.plot(), "01_training")

# %% [markdown]
# ## What has changed in the space of codes?
#
# The codes of the autoencoder lie where training happened to put them, with gaps in between: nothing in its loss says
# where a new code could be. Those of the VAE fill the prior, because the second term asks for it. How well, is told by
# the share of draws from $\mathcal N(0, I)$ that have no code of a training digit within 0.3.


# %%
@torch.no_grad()
def empty(codes, draws=2000):
    nearest = torch.cdist(torch.randn(draws, 2), codes).min(1).values
    return (100 * (nearest > 0.3).double()).mean()


pyro.set_rng_seed(4)
autoencoder = autoencoders[0]
with torch.no_grad():
    shares = {
        "autoencoder": [empty(program.encode(train.x)) for program in autoencoders],
        "VAE": [empty(program.encode(train.x).mean) for program, _ in fitted],
    }
    codes = {"autoencoder": autoencoder.encode(train.x), "VAE: means of q(z|x)": vae.encode(train.x).mean}
for name, share in shares.items():
    print(f"{name:12} {mean_and_error(share)} % of the prior is empty")
drawn = pv.plots.latent_map(
    codes, train.y, title="Codes of the training digits, and the circle that holds 95% of N(0, I)"
)
for axes in drawn.axes:
    axes.add_patch(Circle((0, 0), math.sqrt(2 * math.log(20)), fill=False, linewidth=1.5))
    axes.set_aspect("equal")
figure(drawn, "01_codes")
figure(pv.plots.latent_map(codes["VAE: means of q(z|x)"], train.y), "01_latent_map")


# %% [markdown]
# ## So let both draw
#
# From the autoencoder we draw in two ways: from $\mathcal N(0, I)$, as from the VAE, and from a normal fitted to its
# codes afterwards, which repairs the place but not the gaps. How good the drawings are is told by *precision*, the
# share of them that lie where test digits lie (here in the space of pixels).


# %%
def from_standard_normal(program):
    return lambda n: program.decode(torch.randn(n, 2)).mean.detach()


def from_fitted_normal(program):
    codes = program.encode(train.x).detach()
    fitted = dist.MultivariateNormal(codes.mean(0), codes.T.cov())
    return lambda n: program.decode(fitted.sample((n,))).mean.detach()


ways = {
    "autoencoder, N(0, I)": [from_standard_normal(program) for program in autoencoders],
    "autoencoder, fitted": [from_fitted_normal(program) for program in autoencoders],
    "VAE, prior": [from_standard_normal(program) for program, _ in fitted],
}
for name, draws in ways.items():
    found = [pv.evaluation.samples(draw, train, test, features=lambda x: x.flatten(1)) for draw in draws]
    print(f"{name:22} precision {mean_and_error([f.scores['samples']['precision'] for f in found])}")

pyro.set_rng_seed(2)
rows = {name: draws[0](16) for name, draws in ways.items()} | {"test digits": test.x[:16]}
figure(pv.plots.image_rows(rows, title="Drawn from nothing"), "01_samples")

# %% [markdown]
# ## The two terms, number by number
#
# The bound is what is left of the reconstruction when the code is paid for. Both terms are plain calls on Pyro's
# distributions.

# %%
with torch.no_grad():
    q, p = vae.encode(test.x), vae.prior()
    z = q.rsample((100,))
    reconstruction = vae.decode(z).log_prob(test.x).mean(0)
    kl = torch.distributions.kl_divergence(q, p.expand(q.batch_shape))
    bits = kl.mean() / math.log(2)
for name, values in {"reconstruction": reconstruction, "KL": kl, "bound": reconstruction - kl}.items():
    print(f"{name:15} {mean_and_error(values)} nats per image")
print(f"A code costs {bits:.1f} bits: that is how much an image tells about where in the prior it lies.")

both = torch.cat([autoencoder.reconstruct(test.x[:12]), vae.reconstruct(test.x[:12])]).view(2, 12, *shape)
rows = {"input": test.x[:12], "autoencoder": both[0], "VAE": both[1]}
figure(pv.plots.image_rows(rows, title="Test digits and their reconstructions"), "01_reconstructions")

# %% [markdown]
# ## A walk through the space of codes
#
# Each tile is the decoder's mean at one code. The codes stand at equal steps of *probability*: $z = \Phi^{-1}(u)$ for
# u from 3% to 97%, so that each tile stands for the same share of the prior.

# %%
side = 12
quantiles = torch.linspace(0.03, 0.97, side)
z = torch.cartesian_prod(dist.Normal(0.0, 1.0).icdf(quantiles.flip(0)), dist.Normal(0.0, 1.0).icdf(quantiles)).flip(-1)
with torch.no_grad():
    tiles = vae.decode(z).mean
drawn = pv.plots.image_grid(tiles, rows=side, title="What the decoder makes of each place of the prior")
drawn.axes[0].set(xlabel="$z_1$: quantiles 3% to 97% of the prior", ylabel="$z_2$: quantiles 3% to 97%")
figure(drawn, "01_walk")

# %% [markdown]
# ## Exercise
#
# 1. Weigh the second term by `estimator=pv.estimators.ELBO(beta=b)` with b from 0.01 to 4. At which b do the codes
#    leave the circle, and what happens to reconstructions and to drawings? Which of the three changes did you undo?
# 2. Take 8 latents in place of 2 (in both programs). Which of the three rows of drawings becomes worse, and why?
#
# ## References
#
# * Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
# * Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
#   https://arxiv.org/abs/1401.4082
# * Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538
# * Improved precision and recall metric for assessing generative models (Kynkäänniemi et al., 2019),
#   https://arxiv.org/abs/1904.06991
