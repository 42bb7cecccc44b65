"""The values that the template of a model card shows, section by section; each function returns those of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distil_nlp.data.paths import all_paths
from distil_nlp.hub.card_export import export_context, table_in_markdown
from distil_nlp.hub.card_facts import CardFacts, inline_code, model_link
from distil_nlp.hub.card_method import method, training_data
from distil_nlp.hub.citations import bibtex
from distil_nlp.hub.sources import hub_id
from distil_nlp.recipe import concise, dump_yaml, read_yaml
from distil_nlp.redaction import last_component, redact_paths
from distil_nlp.reporting.formatting import decimal, percent, plural
from distil_nlp.reporting.joint import exits_table
from distil_nlp.reporting.latency import latency_sentences, latency_table
from distil_nlp.reporting.markdown import escape_markdown, fence
from distil_nlp.reporting.schemes import answers_sentences
from distil_nlp.reporting.scores import (
    answers_word,
    has_taught_itself,
    learned_from_answers,
    metric_name,
    other_metrics,
)
from distil_nlp.reporting.sentences import (
    distillation_gain,
    fidelity_sentences,
    headline,
    majority_note,
    threshold_sentences,
)
from distil_nlp.reporting.tables import cost_table, quality_table
from distil_nlp.reporting.verdicts import verdicts
from distil_nlp.results import get_nested
from distil_nlp.tasks import GLUE, TaskKind
from distil_nlp.utils.files import read_json

_SHOWN_LABELS = 20
_OF_EXIT = """from transformers import AUTO, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("STUDENT")
model = AUTO.from_pretrained("STUDENT", subfolder="FOLDER")"""


def card_context(facts: CardFacts, student: Path) -> dict[str, Any]:
    """Return all names of `templates/card.md.j2` but `card_data` and `model_name`.

    Args:
        student: the folder of the student, whose config.json names class and depth.
    """
    config = read_json(student / "config.json", "the card does not name its architecture") or {}
    return {
        "fence": fence,
        **_summary(facts, config),
        **_usage(facts, config),
        **_quality(facts),
        **_cost(facts),
        **_exits(facts),
        **export_context(facts, facts.is_pair, student),
        **method(facts),
        **training_data(facts),
        "answer_counts": [escape_markdown(sentence) for sentence in answers_sentences(facts)],
        **_limits(facts),
        **_reproduction(facts),
        "bibtex": bibtex(facts.terms, facts.augmentations),
    }


def _summary(facts: CardFacts, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": _title(facts),
        "architecture": inline_code(next(iter(config.get("architectures") or []), "model")),
        "num_layers": config.get("num_hidden_layers") or config.get("n_layers"),
        "teacher": model_link(facts.get("recipe.teacher.name")) or "its teacher",
        "answers": escape_markdown(answers_word(facts)) if learned_from_answers(facts) else "",
        "taught_itself": has_taught_itself(facts),
        "num_teachers": 1 + len(facts.get("recipe.teacher.ensemble") or []),
        "is_teacher_finetuned": facts.get("recipe.teacher.finetune") is not None,
        "dataset": facts.linked_dataset,
        "headline": escape_markdown(headline(facts)),
        "warnings": [escape_markdown(one.text) for one in verdicts(facts) if one.severity in ("stop", "caution")],
        "majority_note": escape_markdown(majority_note(facts)),
    }


def _title(facts: CardFacts) -> str:
    teacher = facts.get("recipe.teacher.name")
    shown = inline_code(last_component(teacher)) if teacher else "A model"
    if hub_id(teacher):
        shown = teacher.rpartition("/")[2]
    how = "taught by itself" if has_taught_itself(facts) else "distilled"
    return f"{shown}, {how} on {facts.dataset if facts.task in GLUE else inline_code(facts.dataset)}"


def _usage(facts: CardFacts, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a snippet that runs, and the classes it answers with."""
    labels, length = _classes(facts, config), facts.get("recipe.data.max_length")
    options = facts.kind.pipeline_options
    if facts.kind.truncates:
        options += f", truncation=True{f', max_length={length}' if length else ''}"
    return {
        "pipeline_tag": facts.kind.pipeline_tag,
        "library": facts.kind.library,
        "usage": facts.kind.usage,
        "example": facts.kind.example_pair if facts.is_pair else facts.kind.example_input,
        "call_options": options,
        "labels": [inline_code(label) for label in labels[:_SHOWN_LABELS]],
        "thresholds": [escape_markdown(sentence) for sentence in threshold_sentences(facts)],
        "more_labels": max(0, len(labels) - _SHOWN_LABELS),
    }


