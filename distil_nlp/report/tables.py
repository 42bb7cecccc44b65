"""The figures of one run as tables of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distil_nlp.report.read import Run, pick
from distil_nlp.report.scores import Score, Scored, metric_name, other_metrics, retention_of, scored
from distil_nlp.report.units import (
    count,
    duration,
    large,
    milliseconds,
    percent,
    plain,
    plural,
    ratio,
    signed_points,
)

NONE = "–"


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


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> Table | None:
    """A table without the rows and columns in which nothing stands; None if nothing is left."""
    rows = [row for row in rows if any(row[1:])]
    kept = [0, *(i for i in range(1, len(head)) if any(row[i] for row in rows))]
    if not rows:
        return None
    cells = tuple(tuple(row[i] or NONE * (i > 0) for i in kept) for row in rows)
    return Table(caption, tuple(head[i] for i in kept), cells, note)


def quality(run: Run) -> Table | None:
    """Teacher, student and baselines: headline metric with its range over seeds, other metrics, retention, gain."""
    others = other_metrics(run)
    rows = scored(run)
    several = any((score := row.score(run.metric)) and len(score.values) > 1 for row in rows)
    head = [
        "",
        metric_name(run.metric, run.kind) + (", median" if several else ""),
        "range (seeds)",
        *(metric_name(name, run.kind) for name in others),
        "retention",
        "student’s lead, points",
    ]
    cells = [
        (
            row.label,
            _median(row.score(run.metric)),
            span(row.score(run.metric)),
            *(_median(row.score(name)) for name in others),
            percent(retention_of(run, row)),
            gain(row.gain),
        )
        for row in rows
    ]
    return table("Quality", head, cells, _quality_note(rows))


def _quality_note(rows: Sequence[Scored]) -> str:
    found = next((row.gain for row in rows if pick(row.gain, "low") is not None), None)
    if not found:
        return ""
    level = percent(found.get("level", 0.95), 0)
    return f"Lead: student minus baseline on the headline metric, with its {level} interval. A point is 0.01."


def _median(score: Score | None) -> str:
    return plain(score.median) if score else ""


def span(score: Score | None) -> str:
    """0.835 to 0.839 (3); empty for a single seed."""
    if score is None or len(score.values) < 2:
        return ""
    low, high = score.span
    return f"{plain(low)} to {plain(high)} ({len(score.values)})"


def gain(found: dict[str, Any] | None) -> str:
    """+7.7 (4.6 to 10.8), in points."""
    if pick(found, "mean") is None:
        return ""
    low, high = found.get("low"), found.get("high")
    interval = "" if low is None or high is None else f" ({signed_points(low)} to {signed_points(high)})"
    return signed_points(found["mean"]) + interval


def cost(run: Run) -> Table | None:
    """Size, work, time and memory, a row each: teacher, student, and student ÷ teacher."""
    batches = sorted({*(run.get("teacher", "latency_ms") or {}), *(run.get("student", "latency_ms") or {})}, key=int)
    rows = [
        _both(run, "Parameters", large, "parameters"),
        _both(run, "Encoder parameters", large, "encoder_parameters"),
        _both(run, "Embedding parameters", large, "embedding_parameters"),
        _both(run, "Weights on disk, MB", plain, "size_mb"),
        _both(run, "FLOPs per token", large, "flops_per_token"),
        *(_latency(run, batch) for batch in batches),
        *(_both(run, f"Tokens per second, batch {batch}", count, "tokens_per_second", batch) for batch in batches),
        _both(run, "Peak memory, MiB", plain, "peak_memory_mib"),
    ]
    note = f"Ratio: student ÷ teacher. {conditions(run)}".rstrip()
    return table("Cost", ("", "teacher", "student", "ratio"), rows, note)


def _both(run: Run, label: str, form: Callable[[float | None], str], *keys: str) -> tuple[str, str, str, str]:
    teacher, student = run.get("teacher", *keys), run.get("student", *keys)
    return (label, form(teacher), form(student), percent(ratio(student, teacher), 0))


def _latency(run: Run, batch: str) -> tuple[str, str, str, str]:
    medians = [run.get(who, "latency_ms", batch, "median") for who in ("teacher", "student")]
    tails = [run.get(who, "latency_ms", batch, "p95") for who in ("teacher", "student")]
    cells = [
        milliseconds(median) + (f" ({milliseconds(tail)})" if median is not None and tail is not None else "")
        for median, tail in zip(medians, tails, strict=True)
    ]
    return (f"Latency, batch {batch}: median (p95), ms", *cells, percent(ratio(medians[1], medians[0]), 0))


def conditions(run: Run) -> str:
    """Under which conditions the cost was measured."""
    found = run.get("efficiency") or {}
    repeats = pick(next(iter((run.get("student", "latency_ms") or {}).values()), None), "repeats")
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


def fidelity(run: Run) -> Table | None:
    """How alike teacher and student are."""
    found = run.get("fidelity") or {}
    perplexity = [run.get(who, "metrics", "perplexity") for who in ("teacher", "student")] if run.kind == "mlm" else []
    rows = [
        ("Top-1 agreement" if run.kind == "mlm" else "Same prediction", percent(found.get("agreement"))),
        ("KL(teacher ‖ student), nats", plain(found.get("kl"))),
        ("Calibration error (ECE), teacher", plain(pick(found, "ece", "teacher"))),
        ("Calibration error (ECE), student", plain(pick(found, "ece", "student"))),
        ("Correlation of outputs (Pearson)", plain(found.get("pearson"))),
        ("Mean absolute difference of outputs", plain(found.get("mean_absolute_difference"))),
        *zip(("Perplexity, teacher", "Perplexity, student"), map(plain, perplexity), strict=False),
    ]
    return table("Fidelity", ("", ""), rows, _fidelity_note(found))


def _fidelity_note(found: dict[str, Any]) -> str:
    notes = [
        "KL at temperature 1." if found.get("kl") is not None else "",
        "ECE: mean gap between confidence and accuracy, 15 bins." if found.get("ece") else "",
        f"CKA over {count(found['cka']['tokens'])} tokens." if pick(found, "cka", "tokens") else "",
    ]
    return " ".join(filter(None, notes))


def training(run: Run) -> Table | None:
    """What the student's training took, and with what."""
    found, around = run.get("training") or {}, run.get("environment") or {}
    versions = [f"{name} {version}" for name, version in (around.get("versions") or {}).items() if version]
    rows = [
        ("Steps", count(found.get("steps"))),
        ("Time", duration(found.get("seconds"))),
        ("Training rows", count(run.get("rows", "train"))),
        ("Tokens", large(found.get("tokens"))),
        ("Tokens per second", count(found.get("tokens_per_second"))),
        ("Peak memory of the process, MiB", plain(found.get("peak_memory_mib"))),
        ("Device", around.get("device")),
        ("Processes", count(around.get("processes"))),
        ("Threads", count(around.get("threads"))),
        ("Seed", "" if around.get("seed") is None else str(around["seed"])),
        ("Resumed from", found.get("resumed_from")),
        ("Best checkpoint", found.get("best_checkpoint")),
        ("Versions", ", ".join(versions)),
        ("Commit", (around.get("commit") or "")[:12]),
    ]
    return table("Training", ("", ""), rows)
