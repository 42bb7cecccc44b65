"""Several tasks at once: one encoder, a head for each task (MT-DNN)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _sentence(recipe: Recipe) -> str:
    section = recipe.multitask
    others = [name for name in section.tasks if name != section.task]
    if not others:
        return "Trained as the only task of a run of several tasks at once."
    power = f"{section.sampling_power:g}"
    return (
        f"Trained together with {listed(others, 20)}: one encoder, which starts from that of the first task, and a "
        f"head for each task. A step is of one task, drawn in proportion to its training rows to the power {power}; "
        "steps, seconds and tokens are those of this task."
    )


def _check(plan: RunPlan) -> None:
    """Raise UserError for what several tasks at once do not go with."""
    recipe = plan.recipe
    student, teacher, training = recipe.student, recipe.teacher, plan.args
    used = {
        "student.generations": student.generations > 1,
        "student.layers=important": student.layers == "important",
        **{f"student.{key}": getattr(student, key) is not None for key in _ALONE},
        "teacher.assistants": bool(teacher.assistants),
        "teacher.self": teacher.self is not None,
        "teacher.checkpoints": teacher.checkpoints is not None,
        "teacher.reseed": teacher.reseed,
        "data.streaming": recipe.data.streaming,
        "evaluation.probe": recipe.evaluation.probe is not None,
        "balance.kind": recipe.balance.kind != "fixed",
        "run.gradients_every": recipe.run.gradients_every is not None,
        "evaluation.baselines=equal_compute": "equal_compute" in recipe.evaluation.baselines,
        "training.torch_compile": training.torch_compile,
        "training.auto_find_batch_size": training.auto_find_batch_size,
        "training.fsdp or training.deepspeed": plan.is_sharded,
    }
    found = [key for key, is_used in used.items() if is_used]
    if found:
        raise UserError(
            found[0].partition("=")[0],
            "its default with several tasks at once",
            listed(found),
            why="it is made for one student of one task",
            fix="leave it out, or distil each task by itself",
        )
    best = training.metric_for_best_model and training.metric_for_best_model.removeprefix("eval_")
    if best not in (None, "loss"):
        raise UserError(
            "training.metric_for_best_model",
            "loss, the mean over the tasks",
            str(best),
            why="one checkpoint is chosen for all tasks, which have metrics of their own",
            fix="leave it out",
        )


_ALONE = ("ema", "replacing", "augment", "sparsity", "quantization", "exits", "peers", "branches", "pruning", "budget")
"""Keys of `student` that several tasks do not go with."""

MULTITASK = Scheme(
    "multitask", "tasks", "several tasks at once (MT-DNN)", "1904.09482", _sentence, ("task", "sampling_power"), _check
)
