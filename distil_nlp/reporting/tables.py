"""Tables of one run: quality, cost and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distil_nlp.redaction import last_component
from distil_nlp.reporting.formatting import (
    count,
    decimal,
    duration,
    large,
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
    answers_word,
    has_taught_itself,
    headline_name,
    is_within_noise,
    learned_from_answers,
    metric_name,
    other_metrics,
    predicts_other_words,
    retention_of,
    scored_models,
    teacher_word,
)
from distil_nlp.results import RunResults, get_nested


def training_table(run: RunResults) -> Table | None:
    """Return time, memory and environment of the student's training."""
    training, environment = run.get("training") or {}, run.get("environment") or {}
    versions = [f"{name} {version}" for name, version in (environment.get("versions") or {}).items() if version]
    rows: list[tuple[str, Any]] = [
        ("steps", count(training.get("steps"))),
        ("time", duration(training.get("seconds"))),
        ("training rows", count(run.get("rows.train"))),
        ("tokens", large(training.get("tokens"))),
        ("tokens per second", count(training.get("tokens_per_second"))),
        ("energy, kWh", decimal(get_nested(training, "energy.kwh"))),
        ("carbon, kg CO₂ equivalent", decimal(get_nested(training, "energy.co2_kg"))),
        ("peak memory of the process, MiB", decimal(training.get("peak_memory_mib"))),
        ("device", environment.get("device")),
        ("processes", count(environment.get("processes"))),
        ("threads", count(environment.get("threads"))),
        ("seed", "" if environment.get("seed") is None else str(environment["seed"])),
        ("resumed from", training.get("resumed_from")),
        ("best checkpoint", training.get("best_checkpoint")),
        ("versions", ", ".join(versions)),
        ("commit", (environment.get("commit") or "")[:12]),
        ("own code", "; ".join(own_code(run))),
    ]
    return make_table("Training", ("", ""), rows)


def own_code(run: RunResults) -> list[str]:
    """Return each file or module of the user's own that was imported, with its hash and the terms of it in the loss."""
    lines = []
    for code in run.get("own_code") or []:
        terms = [name for name, facts in run.own_terms.items() if facts["plugin"] == code.get("name")]
        lines.append(f"{code.get('name')}, sha256 {code.get('sha256')}{': ' if terms else ''}{', '.join(terms)}")
    return lines


EMPTY_CELL = "–"
_BROAD_CELL = 20


@dataclass(frozen=True)
class Table:
    """A table of text. The first column names the rows; `head` has a name for each column.

    Attributes:
        is_private: True for a table with texts of the data, which only `report.html` shows.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    is_private: bool = False

    @property
    def is_list(self) -> bool:
        """True for a list of properties, which has no column names."""
        return not any(self.head)

    @property
    def is_broad(self) -> bool:
        """True for a table that does not fit a phone, where each row becomes a list."""
        return len(self.head) > 4 or any(len(cell) > _BROAD_CELL for row in self.rows for cell in row[1:])


def make_table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", is_private: bool = False
) -> Table | None:
    """Return a table without its empty rows and columns; None if nothing is left."""
    cells = drop_empty([head, *rows])
    if not cells:
        return None
    body = tuple(tuple(cell or EMPTY_CELL * (i > 0) for i, cell in enumerate(row)) for row in cells[1:])
    return Table(caption, tuple(cells[0]), body, note, is_private)


def quality_table(run: RunResults) -> Table | None:
    """Return metrics, ranges over seeds, retention and gain of teacher, student and baselines."""
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
    """Return the note that explains retention, gain and labels only."""
    gains = [row.gain for row in scored_models(run) if row.gain]
    level = next((gain.get("level", 0.95) for gain in gains if get_nested(gain, "low") is not None), None)
    notes = [
        _reference_note(run),
        f"Retention: a line’s {headline_name(run)} ÷ the {teacher_word(run)}’s."
        if run.get("retention") is not None
        else "",
        f"Gain: student minus that line on the headline metric, with its {percent(level, 0)} interval; a point is 0.01."
        if level
        else "",
        "Labels only: the same student after the same steps, without a teacher." if run.get(LABELS_ONLY) else "",
    ]
    return " ".join(filter(None, notes))


def _reference_note(run: RunResults) -> str:
    """Return which model the reference is, of a student that taught itself; or that the teacher is no model."""
    if learned_from_answers(run):
        return answers_note(run)
    if predicts_other_words(run):
        return "Teacher and student predict other words, so that their scores do not compare: there is no retention."
    name = run.get("teacher.name") or run.get("recipe.teacher.name")
    shown = last_component(name) if name else "a model"
    return f"Reference: {shown}, to compare with; it did not teach." if has_taught_itself(run) else ""


def answers_note(run: RunResults) -> str:
    """Return that the teacher is answers in the data's columns, and whether they were scored; "" for a model."""
    if not learned_from_answers(run):
        return ""
    if run.get("teacher.answers.scored"):
        return f"Teacher: {answers_word(run)}; no model."
    return (
        f"The teacher, {answers_word(run)}, was not scored: rows of the evaluation splits have none, so that there is "
        "no retention."
    )


