"""Network augmentation (NetAug): a wider net around the student, which shares its weights, trains with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distil_nlp.models import load_config
from distil_nlp.models.architecture import feed_forward_layers, layer_stack
from distil_nlp.models.empty import empty_encoder
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.recipe import Recipe
from distil_nlp.training.netaug import NETAUG, NetAug, validate_netaug

if TYPE_CHECKING:
    from distil_nlp.pipeline.plan import RunPlan


def _augment(recipe: Recipe) -> str:
    section = recipe.student.augment
    return NetAug(section.ffn, section.until, section.weight).sentence if section else ""


def _check(plan: RunPlan) -> None:
    """Raise UserError for what does not go with a wider net, and for a student without plain feed-forward parts.

    The weights are not read, nor is memory taken: the student is a shell of its first layer.
    """
    student = plan.recipe.student
    joint = student.exits or student.peers or student.branches
    validate_netaug(plan.args, plan.is_sharded, joint is not None)
    place = builders.starting_model(plan.recipe)
    try:
        config = load_config(*place)
        config.num_hidden_layers = 1
        shell = empty_encoder(config)
    except Exception:
        return  # what is wrong with it is told where it is loaded
    feed_forward_layers(shell, layer_stack(shell)[0], NETAUG)


AUGMENT = Scheme("student", "augment", "network augmentation (NetAug)", "2110.08890", _augment, check=_check)
