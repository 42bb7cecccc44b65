"""Verdicts: what matters most about a run, for the terminal, the report and the model card.

Each rule looks at the results and returns a sentence, or None where it does not apply. The table `RULES` has them from
the most to the least important; the first that applies leads the report.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from distil_nlp.reporting.export import gate_failure
from distil_nlp.reporting.formatting import decimal, percent, plural, points
from distil_nlp.reporting.scores import (
    LABELS_ONLY,
    MAJORITY,
    UNTRAINED,
    has_taught_itself,
    headline_name,
    headline_score,
    is_within_noise,
    its_teacher,
    majority_name,
    teacher_below_labels_only,
    teacher_word,
)
from distil_nlp.results import RunResults

Severity = Literal["stop", "caution", "note", "good"]
"""`stop`: the student is of no use; `caution`: look at this first; `note`: a limit of the figures."""

ENOUGH = 0.95
"""Retention below this counts as a loss."""
ENOUGH_ABOVE = 0.8
"""Retention above the majority class below this counts as one too."""
ABOVE_MAJORITY = 0.02
"""A teacher within this of the majority class is weak."""
FEW_ROWS = 200
"""Fewer evaluation rows than this make wide intervals: ±7 points at an accuracy of 0.5."""
MANY_REPEATED = 0.05
"""Share of evaluation rows with the text of a training row from which on scores may be too high by points."""
UNDERFITS = 1.1
"""A student whose loss on training rows is not above the teacher's by this factor does not under-fit."""
_LINE = 100


@dataclass(frozen=True)
class Verdict:
    """A sentence about a run, and how much it matters."""

    severity: Severity
    text: str


def verdicts(run: RunResults) -> list[Verdict]:
    """Return the verdicts that apply, the most important first."""
    return [Verdict(severity, text) for severity, rule in RULES if (text := rule(run))]


def stop_verdict(run: RunResults) -> str | None:
    """Return the verdict that says `stop`: such a student is not to be shared. None where there is none."""
    return next((verdict.text for verdict in verdicts(run) if verdict.severity == "stop"), None)


def leading_verdict(run: RunResults) -> Verdict | None:
    """Return the verdict to lead with; None where there are only notes, and the figures may lead."""
    return next((verdict for verdict in verdicts(run) if verdict.severity != "note"), None)


def verdict_lines(found: Iterable[Verdict]) -> str:
    """Return verdicts for a terminal, each after its severity, folded to `_LINE` columns."""
    lines = (f"{verdict.severity + ':':<8} {verdict.text}" for verdict in found)
    return "\n".join(textwrap.fill(line, _LINE, subsequent_indent=" " * 9) for line in lines)


def floor_score(run: RunResults) -> float | None:
    """Return the headline metric without a model: 0 where that has none, such as the correlation of a constant.

    None where it was not measured, or where a guess is always right, so that the rows cannot tell.
    """
    if run.get(f"baselines.{MAJORITY}") is None:
        return None
    score = headline_score(run, MAJORITY)
    floor = score.median if score else 0.0
    return floor if floor < 1 else None


def is_above_floor(run: RunResults, role: str) -> bool | None:
    """Return whether a model's median is above that of a guess; None where either is not known."""
    score, floor = headline_score(run, role), floor_score(run)
    return None if score is None or floor is None else score.median > floor


def _teacher_at_floor(run: RunResults) -> str | None:
    if has_taught_itself(run) or is_above_floor(run, "teacher") is not False:
        return None
    found = _against_floor(run, "teacher")
    return f"The teacher knows no more than {run.kind.guess}: {found}. This run says nothing about distillation."


def _student_at_floor(run: RunResults) -> str | None:
    if is_above_floor(run, "student") is not False:
        return None
    against = _against_floor(run, "student")
    return f"Do not use this student, which knows no more than {run.kind.guess}: {against}."


def _against_floor(run: RunResults, role: str) -> str:
    """Return both scores: accuracy 0.075, where the majority class has 0.175."""
    score: Any = headline_score(run, role)
    floor = floor_score(run)
    return f"{headline_name(run)} {decimal(score.median)}, where the {majority_name(run)} has {decimal(floor)}"


def _weak_teacher(run: RunResults) -> str | None:
    teacher: Any = headline_score(run, "teacher")
    floor: Any = floor_score(run)
    if has_taught_itself(run) or not is_above_floor(run, "teacher") or teacher.median > floor + ABOVE_MAJORITY:
        return None
    return f"The teacher is hardly better than {run.kind.guess}: {_against_floor(run, 'teacher')}."


def measured_gain(run: RunResults, baseline: str = LABELS_ONLY) -> dict[str, float] | None:
    """Return the student's gain over a baseline; None if it has no interval."""
    gain = run.get(f"{baseline}.gain") or {}
    return None if None in (gain.get(name) for name in ("mean", "low", "high")) else gain


def is_ahead_of_untrained(run: RunResults) -> bool | None:
    """Return whether training took the student beyond its initialised copy; None where that was not measured."""
    gain = measured_gain(run, UNTRAINED)
    return None if gain is None else gain["low"] > 0


def _not_ahead_of_untrained(run: RunResults) -> str | None:
    gain = measured_gain(run, UNTRAINED)
    if not gain or gain["low"] > 0 or any(is_above_floor(run, role) is False for role in ("teacher", "student")):
        return None
    if gain["high"] < 0:
        return f"Training made the student worse than its initialised copy was: {_change(run, gain)}."
    return f"Training made no difference beyond the noise: over the initialised student {_change(run, gain)}."