def format_median(score: SeedScores | None) -> str:
    """Format the median of the seeds."""
    return decimal(score.median) if score else ""


def format_range(score: SeedScores | None) -> str:
    """Format range and number of the seeds: 0.835 to 0.839 (3); empty for a single seed."""
    return f"{span(*score.span)} ({len(score.values)})" if score and len(score.values) > 1 else ""


def format_gain(gain: dict[str, Any] | None) -> str:
    """Format a gain and its interval in points: +7.7 (+4.6 to +10.8), or +1.0 (−0.4 to +2.4), within noise."""
    if gain is None or get_nested(gain, "mean") is None:
        return ""
    noise = is_within_noise(gain)
    interval = "" if noise is None else f" ({points(gain['low'], '+')} to {points(gain['high'], '+')})"
    return f"{points(gain['mean'], '+')}{interval}{', within noise' if noise else ''}"


def calibration_table(run: RunResults) -> Table | None:
    """Return calibration error and negative log-likelihood of all models, and the student's differences."""
    found = run.get("calibration") or {}
    rows = [
        (
            model.label,
            percent(get_nested(part, "ece")),
            _difference(get_nested(part, "difference", "ece"), points),
            decimal(get_nested(part, "nll")),
            _difference(get_nested(part, "difference", "nll"), _signed),
        )
        for model in scored_models(run)
        if (part := found.get(model.role))
    ]
    head = ("", "ECE", "student’s difference, points", "NLL, nats", "student’s difference, nats")
    note = (
        "ECE: expected calibration error; NLL: negative log-likelihood of the labels. Lower is better: a difference "
        "below 0 is the student’s advantage. In brackets 95 % intervals, a paired bootstrap over rows. "
        "The ECE of few rows is too high."
    )
    return make_table("Calibration", head, rows, f"{note} {run.kind.calibration_note}".strip())


def _difference(interval: dict[str, Any] | None, write: Callable[..., str]) -> str:
    """Format a difference with its interval: −1.2 (−2.0 to −0.4)."""
    if interval is None or get_nested(interval, "mean") is None:
        return ""
    mean, low, high = (write(interval[name], "+") for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high}){', within noise' if is_within_noise(interval) else ''}"


def _signed(value: float, sign: str) -> str:
    """Format a number with three digits after the point and its sign."""
    return f"{value:{sign}.3f}".replace("-", "−")


def cost_table(run: RunResults) -> Table | None:
    """Return size, arithmetic and memory of teacher and student, and their ratio."""
    rows = [
        _both(run, "parameters", large, "parameters"),
        _both(run, "encoder parameters", large, "encoder_parameters"),
        _both(run, "embedding parameters", large, "embedding_parameters"),
        _both(run, "weights on disk, MB", decimal, "size_mb"),
        _both(run, "FLOPs per token", large, "flops_per_token"),
        _both(run, "peak memory, MiB", decimal, "peak_memory_mib"),
    ]
    length = run.get("efficiency.max_length")
    counted = " and ".join(word for word, row in (("FLOPs", rows[-2]), ("memory", rows[-1])) if row[1] or row[2])
    measured = f" {counted}: at {plural(length, 'token')}." if length and counted else ""
    word = teacher_word(run)
    note = f"Ratio: student ÷ {word}." if any(row[3] for row in rows) else ""
    return make_table("Cost", ("", word, "student", "ratio"), rows, f"{note}{measured}".strip())


def _both(run: RunResults, label: str, write: Callable[[float | None], str], path: str) -> tuple[str, str, str, str]:
    """Return a row: label, teacher's value, student's value, ratio."""
    teacher, student = run.both(path)
    return (label, write(teacher), write(student), percent(ratio(student, teacher), 0))
