"""Sentences on what takes most of a run, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.stage import PlannedStage, RunCosts
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.formatting import duration, large, percent

_MUCH, _SOME = 0.25, 0.1
"""Shares of a run from which large stages and the teacher are named, and smaller parts."""
_SHORT_STEP = 0.03
"""Seconds of a step below which a GPU waits for the host that starts its operators, a rule of thumb, not measured."""


def advice_of(costs: RunCosts, recipe: Recipe, basis: Basis) -> list[str]:
    """Return what takes most of a run, and what to change, the most first.

    Args:
        costs: of the run.
        recipe: of the run.
        basis: the machine that it is for.
    """
    total = costs.seconds
    found = [
        *_stages(costs, total),
        *_teacher(costs, recipe, total),
        *_terms(costs, total),
        *_checkpoints(costs, total),
    ]
    ordered = [text for _, text in sorted(found, key=lambda one: -one[0])]
    return [*_shape(recipe), *_fitting(costs, basis), *ordered, *_precision(recipe, basis)]


def _shape(recipe: Recipe) -> Iterator[str]:
    if recipe.student.budget is not None:
        yield (
            "the student's shape is searched for: the figures are those of half the teacher's layers, "
            "without measuring what layers cost"
        )


def _stages(costs: RunCosts, total: float) -> Iterator[tuple[float, str]]:
    """Yield (share, sentence) of the stages that take much."""
    baselines = [one for one in costs.stages if one.kind == "baseline"]
    if (share := _share(baselines, total)) >= _MUCH:
        yield (
            share,
            f"baselines take {percent(share, 0)}: evaluation.baselines=[] leaves them out until the recipe is settled",
        )
    seeds = [one for one in costs.stages if one.kind in ("student", "baseline") and one.times > 1]
    if (share := _share(seeds, total) * (1 - 1 / max((one.times for one in seeds), default=1))) >= _MUCH:
        yield share, f"seeds beyond the first take {percent(share, 0)}: try with evaluation.seeds=1 first"
    links = [one for one in costs.stages if one.kind == "link"]
    if (share := _share(links, total)) >= _MUCH:
        yield (
            share,
            f"students that teach the next take {percent(share, 0)}; they are trained once and kept for later runs",
        )
    tuning = [one for one in costs.stages if one.kind == "teacher"]
    if (share := _share(tuning, total)) >= _MUCH:
        yield share, f"fine-tuning the teacher takes {percent(share, 0)}; it is done once and kept for later runs"
    measuring = [one for one in costs.stages if one.name == "measuring time and memory"]
    if (share := _share(measuring, total)) >= _SOME:
        yield (
            share,
            f"measuring time and memory takes {percent(share, 0)}: evaluation.efficiency=quick or off is shorter",
        )


def _teacher(costs: RunCosts, recipe: Recipe, total: float) -> Iterator[tuple[float, str]]:
    """Yield (share, sentence) of the teacher's forward in the steps, if a cache would save most of it."""
    trained = [one for one in costs.stages if one.kind in ("student", "baseline")]
    seconds = sum(one.parts.get("teacher", 0.0) for one in trained)
    share = seconds / total if total else 0.0
    if share < _MUCH or recipe.teacher.cache is not None:
        return
    text = f"the teacher's forward takes {percent(share, 0)} ({duration(seconds)})"
    if recipe.teacher.self is None and not _changes_rows(recipe):
        text += ": teacher.cache={} runs it once a row for all students and later runs"
    yield share, text


def _terms(costs: RunCosts, total: float) -> Iterator[tuple[float, str]]:
    """Yield (share, sentence) of each term whose own sums take much."""
    for name in dict.fromkeys(name for one in costs.stages for name in one.terms):
        share = sum(one.terms.get(name, 0.0) for one in costs.stages) / total if total else 0.0
        if share >= _SOME:
            yield share, f"{name} takes {percent(share, 0)}, and its backward: fewer layers or shorter rows take less"


def _changes_rows(recipe: Recipe) -> bool:
    """Return whether rows are changed as they are read, so that outputs for them cannot be kept."""
    own = recipe.data.augmentation
    return own.cutoff is not None or own.mixup is not None


def _checkpoints(costs: RunCosts, total: float) -> Iterator[tuple[float, str]]:
    for part, advice in (
        ("checkpoints", "training.save_strategy=no or a larger training.save_steps writes fewer"),
        ("evaluations", "a larger training.eval_steps, or training.eval_strategy=no, makes fewer"),
    ):
        share = sum(one.parts.get(part, 0.0) for one in costs.stages) / total if total else 0.0
        if share >= _SOME:
            yield share, f"{part} in training take {percent(share, 0)}: {advice}"


def _fitting(costs: RunCosts, basis: Basis) -> Iterator[str]:
    """Yield a warning for an accelerator whose memory the training would not fit into."""
    own, memory = basis.accelerator, costs.memory
    if own is not None and (short := _shortest_step(costs)) is not None and short < _SHORT_STEP:
        yield (
            f"a step would take {1000 * short:.1f} ms by these figures, and starting its operators alone takes longer: "
            "real steps are slower, and larger batches use the accelerator better"
        )
    if own is not None and memory is not None and memory.total > own.memory:
        yield (
            f"{costs.largest} needs {large(memory.total, 'B')}, more than {own.title}'s {large(own.memory, 'B')}: "
            "lower training.per_device_train_batch_size and raise training.gradient_accumulation_steps as much"
        )


def _shortest_step(costs: RunCosts) -> float | None:
    """Return the seconds of a step of the training whose steps are the shortest; None if nothing is to be trained."""
    trained = [one for one in costs.stages if one.steps and one.parts.get("steps")]
    return min((one.parts["steps"] / ((one.steps or 1) * one.times) for one in trained), default=None)


def _precision(recipe: Recipe, basis: Basis) -> Iterator[str]:
    if basis.accelerator is not None and not (recipe.training.get("bf16") or recipe.training.get("fp16")):
        yield "the recipe trains in float32, which is several times slower than assumed here: set training.bf16=true"


def _share(stages: list[PlannedStage], total: float) -> float:
    return sum(one.seconds for one in stages) / total if total else 0.0
