"""The page of a tree in a browser: it fits a phone, and a chosen text shows its way. Skipped without chromium."""

import pytest

from tests.reporting.test_report_browser import BRIGHTNESS, WIDTHS, browser, show

__all__ = ["browser"]


@pytest.fixture
def page(place):
    return place.out / "tree" / "tree.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_of_the_page_of_a_tree(browser, page, width):
    """Prevents a page that scrolls sideways on a phone; the drawing scrolls in its own box."""
    show(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('.drawing .leaf rect').length") > 0


def test_a_chosen_text_shows_its_way(browser, page):
    """Prevents a script that the page's policy blocks, and a way that belongs to another text."""
    browser.get_log("browser")
    show(browser, page, 1280)
    options = browser.find_elements("css selector", "#example option")
    for number in (0, len(options) - 1):
        options[number].click()
        (way,) = [one for one in browser.find_elements("css selector", ".way") if one.is_displayed()]
        leaf = way.get_attribute("data-leaf")
        (lit,) = browser.find_elements("css selector", ".leaf.on")
        assert lit.get_attribute("data-first") == leaf
        assert len(browser.find_elements("css selector", ".branch.on")) == 2
        assert f"leaf {leaf}, reached with" in way.text
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_a_tree_in_light_and_dark(browser, page):
    """Prevents words of the tree in the colour of the paper."""
    for scheme, is_legible in (("light", lambda paper, texts: paper - max(texts) > 100),
                               ("dark", lambda paper, texts: min(texts) - paper > 100)):  # fmt: skip
        show(browser, page, 1280, scheme)
        assert is_legible(*browser.execute_script(BRIGHTNESS))
