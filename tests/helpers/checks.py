"""Checks of random results, and which parameters of a test are slow."""

import math

import pytest


def within(found, exact, standard_errors=4.0):
    """`found` has a row a draw; its mean must be the exact value within so many standard errors, everywhere."""
    error = found.std(0) / math.sqrt(len(found))
    return bool(((found.mean(0) - exact).abs() <= standard_errors * error + 1e-10).all())


def slow_but(quick, names):
    """Return names as parameters, of which the quick tests see some."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
