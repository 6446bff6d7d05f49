"""The page of a comparison of estimators, and how its tables are sorted."""

import pytest
from helpers.webpages import CHROMIUM, in_browser, is_self_contained

import pyro_vae as pv
from pyro_vae import pages

E = pv.estimators


@pytest.fixture(scope="module")
def found():
    toy = pv.testing.LinearGaussian(off=0.1)
    chosen = {"second": E.IWAE(num_particles=2), "<first>": E.IWAE(num_particles=16), "third": E.ELBO()}
    return pv.evaluation.compare_estimators(toy.program, toy.draw(8), chosen, num_samples=8, progress=False)


def test_the_page_has_notes_figure_and_tables(found):
    text = pages.comparison("a <b>", on_one_batch=found)
    is_self_contained(text)
    assert "<h2>On one batch</h2>" in text
    assert "highest bound: &lt;first&gt;" in text
    assert (text.count("<table>"), text.count("<figure>")) == (3, 1)
    for row in found.summary():
        assert f"<td>{row['bound']}</td>" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
def test_a_click_sorts_a_table(found, tmp_path):
    script = """
      const table = document.querySelector("table"), heads = [...table.tHead.rows[0].cells];
      const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
      const click = (name) => heads.find((head) => head.textContent === name).firstChild.click();
      click("particles"); const most = names(); click("particles"); const fewest = names(); click("bound");
      document.querySelector("#found").textContent = JSON.stringify([most, fewest, names()]);
    """
    most, fewest, tightest = in_browser(pages.comparison("sorted", table=found), tmp_path, script)
    assert most == ["<first>", "second", "third"]
    assert fewest == most[::-1]
    assert tightest == [row.name for row in sorted(found.estimators, key=lambda row: -row.bound)]
