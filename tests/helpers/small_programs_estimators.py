"""What each estimator estimates on a small program, as formulas of the log weights of its draws."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

import pyro_vae as pv

E = pv.estimators


@dataclass(frozen=True)
class Formula:
    """The bound of an example and its gradient.

    Attributes:
        value: from log weights and log-probabilities of discrete values, ``(states, particles, ...)`` each, to the
            bound; None for the ELBO, whose exact value needs no draws
        weights: the factors of each log weight in the gradient of the model, along the draws and in the guide's
            densities; None if the gradient is that of the value
        options: arguments of the estimator
        local: weight of the divergence of latents of one example, where it is not beta
        single: whether the gradient for one particle is compared with that of the ELBO, because for more it is known
            only on average, or not for every program
        value_only: whether only the value is compared where draws are given
        guide: how draws that examples share enter the bound of the guide: as in the model's bound if False, as along
            other draws if True
        shared: whether the bound stays one with latents that examples share, whose divergence is a lower bound
        twin: an estimator with the same expected gradient, for the guide or for all parameters
        detached: whether no gradient goes along the draws
        guide_sign: -1 if the guide lowers the bound
        statistical: whether the estimator makes draws of its own, which no test can decide
    """

    value: object = None
    weights: object = None
    options: dict = field(default_factory=dict)
    local: float | None = None
    single: bool = False
    value_only: bool = False
    guide: bool = False
    shared: bool = True
    twin: str | None = None
    detached: bool = False
    guide_sign: float = 1.0
    statistical: bool = False


def log_mean_exp(t, dim=0):
    return t.logsumexp(dim) - math.log(t.shape[dim])


def inside(log_w, log_q, power=1.0):
    """Sum over the values of discrete sites inside the logarithm, ``(particles, ...)``."""
    return (log_q + power * log_w).logsumexp(0)


def average(log_w, log_q):
    """Return the mean over values and particles."""
    return (log_q.exp() * log_w).sum(0).mean(0)


def iwae(log_w, log_q):
    return log_mean_exp(inside(log_w, log_q))


def groups(log_w, log_q):
    each = inside(log_w, log_q)
    return log_mean_exp(each.reshape(2, -1, *each.shape[1:]), 1).mean(0)


def ciwae(log_w, log_q):
    return 0.3 * average(log_w, log_q) + 0.7 * iwae(log_w, log_q)


def renyi(log_w, log_q):
    return log_mean_exp(inside(log_w, log_q, 0.5)) / 0.5


def jensen_shannon(log_w, log_q):
    ratio = (log_w - iwae(log_w, log_q)).exp()
    middle = (1 + ratio) / 2
    divergence = torch.special.xlogy(ratio, ratio / middle) - middle.log()
    return iwae(log_w, log_q) - average(divergence, log_q) / 2


def jackknife(log_w, log_q):
    each = inside(log_w, log_q)
    k = len(each)
    left_out = [log_mean_exp(torch.cat([each[:i], each[i + 1 :]])) for i in range(k)]
    return k * log_mean_exp(each) - (k - 1) * torch.stack(left_out).mean(0)


def cubo(log_w, log_q):
    return log_mean_exp(inside(log_w, log_q, 2.0)) / 2.0


#: The points of the thermodynamic integral and the steps between them.
POINTS = torch.tensor([0.0, *(10.0 ** torch.linspace(math.log10(0.1), 0, 3, dtype=torch.float64)).tolist()])
STEPS = POINTS.diff().double()


def tilted(log_w, b):
    """Return the normalized weights of the particles at a point, and their products with the centred log weight."""
    weights = (b * log_w).softmax(0)
    return weights, weights * (log_w - (weights * log_w).sum(0))


def tvo(log_w, log_q):
    each = inside(log_w, log_q)
    return sum(step * (tilted(each, b)[0] * each).sum(0) for b, step in zip(POINTS.double(), STEPS, strict=False))


def tvo_weights(log_w, beta):
    model = score = 0.0
    for b, step in zip(POINTS.double(), STEPS, strict=False):
        weights, centred = tilted(log_w, b)
        model = model + step * (weights + b * centred)
        score = score + step * (weights + b * centred - centred / beta)
    return model, 0 * model, score


def dreg_weights(log_w, beta):
    w = log_w.softmax(0)
    return w, w * (1 - beta * (1 - w)), 0 * w


def path_weights(log_w, beta):
    w = log_w.softmax(0)
    return w, w, 0 * w


def piwae_weights(log_w, beta):
    guide = (log_w.reshape(2, -1, *log_w.shape[1:]).softmax(1) / 2).reshape(log_w.shape)
    return log_w.softmax(0), guide, guide


def cubo_weights(log_w, beta):
    guide = -(2 * log_w).softmax(0)
    return log_w.softmax(0), guide, guide


def wake_weights(log_w, beta):
    w = log_w.softmax(0)
    return w, 0 * w, -w / beta


class Constant(nn.Module):
    """A discriminator of any number of latents."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, z):
        return self.weight * z.sum(-1, keepdim=True)


