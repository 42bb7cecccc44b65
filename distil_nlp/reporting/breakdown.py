"""Tables of where teacher and student differ: classes, lengths of text, and single rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distil_nlp.reporting.formatting import count, decimal, percent, plural, points
from distil_nlp.reporting.scores import teacher_word
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults
from distil_nlp.results.predictions import read_predictions

MOST_CLASSES_LISTED = 20
"""Classes of a table; of more, those whose F1 differs most."""
MOST_ROWS = 10
"""Rows of a table of single rows."""
_LONGEST_TEXT = 240
"""Characters of a text that are shown."""
_TEXTS = ("text", "text_pair")


def classes_table(run: RunResults) -> Table | None:
    """Return precision, recall and F1 of teacher and student by class."""
    classes = run.get("breakdown.classes") or []
    shown = sorted(classes, key=_change_of_f1, reverse=True)[:MOST_CLASSES_LISTED]
    shown = [one for one in classes if one in shown]  # in the order of the classes
    word = teacher_word(run)
    scores = (f"{word}: precision", "recall", "F1", "student: precision", "recall", "F1", "change of F1")
    head = (*run.kind.class_columns, *scores)
    note = f"Change: student minus {word}, in points of 0.01."
    if len(shown) < len(classes):
        note += f" The {MOST_CLASSES_LISTED} of {len(classes)} classes whose F1 changed most."
    return make_table("By class", head, [_class_cells(one) for one in shown], note)


def _change_of_f1(one: dict[str, Any]) -> float:
    return abs(one["student"]["f1"] - one["teacher"]["f1"])


def _class_cells(one: dict[str, Any]) -> tuple[str, ...]:
    scores = [decimal(one[role][name]) for role in ("teacher", "student") for name in ("precision", "recall", "f1")]
    change = points(one["student"]["f1"] - one["teacher"]["f1"], "+")
    return (one["name"], count(one["rows"]), *scores, change)


def lengths_table(run: RunResults) -> Table | None:
    """Return the mean error of teacher and student for short and long texts."""
    is_fraction = run.kind.is_right_or_wrong
    write = percent if is_fraction else decimal
    rows = [
        (_range(part["shortest"], part["longest"]), count(part["rows"]), write(part["teacher"]), write(part["student"]))
        for part in run.get("breakdown.lengths") or []
    ]
    error = "wrong" if is_fraction else "mean error"
    name = f"{run.kind.row_name[0].upper()}{run.kind.row_name[1:]}"
    note = f"{f'{name}s that are wrong' if is_fraction else f'Mean {run.kind.row_error}'}, by the length of the text."
    return make_table("By length", ("tokens", "rows", f"{teacher_word(run)}, {error}", f"student, {error}"), rows, note)


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def changes_sentences(run: RunResults) -> list[str]:
    """Return how many rows only the teacher, or only the student, has right."""
    counts = [run.get(f"breakdown.changes.{name}") for name in ("lost", "won", "both_right", "both_wrong")]
    if None in counts:
        return []
    (lost, won, right, wrong), word = map(count, counts), teacher_word(run)
    return [
        f"Of {plural(sum(counts), 'row')} the student has {lost} wrong that the {word} has right, and {won} right "
        f"that the {word} has wrong; both have {right} right and {wrong} wrong."
    ]


def row_tables(run: RunResults) -> list[Table | None]:
    """Return the rows that the student lost, and those that it won, of the first evaluation split; [] without a file.

    They have texts of the data, so they are for `report.html` alone.
    """
    rows = read_predictions(run.folder)
    if rows is None or not {"split", "row", "teacher_error", "student_error"} <= {*rows.column_names} or not len(rows):
        return []
    rows = rows.filter(pc.equal(rows["split"], rows["split"][0]))
    rows = rows.append_column("change", pc.subtract(rows["student_error"], rows["teacher_error"]))
    return [_row_table(run, rows, is_lost=True), _row_table(run, rows, is_lost=False)]


def _row_table(run: RunResults, rows: pa.Table, is_lost: bool) -> Table | None:
    """Return the rows whose error grew most, or shrank most; of equal ones, where the student is surest."""
    is_changed = pc.greater(rows["change"], 0) if is_lost else pc.less(rows["change"], 0)
    order = [("change", "descending" if is_lost else "ascending")]
    order += [("student_probability", "descending")] if "student_probability" in rows.column_names else []
    first = rows.filter(is_changed).sort_by([*order, ("row", "ascending")]).slice(0, MOST_ROWS).to_pylist()
    texts = [name for name in _TEXTS if name in rows.column_names]
    head = ("row", *(name.replace("_", " ") for name in texts), "label", teacher_word(run), "student")
    cells = [
        (
            str(row["row"]),
            *(_cut(row[name]) for name in texts),
            *(_prediction(row, of) for of in ("label", "teacher", "student")),
        )
        for row in first
    ]
    return make_table(_caption(run, is_lost), head, cells, is_private=True)


def _caption(run: RunResults, is_lost: bool) -> str:
    word = teacher_word(run)
    if run.kind.is_right_or_wrong:
        return (
            f"Lost: the {word} is right, the student wrong"
            if is_lost
            else f"Won: the student is right, the {word} wrong"
        )
    return f"The student is {'farther off' if is_lost else 'closer'} than the {word}"


def _prediction(row: dict[str, Any], of: str) -> str:
    """Return a label or a prediction, with its probability if there is one."""
    value, probability = row[of], row.get(f"{of}_probability")
    text = decimal(value) if isinstance(value, float) else _named(value)
    return text if probability is None else f"{text} ({percent(probability, 0)})"


def _named(value: Any) -> str:
    """Return a class, or the classes of a row that may have several."""
    if isinstance(value, list):
        return ", ".join("–" if one is None else str(one) for one in value) or "none"
    return "–" if value is None else _cut(str(value)) or "none"


def _cut(text: str | list[str] | None) -> str:
    """Return a text, or a list of words, on one line, or its beginning."""
    line = " ".join((text if isinstance(text, str) else " ".join(map(str, text or ()))).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"
