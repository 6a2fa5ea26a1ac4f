"""The page of an explorer in a browser: every control by mouse, touch and keyboard."""

import json

import numpy as np
import pytest

from paca_jax import explain
from tests.explain.browser import CHROMIUM
from tests.explain.explored import content, maps_of, page

pytestmark = [
    pytest.mark.xdist_group("explorer"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

PHONE = {"width": 390, "height": 844, "touch": True}
READY = "maps !== null && element('status').textContent !== ''"
CHOSEN = {
    "pictures": "chosen.picture === {}",
    "stages": "chosen.block.startsWith('{}')",
    "blocks": "chosen.block === '{}'",
    "heads": "chosen.head === {}",
}
FRAME = "#first .frame"


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens the page of a kind of model, whose page must have had no trouble when the test ends."""

    def open_page(kind="classifier", **options):
        path = tmp_path / f"{kind}.html"
        path.write_text(page(kind))
        browser.open(path, **options)
        browser.wait_for(READY)
        return browser

    yield open_page
    assert browser.troubles == []
    assert [address for address in browser.addresses if not address.startswith(("file://", "data:"))] == []


def data_of(kind="classifier"):
    return content(page(kind))


def shown_map(browser, figure):
    """Returns the weights that a canvas shows, as levels of its colors: the brightness, which rises with the weight."""
    pixels = browser.value(
        f"(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])(document.querySelector('#{figure} canvas'))"
    )
    shape = browser.value(f"(c => [c.height, c.width])(document.querySelector('#{figure} canvas'))")
    return np.reshape(pixels, (*shape, 4))[..., :3] @ [0.21, 0.72, 0.07]


def same_order(found, weights):
    """Checks that a map is shown: its colors rise with the weights."""
    assert found.shape == weights.shape
    order = np.argsort(weights.ravel())
    assert np.all(np.diff(found.ravel()[order]) >= -3)  # transparency and rounding disturb a color by as much
    assert found.ravel()[order[-1]] == found.max() > found.min()


def text(browser, selector):
    return browser.value(f"document.querySelector({json.dumps(selector)}).textContent")


def bars(browser):
    """Returns {cluster: percent} of the list of clusters that a patch reads."""
    rows = browser.value(
        "[...document.querySelectorAll('#bars li:not([hidden]) button')]"
        ".map(b => [+b.dataset.cluster, b.querySelector('.value').textContent])"
    )
    return {cluster: float(value.rstrip("%")) / 100 for cluster, value in rows}


def answers(browser):
    """Returns the values of the rows of the answer, without the last, which is for other classes."""
    cells = browser.value(
        "[...document.querySelectorAll('#rows tr')].slice(0, -1).filter(r => !r.hidden).map(r => r.children[2].textContent)"
    )
    return [float(cell.rstrip("%")) / 100 for cell in cells]


def choose(browser, group, value):
    browser.click(f"#{group} input[value='{value}'] + *")
    browser.wait_for(CHOSEN[group].format(value))


def test_a_patch_shows_what_it_reads_and_what_this_gathers(opened):
    browser, picture = opened(), data_of()["pictures"][0]
    attention, assignment = maps_of(picture, "stage1/block0", "stage1/block0")
    rows, columns = attention.shape[1:3]
    for row, column in ((0, 0), (3, 12), (rows - 1, columns - 1)):
        browser.hover(FRAME, (column + 0.5) / columns, (row + 0.5) / rows)
        read = attention.mean(0)[row, column]
        assert text(browser, "#patch-title") == f"The patch in row {row}, column {column} reads"
        assert bars(browser) == pytest.approx(dict(enumerate(read)), abs=0.006)
        assert list(bars(browser)) == sorted(bars(browser), key=lambda cluster: -read[cluster])
        same_order(shown_map(browser, "first"), np.einsum("m,mrc->rc", read, assignment))
        same_order(shown_map(browser, "second"), assignment[read.argmax()])
        composed = browser.value(f"[...maps.composed({row * columns + column}, -1)]")
        np.testing.assert_allclose(composed, np.einsum("m,mrc->rc", read, assignment).ravel(), rtol=1e-4)


def test_a_head_shows_its_own_weights(opened):
    browser, picture = opened(), data_of()["pictures"][0]
    attention, _ = maps_of(picture, "stage1/block0", "stage1/block0")
    for head in (0, 1):
        choose(browser, "heads", head)
        browser.hover(FRAME, 0.01, 0.01)
        assert bars(browser) == pytest.approx(dict(enumerate(attention[head, 0, 0])), abs=0.006)


def test_a_cluster_shows_what_it_gathers_and_who_reads_it(opened):
    browser, picture = opened(), data_of()["pictures"][0]
    attention, assignment = maps_of(picture, "stage1/block0", "stage1/block0")
    before = shown_map(browser, "first")
    for cluster in (1, 5):
        browser.hover(f"#tiles label:nth-child({cluster + 1}) .tile")
        assert text(browser, "#cluster-title") == f"Cluster {cluster}"
        same_order(shown_map(browser, "first"), assignment[cluster])
        same_order(shown_map(browser, "second"), attention.mean(0)[..., cluster])
    browser.hover("h1")
    np.testing.assert_array_equal(shown_map(browser, "first"), before)


def test_a_click_keeps_what_hovering_only_shows(opened):
    browser = opened()
    browser.click("#tiles label:nth-child(3) .tile")
    browser.hover("h1")
    assert text(browser, "#first figcaption b") == "What cluster 2 gathers"
    browser.click(FRAME, 0.99, 0.01)
    browser.hover("h1")
    assert text(browser, "#patch-title") == "The patch in row 0, column 15 reads"
    first = next(iter(bars(browser)))
    browser.click("#bars li:first-child button")
    browser.hover("h1")
    assert text(browser, "#first figcaption b") == f"What cluster {first} gathers"


def test_pictures_stages_and_blocks_are_chosen(opened):
    browser, found = opened(), data_of()
    choose(browser, "pictures", 1)
    assert browser.value("document.querySelector('#first img').alt") == found["pictures"][1]["description"]
    np.testing.assert_allclose(answers(browser), found["pictures"][1]["answer"]["values"], atol=0.006)
    for group, value, block in (
        ("stages", "stage2", "stage2/block0"),
        ("stages", "stage1", "stage1/block0"),
        ("blocks", "stage1/block1", "stage1/block1"),
    ):
        choose(browser, group, value)
        assert browser.value("chosen.block") == block
        browser.hover(FRAME, 0.01, 0.01)
        attention, assignment = maps_of(found["pictures"][1], block, block)
        assert bars(browser) == pytest.approx(dict(enumerate(attention.mean(0)[0, 0])), abs=0.006)
        same_order(shown_map(browser, "first"), np.einsum("m,mrc->rc", attention.mean(0)[0, 0], assignment))


@pytest.mark.parametrize("kind", ["classifier", "segmentor", "detector", "teacher"])
def test_a_cluster_is_switched_off(opened, kind):
    browser, picture = opened(kind), data_of(kind)["pictures"][0]
    before = picture["answer"]["values"]
    np.testing.assert_allclose(answers(browser), before, atol=0.006)
    browser.click("#off")
    for cluster in range(5):
        browser.click(f"#tiles label:nth-child({cluster + 1}) .tile")
        changed = picture["without"]["stage1/block0"][cluster]
        np.testing.assert_allclose(answers(browser), changed["values"], atol=0.006)
        change = text(browser, "#rows tr:first-child td:last-child").replace("\N{MINUS SIGN}", "-")
        assert float(change) / 100 == pytest.approx(changed["values"][0] - before[0], abs=6e-4)
        assert f"Without cluster {cluster} of Stage 1" in text(browser, "#answer-state")
        assert browser.value("document.querySelector('#off').getAttribute('aria-pressed')") == "true"
    browser.click("#off")
    np.testing.assert_allclose(answers(browser), before, atol=0.006)


def test_a_head_of_classes_names_its_clusters_and_cannot_lose_them(opened):
    browser, found = opened("segmentor"), data_of("segmentor")
    choose(browser, "stages", "head")
    attention, _ = maps_of(found["pictures"][0], "head", "head")
    browser.hover(FRAME, 0.01, 0.01)
    assert bars(browser) == pytest.approx(dict(enumerate(attention[0, 0, 0])), abs=0.006)
    browser.click("#tiles label:nth-child(4) .tile")
    assert text(browser, "#cluster-title") == "Cluster 3 class 3"
    assert browser.value("document.querySelector('#off').disabled")
    assert text(browser, "#serves") == "The page holds no answers without the clusters of this block."


def test_objects_are_marked(opened):
    browser, found = opened("detector"), data_of("detector")["pictures"][0]
    assert browser.value("document.querySelectorAll('.box').length") == len(found["answer"]["boxes"])
    edges = browser.value(
        "(() => { const f = document.querySelector('#first .frame').getBoundingClientRect(); "
        "return [...document.querySelectorAll('.box')].map(b => b.getBoundingClientRect())"
        ".map(b => [(b.left - f.left) / f.width, (b.top - f.top) / f.height, (b.right - f.left) / f.width, "
        "(b.bottom - f.top) / f.height]); })()"
    )
    np.testing.assert_allclose(edges, found["answer"]["boxes"], atol=0.02)
    numbers = browser.value("[...document.querySelectorAll('.box')].map(b => b.textContent)")
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert text(browser, "#rows tr:first-child th").startswith("1 class ")


def test_cells_of_several_patches_are_named(opened):
    browser = opened("large")
    assert "57 \N{MULTIPLICATION SIGN} 57 patches, shown in cells of 2 \N{MULTIPLICATION SIGN} 2" in text(browser, "#grid")
    browser.hover(FRAME, 0.99, 0.99)
    assert text(browser, "#patch-title") == "The cell in row 28, column 28 reads"
    choose(browser, "stages", "stage2")
    assert "29 \N{MULTIPLICATION SIGN} 29 patches, 5 clusters" in text(browser, "#grid")


def test_the_keyboard_reaches_everything(opened):
    browser = opened()
    browser.value(f"document.querySelector('{FRAME}').focus()")
    cell = browser.value("chosen.cell")
    for key, step in (("ArrowRight", 1), ("ArrowDown", 16), ("ArrowLeft", -1), ("ArrowUp", -16)):
        browser.press(key)
        cell += step
        assert browser.value("chosen.cell") == cell
        assert f"row {cell // 16}, column {cell % 16} reads" in text(browser, "#status")
    for _ in range(20):
        browser.press("ArrowUp")
    assert browser.value("chosen.cell") == cell % 16
    browser.press("Tab")
    assert browser.value("document.activeElement.parentElement.parentElement.id") == "bars"
    browser.value("document.querySelector('#tiles input:checked').focus()")
    start = browser.value("chosen.cluster")
    browser.press("ArrowRight")
    assert browser.value("chosen.cluster") == (start + 1) % 6
    assert text(browser, "#status").startswith(f"Cluster {(start + 1) % 6}.")
    browser.value("document.querySelector('#tiles input').focus(); chooseCluster(0)")
    per_row = browser.value(
        "[...document.querySelectorAll('#tiles label')].filter((l, _, all) => l.offsetTop === all[0].offsetTop).length"
    )
    browser.press("ArrowDown")
    assert browser.value("chosen.cluster") == per_row < 6
    browser.value("document.querySelector('#blocks input:checked').focus()")
    browser.press("ArrowRight")
    browser.wait_for("chosen.block === 'stage1/block1'")
    assert browser.value("document.activeElement.value") == "stage1/block1"
    browser.value("document.querySelector('#stages input:checked').focus()")
    browser.press("ArrowRight")
    browser.wait_for("chosen.block === 'stage2/block0'")
    browser.value("document.querySelector('#off').focus()")
    browser.press("Enter")
    assert browser.value("chosen.off")
    assert "Without cluster" in text(browser, "#status")


def test_touch_on_a_phone(opened):
    browser = opened(**PHONE)
    assert browser.value("document.documentElement.scrollWidth") == 390
    browser.tap(FRAME, 0.99, 0.01)
    assert text(browser, "#patch-title") == "The patch in row 0, column 15 reads"
    browser.tap("#tiles label:nth-child(4) .tile")
    assert text(browser, "#first figcaption b") == "What cluster 3 gathers"
    browser.tap("#off")
    changed = data_of()["pictures"][0]["without"]["stage1/block0"][3]["values"]
    np.testing.assert_allclose(answers(browser), changed, atol=0.006)
    smallest = browser.value(
        "Math.min(...[...document.querySelectorAll('.options span, li:not([hidden]) button, #off, #tiles label')]"
        ".map(e => e.getBoundingClientRect().height))"
    )
    assert smallest >= 34


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_nothing_moves_when_something_is_chosen(opened, kind, options):
    browser = opened(kind, **options)
    places = (
        "scrollTo(0, 0), [...document.querySelectorAll('section, figure, table, button, #tiles label')]"
        ".map(e => [e.offsetTop, e.offsetLeft, e.offsetHeight])"
    )
    before = browser.value(places)
    point = browser.tap if options else browser.click
    for selector in (
        FRAME,
        "#tiles label:nth-child(2) .tile",
        "#off",
        "#bars li:nth-child(2) button",
        "#heads label:nth-child(2)",
    ):
        point(selector)
        assert browser.value(places) == before, selector


def test_a_notebook_shows_the_page_inside_its_own(browser, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><title>Notebook</title>{explain.Explorer(page('gray'))._repr_html_()}")
    browser.open(path)
    browser.wait_for("document.querySelector('iframe').contentDocument.querySelectorAll('#tiles label').length === 6")
    assert browser.value("document.querySelector('iframe').contentDocument.querySelector('#rows th').textContent").startswith(
        "class"
    )
    assert browser.troubles == []


def test_an_old_browser_is_told(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page("gray"))
    old = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete window.DecompressionStream")["identifier"]
    browser.open(path)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=old)
    assert text(browser, "#grid") == "This page needs a browser of 2023 or later."
    assert browser.troubles == []


def test_light_and_dark(opened):
    def colors(scheme):
        browser = opened(scheme=scheme)
        found = browser.value("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        return [sum(map(int, each[4:-1].split(", "))) for each in found]

    paper, ink = colors("light")
    assert paper > 700 > 150 > ink
    paper, ink = colors("dark")
    assert paper < 150 < 600 < ink


def test_everything_has_a_name_for_screen_readers(opened):
    browser = opened()
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"image", "img", "radio", "button", "application", "radiogroup", "group", "table", "figure"}
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node["ignored"]]
    unnamed = [role for role, name in named if role in roles - {"table", "figure"} and not name]
    assert unnamed == []
    assert {"radio", "button", "application"} <= {role for role, _ in named}
    assert ("radio", "Cluster 5") in named
