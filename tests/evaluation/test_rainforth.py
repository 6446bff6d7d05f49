"""Signal-to-noise ratio of gradients against the number of particles: Rainforth et al. (2018)."""

import math

import pytest
import torch
from benchmarks.rainforth import Toy, signal, slope

import pyro_vae as pv

PARTICLES = (4, 16, 64)


def slopes(make, **size):
    toy = Toy(dimensions=10, off=0.15)
    found = [signal(toy, make, k, **size) for k in PARTICLES]
    return {group: slope(PARTICLES, [row[group] for row in found]) for group in ("model", "guide")}


@pytest.mark.slow
def test_signal_of_the_guide_falls_under_iwae():
    found = slopes(pv.estimators.IWAE, draws=110, data=256)
    assert found["model"] == pytest.approx(0.5, abs=0.1)
    assert found["guide"] == pytest.approx(-0.5, abs=0.1)


def test_signal_of_the_guide_rises_under_dreg():
    found = slopes(pv.estimators.DReG, draws=80, data=32)
    assert found["model"] == pytest.approx(0.5, abs=0.1)
    assert found["guide"] == pytest.approx(0.5, abs=0.1)


def test_gaps_are_exact():
    """One particle: the closed form within 4 standard errors; 100: chi squared / 2 K, whose next order is a tenth."""
    toy = Toy(off=0.0)
    x = toy.draw(4000)
    assert float(toy.gaps(x, 1)[0]) == pytest.approx(0.45651, abs=1e-5)
    assert float(toy.gaps(x, 100)[0]) == pytest.approx(0.90672 / 200, rel=1e-5)
    for k, n, room in ((1, 4000, 0.0), (100, 1000, 0.1)):
        rows = x[:n]
        with torch.no_grad():
            bound = pv.estimators.IWAE(num_particles=k).per_datum(toy.model, toy.guide, rows)
        gap = toy.log_evidence(rows).detach() - bound
        exact = float(toy.gaps(rows, k).mean())
        assert abs(float(gap.mean()) - exact) < 4 * float(gap.std()) / math.sqrt(n) + room * exact
