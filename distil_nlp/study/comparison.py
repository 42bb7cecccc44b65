"""Comparison of two runs, such as a study's methods: paired over rows and seeds."""

from __future__ import annotations

from typing import Any

from distil_nlp.evaluation.bootstrap import OtherRowsError, paired_gain, paired_p_value
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.pipeline.kept_outputs import DAMAGED, OUTPUTS, load_outputs
from distil_nlp.pipeline.plan import DISTILLED
from distil_nlp.pipeline.run_folder import VARIANTS
from distil_nlp.results import RunResults
from distil_nlp.results.predictions import read_predictions
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED
from distil_nlp.utils.files import read_json
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


_ROWS = ("split", "row", "text", "text_pair", "label")
"""Columns of `predictions.parquet` that tell whether two runs were scored on the same rows."""


def gain_on_same_rows(run: RunResults, other: RunResults) -> dict[str, Any] | None:
    """Return `gain_over`; None too where the two runs are not known to be scored on the same rows."""
    if not _has_same_rows(run, other):
        return None
    try:
        return gain_over(run, other)
    except DAMAGED as error:
        logger.warning(f"{run.folder} and {other.folder} are not compared row by row: {error}")
        return None


def _has_same_rows(run: RunResults, other: RunResults) -> bool:
    """Return whether two runs have the same fingerprint of evaluation rows, or the same texts and labels."""
    own, theirs = ((read_json(one.folder / PROVENANCE, UNCOMPARED) or {}) for one in (run, other))
    if own.get("evaluation_rows") and own["evaluation_rows"] == theirs.get("evaluation_rows"):
        return True
    rows = [read_predictions(one.folder) for one in (run, other)]
    if any(table is None or "text" not in table.column_names for table in rows):
        return False
    first, second = (table.select([name for name in _ROWS if name in table.column_names]) for table in rows if table)
    return first.equals(second)


def gain_over(run: RunResults, other: RunResults) -> dict[str, Any] | None:
    """Return the gain of a run's students over another run's, with its interval and the number of seeds won.

    Students of the same seed are compared on the same rows; see `paired_gain`. None where outputs were not kept, no
    seed is in both, or they were scored on other rows, as texts that are cut elsewhere or into other tokens.
    """
    own, theirs = _outputs(run), _outputs(other)
    seeds = [seed for seed in own if seed in theirs]
    if not seeds:
        return None
    pairs = [own[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    try:
        gain, p_value = paired_gain(run.task, *pairs), paired_p_value(run.task, *pairs)
    except OtherRowsError:
        logger.warning(f"{run.folder} and {other.folder} are not compared: they were scored on other rows")
        return None
    scores = [(_score(run.task, own[seed]), _score(run.task, theirs[seed])) for seed in seeds]
    return {
        **gain.to_dict(),
        "p_value": p_value,
        "won": sum(a > b for a, b in scores),
        "lost": sum(a < b for a, b in scores),
    }


def _outputs(run: RunResults) -> dict[int, Outputs]:
    """Return seed → outputs of the distilled students on the first evaluation split, as far as they were kept."""
    seeds = run.get(f"seeds.{run.metric}.seeds") or [run.get("environment.seed")]
    places = {seed: run.folder / VARIANTS / f"{DISTILLED}-{seed}" / OUTPUTS for seed in seeds[1:]}
    places = {seeds[0]: run.folder / OUTPUTS} | places
    split = next(iter(run.splits))
    return {seed: load_outputs(place)[split] for seed, place in places.items() if place.is_file()}


def _score(task: str, outputs: Outputs) -> float:
    return metrics_of(task, {"": outputs})[headline_metric(task)]
