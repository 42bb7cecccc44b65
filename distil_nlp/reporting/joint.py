"""What trained together with a student, in words and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distil_nlp.reporting.formatting import decimal, large, milliseconds, percent, plural, times
from distil_nlp.reporting.latency import headline_setting, latency_in, speed_up, timed_model_name
from distil_nlp.reporting.scores import ScoredModel, headline_name, retention_of, scored_models, teacher_word
from distil_nlp.reporting.tables import Table, format_median, format_range, make_table
from distil_nlp.results import RunResults, get_nested


def joint_sentences(run: RunResults) -> list[str]:
    """Return what trained together with the student and what came of it; [] for a student alone."""
    return [sentence for sentence in (_exits_sentence(run), _peers_sentence(run), _branches_sentence(run)) if sentence]


def _exits_sentence(run: RunResults) -> str:
    exits, settings = run.get("exits"), run.get("recipe.student.exits") or {}
    if not exits:
        return ""
    depths = ", ".join(str(one["layers"]) for one in exits)
    layers = "layer" if depths == "1" else "layers"
    alpha, temperature = (decimal(settings.get(name)) for name in ("alpha", "temperature"))
    return (
        f"Exits after {depths} {layers} trained together with the student (Be Your Own Teacher, arXiv:1905.08094). "
        f"Each learns a share of {alpha} from the student’s own output at temperature {temperature}, the rest from the "
        "objective, and is a plain model of its own in exits/."
    )


def _peers_sentence(run: RunResults) -> str:
    peers, settings = run.get("peers"), run.get("recipe.student.peers") or {}
    if not peers:
        return ""
    return (
        f"{len(peers['members'])} students trained together and learned from each other’s outputs (deep mutual "
        f"learning, arXiv:1706.00384; {_strength(settings)}). {_chosen(peers, 'peer')}"
    )


def _branches_sentence(run: RunResults) -> str:
    branches, settings = run.get("branches"), run.get("recipe.student.branches") or {}
    if not branches:
        return ""
    return (
        f"{len(branches['members'])} branches of {plural(settings.get('blocks') or 1, 'layer')} over shared ones "
        "trained together, and learned from their sum, weighed by a gate (ONE, arXiv:1806.04606; "
        f"{_strength(settings)}). {_chosen(branches, 'branch')}"
    )


def _strength(settings: Mapping[str, Any]) -> str:
    """Return weight and temperature of what models learn from each other."""
    ramp = settings.get("ramp") or "constant"
    grown = f", which grew from 0 ({ramp})" if ramp != "constant" else ""
    weight, temperature = (decimal(settings.get(name)) for name in ("weight", "temperature"))
    return f"weight {weight}{grown}, temperature {temperature}"


def _chosen(found: Mapping[str, Any], word: str) -> str:
    """Return which of several models was kept, and why."""
    kept = f"{word.capitalize()} {found['exported']} of {len(found['members'])} was kept"
    if found["chosen_by"] == "first":
        return f"{kept}, the first, since there were no rows to choose by."
    return f"{kept}, the best on rows apart from those that scores are of."


def members_tables(run: RunResults) -> list[Table]:
    """Return the scores of peers or branches, of their mean and of their ensemble; [] for a student alone."""
    tables = [_members_table(run, key, word) for key, word in (("peers", "peer"), ("branches", "branch"))]
    return [table for table in tables if table]


def _members_table(run: RunResults, key: str, word: str) -> Table | None:
    found, metric = run.get(key), run.metric
    if not found:
        return None
    rows = [
        (
            f"{word} {number}{', kept' if number == found['exported'] else ''}",
            decimal(get_nested(member, "metrics", metric)),
            decimal(member.get("selection")),
            str(member.get("layers") or ""),
            ", ".join(map(str, get_nested(member, "initialisation", "teacher_layers") or ())),
        )
        for number, member in enumerate(found["members"], 1)
    ]
    rows += [(name, decimal(get_nested(found, name, metric)), "", "", "") for name in ("mean", "ensemble")]
    head = ["", headline_name(run), "on rows to choose by", "layers", "from layers"]
    note = "Ensemble: the mean of their probabilities. Which one is kept was not chosen by these scores."
    return make_table(f"{key.capitalize()} that trained together", head, rows, note)


def exits_table(run: RunResults) -> Table | None:
    """Return score, size and speed of the student's exits, of the student and of the teacher."""
    if not run.get("exits"):
        return None
    setting = headline_setting(run)
    head = ["", headline_name(run), "range (seeds)", "retention", "layers", "parameters", "ms", "speed-up"]
    rows = [
        (
            step.model.label,
            format_median(step.model.score(run.metric)),
            format_range(step.model.score(run.metric)),
            percent(retention_of(run, step.model)),
            str(step.layers or ""),
            large(step.figures.get("parameters")),
            milliseconds(latency_in(run, setting, step.model.role)),
            times(speed_up(run, setting, step.model.role)) if step.model.role != "teacher" else "",
        )
        for step in ladder_of_exits(run)
    ]
    note = f"ms: median latency, {setting}; speed-up over the {teacher_word(run)}." if setting else ""
    return make_table("Exits: a student of each depth", head, rows, note)


@dataclass(frozen=True)
class Step:
    """A model of the ladder of exits.

    Attributes:
        model: its scores and name.
        layers: its layers; None where unknown.
        figures: its block in `results.json`.
    """

    model: ScoredModel
    layers: int | None
    figures: Mapping[str, Any]


def ladder_of_exits(run: RunResults) -> list[Step]:
    """Return teacher, student and exits, the deepest first."""
    depth = run.get("recipe.student.num_layers") or len(run.get("student.initialisation.teacher_layers") or ()) or None
    layers = {"teacher": None, "student": depth}
    models = {row.role: row for row in scored_models(run) if row.role in layers}
    steps = [Step(models[role], layers[role], run.get(role) or {}) for role in layers if role in models]
    return steps + [Step(_exit_scores(run, one), one["layers"], one) for one in reversed(run.get("exits") or [])]


def _exit_scores(run: RunResults, one: Mapping[str, Any]) -> ScoredModel:
    role = f"exit_{one['layers']}"
    return ScoredModel(role, timed_model_name(run, role), one.get("metrics") or {}, one.get("seeds") or {})
