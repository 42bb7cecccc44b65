"""A student that teaches itself: its last epoch, an average of its weights, or itself trained on labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.errors import UserError
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.teachers.last_epoch import validate_last_epoch
from distil_nlp.training.checks import validate_averaged_teacher

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


_SENTENCES = {
    "last_epoch": "its targets were the labels mixed with its own predictions of the epoch before, whose share grew "
    "from epoch to epoch up to {alpha:g} (PS-KD, arXiv:2006.12000)",
    "ema": "its teacher was the moving average of its own weights, with a decay of {decay:g} in a step (Mean Teacher, "
    "arXiv:1703.01780)",
    "checkpoints": "its teacher was the mean of its own weights at its last {count} checkpoints, {every} steps apart "
    "(SDA, arXiv:2002.10345)",
    "pretrained": "its teacher was a student of its own shape, from the same start, that was trained on labels only "
    "(Tf-KD, arXiv:1909.11723)",
}
"""`teacher.self.kind` → how the student teaches itself."""


def _self_teaching(recipe: Recipe) -> str:
    section = recipe.teacher.self
    assert section is not None  # or the recipe would not have the scheme
    how = _SENTENCES[section.kind].format(**section.model_dump())
    return f"The student taught itself: {how}.".replace(", 1 steps apart", ", one after each step")


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go together with a student that teaches itself."""
    recipe, section = plan.recipe, plan.recipe.teacher.self
    assert section is not None  # or the recipe would not have the scheme
    fixed = [] if section.kind == "pretrained" else ["cache"]
    others = [name for name in ("ensemble", "checkpoints", *fixed) if getattr(recipe.teacher, name) is not None]
    if others:
        raise UserError(
            "teacher.self",
            f"no teacher.{others[0]} beside it",
            f"teacher.self={section.kind} and teacher.{others[0]}",
            why="the student is taught by itself alone, and its answers change as it learns",
            fix="leave one of the two out",
        )
    if not plan.objective.needs_teacher:
        raise UserError(
            "teacher.self",
            "a term of the objective that learns from a teacher",
            ", ".join(plan.objective.names),
            why="nothing would be learnt from what the student says of itself",
            fix="add soft_target_cross_entropy, say, or leave teacher.self out",
        )
    if section.kind == "last_epoch":
        _check_last_epoch(plan)
    elif section.kind != "pretrained":
        validate_averaged_teacher(plan.is_sharded)


def _check_last_epoch(plan: RunPlan) -> None:
    augmentation = plan.recipe.data.augmentation
    validate_last_epoch(plan.objective, mixes=augmentation.mixup is not None)
    if augmentation.replacement is not None:
        raise UserError(
            "data.augmentation.replacement",
            "none with teacher.self=last_epoch",
            "copies of rows with replaced words",
            why="they have no label, without which their first target is unknown",
            fix="leave one of the two out",
        )
    if plan.args.max_steps <= 0 and plan.args.num_train_epochs <= 1:
        raise UserError(
            "training.num_train_epochs",
            "more than 1 with teacher.self=last_epoch",
            f"{plan.args.num_train_epochs:g}",
            why="there would be no predictions of an epoch before, so that labels alone would teach",
            fix="train longer, or leave teacher.self out",
        )


SELF_TEACHING = Scheme("teacher", "self", "self-distillation", None, _self_teaching, check=_check)
