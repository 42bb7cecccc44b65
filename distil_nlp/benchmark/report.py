"""The results of a benchmark as JSON, tables and plots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from distil_nlp.benchmark.term_costs import SOFT_TARGETS_ONLY
from distil_nlp.reporting.markdown import aligned_table, markdown_table
from distil_nlp.reporting.plots.style import (
    MUTED,
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    Picture,
    canvas,
    picture,
    shorten,
    style,
)

TableRows = list[list[str]]
_SECTIONS = {
    "mlm": "Language modelling, a step",
    "options": "Freed memory kept or given back; blocks compiled",
    "attention": "Attention maps of three layers, 512 tokens",
    "task": "A task, an epoch",
    "scaling": "Scaling of a step",
    "inference": "Inference",
}
_TERMS = "A step of a task with one further loss term beside soft_target_kl, even if the term is meant to replace it"


def write_benchmark(results: Mapping[str, Any], folder: Path) -> str:
    """Write `benchmark.json`, `benchmark.md` and the plots; return the tables for a terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    (folder / "benchmark.json").write_text(content, encoding="utf-8")
    tables = list(_tables(results))
    text = [f"{title}\n\n{markdown_table(rows)}\n" for title, rows in tables]
    (folder / "benchmark.md").write_text("\n".join(text), encoding="utf-8")
    with style():
        for plot in _plots(results):
            (folder / plot.file).write_bytes(plot.png)
    return "\n\n".join(f"{title}\n{aligned_table(rows)}" for title, rows in tables)


def _tables(results: Mapping[str, Any]) -> Iterator[tuple[str, TableRows]]:
    for part, title in _SECTIONS.items():
        if part not in results:
            continue
        for name, contenders in _comparisons(part, results[part]):
            utilisation = results[part].get("utilisation", {})
            yield f"{title}{f': {name}' if name else ''}", _contender_table(contenders, utilisation)
        if fractions := results[part].get("shares_of_time"):
            rows = [[kind, f"{fraction:.1%}"] for kind, fraction in fractions.items()]
            yield "Time of a step on masked tokens, by kind of operator", [["", "fraction"], *rows]
    if "terms" in results:
        yield _TERMS, _term_table(results["terms"])
    if "communication" in results:
        yield "Communication between processes in a step", _communication_table(results["communication"])


def _term_table(results: Mapping[str, Any]) -> TableRows:
    """Return a row for each term by ascending cost, followed by those that failed or were left out."""
    header = ["", "task", "× baseline step", "quartiles of the steps", "median, s", "peak above baseline, MiB"]
    baseline: dict[str, list[float]] = {}
    for group in results["groups"]:
        baseline.setdefault(group["task"], []).extend(group["steps"][SOFT_TARGETS_ONLY]["seconds"])
    rows = [
        [SOFT_TARGETS_ONLY, task.upper(), "1.00", "", f"{median(seconds):.3g}", ""]
        for task, seconds in baseline.items()
        if seconds
    ]
    rows += [[name, task.upper(), *_cost_cells(cost)] for task, name, cost in by_cost(results)]
    left_out = [[name, "", "left out: no task here supports it", "", "", ""] for name in results["left_out"]]
    return [header, *rows, *left_out]


