"""The values of a model card's sections on how the student was made: loss, start, training, data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distil_nlp.hub.card_facts import CardFacts, inline_code, model_link
from distil_nlp.hub.citations import AUGMENTATION
from distil_nlp.losses.registry import TERMS
from distil_nlp.redaction import redact_paths
from distil_nlp.reporting.formatting import decimal, duration, percent, plural
from distil_nlp.reporting.markdown import drop_empty, escape_markdown, markdown_table
from distil_nlp.reporting.pruning import pruning_sentences
from distil_nlp.reporting.schemes import zeros_sentences
from distil_nlp.reporting.tokens import tokens_sentences
from distil_nlp.tasks import TaskKind

_PAIRINGS = {
    "uniform": "`uniform` pairs each student layer with the teacher’s at the same relative depth",
    "last": "`last` pairs the last layers",
    "all": "`all` is `uniform` and the embedding outputs",
}
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")
_HYPERPARAMETERS = (
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio",
    "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon",
    "weight_decay", "max_grad_norm", "bf16", "fp16", "train_sampling_strategy", "load_best_model_at_end",
)  # fmt: skip
"""Fields of `TrainingArguments` that change the result; the recipe in the card has the others too."""


def method(facts: CardFacts) -> dict[str, Any]:
    """Return loss, initialisation, hyperparameters, hardware and time."""
    balance, start = facts.get("recipe.balance.kind"), facts.get("student.initialisation") or {}
    checkpoint = start.get("checkpoint")
    values = {
        "terms": _terms(facts),
        "own_code": _own_code(facts),
        "schemes": [escape_markdown(sentence) for sentence in _scheme_sentences(facts)],
        "pairings": _pairings(facts),
        "teacher_layers": start.get("teacher_layers"),
        "origin": _origin(facts),
        "pruning": [escape_markdown(sentence) for sentence in pruning_sentences(facts)],
        "without_place": _names(start.get("dropped") or []),
        "checkpoint": model_link(checkpoint) if checkpoint else "",
        "is_random": "teacher_layers" in start and not start["teacher_layers"] and not checkpoint,
        "hyperparameters": _hyperparameters(facts),
        "effort": _effort(facts),
        "versions": _versions(facts),
    }
    return values | {
        "has_method": any(values.values()) or facts.get("recipe.teacher.finetune") is not None,
        "balance": "" if balance in (None, "fixed") else escape_markdown(balance.replace("_", " ")),
        "finetuning": _fields(redact_paths(facts.get("recipe.teacher.finetune") or {})),
    }


def _origin(facts: CardFacts) -> str:
    """Return which model the student's layers are from; empty for its own teacher."""
    first, *_ = facts.get("recipe.multitask.tasks") or [None]
    if first != facts.get("recipe.multitask.task"):
        return f"the teacher of {escape_markdown(first)}"
    return "the last assistant" if facts.get("recipe.teacher.start") == "assistant" else ""


def _scheme_sentences(facts: CardFacts) -> list[str]:
    return [*(one["sentence"] for one in facts.get("schemes.used") or []), *zeros_sentences(facts)]


def _names(tensors: list[str]) -> str:
    """Return how many tensors there are, and the names of the first; empty without any."""
    more = " …" if len(tensors) > 4 else ""
    return f"{plural(len(tensors), 'tensor')} ({', '.join(map(inline_code, tensors[:4]))}{more})" if tensors else ""


def _terms(facts: CardFacts) -> str:
    """Return the loss as a table: each term with weight, temperature, layers and source."""
    head = ["term", "what is matched", "weight", "T", "layers", "tokens", "source (arXiv)"]
    return markdown_table(drop_empty([head, *(_term(name, term, facts) for name, term in facts.terms.items())]))


def _term(name: str, term: Mapping[str, Any], facts: CardFacts) -> list[str]:
    change, is_soft = term.get("schedule") or {}, facts.kind.output != "number"
    formula, source = _matched(name, facts)
    return [
        inline_code(name),
        formula,
        _scheduled(term.get("weight", 1.0), change.get("weight")),
        _scheduled(term.get("temperature"), change.get("temperature")) if is_soft else "",
        _layers(term.get("layers")),
        _tokens(term, facts.kind),
        source,
    ]


def _matched(name: str, facts: CardFacts) -> tuple[str, str]:
    """Return what a term matches, and its source: a paper, or code of one's own; empty for one of an older version."""
    known, own, is_number = TERMS.get(name), facts.own_terms.get(name), facts.kind.output == "number"
    if known is not None and known.formula_of_regression and is_number:
        return known.formula_of_regression, ""
    if known is not None:
        is_variant = known.is_variant or facts.kind.output in known.formulas
        source = f"{'after ' * is_variant}{_arxiv(known.paper)}" if known.paper else ""
        return known.formula_for(facts.kind.output), source
    if own is None:
        return "", ""
    formula, paper = (is_number and own.get("formula_of_regression")) or own.get("formula"), own.get("paper")
    source = f", after {_arxiv(paper)}" if paper and _ARXIV.fullmatch(paper) else ""
    return escape_markdown(formula or ""), f"own code, {_code_name(own['plugin'])}{source}"


def _own_code(facts: CardFacts) -> list[str]:
    """Return each term that is not the tool's, with its file or module and the hash of it."""
    return [
        f"{inline_code(name)} of {_code_name(own['plugin'])} (SHA-256 {inline_code(own['sha256'])})"
        for name, own in facts.own_terms.items()
    ]


