"""Tables of runs in the docs are those of the results that the repository keeps."""

import pytest

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