def by_cost(results: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (task, term, result) by ascending cost, followed by those that failed."""
    rows = [(group["task"], name, cost) for group in results["groups"] for name, cost in group["steps"].items()]
    return sorted(
        (row for row in rows if row[1] != SOFT_TARGETS_ONLY or "problem" in row[2]),
        key=lambda row: row[2].get("times_plain", inf),
    )


def _cost_cells(cost: Mapping[str, Any]) -> list[str]:
    if "times_plain" not in cost:
        return [_problem(cost), "", "", ""]
    low, high = cost["quartiles"]
    return [
        f"{cost['times_plain']:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{cost['median_s']:.3g}",
        f"{cost['more_mib']:+,.0f}" if "more_mib" in cost else "",
    ]


def _problem(result: Mapping[str, Any]) -> str:
    return shorten(result.get("problem", "–").strip().splitlines()[-1], 60)


def _communication_table(results: Mapping[str, Any]) -> TableRows:
    steps = [
        (f"step of {count} micro-batch{'es' if int(count) > 1 else ''}", seconds)
        for count, seconds in results["steps_s"].items()
    ]
    measured = [*steps, ("all-reduce of the gradient alone", results["alone_s"])]
    return [
        [f"{results['processes']} processes, {results['tokens']:,} tokens a micro-batch", "median", "range"],
        *(
            [name, f"{median(seconds):.3g} s", f"{min(seconds):.3g} to {max(seconds):.3g}"]
            for name, seconds in measured
        ),
        ["a micro-batch", f"{results['micro_batch_s']:.3g} s", ""],
        ["rest of a step: exchange, clipping, optimiser", f"{results['besides_s']:.3g} s", ""],
        ["gradient", f"{results['bytes'] / 2**20:,.0f} MiB", ""],
    ]


def _comparisons(part: str, results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, results of its contenders) for each comparison of a part; the name of a single one is empty."""
    if part == "scaling":
        for axis, points in results.items():
            for value, contenders in points.items():
                yield f"{axis} {value}", contenders
    elif part == "task":
        for name, task in results.items():
            yield f"{name.upper()}, {task['padding_share']:.1%} padding", task["epochs"]
    elif part == "inference":
        for batch, contenders in results.items():
            yield f"batch {batch}", contenders
    else:
        yield "", results["steps"]


def _contender_table(contenders: Mapping[str, Any], utilisation: Mapping[str, Any]) -> TableRows:
    header = ["", "median, s", "range, s", "speed-up", "peak, MiB", "peak − held between steps, MiB"]
    rows = [[name, *_cells(result)] for name, result in contenders.items()]
    if utilisation:
        header.append("of the peak rate")
        rows = [[*row, f"{utilisation[row[0]]['share']:.0%}" if row[0] in utilisation else ""] for row in rows]
    return [header, *rows]


def _cells(result: Mapping[str, Any]) -> list[str]:
    if "median_s" not in result:
        return [_problem(result), "", "", "", ""]
    seconds, peak, held = result["seconds"], result.get("peak_mib"), result.get("held_mib")
    return [
        f"{result['median_s']:.3g}",
        f"{min(seconds):.3g} to {max(seconds):.3g}",
        f"{result['speed_up']:.2f}" if "speed_up" in result else "",
        f"{peak:,.0f}" if peak else "",
        f"{peak - held:,.0f}" if peak else "",
    ]


def _plots(results: Mapping[str, Any]) -> Iterator[Picture]:
    if "mlm" in results:
        yield bar_plot("mlm", "A language-modelling step", results["mlm"]["steps"])
    for name, task in results.get("task", {}).items():
        yield bar_plot(f"task-{name}", f"An epoch of {name.upper()}", task["epochs"])
    if "terms" in results:
        yield cost_plot(results["terms"])
    if "scaling" in results:
        yield scaling_plot(results["scaling"])


def bar_plot(name: str, title: str, contenders: Mapping[str, Any]) -> Picture:
    """Plot the median of each contender as a bar, and every step as a line."""
    timed = [(label, result) for label, result in contenders.items() if result.get("seconds")]
    figure = canvas(title, 66 + 30 * len(timed), 560)
    axes = figure.subplots()
    for y, (label, result) in enumerate(timed):
        colour = STUDENT_COLOUR if label.startswith("ours") else MUTED
        axes.barh(y, result["median_s"], color=colour, height=0.6, alpha=0.85)
        axes.plot(result["seconds"], [y] * len(result["seconds"]), "|", color="black", markersize=7)
        inside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": "white"}
        axes.annotate(f"{result['median_s']:.3g}", (0, y), (6, 0), **inside)
    axes.set_yticks(range(len(timed)), [label for label, _ in timed])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds; median as a bar, each step as a line")
    values = "; ".join(f"{label} {result['median_s']:.3g} s" for label, result in timed)
    return picture(figure, name, f"{title}: {values}.")


def cost_plot(results: Mapping[str, Any]) -> Picture:
    """Plot each term's step as a multiple of the baseline step: the median as a dot, the quartiles as a line."""
    timed = [(name, cost) for _, name, cost in by_cost(results) if "times_plain" in cost]
    figure = canvas("A step with one further term", 66 + 20 * len(timed), 560)
    axes = figure.subplots()
    for y, (_, cost) in enumerate(timed):
        axes.plot(cost["quartiles"], (y, y), color=MUTED)
        axes.plot(cost["times_plain"], y, "o", color=STUDENT_COLOUR)
    axes.axvline(1, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(timed)), [name for name, _ in timed])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("× baseline step (soft targets only): medians as a dot, quartiles of the steps as a line")
    values = "; ".join(f"{name} {cost['times_plain']:.2f}" for name, cost in timed)
    return picture(figure, "terms", f"Steps with one further term, as multiples of the baseline step: {values}.")


def scaling_plot(results: Mapping[str, Any]) -> Picture:
    """Plot the seconds of a step against length, batch and depth, on logarithmic axes."""
    figure = canvas("Scaling of a step", 230, 760)
    panels = figure.subplots(1, len(results), sharey=True)
    units = {"length": "tokens of a row", "batch": "rows", "depth": "teacher’s layers"}
    for axes, (axis, points) in zip(panels, results.items(), strict=True):
        for name in next(iter(points.values())):
            line = [
                (int(value), contenders[name]["median_s"])
                for value, contenders in points.items()
                if "median_s" in contenders[name]
            ]
            colour = STUDENT_COLOUR if name.startswith("ours") else TEACHER_COLOUR
            axes.plot(*zip(*line, strict=True), "o-", color=colour, label=name, markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([int(value) for value in points], [str(value) for value in points])
        axes.set_xlabel(units[axis])
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel("seconds")
    panels[0].legend()
    return picture(figure, "scaling", "Seconds of a step against its length, batch and depth.")
