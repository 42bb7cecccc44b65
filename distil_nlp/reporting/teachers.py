"""The teachers of an ensemble: a sentence on how they were mixed, and a table of what each of them is worth."""

from __future__ import annotations

from typing import Any

from distil_nlp.redaction import last_component
from distil_nlp.reporting.formatting import decimal, percent, points, span
from distil_nlp.reporting.scores import answers_in_words, headline_name
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults, get_nested

_MEANS = {"logits": "logits were averaged", "probabilities": "probabilities were averaged"}
_WEIGHTINGS = {
    "confidence": "in each row weighted by how sure each teacher is (EBKD)",
    "correctness": "in each row weighted by how near each teacher is to the label (CA-MKD)",
    "student_uncertainty": "in each row weighted by how unsure the student is, towards the smaller teacher (DynamicKD)",
}


def mixing_words(run: RunResults) -> str:
    """Return how the teachers' outputs were mixed, as words after "whose"."""
    teacher = run.get("recipe.teacher") or {}
    members = [teacher, *(teacher.get("ensemble") or [])]
    weights = [1.0 if isinstance(member, str) else member.get("weight", 1.0) for member in members]
    parts = [_MEANS[teacher.get("mix") or "logits"]]
    if len(set(weights)) > 1:
        parts.append(f"with weights {', '.join(f'{weight:g}' for weight in weights)}")
    parts.append(_WEIGHTINGS.get(teacher.get("weighting") or "fixed", ""))
    return ", ".join(filter(None, parts))


def ensemble_sentence(run: RunResults) -> str:
    """Return who taught the student, for a student of several teachers; "" for one teacher."""
    further = run.get("recipe.teacher.ensemble")
    if not further:
        return ""
    answers = [one["columns"] for one in further if not isinstance(one, str) and one.get("columns")]
    models = 1 + len(further) - len(answers)
    who = f"{models} teachers" if models > 1 else "a teacher"
    who += "".join(f" and from {answers_in_words(one.get('source'))}" for one in answers)
    alone = " Rows without an answer have the models’ outputs alone." if answers else ""
    return f"The student learned from {who}, whose {mixing_words(run)}.{alone}"


def ensemble_sentences(run: RunResults) -> list[str]:
    """Return how the ensemble itself is scored, where that is another way than it teaches."""
    has_several, weighting = run.get("recipe.teacher.ensemble"), run.get("recipe.teacher.weighting")
    as_scored = {
        "correctness": "The ensemble’s own score sees no labels: there teachers are weighted by how sure they are.",
        "student_uncertainty": "The ensemble’s own score knows no student: there only the recipe’s weights count.",
    }
    return [as_scored[weighting]] if has_several and weighting in as_scored else []


def members_table(run: RunResults) -> Table | None:
    """Return the score of each teacher of an ensemble, that of the others without it, and how much it counts."""
    whole = get_nested(run.get("teacher.metrics") or {}, run.metric)
    rows = [_member_row(run, label, one, whole) for label, one in labelled_members(run)]
    note = "What it adds: the ensemble’s score minus that of the others, on the same rows."
    head = ("", headline_name(run), "interval", "without it", "it adds, points", "weight", "mean weight of a row")
    return make_table("Teachers", head, rows, note) if rows else None


def _member_row(run: RunResults, label: str, member: dict[str, Any], whole: float | None) -> tuple[str, ...]:
    score, without = (get_nested(member, *path, "metrics", run.metric) for path in ((), ("without",)))
    interval = member.get("interval") or {}
    return (
        label,
        decimal(score),
        span(interval["low"], interval["high"]) if None not in (interval.get("low"), interval.get("high")) else "",
        decimal(without),
        "" if whole is None or without is None else points(whole - without, "+"),
        f"{member['weight']:g}",
        percent(get_nested(member, "row_weights", "mean")),
    )


def labelled_members(run: RunResults) -> list[tuple[str, dict[str, Any]]]:
    """Return (number and short name, scores) of each teacher of an ensemble."""
    members = run.get("teacher.members") or []
    return [(f"{i + 1} {last_component(one['name'])}", one) for i, one in enumerate(members)]
