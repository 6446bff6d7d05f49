"""Checks of integer and real arguments."""

import numpy as np
import pytest
import torch

from pyro_vae._util.validation import check_int, check_number


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)]
)
def test_everything_with_an_index_is_an_integer(value):
    found = check_int("n", value)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), torch.tensor(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None, [3]]
    + [np.array([3]), torch.tensor([3]), 0, -1, 11],
    ids=repr,
)
def test_other_values_are_no_integers_or_out_of_range(value):
    with pytest.raises(ValueError, match="^n: expected an int of at least 1 and at most 10, "):
        check_int("n", value, 1, 10)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2.0)])
def test_real_numbers_become_floats(value):
    found = check_number("rate", value, 0, 2, above=1)
    assert type(found) is float
    assert found == 2


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), "2", None, 2j, [2.0], torch.tensor([2.0]), float("nan"), float("inf")]
    + [1.0, 2.1, -1],
    ids=repr,
)
def test_other_values_are_no_numbers_or_out_of_range(value):
    with pytest.raises(ValueError, match="^rate: expected a finite number above 1 and of at most 2, "):
        check_number("rate", value, maximum=2, above=1)
    with pytest.raises(ValueError, match="^rate: expected a finite number, got nan"):
        check_number("rate", float("nan"))
