"""Stages of a run whose student is cut from its teacher: importance, the search for a shape, and repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distil_nlp.models.pruning.repair import MOST_TOKENS
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.planning.forward_probe import row_tokens
from distil_nlp.pipeline.planning.prepared import PreparedRun
from distil_nlp.pipeline.planning.stage import PlannedStage

_PASSES = {"fisher": 3, "taylor": 3, "obd": 3, "activation": 1, "random": 0}
"""Importance → the operations of a row, in forwards of the teacher: a backward takes two."""


def cutting_stages(
    prepared: PreparedRun,
    teacher: Callable[[float], float],
    student: Callable[[float], float],
    micro_step: float,
    run: str | None,
) -> Iterator[PlannedStage]:
    """Yield the stages before the first step; none of a student of whole layers. What is on disk already is counted.

    Args:
        prepared: rows and models.
        teacher, student: tokens → seconds of a forward.
        micro_step: seconds of a micro-batch in training.
        run: title of the run, where it is a link.
    """
    section, rows = prepared.plan.recipe.student, prepared.data.split.train
    pruning = builders.pruning_of(section)
    if pruning is None:
        return
    per_row = row_tokens(rows) / max(len(rows), 1) if hasattr(rows, "__len__") else prepared.plan.recipe.data.max_length
    tokens = per_row * min(pruning.rows, len(rows) if hasattr(rows, "__len__") else pruning.rows)
    if passes := _PASSES[pruning.importance]:
        yield PlannedStage("importance of the teacher's parts", "cutting", passes * teacher(tokens), run=run)
    read = min(tokens, MOST_TOKENS)
    repair = teacher(read) + 2 * prepared.student.config.num_hidden_layers * student(read) if pruning.repair else 0.0
    if section.budget is not None:
        steps, trials = trial_steps(section.budget.tries, section.budget.steps)
        seconds = steps * micro_step + trials * repair
        yield PlannedStage("trying shapes", "cutting", seconds, trials, run=run)
    if repair:
        yield PlannedStage("repairing the student", "cutting", repair, len(prepared.plan.students), run=run)


def trial_steps(tries: int, steps: int) -> tuple[int, int]:
    """Return the micro-batches of all trials of a search by successive halving, and the number of trials."""
    taken, trials, going = 0, 0, tries
    while going > 1:
        taken, trials, going, steps = taken + going * steps, trials + going, going // 2, 2 * steps
    return taken, trials
