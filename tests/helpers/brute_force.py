"""The exact evidence lower bound of a program with binary latents, by a run for each combination of their values."""

import itertools

import pyro
import torch
from pyro import poutine


def exact_elbo(model, guide, *args, beta=1.0):
    """Return the sum over all values of q times (log p - log q), with masks and scales as Pyro applies them.

    A draw counts by its probability under the guide, masked or not. ``beta`` weights the latents.
    """
    sizes = {name: m["value"].numel() for name, m in latents(guide, args).items()}
    total = 0.0
    for bits in itertools.product([0.0, 1.0], repeat=sum(sizes.values())):
        parts = dict(zip(sizes, torch.tensor(bits).double().split(list(sizes.values())), strict=True))
        drawn = poutine.trace(Fixed(parts)(guide)).get_trace(*args)
        scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args)
        drawn.compute_log_prob()
        scored.compute_log_prob()
        sites = {name: node for name, node in drawn.nodes.items() if name in sizes}
        log_q = sum(node["fn"].log_prob(node["value"]).sum() for node in sites.values())
        bound = -beta * sum(node["log_prob_sum"] for node in sites.values())
        for node in scored.nodes.values():
            if node["type"] == "sample":
                bound = bound + (1.0 if node["is_observed"] else beta) * node["log_prob_sum"]
        total = total + log_q.exp() * bound
    return total


def latents(guide, args):
    """Return the latent sites of a guide."""
    nodes = poutine.trace(guide).get_trace(*args).nodes
    return {
        name: node
        for name, node in nodes.items()
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"
    }


class Fixed(poutine.messenger.Messenger):
    """Give sites the values of a table, brought to the shape of the site."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values:
            fn = msg["fn"]
            shape = list(fn.batch_shape)
            for frame in msg["cond_indep_stack"]:
                if frame.vectorized:
                    shape = [1] * (-frame.dim - len(shape)) + shape
                    shape[frame.dim] = frame.size
            msg["value"], msg["done"] = self.values[msg["name"]].reshape(shape), True


def gradient_of(loss, parameters):
    """Return the gradient with respect to all parameters as one vector."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])


def draws_of(estimator, model, guide, args, parameters, num_draws):
    """Return bounds ``(draws, 1)`` and their gradients ``(draws, parameters)``."""
    values, gradients = [], []
    for _ in range(num_draws):
        bound = -estimator.differentiable_loss(model, guide, *args)
        gradients.append(gradient_of(bound, parameters))
        values.append(bound.detach().reshape(1))
    pyro.clear_param_store()
    return torch.stack(values), torch.stack(gradients)
