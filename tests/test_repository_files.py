"""Files at the top level that others read by machine."""

import os
import shutil
import subprocess
import tomllib

import pytest
import yaml

import distil_nlp
from tests.helpers import ROOT

MAKE_IN_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # under `make test` it names its folder first
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_citation_has_the_projects_version_and_license():
    """Prevents a citation of another version than the one that was installed."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["authors"] == [{"name": "distil_nlp contributors"}]
    assert citation["version"] == project["version"] == distil_nlp.__version__
    assert citation["license"] == project["license"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_quickstart_says_first_how_long_it_takes():
    """Prevents a first command that seems to hang."""
    of_its_own = {name: value for name, value in os.environ.items() if name not in MAKE_IN_MAKE}
    first, *_ = subprocess.run(
        ["make", "-n", "quickstart"], cwd=ROOT, env=of_its_own, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "about 5 minutes on 2 idle CPU cores" in first


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_forms(path):
    """Prevents a form that GitHub drops: one without a name, description or required field, or with an id twice."""
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])
