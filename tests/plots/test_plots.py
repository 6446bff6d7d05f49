"""Figures: their contents, and that they change no global state."""

import sys

import matplotlib
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae import data, plots, tasks


def rows(n, **more):
    return [
        {"epoch": i, "loss": 9.0 - i, "valid_bound": i - 9.5, "reconstruction": i - 8.0, "kl": 1.0, **more}
        for i in range(n)
    ]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


g = torch.Generator().manual_seed(0)
X, Z = torch.rand(10, 8, 8, generator=g), torch.randn(40, 4, generator=g)
FIGURES = {
    "training_curve": lambda: plots.training_curve(rows(20)),
    "image_grid": lambda: plots.image_grid(X),
    "reconstructions": lambda: plots.reconstructions(X, X),
    "image_rows": lambda: plots.image_rows({"a": X, "longer": X}),
    "latent_map": lambda: plots.latent_map(Z, torch.arange(40) % 10),
    "vectors": lambda: plots.vectors(Z),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_saved_and_change_no_global_state(name, tmp_path):
    before, pyplot, state = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules, torch.get_rng_state()
    figure = FIGURES[name]()
    assert dict(matplotlib.rcParams) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    assert not Gcf.figs
    figure.savefig(tmp_path / "figure.png", dpi=30)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert figure.get_figwidth() * figure.dpi == 900
    assert type(figure) is Figure


def test_training_curve_shows_bounds_and_their_terms():
    left, right = plots.training_curve(rows(20)).axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("epoch", "nats per example")
    train, valid = left.lines
    assert train.get_ydata().tolist() == [i - 9.0 for i in range(20)]
    assert valid.get_ydata().tolist() == [i - 9.5 for i in range(20)]
    assert texts(left.get_legend()) == ["training", "validation"]
    assert texts(right.get_legend()) == ["reconstruction", "KL"]


def test_training_curve_notes_that_the_bound_is_weighted_by_beta():
    left = plots.training_curve(rows(3, beta=0.5)).axes[0]
    assert texts(left.get_legend())[0] == "training (weighted by beta)"


def test_training_curve_shows_only_known_values():
    (only,) = plots.training_curve([{"epoch": 0, "loss": 3.0}]).axes
    assert texts(only.get_legend()) == ["training"]
    with pytest.raises(ValueError, match="history"):
        plots.training_curve([])


def test_image_grid_has_white_lines_between_tiles():
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
def test_image_grid_raises_for_other_shapes(shape):
    with pytest.raises(ValueError, match="images"):
        plots.image_grid(torch.zeros(shape))


def test_reconstructions_are_below_their_inputs():
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
    assert (left.get_xlabel(), left.get_ylabel(), bar.get_ylabel()) == ("entry of the example", "example", "value")
    with pytest.raises(ValueError, match="x_hat"):
        plots.reconstructions(torch.zeros(7, 5), torch.zeros(7, 4))


def test_latent_map_projects_onto_principal_components():
    z = torch.randn(200, 3) * torch.tensor([1.0, 10.0, 0.1])
    axes = plots.latent_map(z).axes[0]
    assert axes.get_xlabel().startswith("principal component 1 (9")
    drawn = torch.as_tensor(axes.collections[0].get_offsets().data)
    assert torch.allclose(drawn[:, 0].float(), (z - z.mean(0))[:, 1], atol=0.5)


def test_latent_map_distinguishes_classes_by_colour_and_marker():
    figure = plots.latent_map(torch.randn(60, 2), torch.arange(60) % 10)
    (axes,) = figure.axes
    assert texts(axes.get_legend()) == [str(i) for i in range(10)]
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in axes.collections}
    assert len(looks) == 10
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


@pytest.mark.parametrize(("latent", "label"), [(1, "example"), (2, "$z_2$")])
def test_latent_map_labels_its_axes(latent, label):
    axes = plots.latent_map(torch.randn(9, latent)).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$z_1$", label)


def test_latent_map_has_a_colour_scale_for_many_labels():
    assert plots.latent_map(torch.randn(50, 2), torch.rand(50)).axes[1].get_ylabel() == "label"
    with pytest.raises(ValueError, match="labels"):
        plots.latent_map(torch.randn(50, 2), torch.zeros(3))


