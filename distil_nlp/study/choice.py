"""Sentences of a study's page: what to choose, what is noise, and how many labels distilling is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distil_nlp.reporting.formatting import percent, plural
from distil_nlp.study.axes import Axis
from distil_nlp.study.cells import EQUAL_STEPS
from distil_nlp.study.plan import LABELS_KEY, SHARE_KEYS
from distil_nlp.study.statistics import equivalent_rows
from distil_nlp.study.table import best_row, p_value, row_label, rows_of_arm

_Row = Mapping[str, Any]
ROW_KEYS = (*SHARE_KEYS, "data.max_train_rows")
"""Keys by which a run has more training rows or fewer."""
_MOST_NAMES = 6


def choice_sentences(rows: Sequence[_Row], axes: Sequence[Axis] = ()) -> list[str]:
    """Return which row of a task to choose, which cannot be told from it, and which gains are noise.

    Where the number of training rows is varied there is nothing to choose.
    """
    best, compared = best_row(rows), [row for row in rows if row["gain"]]
    if best is None:
        return []
    noise = sum(row["gain"]["low"] <= 0 <= row["gain"]["high"] for row in compared)
    last = f"Within the noise of {best['compared_with']}: {noise} of {len(compared)}."
    if any(axis.name in ROW_KEYS for axis in axes):
        return [last]
    alike = [row for row in rows if (over := row.get("best_over")) and over["low"] <= 0]
    unknown = [row for row in rows if row is not best and not row.get("best_over")]
    told, gain = [f"Best by its mean score: {row_label(best)}."], best["gain"]
    if (corrected := gain.get("p_holm")) is not None and len(compared) > 1:
        told.append(f"Corrected for {len(compared)} comparisons its p is {p_value(corrected)}.")
    if alike:
        told.append(f"Not told apart from it: {_names(alike)}.")
        told += _cheapest([best, *alike])
    if unknown:
        told.append(f"Not compared with it, of other rows or without outputs: {_names(unknown)}.")
    return [*told, last]


def _names(rows: Sequence[_Row]) -> str:
    """Return the names of rows, which may have commas in them."""
    more = f"; and {len(rows) - _MOST_NAMES} more" if len(rows) > _MOST_NAMES else ""
    return "; ".join(map(row_label, rows[:_MOST_NAMES])) + more


def _cheapest(rows: Sequence[_Row]) -> list[str]:
    """Return which of the best, the first, and its equals took least; nothing where that is the best itself."""
    known = [row for row in rows if row.get("flops")]
    if rows[0] not in known:
        return []
    cheapest = min(known, key=lambda row: row["flops"])
    if cheapest is rows[0]:
        return []
    share = cheapest["flops"] / rows[0]["flops"]
    return [f"The cheapest of these is {row_label(cheapest)}, at {percent(share, 0)} of its operations."]


def worth_sentences(rows: Sequence[_Row], axes: Sequence[Axis]) -> list[str]:
    """Return how many labels a distilled student of fewer rows is worth, where the rows of training are varied."""
    if len(axes) != 1 or axes[0].name not in ROW_KEYS:
        return []
    baseline, told = rows[0]["compared_with"], []
    counted = "label" if axes[0].name == LABELS_KEY else "row"
    for row in sorted(rows, key=lambda one: (one["method"], one["training_rows"])):
        if row["method"].removesuffix(EQUAL_STEPS) == baseline:
            continue
        against = baseline + EQUAL_STEPS * row["method"].endswith(EQUAL_STEPS)
        curve = sorted((one["training_rows"], one["median"]) for one in rows_of_arm(rows, against))
        if len(curve) > 1:
            worth = equivalent_rows(row["median"], *zip(*curve, strict=True))
            as_much = f"more than all {curve[-1][0]:,}" if worth is None else f"about {worth:,.0f}"
            as_much = f"at most {curve[0][0]:,}" if row["median"] <= curve[0][1] else as_much
            own = plural(row["training_rows"], counted)
            told.append(f"{row['method']} with {own} is worth {as_much} with {against}.")
    noise = f"Read off the medians of {baseline}; where the gain is within the noise, so is that number."
    return [*told, noise] if told else []
