"""The site of the documentation: every warning is an error, broken links and anchors among them."""

import importlib.util
import re
import subprocess
import sys

import pytest

import distil_nlp
from tests.helpers import ROOT

INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.integration
@pytest.mark.skipif(not importlib.util.find_spec("furo"), reason="needs the packages of the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    """Prevents a broken link or anchor, a page that no list has, and a docstring that is no text."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "trees"]
    done = subprocess.run([*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert all(f'id="distil_nlp.{name}"' in page for name in distil_nlp.__all__)


def test_every_public_name_is_on_the_api_page():
    """Prevents a loss that can be imported and is documented nowhere."""
    named = set(re.findall(r"auto\w+:: distil_nlp\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.M))
    assert named == set(distil_nlp.__all__)


def test_every_page_is_in_a_list():
    """Prevents a page that no reader of the site finds; add it to a list of docs/index.md."""
    listed = set(re.findall(r"^[a-z_]+$", "".join(re.findall(r"```{toctree}\n(.*?)```", INDEX, re.S)), re.M))
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed, pages - listed
