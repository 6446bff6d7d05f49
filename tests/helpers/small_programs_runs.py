"""The exact answer of a small program, from single runs by Pyro's own handlers at chosen draws."""

import functools
import itertools
from types import SimpleNamespace

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask

from helpers.small_programs import programs
from helpers.small_programs_draws import Script, scripted

#: The roles of a parameter: in the model, in draws that examples share, in other draws, in the guide's densities.
ROLES = ("model", "shared", "path", "score")
#: Number of particles with chosen noise, and where all values of discrete draws are tried.
PARTICLES, PAIR = 4, 2


def design(columns):
    """Return rows of +1 and -1 with mean 0 and covariance 1: quadratic functions of noise are averaged exactly."""
    rows = torch.ones(1, 1, dtype=torch.float64)
    while len(rows) <= columns:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    return rows[:, 1 : columns + 1]


class Structure:
    """The sites of a program, from one run."""

    def __init__(self, program):
        self.program, module = program, program.build()
        with torch.no_grad():
            guide = poutine.trace(module.guide).get_trace(*program.args, **program.kwargs)
            model = poutine.trace(poutine.replay(module.model, guide)).get_trace(*program.args, **program.kwargs)
        self.model, self.guide = (latents(trace) for trace in (model, guide))
        latent = {**self.model, **self.guide}
        # a site of the model alone that all examples share makes one example of the whole run
        shared = [n for n, site in self.model.items() if n not in self.guide and not in_plate(site, program.data)]
        self.data = None if shared else program.data
        self.shared = frozenset(name for name, site in latent.items() if not in_plate(site, self.data))
        discrete = {name: site for name, site in latent.items() if site["fn"].has_enumerate_support}
        self.normals = {
            name: tuple(site["value"].shape)
            for name, site in latent.items()
            if name not in discrete and type(site["fn"]).__name__ != "Delta"
        }
        own = {name: site for name, site in discrete.items() if name in self.guide}
        alone = {name: site for name, site in discrete.items() if name not in self.guide}
        self.local_states = self.states({n: s for n, s in own.items() if n not in self.shared})
        self.shared_states = self.states({n: s for n, s in own.items() if n in self.shared})
        self.model_states = self.states(alone)
        self.discrete = tuple(own)

    def states(self, sites):
        """Return all joint values of the sites; values of one example are the same for all examples."""
        choices = []
        for name, site in sites.items():
            shape, support = site["value"].shape, site["fn"].enumerate_support(expand=False).flatten()
            plates = [f for f in site["cond_indep_stack"] if f.name == self.data and f.dim is not None]
            one = list(shape)
            for frame in plates:
                one[frame.dim] = 1
            values = itertools.product(support.tolist(), repeat=torch.Size(one).numel())
            tables = [torch.tensor(v, dtype=torch.float64).reshape(one).expand(shape) for v in values]
            choices.append([(name, table) for table in tables])
        return [dict(pairs) for pairs in itertools.product(*choices)]

    def noise(self, names, table):
        """Return the columns of a table as noise of the sites."""
        sizes = [torch.Size(self.normals[name]).numel() for name in names]
        parts = table[:, : sum(sizes)].split(sizes, 1)
        return {n: part.reshape(len(table), *self.normals[n]) for n, part in zip(names, parts, strict=True)}

    def entries(self, shared=None):
        """Return how many numbers the normal sites draw."""
        names = [n for n in self.normals if shared is None or (n in self.shared) == shared]
        return sum(torch.Size(self.normals[name]).numel() for name in names)

    def moments(self):
        """Return noise with the right first and second moments for all normal sites."""
        return self.noise(list(self.normals), design(self.entries()))

    def arbitrary(self, particles):
        """Return arbitrary noise for the sites of an example, one row per particle, and moments for shared sites."""
        local = [name for name in self.normals if name not in self.shared]
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(particles, max(self.entries(False), 1), generator=generator, dtype=torch.float64)
        shared = [name for name in self.normals if name in self.shared]
        return {**self.noise(local, table), **self.noise(shared, design(self.entries(True)))}


@functools.cache
def structure(name):
    return Structure(programs()[name])


class Copies:
    """The parameters of a program, with a copy for each role."""

    def __init__(self, program):
        self.of = {
            role: {n: torch.as_tensor(v).double().clone().requires_grad_() for n, v in program.parameters.items()}
            for role in ROLES
        }

    def __getitem__(self, role):
        return SimpleNamespace(**self.of[role])

    def gradient(self, value, roles=ROLES):
        """Return the gradient by name, summed over roles."""
        leaves = [(name, t) for role in roles for name, t in self.of[role].items()]
        total = {name: torch.zeros_like(t) for name, t in self.of["model"].items()}
        if value.requires_grad:
            found = torch.autograd.grad(value, [t for _, t in leaves], retain_graph=True, allow_unused=True)
            for (name, _), gradient in zip(leaves, found, strict=True):
                if gradient is not None:
                    total[name] = total[name] + gradient
        return total


