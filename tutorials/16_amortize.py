# %% [markdown]
# # 16. How do I fit my own Pyro model to every patient at once, and to the next one in a millisecond?
#
# You have a model in Pyro, with a plate of data and latents of each row: a rate per patient, a line per subject, an
# abundance per cell. An autoguide gives each row its own variational parameters: they grow with the data, and a new
# row needs a new optimization. `pv.amortize(model, x)` trains a network from a row to its posterior instead, as in a
# VAE. Here we know the exact posterior, so that we can see how close it comes.
#
# With `--full`: 100,000 patients, in about 10 minutes on one CPU core.

# %%
import time
from functools import partial

import pyro
import torch
from budget import amount, epochs, figure
from matplotlib.figure import Figure
from pyro import distributions as dist
from pyro.distributions import constraints

import pyro_vae as pv
from pyro_vae.plots.style import COLOURS, WIDTH, styled

patients = amount(smoke=300, default=5000, full=100_000)
passes = epochs(smoke=2, default=60, full=20)
net = partial(pv.nets.MLP, hidden=(64, 64))
steps = passes * -(-patients // 128)
how = {"optimizer": partial(torch.optim.Adam, lr=3e-3), "lr_schedule": pv.training.Cosine(steps), "epochs": passes}

# %% [markdown]
# ## A model that you have
#
# Patients count their seizures for a few weeks. Each has a rate $z$ per week, which varies between patients:
#
# $$z_n \sim \mathrm{Gamma}(2, 1), \qquad x_n \sim \mathrm{Poisson}(z_n w_n), \qquad
#   p(z_n \mid x_n) = \mathrm{Gamma}(2 + x_n, 1 + w_n)$$
#
# for $x_n$ seizures in $w_n$ weeks. This is stock Pyro: a function with a plate, and `obs=`.


# %%
def model(x, weeks):
    with pyro.plate("patients", len(x), dim=-1):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("x", dist.Poisson(rate * weeks), obs=x)


def draw(rows, seed):
    pyro.set_rng_seed(seed)
    weeks = torch.randint(1, 9, (rows,)).float()
    return torch.poisson(dist.Gamma(2.0, 1.0).sample((rows,)) * weeks), weeks


x, weeks = draw(patients, 0)

# %% [markdown]
# ## One line
#
# The model is run a few times on the example arguments, to find its plate, its latents and what it observes. The rate
# is positive: its posterior is a normal of the logarithm, and the change of variables is in the density. The encoder
# sees every argument, here the count and the number of weeks. The result is a program like a VAE.

# %%
pyro.set_rng_seed(0)
program = pv.amortize(model, x, weeks, net=net)
history = pv.fit(program, (x, weeks), estimator=pv.estimators.ELBO(num_particles=4), progress=False, **how)
parameters = sum(p.numel() for p in program.parameters())
print(f"bound {-history['loss'][-1]:.3f} nats per patient")
print(f"parameters: {parameters:,} for any number of patients; one normal each would take {2 * patients:,}")

# %% [markdown]
# How good can it be? Here the evidence is known: the count of a patient is negative binomial. The gap between evidence
# and bound has two parts (tutorial 5): the family, as a log-normal is no gamma, and the encoder.

# %%
evidence = dist.NegativeBinomial(2.0, probs=weeks / (1 + weeks)).log_prob(x)
some = amount(smoke=20, default=200, full=200)
gaps = pv.evaluation.inference_gaps(
    program,
    (x[:some], weeks[:some]),
    evidence=lambda x, weeks: dist.NegativeBinomial(2.0, probs=weeks / (1 + weeks)).log_prob(x),
    num_steps=amount(smoke=10, default=200, full=300),
    progress=False,
)
print(f"evidence {evidence.mean():.3f} nats per patient\n{gaps}")

# %% [markdown]
# ## New patients
#
# They need no training: one call of the encoder. Below, four patients that the program has never seen, and a thousand
# more to take the time.

# %%
new = torch.tensor([0.0, 3.0, 9.0, 20.0]), torch.tensor([1.0, 2.0, 3.0, 8.0])
posterior = program.posteriors["rate"]
more = draw(1000, 7)
start = time.perf_counter()
with torch.no_grad():
    posterior(more[0], more[1].unsqueeze(-1))
print(f"posteriors of 1,000 new patients in {1000 * (time.perf_counter() - start):.1f} ms")


# %%
def density(program, batch, grid):
    """Return q(rate given x) on a grid, (len(grid), rows)."""
    guide = pyro.poutine.trace(program.guide).get_trace(*batch)
    with torch.no_grad():
        return guide.nodes["rate"]["fn"].log_prob(grid.unsqueeze(-1)).exp()


@styled
def density_figure(grid, curves, titles):
    """Draw densities, one panel per patient; ``curves`` is by label."""
    drawn = Figure(figsize=(WIDTH, 2.0), layout="constrained")
    for i, axes in enumerate(drawn.subplots(1, len(titles), squeeze=False)[0]):
        for j, (label, values) in enumerate(curves.items()):
            axes.plot(grid, values[:, i], ["-", "--", ":"][j], color=COLOURS[j], label=label if i == 0 else None)
        axes.set(title=titles[i], xlabel="seizures per week", ylim=(0, None), yticks=[])
    drawn.axes[0].set_ylabel("density")
    drawn.legend(loc="outside lower center", ncols=len(curves))
    return drawn


grid = torch.linspace(0.01, 8, 300)
exact = dist.Gamma(2 + new[0], 1 + new[1]).log_prob(grid.unsqueeze(-1)).exp()
titles = [f"{int(n)} in {int(w)} week{'s' * (w > 1)}" for n, w in zip(*new, strict=True)]
figure(density_figure(grid, {"exact": exact, "amortized": density(program, new, grid)}, titles), "16_new_patients")

# %% [markdown]
# ## A simulator without a density
#
# Now a device counts, and after each seizure it is blind for a while: a seizure within a tenth of a week of the last
# recorded one is missed. Simulating this takes three lines; its density is another matter. But a network that maps
# data to posteriors can be trained on pairs (z, x) of the model alone,
#
# $$\max_\phi\ \mathbb E_{p(z, x)}[\log q_\phi(z \mid x)],$$
#
# whose maximum is the posterior: this is *neural posterior estimation*. `ForwardKL` samples new pairs in each step; of
# the data it reads the number of rows and the weeks. The counts may even be zeros. The posterior is a spline flow
# here, so that it can have any shape.

# %%
BLIND = 0.1


class Recorded(dist.TorchDistribution):
    """The recorded seizures of some weeks: a distribution that can be sampled, and nothing else."""

    arg_constraints, support, has_rsample = {}, constraints.nonnegative_integer, False

    def __init__(self, rate, weeks):
        self.rate, self.weeks = torch.broadcast_tensors(rate, weeks)
        super().__init__(self.rate.shape, validate_args=False)

    def sample(self, sample_shape=()):
        waits = torch.empty(*self.shape(sample_shape), 80).exponential_() / self.rate.unsqueeze(-1)
        times = (waits + BLIND).cumsum(-1) - BLIND
        return (times <= self.weeks.unsqueeze(-1)).sum(-1).to(self.rate.dtype)

    def expand(self, batch_shape, _instance=None):
        return Recorded(self.rate.expand(batch_shape), self.weeks.expand(batch_shape))


def device(x, weeks):
    with pyro.plate("patients", len(x), dim=-1):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        pyro.sample("x", Recorded(rate, weeks), obs=x)


pyro.set_rng_seed(0)
simulated = pv.amortize(device, x, weeks, net=net, posterior=pv.posteriors.NeuralSplineFlow)
zeros = torch.zeros_like(x)
history = pv.fit(simulated, (zeros, weeks), estimator=pv.estimators.ForwardKL(), progress=False, **how)
print(f"log q of simulated rates: {-history['loss'][0]:.2f} nats at first, {-history['loss'][-1]:.2f} at last")

# %% [markdown]
# With some work the posterior can be computed on a grid here: the k-th recorded seizure comes after k waiting times
# and k - 1 blind ones, so that $P(x \ge k \mid z)$ is the distribution function of a gamma. We need it only to check.
# The third curve is the posterior of the first model, which ignores the blind times.


# %%
def at_least(k, rate, weeks):
    left = (weeks - (k - 1) * BLIND).clamp(min=0)
    return torch.where(k > 0, torch.special.gammainc(k.clamp(min=1), rate * left), 1.0)


def on_a_grid(x, weeks, grid):
    rate = grid.unsqueeze(-1)
    mass = at_least(x, rate, weeks) - at_least(x + 1, rate, weeks)
    joint = mass * dist.Gamma(2.0, 1.0).log_prob(rate).exp()
    return joint / (joint.sum(0) * (grid[1] - grid[0]))


curves = {
    "exact": on_a_grid(*new, grid),
    "from simulations": density(simulated, new, grid),
    "blind times ignored": exact,
}
figure(density_figure(grid, curves, titles), "16_simulator")

# %% [markdown]
# ## Without an exact answer
#
# For most models there is none. One check needs only the model: simulation-based calibration draws rates and counts,
# and looks where the true rate ranks among draws of the guide: uniformly, if the guide is right. NUTS on a handful of
# rows is another judge (tutorial 14). Where the likelihood has a density, a posterior may also be refined for the few
# patients that matter, by `pv.evaluation.Refined(program)`, or weighted by importance: `pv.evaluation.log_likelihood`
# reports the Pareto k of the weights.
#
# We judge two guides of the device: the one from simulations, and that of the first model, which ignores blind times.

# %%
count = amount(smoke=100, default=2000, full=2000)
found = pv.evaluation.calibration(simulated, (x, weeks), num_simulations=count, progress=False)
print(found)
blind = pv.amortize(device, x, weeks, net=net)
blind.posteriors["rate"].load_state_dict(program.posteriors["rate"].state_dict())
print("the guide of the first model:")
wrong = pv.evaluation.calibration(blind, (x, weeks), num_simulations=count, progress=False)
print(wrong)
figure(wrong.plot(), "16_ranks_not_blind")
figure(found.plot(), "16_ranks")

# %% [markdown]
# ## Exercise
#
# 1. Add a second latent, the weekly trend of a patient. Which `structure=` of `pv.amortize` lets its posterior depend
#    on the rate, and what is the gain in the bound?
# 2. Patients share the mean of the prior of their rates: sample it outside of the plate. What does `program.guide`
#    return for it, and why does `ForwardKL` refuse this model?
# 3. Try `posterior=pv.posteriors.NeuralSplineFlow`. Which of the gaps above falls?
#
# ## References
#
# * Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
# * Fast epsilon-free inference of simulation models with Bayesian conditional density estimation (Papamakarios and
#   Murray, 2016), https://arxiv.org/abs/1605.06376
# * Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018),
#   https://arxiv.org/abs/1804.06788
