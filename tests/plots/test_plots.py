"""Figures: what they say, and that they leave no trace."""

import sys

import matplotlib
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

from pyro_vae import plots


def rows(n, **more):
    return [
        {"epoch": i, "loss": 9.0 - i, "valid_bound": i - 9.5, "reconstruction": i - 8.0, "kl": 1.0, **more}
        for i in range(n)
    ]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


FIGURES = {
    "training_curve": lambda: plots.training_curve(rows(20)),
    "image_grid": lambda: plots.image_grid(torch.rand(10, 8, 8)),
    "reconstructions": lambda: plots.reconstructions(torch.rand(10, 8, 8), torch.rand(10, 8, 8)),
    "image_rows": lambda: plots.image_rows({"a": torch.rand(10, 8, 8), "longer": torch.rand(10, 8, 8)}),
    "latent_map": lambda: plots.latent_map(torch.randn(40, 4), torch.arange(40) % 10),
    "vectors": lambda: plots.vectors(torch.randn(9, 5)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_saved_and_leaves_no_trace(name, tmp_path):
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    figure = FIGURES[name]()
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    assert not Gcf.figs
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert figure.get_figwidth() * figure.dpi == 900
    assert type(figure) is Figure


def test_drawing_uses_no_random_numbers():
    z, x = torch.randn(40, 4), torch.rand(10, 8, 8)
    state = torch.get_rng_state()
    plots.latent_map(z)
    plots.image_grid(x)
    plots.reconstructions(x, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_curve_shows_bounds_and_their_parts():
    left, right = plots.training_curve(rows(20)).axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("epoch", "nats per datum")
    train, valid = left.lines
    assert train.get_ydata().tolist() == [i - 9.0 for i in range(20)]
    assert valid.get_ydata().tolist() == [i - 9.5 for i in range(20)]
    assert texts(left.get_legend()) == ["training", "validation"]
    assert texts(right.get_legend()) == ["reconstruction", "KL"]


def test_training_curve_says_when_beta_weighs_the_bound():
    left = plots.training_curve(rows(3, beta=0.5)).axes[0]
    assert texts(left.get_legend())[0] == "training (under its beta)"


def test_training_curve_draws_what_there_is():
    (only,) = plots.training_curve([{"epoch": 0, "loss": 3.0}]).axes
    assert texts(only.get_legend()) == ["training"]
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        plots.training_curve([])


def test_image_grid_is_one_sheet_of_tiles():
    images = torch.zeros(6, 28, 28)
    images[4] = 0.5
    figure = plots.image_grid(images, rows=2, title="six")
    (axes,) = figure.axes
    (sheet,) = axes.images
    assert sheet.get_clim() == (0, 1)
    assert axes.get_title() == "six"
    pixels = sheet.get_array()
    assert pixels.shape == (2 * 56 + 2, 3 * 56 + 2 * 2)
    assert float(pixels[58:, 58:114].min()) == float(pixels[58:, 58:114].max()) == 0.5
    assert float(pixels[56:58].min()) == 1.0


@pytest.mark.parametrize(("shape", "colour"), [((7, 1, 9, 30), ()), ((7, 3, 20, 20), (3,))])
def test_image_grid_takes_channels(shape, colour):
    sheet = plots.image_grid(torch.rand(shape) * 2 - 0.5).axes[0].images[0].get_array()
    assert sheet.shape[2:] == colour
    assert sheet.min() >= 0
    assert sheet.max() <= 1


@pytest.mark.parametrize("shape", [(0, 8, 8), (5, 8), (5, 2, 8, 8), (5,)])
def test_image_grid_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match="images: expected images of shape"):
        plots.image_grid(torch.zeros(shape))


def test_reconstructions_stand_below_their_inputs():
    figure = plots.reconstructions(torch.zeros(20, 28, 28), torch.full((20, 28, 28), 0.75))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["input", "recon."] * 2
    pixels = axes.images[0].get_array()
    places = [round(float(tick)) for tick in axes.get_yticks()]
    assert [float(pixels[place, 20]) for place in places] == [0.0, 0.75, 0.0, 0.75]


def test_reconstructions_of_vectors_are_heat_maps_on_one_scale():
    left, right, bar = plots.reconstructions(torch.zeros(7, 5), torch.ones(7, 5)).axes
    assert [a.get_title() for a in (left, right)] == ["inputs", "reconstructions"]
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 1)
    assert (left.get_xlabel(), left.get_ylabel(), bar.get_ylabel()) == ("entry of the datum", "datum", "value")
    with pytest.raises(ValueError, match="x_hat: expected the shape of x"):
        plots.reconstructions(torch.zeros(7, 5), torch.zeros(7, 4))


def test_latent_map_projects_on_principal_components():
    z = torch.randn(200, 3) * torch.tensor([1.0, 10.0, 0.1])
    axes = plots.latent_map(z).axes[0]
    assert axes.get_xlabel().startswith("principal component 1 (9")
    drawn = torch.as_tensor(axes.collections[0].get_offsets().data)
    torch.testing.assert_close(drawn[:, 0].float(), (z - z.mean(0))[:, 1], atol=0.5, rtol=0.0)


def test_latent_map_tells_classes_apart_by_colour_and_marker():
    figure = plots.latent_map(torch.randn(60, 2), torch.arange(60) % 10)
    (axes,) = figure.axes
    assert texts(axes.get_legend()) == [str(i) for i in range(10)]
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections}
    assert len(looks) == 10
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


@pytest.mark.parametrize(("latent", "label"), [(1, "datum"), (2, "$z_2$")])
def test_latent_map_names_its_axes(latent, label):
    axes = plots.latent_map(torch.randn(9, latent)).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", label)


def test_latent_map_has_a_scale_for_many_labels():
    assert plots.latent_map(torch.randn(50, 2), torch.rand(50)).axes[1].get_ylabel() == "label"
    with pytest.raises(ValueError, match=r"labels: expected shape \(50,\)"):
        plots.latent_map(torch.randn(50, 2), torch.zeros(3))


def test_image_rows_stand_under_one_another_with_their_names():
    dark, light = torch.zeros(6, 8, 8), torch.ones(6, 8, 8)
    (axes,) = plots.image_rows({"dark": dark, "light": light}, title="two").axes
    sheet = axes.images[0].get_array()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dark", "light"]
    assert sheet[: sheet.shape[0] // 2 - 2, :50].max() < 0.001
    assert sheet[sheet.shape[0] // 2 + 2 :].min() > 0.999
    for bad in ({}, {"dark": dark, "fewer": light[:5]}):
        with pytest.raises(ValueError, match="rows: expected one or more sets of images of one shape"):
            plots.image_rows(bad)


def test_latent_maps_side_by_side_have_the_same_limits_and_one_legend():
    labels = torch.arange(40) % 3
    figure = plots.latent_map({"near": torch.rand(40, 2), "far": 30 * torch.rand(40, 2)}, labels, title="two")
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("near", "far")
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    assert left.get_legend() is None
    assert texts(right.get_legend()) == ["0", "1", "2"]
    with pytest.raises(ValueError, match="got none"):
        plots.latent_map({})