FORMULAS = {
    "ELBO": Formula(),
    "Enumeration": Formula(),
    "ReinforceLOO": Formula(),
    "NVIL": Formula(),
    "DisARM": Formula(statistical=True),
    "REBAR": Formula(statistical=True),
    "RELAX": Formula(options={"surrogate": Constant}, statistical=True),
    "BetaTC": Formula(options={"data_size": 10_000}),
    "DIP": Formula(options={"off_diagonal": 0.0, "diagonal": 0.0}),
    "FactorVAE": Formula(options={"discriminator": Constant, "gamma": 0.0}),
    "InfoVAE": Formula(options={"alpha": 0.0, "lambda_": 1.0}),
    "MMD": Formula(options={"lambda_": 0.0}, local=0.0),
    "TrimmedELBO": Formula(options={"trim": 0.0}),
    "WAE": Formula(options={"lambda_": 0.0}, local=0.0),
    "IWAE": Formula(iwae),
    "DAIS": Formula(iwae, options={"step_size": 1e-30}),
    "MIWAE": Formula(groups),
    "CIWAE": Formula(ciwae, options={"share": 0.3}),
    "FDivergence": Formula(jensen_shannon),
    "Renyi": Formula(renyi, options={"alpha": 0.5}),
    "JackknifeIWAE": Formula(jackknife),
    "VIMCO": Formula(iwae),
    "OVIS": Formula(iwae),
    "DReG": Formula(iwae, dreg_weights, single=True, twin="IWAE"),
    "StickingTheLanding": Formula(iwae, path_weights, single=True),
    "GDReG": Formula(iwae, single=True, value_only=True, twin="IWAE"),
    "PIWAE": Formula(iwae, piwae_weights, single=True, guide=True, twin="MIWAE"),
    "CUBO": Formula(cubo, cubo_weights, options={"n": 2.0}, guide_sign=-1.0, shared=False),
    "ReweightedWakeSleep": Formula(iwae, wake_weights, detached=True),
    "TVO": Formula(tvo, tvo_weights, options={"num_intervals": 3, "first": 0.1}, detached=True),
}


def formula_of(cls):
    """Return the formula of an estimator, or that of the nearest base that has one."""
    for base in cls.__mro__:
        if base.__name__ in FORMULAS:
            return FORMULAS[base.__name__]
    raise LookupError(f"{cls.__name__}: add what it estimates to FORMULAS")


def build(cls, num_particles, **options):
    """Build an estimator whose penalties beyond the bound have no weight."""
    options = {**formula_of(cls).options, **options}
    options = {name: value() if isinstance(value, type) else value for name, value in options.items()}
    if issubclass(cls, E.MIWAE):
        m = 1 if num_particles == 1 else 2
        return cls(m, num_particles // m, **options)
    return cls(num_particles=num_particles, **options)
