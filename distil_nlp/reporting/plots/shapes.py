"""The plot of the search for a shape under a budget: what each candidate costs, and what it loses of the teacher."""

from __future__ import annotations

from matplotlib.ticker import EngFormatter

from distil_nlp.reporting.plots.style import MUTED, SERIES, STUDENT_COLOUR, Picture, canvas, picture
from distil_nlp.results import RunResults

_LABELS = {
    "ms": "median forward, ms",
    "parameters": "parameters",
    "operations": "operations of a forward",
    "MB": "weights, MB",
}


def shapes_figure(run: RunResults) -> Picture | None:
    """Return importance lost over cost of the candidates, the chosen one marked; None without a search."""
    search = run.get("student.initialisation.pruning.search")
    if not search:
        return None
    candidates, chosen, limit = search["candidates"], search["chosen"], search["budget"]["limit"]
    groups = {
        "candidates": ([one for one in candidates if not one["distances"]], MUTED, "o"),
        "trained for a while": ([one for one in candidates if one["distances"] and one != chosen], SERIES[2], "D"),
        "chosen": ([chosen], STUDENT_COLOUR, "s"),
    }
    figure = canvas("Shapes that fit the budget", 260)
    axes = figure.subplots()
    for name, (shapes, colour, marker) in groups.items():
        points = [(one["cost"], one["lost"]) for one in shapes]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, label=name, linestyle="none")
    axes.axvline(limit, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="budget")
    axes.set_xlabel(_LABELS[search["budget"]["unit"]])
    axes.set_ylabel("importance lost")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(loc="outside lower left", ncols=2, borderaxespad=0.2)
    shape = f"{chosen['layers']} layers of {chosen['heads']} heads and {chosen['units']:,} units"
    said = f"Importance lost over cost of {len(candidates)} shapes; chosen: {shape}."
    note = "Importance of the teacher's parts that a shape lacks, as if they did not depend on each other."
    return picture(figure, "shapes", said, note)
