"""A plot of how much each teacher of an ensemble counts in the rows."""

from __future__ import annotations

import numpy as np

from distil_nlp.reporting.formatting import percent
from distil_nlp.reporting.plots.style import SERIES, Picture, canvas, picture, shorten
from distil_nlp.reporting.teachers import labelled_members
from distil_nlp.results import RunResults


def row_weights_figure(run: RunResults) -> Picture | None:
    """Return a histogram of each teacher's weight in the rows; None where all rows have the same."""
    found = [(label, one["row_weights"]) for label, one in labelled_members(run) if one.get("row_weights")]
    if not found or (run.get("recipe.teacher.weighting") or "fixed") == "fixed":
        return None
    figure = canvas("Weights of the teachers", 200)
    axes = figure.subplots()
    for i, (label, weights) in enumerate(found):
        counts = np.array(weights["counts"])
        edges, share = np.linspace(0, 1, len(counts) + 1), 100 * counts / max(counts.sum(), 1)
        axes.stairs(share, edges, color=SERIES[i % len(SERIES)], linewidth=1.6, label=shorten(label, 30))
    axes.set_xlabel("weight of the teacher in a row")
    axes.set_ylabel("rows, %")
    axes.legend(frameon=False)
    means = "; ".join(f"{label} {percent(weights['mean'])}" for label, weights in found)
    note = "Rows of the first evaluation split, as a step of training would weigh them."
    return picture(figure, "teacher-weights", f"Mean weight of each teacher in a row: {means}.", note)
