"""The metadata of a model card, by which the Hub filters and which it shows beside the text."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCardData

from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.hub.sources import hub_id
from distil_nlp.recipe.sections import member_name
from distil_nlp.reporting.export import is_publishable
from distil_nlp.reporting.scores import metric_name
from distil_nlp.tasks import GLUE

_ON_HUB = {
    name: name
    for name in (
        *("accuracy", "f1", "matthews_correlation", "spearmanr", "mse", "perplexity"),
        *("spearman_cosine", "pearson_cosine"),
    )
}
_ON_HUB |= {"f1_macro": "f1", "f1_micro": "f1", "pearson": "pearsonr"}
"""Name in `results.json` → id on the Hub."""
_AVERAGES = {"f1_macro": "macro", "f1_micro": "micro"}


def card_data(facts: CardFacts) -> ModelCardData:
    """Return the metadata of a run's student, as far as the run knows it.

    Licence and language are the teacher's, whose weights the student starts from. Scores are those of the weights in
    `student/`, not a median over seeds. A distilled model is a `finetune` to the Hub, which knows besides it only
    `adapter`, `merge` and `quantized`.
    """
    dataset, bases, scores = facts.dataset_on_hub, _bases(facts), list(_scores(facts))
    return ModelCardData(
        language=facts.get("teacher.card.language"),
        license=facts.get("teacher.card.license"),
        license_name=facts.get("teacher.card.license_name"),
        license_link=facts.get("teacher.card.license_link"),
        library_name=facts.kind.library,
        pipeline_tag=facts.kind.pipeline_tag,
        base_model=bases[0] if len(bases) == 1 else bases or None,
        base_model_relation="finetune" if bases else None,
        datasets=[dataset] if dataset else None,
        metrics=list(dict.fromkeys(score.metric_type for score in scores)) or None,
        tags=["distil_nlp", "distillation", "knowledge-distillation", *_task_tags(facts), *_export_tags(facts)],
        model_name=facts.name if scores else None,
        eval_results=scores or None,
    )


def _scores(facts: CardFacts) -> Iterator[EvalResult]:
    """Yield one result for each metric and split."""
    metrics, dataset = facts.get("student.metrics") or {}, facts.dataset_on_hub
    several = any("/" in name for name in metrics)
    for name, value in metrics.items():
        split, _, metric = name.rpartition("/")
        if metric not in _ON_HUB or (several and not split) or value is None:
            continue
        yield EvalResult(
            task_type=facts.kind.pipeline_tag,
            dataset_type=dataset or "unknown",  # to the Hub, a type is the id of one of its datasets
            dataset_name=facts.dataset,
            dataset_config=facts.get("recipe.data.name") or (facts.task if facts.task in GLUE else None),
            dataset_split=split or next(iter(facts.splits), None),
            dataset_revision=facts.get("data.revision") or facts.get("recipe.data.revision"),
            metric_type=_ON_HUB[metric],
            metric_name=metric_name(metric, facts.kind),
            metric_value=round(value, 4),
            metric_args={"average": _AVERAGES[metric]} if metric in _AVERAGES else None,
        )


def _bases(facts: CardFacts) -> list[str]:
    """Return the models on the Hub that the student derives from: the checkpoint it started from, and its teachers."""
    start, base = hub_id(facts.get("recipe.student.name")), facts.get("teacher.card.base_model")
    teachers = base if isinstance(base, list) else [base or hub_id(facts.get("recipe.teacher.name"))]
    others = [hub_id(member_name(member)) for member in facts.get("recipe.teacher.ensemble") or []]
    return list(dict.fromkeys(filter(None, [start, *teachers, *others])))


def _task_tags(facts: CardFacts) -> list[str]:
    return ["glue", facts.task] if facts.task in GLUE else list(facts.kind.hub_tags)


def _export_tags(facts: CardFacts) -> list[str]:
    """Return the tags by which the Hub lists models for onnxruntime and transformers.js."""
    return ["onnx", "transformers.js"] if is_publishable(facts, "onnx") else []
