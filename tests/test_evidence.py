"""Tables of runs in the docs are those of the results that the repository keeps."""

import json

import pytest

from distil_nlp.study.table import method_costs, method_table
from tests.helpers.evidence_tables import DOCS, EVIDENCE, pages, with_tables

KINDS = sorted(folder.name for folder in (EVIDENCE / "kinds").iterdir())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_tables_are_of_the_results(page):
    """Prevents figures that no run has given: `make evidence` writes the tables."""
    text = page.read_text()
    assert with_tables(text) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kept_run_is_shown(kind):
    """Prevents results that are kept and told to nobody, such as of runs that did not go well."""
    assert f"<!-- run: kinds/{kind} -->" in (DOCS / "results.md").read_text()


def test_the_table_of_schemes_is_of_its_study():
    """Prevents figures that no run has given, beside names that tell more than the study's."""
    rows = json.loads((EVIDENCE / "schemes" / "study.json").read_text())
    expected = {
        _words(*scores[1:4], scores[4].removesuffix(", within noise"), costs[7])
        for scores, costs in zip(method_table(rows)[1:], method_costs(rows)[1:], strict=True)
    }
    page = (DOCS / "schemes.md").read_text().partition("## Which pay")[2].partition("\n## ")[0]
    lines = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    assert {_words(*line[2:7]) for line in lines[1:]} == expected


def _words(*cells):
    """Return cells with plain spaces."""
    return tuple(" ".join(cell.split()) for cell in cells)
