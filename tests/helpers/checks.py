"""Checks of random results, and which parameters of a test are slow."""

import math

import pytest


def within(found, exact, standard_errors=4.0):
    """Return whether the mean of `found` over its rows is within so many standard errors of the exact value."""
    error = found.std(0) / math.sqrt(len(found))
    return bool(((found.mean(0) - exact).abs() <= standard_errors * error + 1e-10).all())


def slow_but(quick, names):
    """Return names as parameters; all but the quick ones are marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
