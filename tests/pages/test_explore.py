"""The page of a latent space: its numbers, and its reaction to mouse and keyboard."""

import functools

import numpy as np
import pytest
import torch
from helpers.webpages import CHROMIUM, array, content, in_browser, is_self_contained

import pyro_vae as pv
from pyro_vae import pages
from pyro_vae.programs.program import evaluating

SMALL = functools.partial(pv.nets.MLP, hidden=(7,))


def make(latent=3, shape=(8, 8), likelihood=pv.likelihoods.Bernoulli, posterior=pv.posteriors.MeanFieldNormal):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood(latent, shape, net=SMALL),
        posterior=posterior(shape, latent, net=SMALL),
    )


@pytest.mark.parametrize("posterior", ["MeanFieldNormal", "FullRankNormal", "LowRankNormal", "PlanarFlow"])
def test_numbers_of_the_page(digits, posterior):
    """Means and covariances are those of q(z given x); data, log-likelihoods and k are those of Python."""
    vae = make(posterior=getattr(pv.posteriors, posterior))
    x, y = digits.test.x[:12], digits.test.y[:12]
    text = pages.explorer(vae, x, y, seed=3, num_particles=60, title="a <b> & c</script>")
    is_self_contained(text)
    found = content(text)
    assert found["title"] == "a <b> & c</script>"
    with evaluating(vae):
        q = vae.encode(x)
        means, covariances = array(found["means"]).view(12, 3), array(found["covariances"]).view(12, 3, 3)
        if posterior == "MeanFieldNormal":
            assert torch.equal(means, q.mean)
            assert torch.equal(covariances, torch.diag_embed(q.variance))
        elif posterior == "FullRankNormal":
            assert torch.equal(means, q.mean)
            torch.testing.assert_close(covariances, q.covariance_matrix)
        else:  # from 1,000 samples; 5 standard errors leave a margin for the 36 comparisons
            z = q.sample((20_000,))
            error = z.std(0) * (1 / 1000 + 1 / 20_000) ** 0.5
            assert bool(((z.mean(0) - means).abs() < 5 * error).all())
            ratio = covariances.diagonal(dim1=1, dim2=2) / z.var(0)
            assert bool(((ratio - 1).abs() < 5 * (2 / 1000) ** 0.5).all())
    direct = pv.evaluation.log_likelihood(vae, x, seed=3, num_particles=60)
    np.testing.assert_allclose(found["evidence"], direct.per_example, rtol=1e-4)
    np.testing.assert_allclose(found["tails"], direct.pareto_k, rtol=1e-4)
    assert torch.equal(array(found["data"], np.uint8).view(12, 8, 8), (255 * x).to(torch.uint8))
    assert found["labels"] == y.tolist()
    assert found["classes"] == y.unique().tolist()


def test_directions_are_principal():
    """The first two directions are those of a singular value decomposition; all have length 1."""
    vae = make(latent=5)
    found = content(pages.explorer(vae, torch.rand(30, 8, 8).round(), num_particles=25))
    means = array(found["means"]).view(30, 5).double()
    vectors = torch.tensor([d["vector"] for d in found["directions"]], dtype=torch.float64)
    right = torch.linalg.svd(means - means.mean(0)).Vh[:2]
    np.testing.assert_allclose((vectors[:2] @ right.T).abs(), np.eye(2), atol=1e-5)
    assert torch.equal(vectors[2:], torch.eye(5, dtype=torch.float64))


def test_an_autoregressive_decoder_runs_on_a_grid(digits):
    """A decoder without a mean has tiles and a reconstruction per example; the random state is unchanged."""
    vae = make(likelihood=lambda latent, shape, net: pv.likelihoods.PixelCNN(latent, (4, 4)), shape=(4, 4))
    x = digits.test.x[:6, 2:6, 2:6].contiguous()
    before = torch.get_rng_state()
    found = content(pages.explorer(vae, x, num_particles=5))
    assert torch.equal(before, torch.get_rng_state())
    assert found["steps"] is None
    assert found["tails"] == [None] * 6  # too few samples
    assert array(found["grid"]["values"], np.uint8).shape == (15 * 15 * 16,)
    assert array(found["grid"]["reconstructions"], np.uint8).shape == (6 * 16,)


def test_grey_levels_outside_0_and_1():
    """Images with real values are stored as bytes, with an error of half a step between minimum and maximum."""
    x = 3 * torch.randn(5, 8, 8)
    found = content(pages.explorer(make(likelihood=pv.likelihoods.Normal), x.numpy(), num_particles=5))
    low, high = found["range"]
    assert (low, high) == pytest.approx((float(x.min()), float(x.max())))
    back = low + (high - low) * array(found["data"], np.uint8).view(5, 8, 8) / 255
    assert float((back - x).abs().max()) < 0.501 * (high - low) / 255


def test_page_of_a_program_in_double_precision():
    found = content(pages.explorer(make().double(), torch.rand(4, 8, 8).round(), num_particles=5))
    assert found["steps"]


