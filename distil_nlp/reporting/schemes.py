"""Training schemes of a run: what was done, the students that taught, and what all of it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distil_nlp.reporting.formatting import count, decimal, duration, large, percent, plural
from distil_nlp.reporting.scores import headline_name, learned_from_answers
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults, get_nested

_STAGES = {
    "all_stages": "all stages",
    "plain": "plain distillation",
    "equal_compute": "plain distillation, equal compute",
}

_NOTE = (
    "Tokens count each time that a model reads them, and operations are those of the matrix products of all models; "
    "the teacher’s own training is not counted."
)


def scheme_sentences(run: RunResults) -> list[str]:
    """Return a sentence for each training scheme of a run, and one on whether its student under-fits."""
    sentences = [one["sentence"] for one in run.get("schemes.used") or [] if get_nested(one, "sentence")]
    sentences += zeros_sentences(run)
    if loss := run.get("schemes.train_loss"):
        sentences.append(
            f"On {loss['rows']} training rows its loss is {decimal(loss['student'])}, "
            f"the teacher’s {decimal(loss['teacher'])}."
        )
    return [*sentences, *answers_sentences(run)]


def zeros_sentences(run: RunResults) -> list[str]:
    """Return how many of a pruned student's weights are zero; [] for others."""
    found = run.get("student.sparsity")
    if not found:
        return []
    return [
        f"Of the {large(found['weights'])} weights of its blocks’ linear layers {percent(found['zeros'])} are zero, "
        f"which is {percent(found['of_all'])} of all its parameters."
    ]


def answers_sentences(run: RunResults) -> list[str]:
    """Return how many training rows have answers, how well these fit the labels, and their price; [] for a model."""
    found = run.get("teacher.answers")
    if not found:
        return []
    missing = found["rows"] - found["answered"]
    alone = "labels alone are" if learned_from_answers(run) else "the models’ outputs alone are"
    others = f"; of the other {missing:,} {alone} learnt" if missing else ""
    sentences = [f"{found['answered']:,} of {plural(found['rows'], 'training row')} have an answer{others}."]
    if found.get("training_score") is not None:
        sentences.append(f"Against the labels there, the answers have {headline_name(run)} "
                         f"{decimal(found['training_score'])}.")  # fmt: skip
    if found.get("price") is not None:
        sentences.append(f"All answers that were read cost {found['price']:,g}, in the data’s unit.")
    return sentences


def compute_table(run: RunResults) -> Table | None:
    """Return size, score and cost of each student that taught and of the run's own, and of all together."""
    links, metric = run.get("schemes.links") or [], run.metric
    rows = [
        (one.get("title"), large(one.get("parameters")), decimal(get_nested(one, "metrics", metric)), *_cost(one))
        for one in links
    ]
    if links:
        own = run.get("student.parameters"), run.get(f"student.metrics.{metric}")
        rows.append(("student", large(own[0]), decimal(own[1]), *_cost(run.get("training") or {})))
    compute = run.get("schemes.compute") or {}
    for name, title in _STAGES.items():
        if name in compute and not (name == "all_stages" and len(compute) == 1 and not links):
            rows.append((title, "", decimal(run.get(f"baselines.{name}.metrics.{metric}")), *_cost(compute[name])))
    head = ("", "parameters", headline_name(run), "steps", "time", "tokens forward", "tokens backward", "operations")
    return make_table("Cost of training", head, rows, _NOTE)


def _cost(training: Mapping[str, Any]) -> tuple[str, ...]:
    spent = count(training.get("steps")), duration(training.get("seconds"))
    tokens = large(training.get("tokens_forward")), large(training.get("tokens_backward"))
    return *spent, *tokens, large(training.get("flops"), "FLOP")
