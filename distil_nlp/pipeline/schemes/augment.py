"""Network augmentation (NetAug): a wider net around the student, which shares its weights, trains with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distil_nlp.models.architecture import feed_forward_layers, layer_stack
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.peek import peek_encoder
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.training.netaug import NETAUG, NetAug, validate_netaug

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _wider_net(recipe: Recipe, teacher: Any = None) -> NetAug:
    """Return the settings; extra units start from the teacher's where the student is made of the layers of its teacher.

    Args:
        recipe: of the student.
        teacher: that it learns from: a model, its configuration, or None for settings that are only told.
    """
    section, augment = recipe.student, recipe.student.augment
    assert augment is not None  # or the recipe would not have the scheme
    own, other = recipe.teacher.self, recipe.teacher.assistants or section.generations > 1
    layers = None if teacher is None or own or other else builders.copied_layers(section, teacher)
    return NetAug(augment.ffn, augment.until, augment.weight, layers)


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go with a wider net, and for a student without plain feed-forward parts.

    The weights are not read, nor is memory taken: the student is a shell of its first layer.
    """
    student = plan.recipe.student
    joint = student.exits or student.peers or student.branches
    validate_netaug(plan.args, plan.is_sharded, joint is not None)
    shell = peek_encoder(*builders.starting_model(plan.recipe))
    if shell is not None:
        feed_forward_layers(shell, layer_stack(shell)[0], NETAUG)


AUGMENT = Scheme(
    "student",
    "augment",
    "network augmentation (NetAug)",
    "2110.08890",
    lambda recipe: _wider_net(recipe).sentence,
    check=_check,
    extension=_wider_net,
)
