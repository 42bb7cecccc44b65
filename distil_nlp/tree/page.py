"""`tree.html`: the drawn tree, the words of its nodes, and the ways of some texts, in one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import percent, plural
from distil_nlp.reporting.plots.style import SERIES
from distil_nlp.reporting.report.html import page_script, page_template
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.tree.drawing import bar_segments, branch_words, draw_tree
from distil_nlp.tree.examples import Route
from distil_nlp.tree.inputs import TFIDF
from distil_nlp.tree.nodes import DescribedTree, NodeWord
from distil_nlp.tree.table import table_note, tree_table, tree_verdict
from distil_nlp.utils.files import write_atomically

_SCRIPT = Path(__file__).parent / "templates" / "tree.js"
_LISTED_WORDS, _LONGEST = 6, 70


def write_tree_page(
    name: str, results: Mapping[str, Any], tree: DescribedTree, routes: Sequence[Route], folder: Path
) -> Path:
    """Write the page and return its path.

    Args:
        name: of the run or the recipe.
        results: the content of `results.json`.
        tree: the tree that is drawn.
        routes: ways of evaluation rows; none where texts may not be shown.
        folder: written to.
    """
    labels = results["labels"]
    head, *cells = tree_table(results)
    html = page_template("tree.html.j2", package="distil_nlp.tree").render(
        name=name,
        subject=_subject(results),
        lead=tree_verdict(results),
        quality=make_table("Quality", head, cells, table_note()),
        drawing=draw_tree(tree, labels),
        nodes=_nodes_table(tree),
        classes=[(label, _colour(number)) for number, label in enumerate(labels)],
        colour=_colour,
        bar=lambda distribution: bar_segments(distribution, 0, 100),
        labels=labels,
        routes=routes,
        option=lambda route: _option(route, labels),
        goes_with=lambda step: _listed(branch_words(tree.nodes[step.node], step.is_right)),
        has_words=results["input"] == TFIDF,
        words_note=_words_note(results),
        **page_script(_SCRIPT),
    )
    write_atomically(folder / "tree.html", html)
    return folder / "tree.html"


def _subject(results: Mapping[str, Any]) -> str:
    settings, rows = results["settings"], results["rows"]
    split = next(name for name in rows if name not in ("train", "labelled"))
    how = "TF-IDF of the texts" if results["input"] == TFIDF else "the teacher’s pooled state"
    return " · ".join(
        [
            f"teacher {results['teacher']}",
            f"task {results['task']}",
            f"input {how} ({plural(results['features'], 'feature')})",
            f"depth {settings['depth']}",
            f"{plural(rows['train'], 'training row')}",
            f"scored on {split} ({plural(rows[split], 'row')})",
        ]
    )


def _words_note(results: Mapping[str, Any]) -> str:
    if results["input"] == TFIDF:
        return (
            "Words of a branch are those that move the decision most towards it: |weight| × standard deviation of the "
            "word’s TF-IDF over the training rows that arrive."
        )
    return (
        "The decisions are taken on the teacher’s pooled state, whose numbers have no names. Words of a branch are "
        "those that go with it: the largest covariance of TF-IDF with the branch’s probability, over the training rows "
        "that arrive. The tree does not read them."
    )


def _colour(number: int) -> str:
    """Return the colour of a class; those after the sixth share the muted one."""
    return f"var(--series-{number})" if number < len(SERIES) else "var(--muted)"


def _nodes_table(tree: DescribedTree) -> Table | None:
    """Return the inner nodes that are on some training row's way."""
    rows = [
        (
            str(node.node),
            str(node.depth),
            percent(node.share, 0),
            percent(node.right, 0),
            _listed(node.left_words),
            _listed(node.right_words),
        )
        for node in tree.nodes
        if node.share > 0
    ]
    note = (
        "Rows: training rows whose likeliest way comes by. Down: mean probability of the lower branch. Node 0 is the "
        "root; behind node i, 2i + 1 is above and 2i + 2 below."
    )
    return make_table("All nodes", ("node", "depth", "rows", "down", "words ↗ up", "words ↘ down"), rows, note)


def _listed(words: Sequence[NodeWord]) -> str:
    return ", ".join(word.word for word in words[:_LISTED_WORDS])


def _option(route: Route, labels: Sequence[str]) -> str:
    """Return the line by which a text is chosen."""
    text = " / ".join(" ".join(text.split()) for text in route.texts)
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    agrees = "=" if route.predicted == route.teacher_predicted else "≠"
    return f"{labels[route.predicted]} {agrees} teacher’s {labels[route.teacher_predicted]}: {cut}"
