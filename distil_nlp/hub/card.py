"""The model card: what was distilled from what, how, how good it is, and what it is not for.

Every word that could be wrong comes from `results.json` or the teacher's own card. What they do not say is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from distil_nlp.hub.card_facts import CardFacts, inline_code, model_link
from distil_nlp.hub.card_metadata import card_data, pipeline_tag
from distil_nlp.hub.card_method import method, reproduction, training_data
from distil_nlp.hub.citations import bibtex
from distil_nlp.hub.sources import hub_id
from distil_nlp.redaction import last_component
from distil_nlp.reporting.formatting import decimal, percent, plural
from distil_nlp.reporting.markdown import fence, markdown_table
from distil_nlp.reporting.scores import metric_name, other_metrics
from distil_nlp.reporting.sentences import distillation_gain, fidelity_sentences, headline, join_parts, majority_note
from distil_nlp.reporting.tables import cost_table, quality_table
from distil_nlp.results import drop_non_finite, get_nested
from distil_nlp.tasks.glue import GLUE
from distil_nlp.utils.files import write_atomically

CARD_FILE = "README.md"
PLACEHOLDER = "path/to/student"
"""Stands in the card where the model's name on the Hub will, once it is pushed."""
_SHOWN_LABELS = 20


def write_card(results: Mapping[str, Any], student: Path) -> Path:
    """Writes `<student>/README.md`, the model card that the Hub shows.

    No local path and no token gets into it; a path is named by its last component. To be called where the run ran:
    relative paths are told from names on the Hub by whether they exist.

    Args:
        results: as in `results.json`; `results["teacher"]["card"]` is what `teacher_metadata` found.
        student: the folder that transformers loads; its config.json tells class and depth.
    """
    write_atomically(student / CARD_FILE, render_card(results, student))
    return student / CARD_FILE


def render_card(results: Mapping[str, Any], student: Path) -> str:
    """The model card as text; see `write_card`."""
    facts = CardFacts(student.resolve().parent.name, student.parent, drop_non_finite(results))
    sections = {
        f"# {_title(facts)}": _summary(facts, student),
        "## How to use": _usage(facts),
        "## Quality": _quality(facts),
        "## Size and speed": _cost(facts),
        "## How it was distilled": method(facts),
        "## Training data": training_data(facts),
        "## Intended use and limits": _limits(facts),
        "## Reproducing it": reproduction(facts),
        "## Citation": fence(bibtex(facts.terms, facts.augmentations), "bibtex"),
    }
    body = "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items() if text)
    metadata = card_data(facts).to_yaml()
    return str(ModelCard(f"---\n{metadata}\n---\n\n{body}\n"))


def _title(facts: CardFacts) -> str:
    teacher = facts.get("recipe.teacher.name")
    shown = inline_code(last_component(teacher)) if teacher else "A model"
    if hub_id(teacher):
        shown = teacher.rpartition("/")[2]
    return f"{shown}, distilled on {facts.dataset if facts.task in GLUE else inline_code(facts.dataset)}"


def _summary(facts: CardFacts, student: Path) -> str:
    """What it is, what was kept of the teacher, and what one would have without a model."""
    teacher, others = (
        model_link(facts.get("recipe.teacher.name")) or "its teacher",
        facts.get("recipe.teacher.ensemble"),
    )
    if others:
        teacher = f"an ensemble of {len(others) + 1} teachers, whose logits were averaged ({teacher} the first)"
    tuned = " (fine-tuned on the same data first)" if facts.get("recipe.teacher.finetune") is not None else ""
    made = f"{_shape(student)} distilled from {teacher}{tuned} on {facts.linked_dataset} with distil_nlp."
    return join_parts(made, f"**{headline(facts)}**", majority_note(facts))


