"""Comparison of a study's methods with one of them: paired over rows and seeds."""

from __future__ import annotations

from typing import Any

from distil_nlp.evaluation.bootstrap import paired_gain
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.plan import DISTILLED
from distil_nlp.pipeline.run_folder import VARIANTS
from distil_nlp.pipeline.students import OUTPUTS, load_outputs
from distil_nlp.results import RunResults


def gain_over(run: RunResults, other: RunResults) -> dict[str, Any] | None:
    """Return the gain of a run's students over another run's, with its interval and the number of seeds won.

    Students of the same seed are compared on the same rows; see `paired_gain`. None where outputs were not kept, or no
    seed is in both.
    """
    own, theirs = _outputs(run), _outputs(other)
    seeds = [seed for seed in own if seed in theirs]
    if not seeds:
        return None
    gain = paired_gain(run.task, [own[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    scores = [(_score(run.task, own[seed]), _score(run.task, theirs[seed])) for seed in seeds]
    return {**gain.to_dict(), "won": sum(a > b for a, b in scores), "lost": sum(a < b for a, b in scores)}


def _outputs(run: RunResults) -> dict[int, Outputs]:
    """Return seed → outputs of the distilled students on the first evaluation split, as far as they were kept."""
    seeds = run.get(f"seeds.{run.metric}.seeds") or [run.get("environment.seed")]
    places = {seed: run.folder / VARIANTS / f"{DISTILLED}-{seed}" / OUTPUTS for seed in seeds[1:]}
    places = {seeds[0]: run.folder / OUTPUTS} | places
    split = next(iter(run.splits))
    return {seed: load_outputs(place)[split] for seed, place in places.items() if place.is_file()}


def _score(task: str, outputs: Outputs) -> float:
    return metrics_of(task, {"": outputs})[headline_metric(task)]
