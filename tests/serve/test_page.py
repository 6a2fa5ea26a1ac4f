"""The page of the server in a browser, on a phone and a computer, with and without JavaScript."""

import json

import pytest

from tests.explain.browser import CHROMIUM
from tests.serve.running import picture

pytestmark = [
    pytest.mark.xdist_group("servers"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
]

SIZES = {"phone": {"width": 390, "height": 844, "touch": True}, "computer": {"width": 1440, "height": 900}}


@pytest.fixture
def opened(servers, browser, tmp_path):
    """A function that opens the page of a server and chooses a picture; nothing may be loaded from elsewhere, or blocked."""

    def open_page(kind="classifier", script=True, **options):
        browser.call("Emulation.setScriptExecutionDisabled", value=not script)
        address = f"http://127.0.0.1:{servers[kind].port}/"
        browser.open(address, **options)
        (tmp_path / "photo.png").write_bytes(picture())
        browser.choose_file("#picture", tmp_path / "photo.png")
        return browser

    yield open_page
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.troubles == []
    assert [each for each in browser.addresses if not each.startswith(("http://127.0.0.1:", "data:"))] == []


def names(browser, selector):
    """Returns the names by which a screen reader knows the elements."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    found = browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
    trees = [browser.call("Accessibility.getPartialAXTree", nodeId=node, fetchRelatives=False)["nodes"] for node in found]
    return [tree[0]["name"]["value"] for tree in trees]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_the_page_fits_and_names_its_controls(opened, size):
    browser = opened("segmentor", **size)
    assert browser.value("document.documentElement.scrollWidth") <= size["width"]
    assert names(browser, "input, button") == [
        "Picture",
        "Explore the clusters",
        "Predict, as JSON",
        "Mask, as PNG",
    ]
    sides = browser.value("[...document.querySelectorAll('input, button')].map(e => e.getBoundingClientRect().height)")
    assert min(sides) >= 44  # pixels, of a finger


@pytest.mark.parametrize("script", [True, False], ids=["with scripts", "without scripts"])
def test_the_form_works(opened, servers, script):
    browser = opened(script=script)
    browser.click('[formaction="predict"]')
    browser.wait_for_page()
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    shown = json.loads(browser.value("document.body.innerText"))
    assert shown == servers["classifier"].post("/predict", picture()).json


def test_the_explorer_of_an_upload_works(opened):
    browser = opened()
    browser.click('[formaction="explore"]')
    browser.wait_for_page()
    browser.wait_for("maps !== null && element('status').textContent !== ''")
    assert browser.value("JSON.parse(document.getElementById('data').textContent).pictures.length") == 1
