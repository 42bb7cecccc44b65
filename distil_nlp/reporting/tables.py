"""The figures of one run as tables of text: quality and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distil_nlp.reporting.formatting import (
    count,
    decimal,
    duration,
    large,
    milliseconds,
    percent,
    plural,
    points,
    ratio,
    span,
)
from distil_nlp.reporting.markdown import drop_empty
from distil_nlp.reporting.scores import (
    LABELS_ONLY,
    SeedScores,
    headline_name,
    is_within_noise,
    metric_name,
    other_metrics,
    retention_of,
    scored_models,
)
from distil_nlp.results import RunResults, get_nested


def training_table(run: RunResults) -> Table | None:
    """What the student's training took, and with what."""
    found, around = run.get("training") or {}, run.get("environment") or {}
    versions = [f"{name} {version}" for name, version in (around.get("versions") or {}).items() if version]
    rows = [
        ("steps", count(found.get("steps"))),
        ("time", duration(found.get("seconds"))),
        ("training rows", count(run.get("rows.train"))),
        ("tokens", large(found.get("tokens"))),
        ("tokens per second", count(found.get("tokens_per_second"))),
        ("peak memory of the process, MiB", decimal(found.get("peak_memory_mib"))),
        ("device", around.get("device")),
        ("processes", count(around.get("processes"))),
        ("threads", count(around.get("threads"))),
        ("seed", "" if around.get("seed") is None else str(around["seed"])),
        ("resumed from", found.get("resumed_from")),
        ("best checkpoint", found.get("best_checkpoint")),
        ("versions", ", ".join(versions)),
        ("commit", (around.get("commit") or "")[:12]),
    ]
    return make_table("Training", ("", ""), rows)


EMPTY_CELL = "–"


@dataclass(frozen=True)
class Table:
    """Cells of text. The first column names the rows; `head` has one name for each column."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def is_list(self) -> bool:
        """Whether it lists one thing's properties: nothing to compare, no heads, text."""
        return not any(self.head)


def make_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table | None:
    """A table without the rows and columns in which nothing stands; None if nothing is left."""
    cells = drop_empty([head, *rows])
    if not cells:
        return None
    shown = tuple(tuple(cell or EMPTY_CELL * (i > 0) for i, cell in enumerate(row)) for row in cells[1:])
    return Table(caption, tuple(cells[0]), shown, note)


def quality_table(run: RunResults) -> Table | None:
    """Teacher, student and baselines: headline metric with its range over seeds, other metrics, retention, gain."""
    others, rows = other_metrics(run), scored_models(run)
    several = any((score := row.score(run.metric)) and len(score.values) > 1 for row in rows)
    head = [
        "",
        headline_name(run) + (", median" if several else ""),
        "range (seeds)",
        *(metric_name(name, run.kind) for name in others),
        "retention",
        "student’s gain, points",
    ]
    cells = [
        (
            row.label,
            format_median(row.score(run.metric)),
            format_range(row.score(run.metric)),
            *(format_median(row.score(name)) for name in others),
            percent(retention_of(run, row)),
            format_gain(row.gain),
        )
        for row in rows
    ]
    return make_table("Quality", head, cells, _quality_note(run))


def _quality_note(run: RunResults) -> str:
    level = next(
        (row.gain.get("level", 0.95) for row in scored_models(run) if get_nested(row.gain, "low") is not None), None
    )
    notes = [
        f"Gain: student minus that line on the headline metric, with its {percent(level, 0)} interval; a point is 0.01."
        if level
        else "",
        "Labels alone: the same student after the same steps, without a teacher." if run.get(LABELS_ONLY) else "",
    ]
    return " ".join(filter(None, notes))


def format_median(score: SeedScores | None) -> str:
    """Of the seeds."""
    return decimal(score.median) if score else ""


def format_range(score: SeedScores | None) -> str:
    """0.835 to 0.839 (3); empty for a single seed."""
    return f"{span(*score.span)} ({len(score.values)})" if score and len(score.values) > 1 else ""


def format_gain(found: dict[str, Any] | None) -> str:
    """+7.7 (+4.6 to +10.8), in points; whether that is noise."""
    if get_nested(found, "mean") is None:
        return ""
    noise = is_within_noise(found)
    interval = "" if noise is None else f" ({points(found['low'], '+')} to {points(found['high'], '+')})"
    return f"{points(found['mean'], '+')}{interval}{', within noise' if noise else ''}"


def cost_table(run: RunResults) -> Table | None:
    """Size, work, time and memory, a row each: teacher, student, and student ÷ teacher."""
    batches = sorted({batch for timed in run.both("latency_ms") for batch in timed or ()}, key=int)
    rows = [
        _both(run, "parameters", large, "parameters"),
        _both(run, "encoder parameters", large, "encoder_parameters"),
        _both(run, "embedding parameters", large, "embedding_parameters"),
        _both(run, "weights on disk, MB", decimal, "size_mb"),
        _both(run, "FLOPs per token", large, "flops_per_token"),
        *(_latency(run, batch) for batch in batches),
        *(_both(run, f"tokens per second, batch {batch}", count, f"tokens_per_second.{batch}") for batch in batches),
        _both(run, "peak memory, MiB", decimal, "peak_memory_mib"),
    ]
    note = f"Ratio: student ÷ teacher. {_conditions(run)}".rstrip()
    return make_table("Cost", ("", "teacher", "student", "ratio"), rows, note)


def _both(run: RunResults, label: str, form: Callable[[float | None], str], path: str) -> tuple[str, str, str, str]:
    teacher, student = run.both(path)
    return (label, form(teacher), form(student), percent(ratio(student, teacher), 0))


def _latency(run: RunResults, batch: str) -> tuple[str, str, str, str]:
    label, *medians, share = _both(
        run, f"latency, batch {batch}: median (p95), ms", milliseconds, f"latency_ms.{batch}.median"
    )
    tails = [f" ({milliseconds(tail)})" if tail is not None else "" for tail in run.both(f"latency_ms.{batch}.p95")]
    return (label, *(median and median + tail for median, tail in zip(medians, tails, strict=True)), share)


def _conditions(run: RunResults) -> str:
    """Under which the cost was measured."""
    found = run.get("efficiency") or {}
    repeats = get_nested(next(iter((run.get("student.latency_ms") or {}).values()), None), "repeats")
    parts = [
        found.get("device"),
        found.get("threads") and plural(found["threads"], "thread"),
        found.get("dtype"),
        found.get("sequence_length") and f"sequences of {plural(found['sequence_length'], 'token')}",
        repeats and f"{plural(repeats, 'timed forward')}",
        found.get("warm_up") and f"{plural(found['warm_up'], 'forward')} to warm up",
    ]
    told = ", ".join(filter(None, parts))
    return f"Measured on {told}." if told else ""
