"""A plan in lines and tables, for a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.stage import PlannedStage, RunCosts
from distil_nlp.reporting.formatting import count, decimal, duration, large, percent, plural
from distil_nlp.reporting.markdown import terminal_table

_HEAD = ["stage", "times", "steps", "tokens", "FLOPs", "time", "share"]
_GIB = 2**30


def cost_lines(costs: RunCosts, basis: Basis) -> Iterator[tuple[str, str]]:
    """Yield a plan as (subject, sentence)."""
    for stage in costs.stages:
        yield "time", f"{_name(stage)}: {_time(stage)}"
    yield "time", f"{duration(costs.seconds)} together"
    yield from total_lines(costs, basis)


def total_lines(costs: RunCosts, basis: Basis) -> Iterator[tuple[str, str]]:
    """Yield what all stages take together, besides time, as (subject, sentence)."""
    if (energy := basis.kilowatt_hours(costs.seconds)) is not None:
        yield "energy", f"{decimal(energy)} kWh at {basis.power:g} W{_each(basis)}"
    if (price := basis.price(costs.seconds)) is not None:
        yield (
            "money",
            f"{price:,.2f} {basis.currency} at {basis.price_per_hour:g} {basis.currency} an hour{_each(basis)}",
        )
    if costs.memory is not None:
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in costs.memory.to_dict().items() if name != "total")
        yield "memory", f"{_gib(costs.memory.total)} in tensors, {costs.largest}: {parts}"
    if basis.is_timed:
        yield "memory", f"{_gib(costs.peak_bytes)} of this process so far, with Python and its libraries"
    parts = ", ".join(f"{name} {_megabytes(size)}" for name, size in costs.disk.to_dict().items() if name != "total")
    yield "disk", f"{_megabytes(costs.disk.total)} at most: {parts}"


def stage_table(costs: RunCosts) -> str:
    """Return the stages and their sum as a table for a terminal."""
    rows = [_row(stage, costs.seconds) for stage in costs.stages]
    total = ["together", "", count(costs.steps), large(costs.tokens), large(costs.flops), duration(costs.seconds), ""]
    return terminal_table([_HEAD, *rows, total])


def plan_json(costs: RunCosts, basis: Basis, **about: Any) -> str:
    """Return a plan as JSON.

    Args:
        costs: of the run or of all runs.
        basis: the machine.
        **about: further keys, which come first.
    """
    plan = {
        **about,
        "basis": basis.to_dict(),
        "stages": [stage.to_dict() for stage in costs.stages],
        "totals": {
            "seconds": costs.seconds,
            "steps": costs.steps,
            "tokens": costs.tokens,
            "flops": costs.flops,
            "kwh": basis.kilowatt_hours(costs.seconds),
            "price": basis.price(costs.seconds),
        },
        "memory": costs.memory and {"training": costs.largest, **costs.memory.to_dict()},
        "disk": costs.disk.to_dict(),
        "advice": list(costs.advice),
    }
    return json.dumps(plan, indent=1)


def _row(stage: PlannedStage, total: float) -> list[str]:
    steps = "" if stage.steps is None else count(stage.steps)
    share = "done" if stage.is_done else percent(stage.seconds / total if total else 0.0, 0)
    times = str(stage.times) if stage.times > 1 else ""
    tokens = "" if stage.tokens is None else large(stage.tokens)
    return [_name(stage), times, steps, tokens, large(stage.flops), duration(stage.seconds), share]


def _name(stage: PlannedStage) -> str:
    return f"{stage.run}: {stage.name}" if stage.run else stage.name


def _time(stage: PlannedStage) -> str:
    """Return the time of a stage in words."""
    if stage.is_done:
        return "done already"
    times = f" for {plural(stage.times, 'time')}" if stage.times > 1 else ""
    steps = f", {plural(stage.steps, 'step')} each" if stage.steps is not None and times else ""
    steps = steps or (f", {plural(stage.steps, 'step')}" if stage.steps is not None else "")
    return f"{duration(stage.seconds)}{times}{steps}"


def _each(basis: Basis) -> str:
    return f", {basis.processes} of them" if basis.processes > 1 else ""


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f} GiB"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
