"""The sections of a model card that tell how the student was made: loss, start, training, data, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from distil_nlp.hub.card_facts import CardFacts, inline_code, model_link
from distil_nlp.hub.sources import hub_id
from distil_nlp.losses.registry import TERMS
from distil_nlp.redaction import last_component, redact_paths
from distil_nlp.reporting.formatting import decimal, duration, percent, plural
from distil_nlp.reporting.markdown import drop_empty, fence, markdown_table
from distil_nlp.reporting.sentences import join_parts

_PAIRINGS = {
    "uniform": "`uniform` pairs each student layer with the teacher’s at the same relative depth",
    "last": "`last` pairs the last layers",
    "all": "`all` is `uniform` and the embedding outputs",
}
_HYPERPARAMETERS = (
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio",
    "per_device_train_batch_size", "gradient_accumulation_steps", "optim", "adam_beta1", "adam_beta2", "adam_epsilon",
    "weight_decay", "max_grad_norm", "bf16", "fp16", "train_sampling_strategy", "load_best_model_at_end",
)  # fmt: skip
"""Fields of `TrainingArguments` that change the result; the recipe below has the others too."""


def method(facts: CardFacts) -> str:
    """Loss, initialisation, hyperparameters, hardware and time."""
    found = _terms(facts)
    balance = facts.get("recipe.balance.kind")
    how = f", balanced by {balance.replace('_', ' ')} as training went on" if balance not in (None, "fixed") else ""
    loss = f"The loss is the weighted sum of these terms{how}.\n\n{found}" if found else ""
    parts = (loss, _pairings(facts), _start(facts), _hyperparameters(facts), _effort(facts))
    return join_parts(*parts, by="\n\n")


def training_data(facts: CardFacts) -> str:
    """Which rows, how cut, how masked."""
    if not facts.get("recipe.data.path"):
        return ""
    rows, length, masking = (facts.get(key) for key in ("rows.train", "recipe.data.max_length", "recipe.data.masking"))
    named = {"configuration": "name", "revision": "revision", "split": "train_split"}
    found = {word: facts.get(f"recipe.data.{key}") for word, key in named.items()}
    found["revision"] = facts.get("data.revision") or found["revision"]
    parts = [f"{word} {inline_code(value)}" for word, value in found.items() if value]
    sentences = [join_parts(facts.linked_dataset, *parts, plural(rows, "row") if rows else "", by=", ") + "."]
    labelled = facts.get("rows.labelled")
    if rows and labelled is not None and labelled < rows:
        sentences.append(f"{labelled:,} of them have a label, which is all that a student without a teacher sees.")
    if length:
        sentences.append(f"Texts were {'packed into blocks of' if facts.kind == 'mlm' else 'cut at'} {length} tokens.")
    if facts.kind == "mlm" and masking:
        whole = " (whole words)" if masking.get("whole_words") else ""
        sentences.append(
            f"{percent(masking['probability'], 0)} of the tokens were chosen for masking{whole}, anew in each pass."
        )
    return join_parts(*sentences, *_augmentation(facts))


def _augmentation(facts: CardFacts) -> Iterator[str]:
    """What was made of the training rows."""
    replacement, cutoff, mixup = (
        facts.get(f"recipe.data.augmentation.{name}") for name in ("replacement", "cutoff", "mixup")
    )
    if replacement:
        by = f"by {model_link(replacement['model'])}" if replacement.get("model") else "by the teacher’s own checkpoint"
        yield (
            f"{replacement['copies']} more rows were made of each, with {percent(replacement['probability'], 0)} of "
            f"the words replaced by one of the {replacement['candidates']} likeliest, as proposed {by} (after "
            f"TinyBERT, {_arxiv('1909.10351')})."
        )
    if cutoff:
        yield (
            f"Of {percent(cutoff['share'], 0)} of the rows {percent(cutoff['probability'], 0)} of the tokens were not "
            f"seen, others in each pass ({_arxiv('2009.13818')})."
        )
    if mixup:
        yield (
            f"{percent(mixup['share'], 0)} of the rows were mixed with another one, by word embeddings, at shares from "
            f"Beta({mixup['alpha']:g}, {mixup['alpha']:g}) ({_arxiv('2011.00593')}); the teacher labelled the mixture."
        )


def _arxiv(number: str) -> str:
    return f"[{number}](https://arxiv.org/abs/{number})"


def reproduction(facts: CardFacts) -> str:
    """The recipe, folded away, and the command that runs it."""
    sections = redact_paths(facts.get("recipe") or {})
    recipe = {name: section for name, section in sections.items() if name not in ("hub", "run")}
    if not recipe:
        return ""
    commit = f" at commit {inline_code(facts.get('environment.commit'))}" if facts.get("environment.commit") else ""
    sources = filter(None, (facts.get(f"recipe.{key}") for key in ("teacher.name", "student.name", "data.path")))
    local = [inline_code(last_component(name)) for name in sources if not hub_id(name)]
    yours = f" Put your own in place of {' and '.join(local)}, which lay on the author’s disk." if local else ""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=1000)
    return (
        f"Save the recipe as `recipe.yaml` and, with distil_nlp{commit}, run `distil-nlp distill recipe.yaml`.{yours}"
        f"\n\n<details>\n<summary>recipe.yaml</summary>\n\n{fence(text, 'yaml')}\n\n</details>"
    )


def _terms(facts: CardFacts) -> str:
    """The loss: each term with weight, temperature, layers and source."""
    rows, is_regression = [], facts.kind == "regression"
    for name, term in facts.terms.items():
        known = TERMS.get(name)  # an older run may name another
        what, paper = (known.formula, known.paper) if known else ("", None)
        if known and is_regression and known.formula_of_regression:
            what, paper = known.formula_of_regression, None
        change = term.get("schedule") or {}
        rows.append([
            inline_code(name), what, _scheduled(term.get("weight", 1.0), change.get("weight")),
            "" if is_regression else _scheduled(term.get("temperature"), change.get("temperature")),
            _layers(term.get("layers")), _tokens(term, facts.kind),
            _arxiv(paper) if paper else "",
        ])  # fmt: skip
    head = ["term", "what is matched", "weight", "T", "layers", "tokens", "source (arXiv)"]
    return markdown_table(drop_empty([head, *rows]))


def _scheduled(start: float | None, change: Mapping[str, Any] | None) -> str:
    if start is None:
        return ""
    return f"{start:g} → {change['end']:g}, {change['shape']}" if change else f"{start:g}"


def _layers(layers: Any) -> str:
    if isinstance(layers, list | tuple):
        return ", ".join(f"{teacher}→{student}" for teacher, student in layers)
    return layers or ""


def _tokens(term: Mapping[str, Any], kind: str) -> str:
    """Which tokens a term looks at; outputs of whole sequences have none to choose from."""
    rows = term.get("rows")
    if rows is None or (kind != "mlm" and not term.get("layers")):
        return ""
    return rows if isinstance(rows, str) else f"{percent(rows, 0)}, drawn anew"


def _pairings(facts: CardFacts) -> str:
    used = [term.get("layers") for term in facts.terms.values()]
    found = [text for name, text in _PAIRINGS.items() if name in used]
    if any(isinstance(layers, list | tuple) for layers in used):
        found.append("`t→s` pairs teacher layer t with student layer s, counted from 0")
    return f"Layers: {'; '.join(found)}." if found else ""


def _start(facts: CardFacts) -> str:
    found = facts.get("student.initialisation") or {}
    if found.get("teacher_layers"):
        layers = ", ".join(map(str, found["teacher_layers"]))
        return f"The student’s layers started as the teacher’s layers {layers} (counted from 0)."
    if found.get("checkpoint"):
        return f"The student started from {model_link(found['checkpoint'])}."
    return "The student started from random weights." if "teacher_layers" in found else ""


def _hyperparameters(facts: CardFacts) -> str:
    fields, seeds = facts.get("recipe.training") or {}, facts.seeds or [facts.get("environment.seed")]
    shown = [f"{inline_code(name)} {fields[name]}" for name in _HYPERPARAMETERS if fields.get(name) is not None]
    if seeds[0] is not None:
        shown.append(f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    if (facts.get("environment.processes") or 1) > 1:
        shown.append(f"{facts.get('environment.processes')} processes")
    own = f"Training: {', '.join(shown)}; all else as `TrainingArguments` has it." if shown else ""
    tuning = facts.get("recipe.teacher.finetune")
    if tuning is None:
        return own
    given = ", ".join(f"{inline_code(name)} {value}" for name, value in redact_paths(tuning).items())
    return join_parts(own, f"The teacher was fine-tuned on the same data first{f': {given}' if given else ''}.")


def _effort(facts: CardFacts) -> str:
    """Hardware, time and versions."""
    steps, tokens, memory = (facts.get(f"training.{name}") for name in ("steps", "tokens", "peak_memory_mib"))
    parts = [
        duration(facts.get("training.seconds")),
        steps and plural(steps, "step"),
        tokens and plural(tokens, "token"),
        memory and f"peak memory of the process {decimal(memory)} MiB",
        facts.get("environment.device") and f"on {facts.get('environment.device')}",
    ]
    found = join_parts(*parts, by=", ")
    known = {name: version for name, version in (facts.get("environment.versions") or {}).items() if version}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    effort = f"One training of the student: {found}." if found else ""
    return join_parts(effort, f"Versions: {versions}." if versions else "")