def test_columns_of_a_table_have_their_own_scales():
    """Each scale ends at the minimum and maximum in the units of the column, or at the first and last label."""
    table = pv.data.Table({"age": [20.5, 41.0, 60.0], "colour": ["red", "blue", "red"], "same": [1.5, 1.5, 1.5]})
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Heterogeneous(2, (3,), columns=table.columns),
        posterior=pv.posteriors.MeanFieldNormal((3,), 2),
    )
    found = content(pages.explorer(vae, table.x, num_particles=50))
    assert found["columns"] == [
        {"name": "age", "ends": [20.5, 60.0], "words": ["20.5", "60"]},
        {"name": "colour", "ends": [0, 1], "words": ["blue", "red"]},
        {"name": "same", "ends": [0.5, 2.5], "words": ["0.5", "2.5"]},
    ]
    toy = pv.testing.LinearGaussian()
    assert content(pages.explorer(toy.program, toy.draw(3), num_particles=50))["columns"] is None


def test_page_rejects_bad_input():
    """Programs other than a VAE, a context, missing entries, and labels or row numbers of another length."""
    x = torch.rand(4, 8, 8).round()
    with pytest.raises(TypeError, match="program: "):
        pages.explorer(torch.nn.Linear(1, 1), x)
    conditional = pv.VAE(
        prior=pv.priors.ConditionalNormal(3, context=2),
        likelihood=pv.likelihoods.Bernoulli(3, (8, 8)),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 3),
    )
    with pytest.raises(TypeError, match="vae: "):
        pages.explorer(conditional, x)
    vae = make()
    missing = pv.VAE(prior=vae.prior, likelihood=vae.likelihood, posterior=vae.posterior, missing=True)
    with pytest.raises(ValueError, match="x: .*NaN"):
        pages.explorer(missing, torch.where(x > 0, torch.nan, x))
    with pytest.raises(ValueError, match=r"labels: .*\(4,\).*\(3,\)"):
        pages.explorer(vae, x, [0, 1, 2])
    with pytest.raises(ValueError, match=r"rows: .*\(4,\)"):
        pages.explorer(vae, x, rows=torch.arange(5))


def click(i):
    """Return a script that clicks on the mark of an example, presses keys and reports the state of the page."""
    return (
        f"const box = find('map').getBoundingClientRect(), [a, b] = view.points[{i}];"
        "const at = { clientX: box.left + view.x(a), clientY: box.top + view.y(b), bubbles: true };"
        "find('map').dispatchEvent(new PointerEvent('pointermove', at));"
        "find('map').dispatchEvent(new MouseEvent('click', at));"
        "const press = (key) => find('map').dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));"
        "const clicked = { chosen: state.chosen, facts: find('facts').textContent, pinned: Array.from(state.pinned) };"
        "press('ArrowRight'); const right = place(state.pinned)[0] - a; press('ArrowUp');"
        "const up = place(state.pinned)[1] - b; press('Escape');"
        "find('found').textContent = JSON.stringify({ ...clicked, right: right / (view.x1 - view.x0),"
        f" up: up / (view.y1 - view.y0), left: state.chosen, drawn: Array.from(decode(row(means, {i}, latent))),"
        " ellipses: document.querySelectorAll('.spread').length, marks: document.querySelectorAll('.example').length,"
        " wide: document.documentElement.scrollWidth <= innerWidth,"
        f" shown: Array.from(shown(data, {i})), same: (state.up = state.across, Array.from(moved(average, 1, 2))) }});"
    )


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
@pytest.mark.parametrize(("latent", "shape"), [(2, (8, 8)), (5, (8, 8)), (4, (20,)), (1, (8, 8))])
def test_the_page_in_a_browser(tmp_path, latent, shape):
    """A click selects an example and shows its k, arrow keys move the point, and the decoder equals that of torch."""
    vae, x = make(latent=latent, shape=shape), torch.rand(15, *shape).round()
    text = pages.explorer(vae, x, torch.arange(15) % 3, num_particles=60)
    seen = in_browser(text, tmp_path, click(7))
    found = content(text)
    chosen = seen["chosen"]
    mean = array(found["means"]).view(15, latent)
    with evaluating(vae):
        drawn = vae.decode(mean[7:8]).mean.flatten()
    np.testing.assert_allclose(seen["drawn"], drawn, atol=1e-4)
    # marks that overlap cannot be distinguished
    assert chosen == 7 or float((mean[chosen] - mean[7]).abs().max()) < 0.2
    np.testing.assert_allclose(seen["pinned"], mean[chosen], atol=1e-6)
    assert f"{found['tails'][chosen]:.2f}" in seen["facts"].replace("\u2212", "-")
    assert f"label{chosen % 3}" in seen["facts"]
    assert seen["left"] == -1
    assert seen["marks"] == 15
    assert seen["wide"]
    np.testing.assert_allclose(seen["shown"], x[7].flatten(), atol=1e-6)
    # the same direction twice counts once
    direction = torch.tensor(found["directions"][0]["vector"]).double()
    assert float(direction @ torch.tensor(seen["same"], dtype=torch.float64)) == pytest.approx(1, abs=1e-6)
    if chosen == 7:
        assert seen["right"] == pytest.approx(0.02, abs=1e-6)
        assert latent == 1 or seen["up"] == pytest.approx(0.02, abs=1e-6)
