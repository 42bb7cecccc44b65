"""The report in a browser: every picture shows, nothing sticks out, nothing is fetched. Skipped without chromium."""

import base64
import importlib.util
import json
import os
import re
import shutil

import pytest

from distil_nlp.reporting.report import write_report
from distil_nlp.results.predictions import write_predictions
from tests.helpers.showcase import PREDICTIONS, example

WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A chromium without a window, that keeps a log of the console and the network."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver and importlib.util.find_spec("selenium")):
        wanted = "chromium, chromedriver and selenium"
        if os.environ.get("CI"):
            pytest.fail(f"expected {wanted} / got not all of them / CI must not skip what people look at")
        pytest.skip(f"needs {wanted}")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
        "disable-component-update", "disable-sync", "no-first-run", f"user-data-dir={tmp_path_factory.mktemp('user')}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run's report, one with long names and many classes, and a comparison of both."""
    folder = tmp_path_factory.mktemp("runs")
    names = [f"a_rather_long_name_of_class_{i}" for i in range(12)]
    counts = [[100 * (i == j) + i for j in range(12)] for i in range(12)]
    fidelity = example()["fidelity"] | {"confusion": {"teacher": counts, "student": counts}}
    fidelity["cka"] = {"teacher_layers": ["embeddings", *range(24)], "student_layers": ["embeddings", *range(12)],
                       "values": [[0.5] * 25] * 13}  # fmt: skip
    runs = {"plain": example(), "a-run-with-" + "long_" * 12 + "name": example(labels=names, fidelity=fidelity)}
    for name, results in runs.items():
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(json.dumps(results))
        write_predictions(folder / name, PREDICTIONS)
    folders = [folder / name for name in runs]
    return [*(write_report([one]) for one in folders), write_report(folders)]


def show(browser, page, width, scheme="light"):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    browser.get(page.as_uri())
    WebDriverWait(browser, timeout=60).until(lambda it: it.current_url == page.as_uri() and it.execute_script(WHOLE))


WHOLE = "return document.readyState === 'complete'"
"""Whether a page is there to its end: on a busy machine `get` may return while it is still being read."""

PICTURES = """
return [...document.querySelectorAll("svg, img")].map(picture => {
  const box = picture.getBoundingClientRect();
  const drawn = picture.querySelectorAll("path, use").length;
  const out = [...picture.querySelectorAll("text")].filter(text => {
    const at = text.getBoundingClientRect();
    return at.left < box.left - 2 || at.right > box.right + 2 || at.top < box.top - 2 || at.bottom > box.bottom + 2;
  }).map(text => text.textContent);
  const visible = picture.checkVisibility({opacityProperty: true, visibilityProperty: true});
  return {name: picture.getAttribute("aria-label"), width: box.width, height: box.height, drawn, out, visible};
});
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_shows(browser, pages, width):
    """Prevents pictures that are empty, of no size, or with labels cut off."""
    for page, number in zip(pages, (7, 7, 2), strict=True):
        show(browser, page, width)
        pictures = browser.execute_script(PICTURES)
        assert len(pictures) == number
        for picture in pictures:
            assert picture["visible"], picture
            assert picture["width"] > 200, picture
            assert picture["height"] > 60, picture
            assert picture["drawn"] > 5, picture
            assert not picture["out"], picture


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_of_the_page(browser, pages, width):
    """Prevents a page that scrolls sideways on a phone."""
    for page in pages:
        show(browser, page, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, page


BRIGHTNESS = """
const bright = colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, one) => sum + Number(one), 0) / 3;
const page = getComputedStyle(document.body);
const texts = [...document.querySelectorAll("svg text")].map(text => getComputedStyle(text).fill);
const onCells = "rgb(255, 255, 255)";  // on strong cells of a matrix, the same on both backgrounds
return [bright(page.backgroundColor), [page.color, ...texts].filter(fill => fill != onCells).map(bright)];
"""


def test_light_and_dark(browser, pages):
    """Prevents black text on black, in the text and in the pictures."""
    show(browser, pages[0], 1280, "light")
    paper, texts = browser.execute_script(BRIGHTNESS)
    assert paper > 240
    assert max(texts) < 130
    show(browser, pages[0], 1280, "dark")
    paper, texts = browser.execute_script(BRIGHTNESS)
    assert paper < 40
    assert min(texts) > 130
    assert len(texts) > 100


def test_nothing_is_fetched_and_nothing_complains(browser, pages):
    """Prevents a page that calls home, or works only online."""
    browser.get_log("performance"), browser.get_log("browser")
    for page in pages:
        show(browser, page, 1280)
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert sent == [page.as_uri()]
        assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_and_code_are_whole(browser, pages, width):
    """Prevents the last column of a table, and the end of a command, from hiding behind a scroll bar."""
    cut = """return [...document.querySelectorAll(".scroll:has(table), pre")]
        .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.textContent.slice(0, 60))"""
    for page in pages[:2]:
        show(browser, page, width)
        assert browser.execute_script(cut) == []


def test_code_is_copied_by_a_button(browser, pages):
    """Prevents a button that copies its own word, nothing, or one that the page's policy blocks."""
    show(browser, pages[0], 1280)
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    browser.execute_cdp_cmd("Page.bringToFront", {})
    codes = browser.execute_script("return [...document.querySelectorAll('pre code')].map(code => code.textContent)")
    buttons = browser.find_elements("css selector", "section:not(:has(details)) pre button")
    assert len(buttons) == len(codes) - 1  # the recipe is folded
    buttons[0].click()
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert browser.execute_async_script(read) == codes[0].rstrip()
    assert buttons[0].text == "Copied"
    assert buttons[1].text == "Copy"


def test_the_width_of_a_desk_is_used(browser, pages):
    """Prevents confusion matrices one above the other beside a hole, and tables over half of the page."""
    for page in pages[:2]:
        _check_matrices(browser, page)


def _check_matrices(browser, page):
    show(browser, page, 1280)
    box = "return document.querySelector(`svg[aria-label*='{}']`).getBoundingClientRect().toJSON()"
    left, right = (browser.execute_script(box.format(role)) for role in ("teacher correct", "student correct"))
    assert left["top"] == right["top"]
    assert left["right"] < right["left"]
    widths = """return [...document.querySelectorAll(".wide table")]
        .map(table => table.offsetWidth / table.closest("main").offsetWidth)"""
    assert min(browser.execute_script(widths)) > 0.95


def test_the_print_has_four_pages(browser, pages):
    """Prevents a print of seven pages, half of them blank."""
    show(browser, pages[0], 1280)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"]
    assert len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(pdf))) <= 4
