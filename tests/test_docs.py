"""Paths, tests, links and module names in the documentation exist."""

import ast
import re
from pkgutil import resolve_name

import pytest

from tests.helpers import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.S)


def page_name(page):
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


@every_page
def test_paths_of_the_repository_exist(page):
    """Prevents a page that sends readers to a file that was moved or renamed. A pattern needs one match."""
    for path in re.findall(
        r"(?<![\w./~-])(?:tests|distil_nlp|recipes|scripts|docs|examples)/[\w./*-]*", page.read_text()
    ):
        path = path.rstrip(".")
        assert list(ROOT.glob(path)) if "*" in path else (ROOT / path).exists(), path


@every_page
def test_tests_that_are_named_exist(page):
    """Prevents a promise whose test was renamed or deleted. `::test_x` is in the file named before it."""
    names = []
    for code in CODE.findall(page.read_text().replace("test_share", "share")):  # a key of recipes
        for file, test in re.findall(r"((?:\w+/)*test_\w+)?(?![\w*])(?:\.py)?(?:::(test_\w+))?", code):
            names += [(file, test)] if file or test else []
    path = None
    for file, test in names:
        path = ROOT / "tests" / f"{file.removeprefix('tests/')}.py" if file else path
        assert path is not None, f"::{test} has no file before it"
        assert path.is_file(), file
        assert not test or test in functions(path), f"{path.name}::{test}"


def functions(path):
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@every_page
def test_links_within_the_repository_resolve(page):
    """Prevents a link to a file or a heading that is gone."""
    text = CODE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not heading or heading in headings(linked), target


def headings(page):
    """Return the anchors that GitHub gives a page's headings."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@every_page
def test_modules_and_names_that_are_named_can_be_imported(page):
    """Prevents a page that names a module, class or function by its old name."""
    for name in re.findall(r"(?<![\w./-])distil_nlp(?:\.\w+)+", page.read_text()):
        resolve_name(name)
