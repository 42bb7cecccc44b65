"""Tables of runs in the docs: `python -m tests.helpers.evidence_tables` writes them from docs/evidence."""

import re
from pathlib import Path

from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.markdown import markdown_table
from distil_nlp.reporting.tables import quality_table
from distil_nlp.results import RunResults, read_runs
from tests.helpers import ROOT

DOCS = ROOT / "docs"
EVIDENCE = DOCS / "evidence"
_BLOCK = re.compile(r"(<!-- run: (\S+) -->\n).*?(<!-- /run -->\n)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that have tables of runs."""
    return [page for page in sorted(DOCS.glob("*.md")) if _BLOCK.search(page.read_text())]


def with_tables(page: str) -> str:
    """Return a page whose blocks `<!-- run: FOLDER -->` have the table of that run's results."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_table(block[2])}\n\n{block[3]}", page)


def _table(folder: str) -> str:
    """Return the table that the run's own report has, the student's line in bold, and where the run took place."""
    (run,) = read_runs([EVIDENCE / folder])
    table = quality_table(run)
    assert table is not None, folder
    return f"{markdown_table([table.head, *map(_marked, table.rows)])}\n\n{_origin(run)}"


def _marked(row: tuple[str, ...]) -> tuple[str, ...]:
    name, score, *rest = row
    return (f"**{name}**", f"**{score}**", *rest) if name == "student" else row


def _origin(run: RunResults) -> str:
    rows, environment = run.get("rows"), run.get("environment")
    scored = sum(rows["evaluation"].values())
    versions = [f"{name} {environment['versions'][name]}" for name in ("torch", "transformers")]
    return (
        f"{rows['train']:,} training rows, {scored:,} scored; {environment['device']}, "
        f"{plural(environment['threads'], 'thread')}; {', '.join(versions)}; commit {environment['commit'][:7]}."
    )


if __name__ == "__main__":
    for path in pages():
        path.write_text(with_tables(path.read_text()))