def _change(run: RunResults, gain: Mapping[str, float]) -> str:
    """Return a gain with its interval: +2.1 points of F1 (95 % interval −0.8 to +5.5)."""
    mean, low, high = (points(gain[end], "+") for end in ("mean", "low", "high"))
    return f"{mean} points of {headline_name(run)} ({percent(gain.get('level', 0.95), 0)} interval {low} to {high})"


def _teacher_below_labels_only(run: RunResults) -> str | None:
    scores = teacher_below_labels_only(run)
    if scores is None or is_above_floor(run, "teacher") is False:
        return None
    return f"The {teacher_word(run)} knows less than the student learns without: {scores}."


def _behind_labels_only(run: RunResults) -> str | None:
    gain = measured_gain(run)
    if not gain or gain["high"] >= 0:
        return None
    lost = points(-gain["mean"])
    return (
        f"Distillation cost {lost} points of {headline_name(run)}: the same student trained on labels only is better."
    )


def _not_ahead_of_labels_only(run: RunResults) -> str | None:
    gain = measured_gain(run)
    if gain is None or not is_within_noise(gain):
        return None
    change = _change(run, gain)
    return f"Distillation made no difference beyond the noise: over the same student trained on labels only {change}."


def _low_retention(run: RunResults) -> str | None:
    retention, above = run.get("retention"), run.get("retention_above_majority")
    if retention is None or is_above_floor(run, "student") is False:
        return None
    if retention < ENOUGH:
        kept = f"{percent(retention)} of the {teacher_word(run)}’s {headline_name(run)}"
    elif above is not None and above < ENOUGH_ABOVE:
        kept = f"{percent(above)} of what the {teacher_word(run)} has above the {majority_name(run)}"
    else:
        return None
    return f"The student is clearly below {its_teacher(run)}: it keeps {kept}."


def _scored_on_training_rows(run: RunResults) -> str | None:
    return _repeated_rows(run, lambda share: share >= MANY_REPEATED)


def _few_training_rows_scored(run: RunResults) -> str | None:
    return _repeated_rows(run, lambda share: share < MANY_REPEATED)


def _repeated_rows(run: RunResults, is_meant: Callable[[float], bool]) -> str | None:
    """Return which splits have training texts among their rows, of those whose share of them is meant."""
    repeated: dict[str, Any] = run.get("rows.in_training") or {}
    rows: dict[str, Any] = run.splits
    found = [
        f"{count:,} of {plural(rows[split], run.kind.row_name)} of {split}"
        for split, count in repeated.items()
        if count and rows.get(split) and is_meant(count / rows[split])
    ]
    return f"Scores include training rows: {' and '.join(found)} have the text of one." if found else None


def _fits_already(run: RunResults) -> str | None:
    found = run.get("schemes.train_loss")
    if not found or found["student"] > UNDERFITS * found["teacher"] or is_above_floor(run, "teacher") is False:
        return None
    return (
        f"The student does not under-fit: its loss on training rows is {decimal(found['student'])}, the teacher’s "
        f"{decimal(found['teacher'])}. student.augment is for students that do; try it without."
    )


def _ahead(run: RunResults) -> str | None:
    gain, retention = measured_gain(run), run.get("retention")
    if not gain or gain["low"] <= 0 or (retention or 0) < ENOUGH or is_ahead_of_untrained(run) is False:
        return None
    if is_above_floor(run, "student") is False or is_above_floor(run, "teacher") is False:
        return None
    kept = f"reaches {its_teacher(run)}"
    if retention < 1:
        kept = f"keeps {percent(retention)} of the {teacher_word(run)}’s {headline_name(run)}"
    more = points(gain["mean"])
    return f"Distillation paid: the student {kept}, {more} points ahead of the same student trained on labels only."


def _no_labels_only(run: RunResults) -> str | None:
    if run.get(LABELS_ONLY) or not run.kind.learns_labels:
        return None
    return "Whether distillation helped is not known: no student was trained on labels only."


def _few_seeds(run: RunResults) -> str | None:
    score = headline_score(run, "student")
    if score is None or len(score.values) > 2:
        return None
    if len(score.values) == 1:
        return "One seed was run: how much another would change is not known."
    return "Two seeds were run: over three as far apart, what seeds add to an interval would be 3.6 times narrower."


def _few_rows(run: RunResults) -> str | None:
    rows = next(iter(run.splits.values()), None)
    if not rows or rows >= FEW_ROWS or run.kind.predicts_words:
        return None
    return f"Scores are of {plural(rows, run.kind.row_name)}: differences of a few points are chance."


def _int8_below_gate(run: RunResults) -> str | None:
    return gate_failure(run) or None


RULES: tuple[tuple[Severity, Callable[[RunResults], str | None]], ...] = (
    ("stop", _teacher_at_floor),
    ("stop", _student_at_floor),
    ("caution", _not_ahead_of_untrained),
    ("caution", _teacher_below_labels_only),
    ("caution", _behind_labels_only),
    ("caution", _not_ahead_of_labels_only),
    ("caution", _low_retention),
    ("caution", _weak_teacher),
    ("caution", _scored_on_training_rows),
    ("caution", _fits_already),
    ("good", _ahead),
    ("note", _no_labels_only),
    ("note", _few_seeds),
    ("note", _few_training_rows_scored),
    ("note", _few_rows),
    ("note", _int8_below_gate),
)
"""From the most to the least important."""
