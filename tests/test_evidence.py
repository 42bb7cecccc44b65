"""Tables of runs in the docs are those of the results that the repository keeps."""

import json

import pytest

from distil_nlp.reporting.tables import quality_table
from distil_nlp.results import read_runs
from distil_nlp.study.table import method_costs, method_table
from tests.helpers.evidence_tables import DOCS, EVIDENCE, pages, with_tables

README = DOCS.parent / "README.md"
ROLES = ("teacher", "student", "labels only", "initialised student")  # columns of its table, before the guess
KINDS = sorted(folder.name for folder in (EVIDENCE / "kinds").iterdir())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_tables_are_of_the_results(page):
    """Prevents figures that no run has given: `make evidence` writes the tables."""
    text = page.read_text()
    assert with_tables(text) == text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kept_run_is_shown(kind):
    """Prevents results that are kept and told to nobody, such as of runs that did not go well."""
    page = (DOCS / "results.md").read_text()
    assert any(f"<!-- {block}: kinds/{kind} -->" in page for block in ("run", "tasks"))


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("quickstart", "quickstart"),
        ("sentence embeddings on STS-B", "kinds/embedding"),
        ("the same by one encoder", "kinds/multitask/stsb"),
        ("entities in messages", "kinds/tokens"),
        ("reranking", "kinds/ranking"),
        ("answers in a text", "kinds/qa"),
        ("several labels a text", "kinds/multilabel"),
        ("base size on SST-2", "kinds/base-sst2"),
    ],
)
def test_the_first_page_tells_what_runs_gave(line, folder):
    """Prevents a README of an older run than the results, or of none."""
    (run,) = read_runs([EVIDENCE / folder])
    scores = {row[0]: row[1] for row in quality_table(run).rows}
    others = scores.keys() - {*ROLES, "plain distillation"}
    shown = [scores.get(name, "") for name in (*ROLES, *others)]
    shown += [""] * (len(ROLES) + 1 - len(shown))
    gains = {row[0]: row[-1].removesuffix(", within noise") for row in quality_table(run).rows}
    shown.append(gains.get("labels only", ""))
    (text,) = [text for text in README.read_text().splitlines() if text.startswith(f"| {line}")]
    assert [cell.strip(" *") for cell in text.split("|")[2:-1]] == shown


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
