"""Functions compiled to array operations: a page computes the same numbers as torch."""

import functools
import inspect
import json
import shutil
import subprocess

import pytest
import torch

import pyro_vae as pv
from pyro_vae import pages
from pyro_vae.config import parts
from pyro_vae.pages.page import asset

SMALL = functools.partial(pv.nets.MLP, hidden=(7,))
CONVOLUTIONS = functools.partial(pv.nets.ConvDecoder, channels=(5, 3), hidden=6)
NODE = shutil.which("node")


def by_node(jobs):
    """Return the results of the page for pairs (steps, input)."""
    script = asset("array_program.js") + (
        'const jobs = JSON.parse(require("fs").readFileSync(0));'
        "console.log(JSON.stringify(jobs.map(([steps, x]) => Array.from(compile(steps)(x)))));"
    )
    done = subprocess.run([NODE, "-e", script], input=json.dumps(jobs), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [torch.tensor(x, dtype=torch.float64) for x in json.loads(done.stdout)]


def means_of(likelihood, z):
    return pages.array_program(lambda z: likelihood(z).mean, torch.zeros_like(z))


def part(cls, net):
    # with 256 levels a mean has 256 terms; a few are enough
    few = {"levels": 5} if "levels" in inspect.signature(cls).parameters else {}
    try:
        return cls(3, (6, 6), net=net, **few)
    except (TypeError, ValueError):
        return cls.example()


@pytest.mark.slow
@pytest.mark.skipif(NODE is None, reason="needs Node.js (node) on the PATH")
def test_every_likelihood_decodes_in_the_page():
    """The mean of each likelihood is that of torch to 1e-4, for both kinds of network and of floats."""
    jobs, wanted, refused = [], [], set()
    for name, cls in parts.shelves()["likelihood"].items():
        kinds = [(SMALL, torch.float32)]
        if name in ("Bernoulli", "StudentT"):
            kinds += [(CONVOLUTIONS, torch.float32), (CONVOLUTIONS, torch.float64)]
        for net, dtype in kinds:
            likelihood = part(cls, net).eval().to(dtype)
            z = 2 * torch.randn(1, 3, dtype=dtype)
            try:
                steps = means_of(likelihood, z)
            except (pages.UnsupportedOperation, NotImplementedError):
                refused.add(name)
                continue
            jobs.append((json.loads(json.dumps(steps)), z[0].tolist()))
            with torch.no_grad():
                wanted.append((name, likelihood(z).mean.flatten().double()))
    assert refused == {"Heterogeneous", "PixelCNN", "StudentTTable"}
    for (name, x), found in zip(wanted, by_node(jobs), strict=True):
        assert x.shape == found.shape, name
        assert float((x - found).abs().max()) < 1e-4 * max(1.0, float(x.abs().max())), name


@pytest.mark.skipif(NODE is None, reason="needs Node.js (node) on the PATH")
def test_every_activation_decodes_in_the_page():
    """Elementwise activations give the numbers of torch, also far from 0."""
    jobs, wanted = [], []
    odd = {"GLU", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "RReLU", "Softshrink"}
    for name, cls in parts.shelves()["activation"].items():
        if name in odd:  # not elementwise, random, or without a decomposition
            continue
        net = functools.partial(pv.nets.MLP, hidden=(9, 8), activation=cls)
        likelihood = pv.likelihoods.Normal(2, (4,), net=net).eval()
        z = 20 * torch.randn(1, 2)
        jobs.append((means_of(likelihood, z), z[0].tolist()))
        with torch.no_grad():
            wanted.append((name, likelihood(z).mean[0].double()))
    assert len(jobs) > 15
    for (name, x), found in zip(wanted, by_node(jobs), strict=True):
        torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4, msg=name)


def test_unsupported_operations_raise():
    """Random numbers, branches on values and constant functions are not compiled to something else."""
    x = torch.zeros(1, 3)
    for bad in (lambda z: z.sort().values, lambda z: z if z.sum() > 0 else -z, lambda z: torch.rand(3) + z):
        with pytest.raises(pages.UnsupportedOperation):
            pages.array_program(bad, x)
    with pytest.raises(pages.UnsupportedOperation, match="does not depend"):
        pages.array_program(lambda z: torch.ones(3), x)