def _code_name(plugin: Any) -> str:
    return inline_code(redact_paths(plugin))


def _arxiv(number: str) -> str:
    return f"[{number}](https://arxiv.org/abs/{number})"


def _scheduled(start: float | None, change: Mapping[str, Any] | None) -> str:
    if start is None:
        return ""
    return f"{start:g} → {change['end']:g}, {escape_markdown(change['shape'])}" if change else f"{start:g}"


def _layers(layers: Any) -> str:
    if isinstance(layers, list | tuple):
        layers = ", ".join(f"{teacher}→{student}" for teacher, student in layers)
    return escape_markdown(layers or "")


def _tokens(term: Mapping[str, Any], kind: TaskKind) -> str:
    """Return the tokens that a term compares; outputs of whole sequences have none to choose from."""
    rows = term.get("rows")
    if rows is None and "rows" in term and kind.level == "token":
        rows = kind.label_rows  # the default
    if rows is None or not (kind.level == "token" or term.get("layers")):
        return ""
    return escape_markdown(rows) if isinstance(rows, str) else f"{percent(rows, 0)}, drawn anew"


def _pairings(facts: CardFacts) -> list[str]:
    used = [term.get("layers") for term in facts.terms.values()]
    explained = [text for name, text in _PAIRINGS.items() if name in used]
    if any(isinstance(layers, list | tuple) for layers in used):
        explained.append("`t→s` pairs teacher layer t with student layer s, counted from 0")
    return explained


def _hyperparameters(facts: CardFacts) -> list[str]:
    fields, seeds = facts.get("recipe.training") or {}, facts.seeds or [facts.get("environment.seed")]
    processes = facts.get("environment.processes") or 1
    shown = _fields({name: fields[name] for name in _HYPERPARAMETERS if fields.get(name) is not None})
    if seeds[0] is not None:
        shown.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    return [*shown, *([f"{processes} processes"] if processes > 1 else [])]


def _fields(fields: Mapping[str, Any]) -> list[str]:
    return [f"{inline_code(name)} {escape_markdown(str(value))}" for name, value in fields.items()]


def _effort(facts: CardFacts) -> list[str]:
    """Return time, steps, tokens, memory and hardware of one training, as far as they are known."""
    steps, tokens, memory = (facts.get(f"training.{name}") for name in ("steps", "tokens", "peak_memory_mib"))
    device, energy = facts.get("environment.device"), facts.get("training.energy.kwh")
    parts = [
        duration(facts.get("training.seconds")),
        steps and plural(steps, "step"),
        tokens and plural(tokens, "token"),
        energy and f"{decimal(energy)} kWh by codecarbon",
        memory and f"peak memory of the process {decimal(memory)} MiB",
        device and f"on {escape_markdown(device)}",
    ]
    return [part for part in parts if part]


def _versions(facts: CardFacts) -> list[str]:
    versions = facts.get("environment.versions") or {}
    return [escape_markdown(f"{name} {version}") for name, version in versions.items() if version]


def training_data(facts: CardFacts) -> dict[str, Any]:
    """Return which rows the student learned from, how long, how masked, and what was made of them."""
    rows, labelled = facts.get("rows.train"), facts.get("rows.labelled")
    masking = facts.get("recipe.data.masking") if "masking" in facts.kind.data_keys else None
    return {
        "has_data": bool(facts.get("recipe.data.path")),
        "data_details": _data_details(facts, rows),
        "labelled_rows": f"{labelled:,}" if rows and labelled is not None and labelled < rows else "",
        "max_length": facts.get("recipe.data.max_length"),
        "packing": facts.kind.truncation,
        "tokens": [escape_markdown(sentence) for sentence in tokens_sentences(facts)],
        "masked": percent(masking["probability"], 0) if masking and masking["probability"] else "",
        "is_unmasked": bool(masking and masking["probability"] == 0),
        "has_whole_words": bool(masking and masking.get("whole_words")),
        "has_spans": bool(masking and masking.get("spans")),
        **_augmentation(facts),
    }


def _data_details(facts: CardFacts, rows: int | None) -> list[str]:
    data = facts.get("recipe.data") or {}
    named = {
        "configuration": data.get("name"),
        "revision": facts.get("data.revision") or data.get("revision"),
        "split": data.get("train_split"),
    }
    details = [f"{word} {inline_code(value)}" for word, value in named.items() if value]
    return [*details, *([plural(rows, facts.kind.row_name)] if rows else [])]


def _augmentation(facts: CardFacts) -> dict[str, dict[str, Any] | None]:
    """Return the settings of what was made of the training rows, in words, with the paper; None for what was not."""
    shown: dict[str, dict[str, Any] | None] = dict.fromkeys(AUGMENTATION)
    for name, settings in facts.augmentations.items():
        percents: dict[str, Any] = {
            key: percent(settings[key], 0) for key in ("share", "probability") if key in settings
        }
        shown[name] = {**settings, **percents, "paper": _arxiv(AUGMENTATION[name])}
    if shown["replacement"]:
        shown["replacement"]["model"] = model_link(shown["replacement"]["model"])
    if shown["mixup"]:
        shown["mixup"]["alpha"] = f"{shown['mixup']['alpha']:g}"
    return shown