def _quality(facts: CardFacts) -> str:
    """What was measured on what, the table, and what its comparisons say."""
    found = quality_table(facts)
    if not found:
        return ""
    rows = [join_parts(inline_code(name), rows and f"({plural(rows, 'row')})") for name, rows in facts.splits.items()]
    units = {
        "mlm": "Accuracy is top-1 on masked tokens; a lower perplexity is better.",
        "classification": "Metrics are fractions of 1.",
        "regression": "Correlations are fractions of 1; a lower mean squared error is better.",
    }
    where = f"Measured on {', '.join([facts.linked_dataset, *rows])}. {units[facts.kind]}"
    scores = ((name, get_nested(facts.get("student.metrics"), name)) for name in (facts.metric, *other_metrics(facts)))
    this = [f"{metric_name(name, facts.kind)} {decimal(value)}" for name, value in scores if value is not None]
    seed = f"The weights here are those of seed {facts.seeds[0]}: {', '.join(this)}." if len(facts.seeds) > 1 else ""
    verdict = join_parts(distillation_gain(facts), *fidelity_sentences(facts))
    return join_parts(
        where, markdown_table([found.head, *found.rows]), join_parts(found.note, seed), verdict, by="\n\n"
    )


def _cost(facts: CardFacts) -> str:
    found = cost_table(facts)
    return f"{markdown_table([found.head, *found.rows])}\n\n{found.note}" if found else ""


def _shape(student: Path) -> str:
    """`A BertForMaskedLM of 3 layers`, as far as its configuration tells."""
    path = student / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = next(iter(config.get("architectures") or []), "model")
    layers = config.get("num_hidden_layers") or config.get("n_layers")
    return f"A {inline_code(name)}{f' of {layers} layers' if layers else ''}"


def _usage(facts: CardFacts) -> str:
    """A snippet that runs, and the classes it answers with."""
    length = facts.get("recipe.data.max_length")
    options = f", truncation=True{f', max_length={length}' if length else ''}"
    if facts.kind == "regression":
        options = f', function_to_apply="none"{options}'
    text = '{"text": "The first text.", "text_pair": "The second text."}' if _is_pair(facts) else '"Write a text here."'
    if facts.kind == "mlm":
        text, options = 'f"Write a text with a {model.tokenizer.mask_token} here."', ""
    snippet = (
        f"from transformers import pipeline\n\n"
        f'model = pipeline("{pipeline_tag(facts)}", model="{PLACEHOLDER}")\n'
        f"text = {text}\nprint(model(text{options}))"
    )
    labels = facts.get("labels") or []
    more = f" and {len(labels) - _SHOWN_LABELS} more" if len(labels) > _SHOWN_LABELS else ""
    classes = f"Classes: {', '.join(inline_code(label) for label in labels[:_SHOWN_LABELS])}{more}." if labels else ""
    return f"{fence(snippet, 'python')}\n\n{join_parts('Plain `transformers` loads it.', classes)}"


def _is_pair(facts: CardFacts) -> bool:
    columns = GLUE[facts.task].text_columns if facts.task in GLUE else facts.get("recipe.data.text_columns") or ()
    return len(columns) == 2


def _limits(facts: CardFacts) -> str:
    """What the figures do not cover."""
    purpose = {
        "mlm": "filling in masked words, and as a start for fine-tuning",
        "classification": "sorting texts into the classes it was trained on",
        "regression": "giving a text the number it was trained to give",
    }[facts.kind]
    measured = ", ".join(inline_code(name) for name in facts.splits) or "data of that kind"
    lines = [
        f"Meant for {purpose}, on text like that of {facts.linked_dataset}. It was evaluated on nothing but "
        f"{measured}: other domains, styles and languages were not looked at.",
        "It was trained to agree with its teacher, so it inherits the teacher’s errors and biases, and those of the "
        "data of both. Bias and fairness were not measured.",
    ]
    language, length = facts.get("teacher.card.language"), facts.get("recipe.data.max_length")
    if language:
        named = language if isinstance(language, str) else ", ".join(map(str, language))
        lines.append(f"Language, by the teacher’s card: {named}.")
    if length:
        lines.append(f"It learned from at most {length} tokens at once; longer texts were not tried.")
    accuracy, count = facts.get("student.metrics.accuracy"), next(iter(facts.splits.values()), None)
    if count and accuracy is not None and facts.kind == "classification":
        margin = 1.96 * math.sqrt(accuracy * (1 - accuracy) / count)
        known = f"±{margin:.3f} ({percent(0.95, 0)} interval of a binomial share)"
        lines.append(f"From {count:,} rows its accuracy is known to {known}.")
    if len(facts.seeds) < 2:
        lines.append("It was trained with one seed; how much another would change was not measured.")
    if facts.kind == "mlm":
        lines.append("Perplexity is over masked tokens, and compares only with the same vocabulary and masking.")
    return "\n".join(f"- {line}" for line in lines)