def test_image_rows_are_stacked_with_their_names():
    dark, light = torch.zeros(6, 8, 8), torch.ones(6, 8, 8)
    (axes,) = plots.image_rows({"dark": dark, "light": light}, title="two").axes
    sheet = axes.images[0].get_array()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dark", "light"]
    assert sheet[: sheet.shape[0] // 2 - 2, :50].max() < 0.001
    assert sheet[sheet.shape[0] // 2 + 2 :].min() > 0.999
    for bad in ({}, {"dark": dark, "fewer": light[:5]}):
        with pytest.raises(ValueError, match="rows"):
            plots.image_rows(bad)


def test_latent_maps_side_by_side_share_limits_and_legend():
    labels = torch.arange(40) % 3
    figure = plots.latent_map({"near": torch.rand(40, 2), "far": 30 * torch.rand(40, 2)}, labels, title="two")
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("near", "far")
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
    assert left.get_legend() is None
    assert texts(right.get_legend()) == ["0", "1", "2"]
    with pytest.raises(ValueError, match="z: "):
        plots.latent_map({})


def test_ellipses_have_the_radii_of_one_standard_deviation():
    """In two dimensions the axes of the ellipses have length 2 std."""
    std = torch.tensor([[0.1, 0.5]]).expand(400, -1)
    figure = tasks.Embedding(("z[0]", "z[1]"), torch.randn(400, 2), std).plot(torch.arange(400) % 3)
    axes = figure.axes[0]
    (ellipses,) = [c for c in axes.collections if isinstance(c, EllipseCollection)]
    assert len(ellipses.get_offsets()) == 40
    assert torch.allclose(torch.as_tensor(ellipses.get_widths()).float(), torch.tensor(1.0))
    assert torch.allclose(torch.as_tensor(ellipses.get_heights()).float(), torch.tensor(0.2))
    assert torch.allclose(torch.as_tensor(ellipses.get_angles()).float() % 180, torch.tensor(90.0), atol=1e-3)
    assert "one standard deviation, for 40 of 400 examples" in axes.get_title()


def test_ellipses_in_more_dimensions_are_those_of_the_projected_covariance():
    """Latents along the diagonal of the first two of three dimensions."""
    g = torch.Generator().manual_seed(0)
    line = torch.randn(300, 1, generator=g) * torch.tensor([[1.0, 1.0, 0.0]]) + 0.2 * torch.randn(300, 3, generator=g)
    std = torch.tensor([0.5, 0.1, 0.2])
    figure = plots.latent_map(line, std=std.expand(300, -1))
    (ellipses,) = [c for c in figure.axes[0].collections if isinstance(c, EllipseCollection)]
    sizes = torch.stack([torch.as_tensor(v) for v in (ellipses.get_widths(), ellipses.get_heights())], -1)[0].float()
    angle = torch.as_tensor(ellipses.get_angles())[0].float().deg2rad()
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    right = torch.linalg.svd(line - line.mean(0)).Vh[:2]
    right = right * right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    exact = right @ std.square().diag() @ right.T
    assert exact[0, 1].abs() > 0.02
    assert torch.allclose(axes @ (sizes / 2).square().diag() @ axes.T, exact, atol=1e-5)
    with pytest.raises(ValueError, match="std"):
        plots.latent_map(line, std=torch.ones(3))


def test_forecasts_of_data_that_were_read_start_at_their_own_lengths():
    read = data.read([torch.zeros(n, 2) for n in (5, 2, 3)])
    figure = plots.forecasts(read, tasks.Forecast(torch.randn(30, 3, 4, 2, generator=g)))
    assert [len(axes.lines[0].get_xdata()) for axes in figure.axes] == [5, 2, 3]
    assert [axes.lines[1].get_xdata()[0] for axes in figure.axes] == [6, 3, 4]


def test_forecasts_are_after_the_end_of_each_sequence():
    samples = torch.randn(100, 8, 3, 2, generator=g)
    x, lengths, truth = torch.randn(8, 5, 2, generator=g), torch.tensor([5, 2, 1, 3, 4, 5, 5, 5]), torch.zeros(8, 3, 2)
    x[0, 1] = torch.nan
    found = tasks.Forecast(samples)
    figure = plots.forecasts(x, found, lengths, truth=truth, level=0.8, channel=1)
    assert len(figure.axes) == 6
    assert texts(figure.legends[0]) == ["observed", "80% interval", "mean of the forecast", "true steps"]
    for i, axes in enumerate(figure.axes):
        n = int(lengths[i])
        observed, mean, true = axes.lines
        assert observed.get_xdata().tolist() == list(range(1, n + 1))
        assert torch.equal(torch.tensor(observed.get_ydata()).nan_to_num(9), x[i, :n, 1].double().nan_to_num(9))
        assert mean.get_xdata().tolist() == true.get_xdata().tolist() == [n + 1, n + 2, n + 3]
        assert torch.allclose(torch.tensor(mean.get_ydata()), samples.mean(0)[i, :, 1].double())
        band = axes.collections[0].get_paths()[0].get_extents()
        lower, upper = (end[i, :, 1] for end in found.interval(0.8))
        assert abs(band.y0 - float(lower.min())) < 1e-6
        assert abs(band.y1 - float(upper.max())) < 1e-6


@pytest.mark.parametrize(("off", "title"), [(0.0, "All curves stay inside the band"), (1.0, "curves leave the band")])
def test_the_title_of_rank_curves_says_what_they_show(off, title):
    toy = pv.testing.LinearGaussian(off=off)
    found = pv.evaluation.calibration(toy.program, toy.draw(8), num_simulations=100, progress=False)
    assert title in pv.plots.rank_curves(found).axes[0].get_title()