def _classes(facts: CardFacts, config: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes, unless the model calls them otherwise, as one of an earlier version may."""
    labels = facts.get("labels") or []
    if not config:
        return labels
    own = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # two by default are not in the file
    return labels if [own.get(str(i)) for i in range(len(own))] == labels else []


def _quality(facts: CardFacts) -> dict[str, Any]:
    """Return what was measured on what, the table, and the sentences of its comparisons."""
    table, splits = quality_table(facts), facts.splits.items()
    notes = [escape_markdown(table.note) if table else "", _published_scores(facts)]
    findings = [distillation_gain(facts), *fidelity_sentences(facts)]
    return {
        "quality": table_in_markdown(table),
        "splits": [
            f"{inline_code(name)} ({plural(rows, facts.kind.row_name)})" if rows else inline_code(name)
            for name, rows in splits
        ],
        "units": facts.kind.metric_note,
        "quality_notes": [note for note in notes if note],
        "findings": [escape_markdown(sentence) for sentence in findings],
    }


def _published_scores(facts: CardFacts) -> str:
    """Return the scores of the weights in the repository, where the table has medians over seeds."""
    if len(facts.seeds) < 2:
        return ""
    metrics = facts.get("student.metrics")
    scores = ((name, get_nested(metrics, name)) for name in (facts.metric, *other_metrics(facts)))
    shown = [f"{metric_name(name, facts.kind)} {decimal(value)}" for name, value in scores if value is not None]
    return f"The weights here are those of seed {facts.seeds[0]}: {escape_markdown(', '.join(shown))}."


def _cost(facts: CardFacts) -> dict[str, Any]:
    """Return the tables of size and latency with their notes, and that nothing was measured or the machine was busy."""
    cost, latency = cost_table(facts), latency_table(facts)
    notes = [latency.note if latency else "", *latency_sentences(facts)]
    return {
        "cost": table_in_markdown(cost),
        "cost_note": escape_markdown(cost.note) if cost else "",
        "latency": table_in_markdown(latency),
        "latency_note": escape_markdown(" ".join(filter(None, notes))),
    }


def _exits(facts: CardFacts) -> dict[str, Any]:
    """Return the table of the student's exits, and the names that load one; an empty table without exits."""
    table, exits = exits_table(facts), facts.get("exits") or []
    if table is None:
        return {"exits": ""}
    return {
        "exits": table_in_markdown(table),
        "exits_note": escape_markdown(table.note),
        "exit_snippet": _OF_EXIT.replace("AUTO", facts.kind.auto_model).replace("FOLDER", exits[-1]["folder"]),
    }


def _limits(facts: CardFacts) -> dict[str, Any]:
    """Return what the figures do not cover."""
    language = facts.get("teacher.card.language") or ""
    named = language if isinstance(language, str) else ", ".join(map(str, language))
    return {
        "purpose": facts.kind.purpose,
        "measured": [inline_code(name) for name in facts.splits],
        "language": escape_markdown(named),
        "margin": _accuracy_margin(facts),
        "num_seeds": len(facts.seeds),
        "limit": facts.kind.limit,
    }


def _is_accuracy_of_rows(kind: TaskKind) -> bool:
    return kind.level == "sequence" and kind.output == "distribution"


def _accuracy_margin(facts: CardFacts) -> dict[str, str]:
    """Return rows, half-width and level of the accuracy's 95 % interval; {} where accuracy is not one of rows."""
    accuracy, count = facts.get("student.metrics.accuracy"), next(iter(facts.splits.values()), None)
    if not count or accuracy is None or not _is_accuracy_of_rows(facts.kind):
        return {}
    margin = 1.96 * math.sqrt(accuracy * (1 - accuracy) / count)
    return {"rows": f"{count:,}", "value": f"{margin:.3f}", "level": percent(0.95, 0)}


def _reproduction(facts: CardFacts) -> dict[str, Any]:
    """Return the recipe as a person would write it, and what a reader must put in its place."""
    several = _recipe_of_several(facts)
    settings = redact_paths(several or concise(facts.get("recipe") or {}))
    recipe = {name: section for name, section in settings.items() if name not in ("hub", "run")}
    commit = facts.get("environment.commit")
    models = filter(None, (facts.get(f"recipe.{key}.name") for key in ("teacher", "student")))
    sources = [*models, *all_paths(facts.get("recipe.data.path") or [])]
    sources += all_paths(facts.get("recipe.evaluation.probe.path") or [])
    for entry in several.get("data", []):
        name = (entry.get("teacher") or {}).get("name")
        sources += [one for one in (name, *all_paths(entry.get("path") or [])) if one and one not in sources]
    return {
        "recipe": dump_yaml(recipe) if recipe else "",
        "is_part": bool(facts.get("recipe.multitask.tasks")) and not several,
        "commit": inline_code(commit) if commit else "",
        "local_sources": [inline_code(last_component(name)) for name in sources if not hub_id(name)],
    }


def _recipe_of_several(facts: CardFacts) -> dict[str, Any]:
    """Return the recipe of all tasks that were distilled at once, which is in the folder above; {} without one."""
    file = facts.folder.parent / "recipe.yaml"
    if not facts.get("recipe.multitask.tasks") or not file.is_file():
        return {}
    recipe = read_yaml(file)
    return recipe if isinstance(recipe.get("data"), list) else {}
