"""The default sizes for a table follow its numbers of rows and columns by the documented rule."""

import pytest

from pyro_vae.training import AnomalyDefaults, TableDefaults


@pytest.mark.parametrize(
    ("rows", "columns", "latent", "num_steps", "epochs"),
    [
        (100, 1, 2, 400, 400),
        (129, 13, 4, 400, 200),
        (1500, 10, 3, 400, 34),
        (6400, 25, 5, 800, 16),
        (10**6, 166, 13, 10000, 2),
    ],
)
def test_sizes_follow_the_table(rows, columns, latent, num_steps, epochs):
    """Latents: the square root of the columns; steps: 10 square roots of the rows, at least 400, in whole epochs."""
    sizes = AnomalyDefaults(rows, columns)
    assert (sizes.latent, sizes.num_steps, sizes.epochs(batch_size=128)) == (latent, num_steps, epochs)
    assert sizes.hidden == (32,)


def test_epochs_follow_the_batch_size():
    """Larger batches take more passes for the same number of steps, and at least that number of steps is taken."""
    sizes = TableDefaults(1500, 10)
    for batch_size in (1, 7, 128, 1500, 5000):
        per_epoch = -(-1500 // batch_size)
        steps = sizes.epochs(batch_size) * per_epoch
        assert sizes.num_steps <= steps < sizes.num_steps + per_epoch


@pytest.mark.parametrize(("rows", "columns", "name"), [(0, 3, "rows"), (3, 0, "columns"), (2.5, 3, "rows")])
def test_invalid_numbers_are_refused(rows, columns, name):
    with pytest.raises((TypeError, ValueError), match=name):
        TableDefaults(rows, columns)