class Run:
    """Log-densities of one run at chosen draws: ``(examples,)`` each, and one number for shared sites."""

    def __init__(self, found, copies, script):
        self.found, self.scale = found, None
        program = found.program
        with scripted(script):
            guide = lambda role: functools.partial(program.guide, copies[role])  # noqa: E731
            drawn = self.trace(guide("shared"))
            shared = {name: site for name, site in drawn.items() if name in found.shared}
            drawn = self.trace(guide("path"), shared)
            scored = self.trace(guide("score"), drawn)
            model = self.trace(functools.partial(program.model, copies["model"]), drawn)
        zero = torch.zeros((), dtype=torch.float64)
        self.observed = self.prior = self.posterior = zero
        self.shared_observed = self.shared_prior = self.shared_posterior = zero
        # scaled: of latent sites the log of p over q
        self.scaled_observed = self.scaled_latent = self.scaled_shared_observed = self.scaled_shared_latent = zero
        self.chance = self.shared_chance = zero
        for name, site in model.items():
            # a site of the model alone is summed out of the density of the data
            self.add("prior" if name in found.guide and not site["is_observed"] else "observed", site, +1)
        for name, site in scored.items():
            self.add("posterior", site, -1)
            if name in found.discrete:
                chance = self.per_example(site, site["fn"].log_prob(site["value"]))
                prefix = "shared_" if name in found.shared else ""
                setattr(self, f"{prefix}chance", getattr(self, f"{prefix}chance") + chance)

    def trace(self, function, earlier=None):
        """Run a function at the values of earlier sites; return its sites."""
        if earlier:
            values = {name: site["value"] for name, site in earlier.items()}
            function = AtValues(function, values)
        trace = poutine.trace(function).get_trace(*self.found.program.args, **self.found.program.kwargs)
        return {name: site for name, site in trace.nodes.items() if site["type"] == "sample" and not is_plate(site)}

    def add(self, kind, site, sign):
        log_prob = site["fn"].log_prob(site["value"])
        plain = self.per_example(site, scale_and_mask(log_prob, 1.0, site["mask"]))
        scaled = self.per_example(site, scale_and_mask(log_prob, site["scale"], site["mask"]))
        local = in_plate(site, self.found.data)
        prefix = "" if local else "shared_"
        setattr(self, prefix + kind, getattr(self, prefix + kind) + plain)
        group = f"scaled_{prefix}" + ("observed" if kind == "observed" else "latent")
        setattr(self, group, getattr(self, group) + sign * scaled)
        if local:
            scale = torch.as_tensor(site["scale"], dtype=torch.float64).expand(plain.shape).clone()
            same = self.scale is None or torch.equal(self.scale, scale)
            self.scale = scale if same else torch.full_like(scale, torch.nan)

    def per_example(self, site, log_prob):
        """Sum over all but the plate of the data."""
        frames = [f for f in site["cond_indep_stack"] if f.name == self.found.data]
        if not frames:
            return log_prob.sum().reshape([1] if self.found.data is None else [])
        dim = frames[0].dim
        if log_prob.dim() < -dim or log_prob.shape[dim] != frames[0].size:
            shape = torch.broadcast_shapes(log_prob.shape, [frames[0].size] + [1] * (-dim - 1))
            log_prob = log_prob.expand(shape)
        return log_prob.sum([d for d in range(-log_prob.dim(), 0) if d != dim]) if log_prob.dim() > 1 else log_prob


def latents(trace):
    """Return the latent sites of a trace, by name."""
    return {name: trace.nodes[name] for name in trace.stochastic_nodes if not is_plate(trace.nodes[name])}


def in_plate(site, name):
    """Whether a site is in a plate, as every site is where there is none."""
    return name is None or name in [frame.name for frame in site["cond_indep_stack"]]


def is_plate(site):
    return type(site["fn"]).__name__ == "_Subsample"


class AtValues(poutine.messenger.Messenger):
    """Give latent sites the values of an earlier run."""

    def __init__(self, function, values):
        super().__init__()
        self.function, self.values = function, values

    def __call__(self, *args, **kwargs):
        with self:
            return self.function(*args, **kwargs)

    def _pyro_sample(self, msg):
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["done"], msg["value"] = True, self.values[msg["name"]]


def run_at(found, copies, noise, row, shared_row, states):
    """Return a run for each joint value of the discrete sites of the model alone."""
    runs = []
    for extra in found.model_states:
        values = {name: value.unsqueeze(0) for name, value in {**states, **extra}.items()}
        script = Script(found.program.nesting, noise, values, [], row, shared_row, found.shared)
        runs.append(Run(found, copies, script))
    return runs
