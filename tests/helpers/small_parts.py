"""Small priors, likelihoods and posteriors for tests, and what they are compared with."""

import copy
import functools
import math

import pytest
import torch

import pyro_vae as pv

SMALL = functools.partial(pv.nets.MLP, hidden=(8,))
LINEAR = functools.partial(pv.nets.MLP, hidden=())


class Given(pv.Conditional):
    """A distribution from a function of the context and of parameters."""

    def __init__(self, make, **parameters):
        super().__init__()
        self.make, self.own = make, torch.nn.ParameterDict(parameters)

    def forward(self, *context):
        return self.make(*context, **self.own)


def example(cls, **options):
    """The example of a part, unless it needs a package that is not installed."""
    try:
        return cls.example(**options)
    except ImportError as error:
        pytest.skip(str(error))


def perturbed(part, std=0.3):
    """The part with random parameters, no two of which are equal."""
    with torch.no_grad():
        for p in part.parameters():
            p.add_(std * torch.randn_like(p) / math.sqrt(p.shape[-1] if p.dim() > 1 else 1))
    return part


def context_of(part, *batch):
    """A random context, if the part takes one."""
    return [torch.randn(*batch, part.context)] if part.context else []


def check_precision(part, z, rtol=1e-5):
    """Value and gradients of the log-density in float32 are finite, and those of float64."""
    results = []
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(part).to(dtype)
        at = z.to(dtype).requires_grad_()
        log_p = own().log_prob(at)
        grads = torch.autograd.grad(log_p.sum(), [at, *own.parameters()], allow_unused=True)
        results.append([log_p.detach(), *(g for g in grads if g is not None)])
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        # a gradient may be a small difference of large terms: compare with the largest of its tensor
        assert (a - b).abs().max() <= rtol * b.abs().max() + 1e-5, (a, b)
