"""What was measured, as tables and plots."""

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
    "scaling": "A step as it grows",
    "inference": "Answering",
}
_COSTS = "A step of a task with one more term beside soft_target_kl, also where it would take that one's place"


def write_benchmark(found: Mapping[str, Any], folder: Path) -> str:
    """Writes `benchmark.json`, `benchmark.md` and the plots; returns the tables for a terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tables = list(_tables(found))
    text = [f"{title}\n\n{markdown_table(rows)}\n" for title, rows in tables]
    (folder / "benchmark.md").write_text("\n".join(text), encoding="utf-8")
    with style():
        for one in _pictures(found):
            (folder / one.file).write_bytes(one.png)
    return "\n\n".join(f"{title}\n{aligned_table(rows)}" for title, rows in tables)


def _tables(found: Mapping[str, Any]) -> Iterator[tuple[str, TableRows]]:
    for part, title in _SECTIONS.items():
        if part not in found:
            continue
        for name, scores in _contests(part, found[part]):
            yield f"{title}{f': {name}' if name else ''}", _table(scores, found[part].get("utilisation", {}))
        if shares := found[part].get("shares_of_time"):
            yield (
                "Where the time of a step on masked tokens goes",
                [["", "share"], *([k, f"{v:.1%}"] for k, v in shares.items())],
            )
    if "terms" in found:
        yield _COSTS, _costs(found["terms"])
    if "communication" in found:
        yield "What processes tell each other in a step", _exchange(found["communication"])


def _costs(found: Mapping[str, Any]) -> TableRows:
    """The dearest last; what failed or was left out behind them."""
    head = ["", "task", "times plain", "quartiles of the steps", "median, s", "peak above plain, MiB"]
    plain: dict[str, list[float]] = {}
    for group in found["groups"]:
        plain.setdefault(group["task"], []).extend(group["steps"][SOFT_TARGETS_ONLY]["seconds"])
    rows = [[SOFT_TARGETS_ONLY, task.upper(), "1.00", "", f"{median(of):.3g}", ""] for task, of in plain.items() if of]
    rows += [[name, task.upper(), *_cost_cells(score)] for task, name, score in by_cost(found)]
    left_out = [[name, "", "left out: no task here has a meaning for it", "", "", ""] for name in found["left_out"]]
    return [head, *rows, *left_out]


def by_cost(found: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(task, term, score), the dearest last, and behind it what failed."""
    scores = [(group["task"], name, score) for group in found["groups"] for name, score in group["steps"].items()]
    return sorted(
        (one for one in scores if one[1] != SOFT_TARGETS_ONLY or "problem" in one[2]),
        key=lambda one: one[2].get("times_plain", inf),
    )


def _cost_cells(score: Mapping[str, Any]) -> list[str]:
    if "times_plain" not in score:
        return [_problem(score), "", "", ""]
    low, high = score["quartiles"]
    return [
        f"{score['times_plain']:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{score['median_s']:.3g}",
        f"{score['more_mib']:+,.0f}" if "more_mib" in score else "",
    ]


def _problem(score: Mapping[str, Any]) -> str:
    return shorten(score.get("problem", "–").strip().splitlines()[-1], 60)


def _exchange(found: Mapping[str, Any]) -> TableRows:
    steps = [
        (f"step of {count} micro-batch{'es' if int(count) > 1 else ''}", seconds)
        for count, seconds in found["steps_s"].items()
    ]
    spread = [*steps, ("all-reduce of the gradient, nothing beside it", found["alone_s"])]
    return [
        [f"{found['processes']} processes, {found['tokens']:,} tokens a micro-batch", "median", "range"],
        *([name, f"{median(of):.3g} s", f"{min(of):.3g} to {max(of):.3g}"] for name, of in spread),
        ["a micro-batch", f"{found['micro_batch_s']:.3g} s", ""],
        ["besides in a step: exchange, clipping, optimiser", f"{found['besides_s']:.3g} s", ""],
        ["gradient", f"{found['bytes'] / 2**20:,.0f} MiB", ""],
    ]


