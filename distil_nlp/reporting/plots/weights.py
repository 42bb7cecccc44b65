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
        width = 0.9 / len(counts) / len(found)
        left = np.arange(len(counts)) / len(counts) + 0.05 / len(counts) + i * width
        share, colour = 100 * counts / max(counts.sum(), 1), SERIES[i % len(SERIES)]
        axes.bar(left, share, width, align="edge", color=colour, label=shorten(label, 30))
    axes.set_xlim(0, 1)
    axes.grid(False, axis="x")
    axes.set_xlabel("weight of the teacher in a row")
    axes.set_ylabel("rows, %")
    axes.legend(frameon=False)
    means = "; ".join(f"{label} {percent(weights['mean'])}" for label, weights in found)
    note = "Rows of the first evaluation split, as a step of training would weigh them."
    return picture(figure, "teacher-weights", f"Mean weight of each teacher in a row: {means}.", note)
