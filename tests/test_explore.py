"""`pyro-vae explore` and `pyro-vae report`: pages that need nothing else, with the numbers of the program."""

import base64
import functools
import inspect
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae import cli, pages, run
from pyro_vae.pages.page import asset
from pyro_vae.programs.program import evaluating

SMALL = functools.partial(pv.nets.MLP, hidden=(7,))
CONVOLUTIONS = functools.partial(pv.nets.ConvDecoder, channels=(5, 3), hidden=6)
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

VOID = {"meta", "img", "br", "input"}


class Reader(HTMLParser):
    """Every element is closed in turn; what is in them is kept by name and by id."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.elements, self.texts = [], set(), [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if "id" in attrs:
            assert attrs["id"] not in self.ids
            self.ids.add(attrs["id"])
        if tag not in VOID:
            self.open.append((tag, attrs.get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def content(text):
    """The data of a page."""
    return json.loads(Reader(text).texts["script", "data"])


def array(text, kind=np.float32):
    return torch.tensor(np.frombuffer(base64.b64decode(text), kind))


def needs_nothing(text):
    """No element of a page names a place outside of it."""
    for _, attrs in Reader(text).elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|importScripts|WebSocket", text)
    # the name of a vocabulary, which nothing is asked for
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}


def by_node(jobs):
    """What the page makes of (steps, input) pairs, and its complaints."""
    script = asset("array_program.js") + (
        'const jobs = JSON.parse(require("fs").readFileSync(0));'
        "console.log(JSON.stringify(jobs.map(([steps, x]) => Array.from(compile(steps)(x)))));"
    )
    done = subprocess.run([NODE, "-e", script], input=json.dumps(jobs), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [torch.tensor(x, dtype=torch.float64) for x in json.loads(done.stdout)]


def in_browser(text, folder, script):
    """The body of a page after a script, whose result stands in an element of its own, as a browser shows it."""
    end = f"<pre id='found'></pre><script>{script}</script></body>"
    (folder / "page.html").write_text(text.replace("</body>", end), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=1200,900"]
    address = (folder / "page.html").as_uri()
    command = [CHROMIUM, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(Reader(done.stdout).texts["pre", "found"])


def means_of(likelihood, latent):
    likelihood.eval()
    return pages.array_program(lambda z: likelihood(z).mean, torch.zeros(1, latent))


def part(cls, net):
    # a mean over 256 levels is a sum of 256 terms, of which a few tell as much
    few = {"levels": 5} if "levels" in inspect.signature(cls).parameters else {}
    try:
        return cls(3, (6, 6), net=net, **few)
    except (TypeError, ValueError):
        return cls.example()


@pytest.mark.skipif(NODE is None, reason="needs Node.js (node) on the PATH")
def test_every_likelihood_on_this_shelf_decodes_in_the_page():
    """The mean of each likelihood, by both kinds of network, is that of torch to 1e-4; two have no such steps."""
    jobs, wanted, refused = [], [], set()
    for name, cls in run.shelves()["likelihood"].items():
        for net in (SMALL, CONVOLUTIONS) if name in ("Bernoulli", "StudentT") else (SMALL,):
            likelihood = part(cls, net).eval()
            z = 2 * torch.randn(1, 3)
            try:
                steps = means_of(likelihood, 3)
            except (pages.UnsupportedOperation, NotImplementedError):
                refused.add(name)
                continue
            jobs.append((json.loads(json.dumps(steps)), z[0].tolist()))
            with torch.no_grad():
                wanted.append((name, likelihood(z).mean.flatten().double()))
    assert refused == {"Heterogeneous", "PixelCNN"}
    for (name, x), found in zip(wanted, by_node(jobs), strict=True):
        assert x.shape == found.shape, name
        assert float((x - found).abs().max()) < 1e-4 * max(1.0, float(x.abs().max())), name


@pytest.mark.skipif(NODE is None, reason="needs Node.js (node) on the PATH")
def test_every_activation_decodes_in_the_page():
    """The activations that an MLP takes give the numbers of torch, far from 0 too; random ones are refused."""
    jobs, wanted = [], []
    odd = {"GLU", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "RReLU", "Softshrink"}
    for name, cls in run.shelves()["activation"].items():
        if name in odd:  # of another width, of a dimension that is not told, and without a decomposition
            continue
        net = functools.partial(pv.nets.MLP, hidden=(9, 8), activation=cls)
        likelihood = pv.likelihoods.Normal(2, (4,), net=net).eval()
        z = 20 * torch.randn(1, 2)
        jobs.append((means_of(likelihood, 2), z[0].tolist()))
        with torch.no_grad():
            wanted.append((name, likelihood(z).mean[0].double()))
    assert len(jobs) > 15
    for (name, x), found in zip(wanted, by_node(jobs), strict=True):
        torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4, msg=name)


def test_what_cannot_be_written_as_steps_is_refused():
    """Draws, branches on values and constants are refused, not written down as something else."""
    x = torch.zeros(1, 3)
    for bad in (lambda z: z.sort().values, lambda z: z if z.sum() > 0 else -z, lambda z: torch.rand(3) + z):
        with pytest.raises(pages.UnsupportedOperation):
            pages.array_program(bad, x)
    with pytest.raises(pages.UnsupportedOperation, match="does not depend"):
        pages.array_program(lambda z: torch.ones(3), x)


def make(latent=3, shape=(8, 8), likelihood=pv.likelihoods.Bernoulli, posterior=pv.posteriors.MeanFieldNormal):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood(latent, shape, net=SMALL),
        posterior=posterior(shape, latent, net=SMALL),
    )


@pytest.mark.parametrize("posterior", ["MeanFieldNormal", "FullRankNormal", "LowRankNormal", "PlanarFlow"])
def test_numbers_of_the_page(digits, posterior):
    """Means and covariances are those of q(z given x), data, log-likelihoods and k those that Python finds."""
    vae = make(posterior=getattr(pv.posteriors, posterior))
    x, y = digits.test.x[:12], digits.test.y[:12]
    text = pages.explorer(vae, x, y, seed=3, num_particles=60, title="a <b> & c</script>")
    needs_nothing(text)
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
        else:  # from 1,000 draws; 5 standard errors leave a margin for the 36 comparisons
            z = q.sample((20_000,))
            error = z.std(0) * (1 / 1000 + 1 / 20_000) ** 0.5
            assert bool(((z.mean(0) - means).abs() < 5 * error).all())
            ratio = covariances.diagonal(dim1=1, dim2=2) / z.var(0)
            assert bool(((ratio - 1).abs() < 5 * (2 / 1000) ** 0.5).all())
    direct = pv.evaluation.log_likelihood(vae, x, seed=3, num_particles=60)
    np.testing.assert_allclose(found["evidence"], direct.per_datum, rtol=1e-4)
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


def test_an_autoregressive_decoder_is_drawn_on_a_grid(digits):
    """A decoder without a mean comes as tiles and as one reconstruction a datum; sampling leaves no trace."""
    vae = make(likelihood=lambda latent, shape, net: pv.likelihoods.PixelCNN(latent, (4, 4)), shape=(4, 4))
    x = digits.test.x[:6, 2:6, 2:6].contiguous()
    before = torch.get_rng_state()
    found = content(pages.explorer(vae, x, num_particles=5))
    assert torch.equal(before, torch.get_rng_state())
    assert found["steps"] is None
    assert found["tails"] == [None] * 6  # too few draws to tell
    assert array(found["grid"]["values"], np.uint8).shape == (15 * 15 * 16,)
    assert array(found["grid"]["reconstructions"], np.uint8).shape == (6 * 16,)


def click(i):
    """A click on the mark of a datum, and what there is to see afterwards."""
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
        " ellipses: document.querySelectorAll('.spread').length, marks: document.querySelectorAll('.datum').length,"
        " wide: document.documentElement.scrollWidth <= innerWidth });"
    )


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
@pytest.mark.parametrize(("latent", "shape"), [(2, (8, 8)), (5, (8, 8)), (4, (20,)), (1, (8, 8))])
def test_the_page_in_a_browser(tmp_path, latent, shape):
    """A click chooses the datum and tells its k, arrows move the point, and the decoder draws what torch does."""
    vae, x = make(latent=latent, shape=shape), torch.rand(15, *shape).round()
    text = pages.explorer(vae, x, torch.arange(15) % 3, num_particles=60)
    seen = in_browser(text, tmp_path, click(7))
    found = content(text)
    chosen = seen["chosen"]
    mean = array(found["means"]).view(15, latent)
    with evaluating(vae):
        drawn = vae.decode(mean[7:8]).mean.flatten()
    np.testing.assert_allclose(seen["drawn"], drawn, atol=1e-4)
    # marks that cover one another are near enough to be taken for each other
    assert chosen == 7 or float((mean[chosen] - mean[7]).abs().max()) < 0.2
    np.testing.assert_allclose(seen["pinned"], mean[chosen], atol=1e-6)
    assert f"{found['tails'][chosen]:.2f}" in seen["facts"].replace("\u2212", "-")
    assert f"label{chosen % 3}" in seen["facts"]
    assert seen["left"] == -1
    assert seen["marks"] == 15
    assert seen["wide"]
    if chosen == 7:
        assert seen["right"] == pytest.approx(0.02, abs=1e-6)
        assert latent == 1 or seen["up"] == pytest.approx(0.02, abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run <&>"
    tiny = ["--epochs=2", "--particles=3", "--quiet", "--latent=2", "--posterior.net.hidden=[8]"]
    assert cli.main(["train", *tiny, "--likelihood.net.hidden=[8]", "--run-dir", str(folder)]) == 0
    assert cli.main(["evaluate", str(folder), "--particles=30", "--quiet"]) == 0
    return folder


def test_explore_a_run(trained, tmp_path, capsys):
    """A page of some test data is left in the run, the same twice; other data come from a file."""
    command = ["explore", str(trained), "--points=20", "--particles=30"]
    assert cli.main(command) == 0
    assert "explore.html" in capsys.readouterr().out
    first = (trained / "explore.html").read_text()
    found = content(first)
    test = pv.data.load("digits").test
    assert len(found["rows"]) == 20
    assert found["labels"] == test.y[found["rows"]].tolist()
    assert "digits" in found["about"]
    assert cli.main(command) == 0
    assert (trained / "explore.html").read_text() == first
    np.save(tmp_path / "own.npy", test.x[:4].numpy())
    assert cli.main([*command, f"--data={tmp_path / 'own.npy'}", f"--output={tmp_path / 'new' / 'page.html'}"]) == 0
    own = content((tmp_path / "new" / "page.html").read_text())
    assert own["rows"] == [0, 1, 2, 3]
    assert own["labels"] is None


def test_bad_data_of_explore_are_told(trained, tmp_path, capsys):
    """Files that hold no data of this program, or objects, are refused and leave nothing."""
    out = tmp_path / "page.html"
    np.save(tmp_path / "wide.npy", np.zeros((3, 9, 9), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, said in (("wide", "(3, 9, 9)"), ("objects", "objects.npy"), ("text", "text.npy"), ("none", "none.npy")):
        assert cli.main(["explore", str(trained), f"--data={tmp_path / name}.npy", f"--output={out}"]) == 1
        assert said in capsys.readouterr().err
    assert cli.main(["explore", str(tmp_path)]) == 1
    assert cli.main(["explore"]) == 2
    assert not out.exists()


def test_report_of_a_run(trained, capsys):
    """The page holds every epoch, every figure, the evaluations and the configuration, and escapes names."""
    assert cli.main(["report", str(trained)]) == 0
    text = (trained / "report.html").read_text()
    needs_nothing(text)
    assert "a run &lt;&amp;&gt;" in text
    pictures = [*(trained / "figures").glob("*.png"), *(trained / "evaluation").glob("*.png")]
    assert text.count("data:image/png;base64,") == len(pictures) == 7
    assert all(base64.b64encode(path.read_bytes()).decode() in text for path in pictures)
    assert "MeanFieldNormal(net=MLP(hidden=[8]" in text
    bounds = [json.loads(line)["valid_bound"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert f"best validation bound {max(bounds):.2f}" in text
    found = json.loads((trained / "evaluation" / "log_likelihood.json").read_text())["rows"]
    mean = sum(row["log_likelihood"] for row in found) / len(found)
    assert f"<td>{len(found)}</td><td>{mean:.5g}".replace("-", "\u2212") in text


def test_report_escapes_and_tells_damage(trained, tmp_path, capsys):
    """Markup in files stays text, an unfinished run has a report, and what is damaged is named."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "<script>alert(1)</script>": "<img src=x>"}\n')
    shutil.rmtree(folder / "evaluation")
    assert cli.main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    needs_nothing(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    (folder / "metrics.jsonl").unlink()
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "other.html")]) == 0
    assert "0 epochs" in (tmp_path / "other.html").read_text()
    (folder / "evaluation").mkdir()
    for broken in ("[1, 2", "[1, 2]", '{"rows": [3]}'):
        (folder / "evaluation" / "latents.json").write_text(broken)
        assert cli.main(["report", str(folder)]) == 1
        assert "latents.json" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == text