def _contests(part: str, found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is told apart, scores) of a part."""
    if part == "scaling":
        for axis, points in found.items():
            for value, scores in points.items():
                yield f"{axis} {value}", scores
    elif part == "task":
        for name, one in found.items():
            yield f"{name.upper()}, {one['padding_share']:.1%} padding", one["epochs"]
    elif part == "inference":
        for batch, scores in found.items():
            yield f"batch {batch}", scores
    else:
        yield "", found["steps"]


def _table(scores: Mapping[str, Any], utilisation: Mapping[str, Any]) -> TableRows:
    head = ["", "median, s", "range, s", "times as fast", "peak, MiB", "besides what is held, MiB"]
    rows = [[name, *_cells(score)] for name, score in scores.items()]
    if utilisation:
        head.append("of the peak")
        rows = [[*row, f"{utilisation[row[0]]['share']:.0%}" if row[0] in utilisation else ""] for row in rows]
    return [head, *rows]


def _cells(score: Mapping[str, Any]) -> list[str]:
    if "median_s" not in score:
        return [_problem(score), "", "", "", ""]
    seconds, peak, held = score["seconds"], score.get("peak_mib"), score.get("held_mib")
    return [
        f"{score['median_s']:.3g}",
        f"{min(seconds):.3g} to {max(seconds):.3g}",
        f"{score['speed_up']:.2f}" if "speed_up" in score else "",
        f"{peak:,.0f}" if peak else "",
        f"{peak - held:,.0f}" if peak else "",
    ]


def _pictures(found: Mapping[str, Any]) -> Iterator[Picture]:
    if "mlm" in found:
        yield bar_plot("mlm", "A language-modelling step", found["mlm"]["steps"])
    for name, one in found.get("task", {}).items():
        yield bar_plot(f"task-{name}", f"An epoch of {name.upper()}", one["epochs"])
    if "terms" in found:
        yield cost_plot(found["terms"])
    if "scaling" in found:
        yield scaling_plot(found["scaling"])


def bar_plot(name: str, title: str, scores: Mapping[str, Any]) -> Picture:
    """The median of each contender as a bar, and every step as a line."""
    shown = [(label, score) for label, score in scores.items() if score.get("seconds")]
    figure = canvas(title, 66 + 30 * len(shown), 560)
    axes = figure.subplots()
    for y, (label, score) in enumerate(shown):
        axes.barh(
            y, score["median_s"], color=STUDENT_COLOUR if label.startswith("ours") else MUTED, height=0.6, alpha=0.85
        )
        axes.plot(score["seconds"], [y] * len(score["seconds"]), "|", color="black", markersize=7)
        inside = {"textcoords": "offset points", "va": "center", "color": "white"}
        axes.annotate(f"{score['median_s']:.3g}", (0, y), (6, 0), **inside)
    axes.set_yticks(range(len(shown)), [label for label, _ in shown])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds; median as a bar, each step as a line")
    said = "; ".join(f"{label} {score['median_s']:.3g} s" for label, score in shown)
    return picture(figure, name, f"{title}: {said}.")


def cost_plot(found: Mapping[str, Any]) -> Picture:
    """Each term's step as a multiple of the plain one: a dot, and the quartiles as a line."""
    shown = [(name, score) for _, name, score in by_cost(found) if "times_plain" in score]
    figure = canvas("A step with one more term", 66 + 20 * len(shown), 560)
    axes = figure.subplots()
    for y, (_, score) in enumerate(shown):
        axes.plot(score["quartiles"], (y, y), color=MUTED)
        axes.plot(score["times_plain"], y, "o", color=STUDENT_COLOUR)
    axes.axvline(1, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("times a step with soft targets alone: of medians as a dot, quartiles of the steps as a line")
    said = "; ".join(f"{name} {score['times_plain']:.2f}" for name, score in shown)
    return picture(figure, "terms", f"Steps with one more term, as multiples of one without: {said}.")


def scaling_plot(found: Mapping[str, Any]) -> Picture:
    """Seconds of a step against length, batch and depth, on logarithmic axes."""
    figure = canvas("A step as it grows", 230, 760)
    panels = figure.subplots(1, len(found), sharey=True)
    units = {"length": "tokens of a row", "batch": "rows", "depth": "teacher’s layers"}
    for axes, (axis, points) in zip(panels, found.items(), strict=True):
        names = next(iter(points.values()))
        for contender in names:
            line = [(int(value), scores[contender]["median_s"]) for value, scores in points.items()
                    if "median_s" in scores[contender]]  # fmt: skip
            colour = STUDENT_COLOUR if contender.startswith("ours") else TEACHER_COLOUR
            axes.plot(*zip(*line, strict=True), "o-", color=colour, label=contender, markersize=4)
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
