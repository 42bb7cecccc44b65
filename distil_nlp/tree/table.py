"""Scores of the compared models, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.reporting.formatting import decimal, percent, span
from distil_nlp.reporting.markdown import drop_empty
from distil_nlp.reporting.scores import metric_name
from distil_nlp.reporting.tables import format_gain
from distil_nlp.results import summarize_seeds
from distil_nlp.tasks import TASKS
from distil_nlp.tree.comparison import MIXTURE, SOFT_TREE, TEACHER, ComparedModel
from distil_nlp.tree.loading import TreeData

_GAIN = ("mean", "low", "high")


def tree_lines(data: TreeData, models: Sequence[ComparedModel]) -> list[dict[str, Any]]:
    """Return the entries of `models` in `results.json`, see `TreeLine`."""
    tree = next(model for model in models if _is_the_tree(model))
    return [_line(data, model, tree) for model in models]


def _is_the_tree(model: ComparedModel) -> bool:
    """Return whether a line is the tree that the page draws, as it predicts there."""
    return model.name == SOFT_TREE and model.taught_by == TEACHER


def _line(data: TreeData, model: ComparedModel, tree: ComparedModel) -> dict[str, Any]:
    split, seeds = data.first_split, list(model.outputs)
    first = [outputs[split] for outputs in model.outputs.values()]
    scores = [metrics_of(data.task, outputs) for outputs in model.outputs.values()]
    wanted = data.teacher[split].predictions.argmax(-1)
    agreements = [float(np.mean(one.predictions.argmax(-1) == wanted)) for one in first]
    return {
        "name": model.name,
        "taught_by": model.taught_by,
        "seeds": {name: summarize_seeds(seeds, [metrics[name] for metrics in scores]) for name in scores[0]},
        "interval": score_interval(data.task, first),
        "agreement": summarize_seeds(seeds, agreements),
        "gain": None if model is tree else _gain(data, model, tree),
    }


def _gain(data: TreeData, model: ComparedModel, tree: ComparedModel) -> dict[str, float]:
    """Return the gain of the tree over a model: seed by seed where both have the same, else over its first."""
    split = data.first_split
    paired = model.outputs.keys() == tree.outputs.keys()
    others = [outputs[split] for outputs in model.outputs.values()][: None if paired else 1]
    gain = paired_gain(data.task, [outputs[split] for outputs in tree.outputs.values()], others).to_dict()
    return {key: float(gain[key]) for key in _GAIN}


def tree_table(results: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of all models, its head first."""
    task, headline = results["task"], results["headline"]
    kind = TASKS[task].kind
    others = [name for name in results["models"][0]["seeds"] if name != headline and "/" not in name]
    head = [
        "",
        "taught by",
        metric_name(headline, kind),
        "95 % interval",
        "range (seeds)",
        *(metric_name(name, kind) for name in others),
        "agreement",
        "tree’s gain, points",
    ]
    rows = [_cells(line, headline, others) for line in results["models"]]
    majority = results["majority"]
    rows.append(["majority class", "", *_majority_cells(majority[headline], [majority[name] for name in others])])
    return drop_empty([head, *rows])


def _majority_cells(score: float, others: Sequence[float]) -> list[str]:
    return [decimal(score), "", "", *map(decimal, others), "", ""]


def _cells(line: Mapping[str, Any], headline: str, others: Sequence[str]) -> list[str]:
    score, interval = line["seeds"][headline], line["interval"]
    several = len(score["values"]) > 1
    return [
        line["name"],
        line["taught_by"],
        decimal(score["median"]),
        span(interval["low"], interval["high"]),
        f"{span(score['minimum'], score['maximum'])} ({len(score['values'])})" if several else "",
        *(decimal(line["seeds"][name]["median"]) for name in others),
        "" if line["name"] == TEACHER else percent(line["agreement"]["median"]),
        format_gain(line["gain"]),
    ]


def table_note() -> str:
    """Return how the table is read."""
    return (
        f"A soft tree predicts by the leaf with the greatest path probability; “{MIXTURE}” by all of them. Medians "
        "over seeds. Agreement: rows with the teacher’s prediction. Gain: soft tree taught by the teacher − this line, "
        "paired, with its 95 % interval; a point is 0.01."
    )


def headline_of(task: str) -> str:
    """Return the headline metric's name in words."""
    return metric_name(headline_metric(task), TASKS[task].kind)


def tree_verdict(results: Mapping[str, Any]) -> str:
    """Return what matters most: how near the tree comes to the teacher, and whether the teacher's answers pay."""
    headline = results["headline"]
    lines = {(line["name"], line["taught_by"]): line for line in results["models"]}
    tree, teacher = lines[SOFT_TREE, "teacher"], lines["teacher", ""]
    own, best = (line["seeds"][headline]["median"] for line in (tree, teacher))
    gain = lines[SOFT_TREE, "labels"]["gain"]
    return (
        f"The tree has {headline_of(results['task'])} {decimal(own)} where the teacher has {decimal(best)} and the "
        f"majority class {decimal(results['majority'][headline])}, and agrees with the teacher on "
        f"{percent(tree['agreement']['median'])} of the rows. Against the same tree taught by labels, "
        f"in points: {format_gain(gain)}."
    )
