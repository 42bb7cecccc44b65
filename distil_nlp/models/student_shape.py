"""The shape of a student: its configuration, with depth, width and the fields that go with them, and random weights."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.models.config_fields import set_for_building
from distil_nlp.models.distilbert import distilbert_class, distilbert_config
from distil_nlp.models.trial import run_plainly, trial_batch, undisturbed
from distil_nlp.models.widening import OF_A_HEAD, check_heads, is_wider

_NOT_TO_CHANGE = (
    "num_hidden_layers", "n_layers", "n_layer", "num_layers", "vocab_size", "num_labels", "id2label", "label2id",
    "layer_types",
)  # fmt: skip
_PER_LAYER = re.compile("layer|window")
"""Part of the names of lists with a value for each layer: `layer_types`, `attn_layers`, `attention_window`."""
_OF_EQUAL_WIDTH = ("pooler_hidden_size", "embedding_size", "true_hidden_size", "word_embed_proj_dim")
"""Fields that go with `hidden_size` where they equal it, and the student does not run otherwise."""

IMPOSSIBLE = (ValueError, TypeError, RuntimeError, KeyError, ArithmeticError, AssertionError, StrictDataclassError)


def empty_student(
    teacher: PreTrainedModel,
    depth: int,
    layers: list[int] | None,
    architecture: str,
    changes: dict[str, Any],
    narrower: dict[str, int],
) -> PreTrainedModel:
    """Return the student with random weights.

    Args:
        narrower: the field of narrower embeddings, which some configurations do not have until it is set.
    """
    config = set_for_building(copy.deepcopy(teacher.config))
    if architecture == "distilbert":
        config, cls = distilbert_config(teacher), distilbert_class(teacher)
    else:
        cls = type(teacher)
    set_depth(config, depth, layers)
    unknown = [name for name in changes if not hasattr(config, name)]
    if unknown:
        raise UserError(
            "student.config",
            f"fields of {type(config).__name__}",
            listed(unknown),
            why="they would have no effect",
            fix="see the fields in the teacher's config.json",
        )
    fixed = [name for name in changes if name in _NOT_TO_CHANGE]
    if fixed:
        raise UserError(
            "student.config",
            "fields of its shape",
            listed(fixed),
            why="depth, words and labels come from student.num_layers, the teacher and the data",
            fix="leave them out",
        )
    if layers is not None:
        _check_growth(config, changes, architecture)
    changes = changes | narrower
    try:
        return _model_of(cls, config, changes)
    except (UserError, *IMPOSSIBLE) as error:
        following = followers(config, changes)
        if following:
            try:
                return _model_of(cls, config, following | changes)
            except (UserError, *IMPOSSIBLE):
                pass  # the first error is that of the configuration as it was asked for
        reason = error.got if isinstance(error, UserError) else " ".join(str(error).split())
        width = _of_old_width(config, changes)
        raise UserError(
            "student.config" if changes else "student",
            "a possible configuration",
            f"{quoted(changes)}: {reason}" if changes else f"{type(config).__name__} of {depth} layers: {reason}",
            why=f"{', '.join(width)} are those of the teacher's width still" if width else None,
            fix=f"set {' and '.join(f'student.config.{name}' for name in width)} too" if width else None,
        ) from error


def _check_growth(config: PretrainedConfig, changes: dict[str, Any], architecture: str) -> None:
    """Raise UserError for a wider student that the teacher's weights cannot be copied into."""
    wanted = copy.deepcopy(config)
    try:
        for name, value in changes.items():
            setattr(wanted, name, value)
        wider = is_wider(config, wanted)
    except IMPOSSIBLE:
        return  # building the model tells why
    if wider and architecture == "distilbert":
        raise not_in_distilbert(quoted(changes))
    check_heads(config, wanted)


def not_in_distilbert(got: str) -> UserError:
    return UserError(
        "student.architecture=distilbert",
        "a student no deeper or wider than its teacher",
        got,
        why="a larger one keeps the teacher's classes, so that it can start as the teacher",
        fix="use student.architecture=same",
    )


def _model_of(cls: type[PreTrainedModel], config: PretrainedConfig, changes: dict[str, Any]) -> PreTrainedModel:
    """Return a model with random weights; one whose shape was changed is tried on a few tokens.

    Raises:
        UserError: if it does not run.
    """
    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()  # as it would be when it is saved
    student = cls._from_config(config, dtype=torch.float32).train()
    if changes:
        with undisturbed(student):
            run_plainly(student, trial_batch(student))
    return student


def set_depth(config: PretrainedConfig, depth: int, layers: list[int] | None) -> None:
    """Set the number of layers; lists with a value for each layer keep those of the chosen ones.

    Raises:
        UserError: if the family's depth is no single number (Funnel).
    """
    before = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == before and _PER_LAYER.search(name):
            setattr(config, name, [value[i] for i in layers or (i % before for i in range(depth))])
    if getattr(config, "num_hidden_groups", 1) > depth:
        config.num_hidden_groups = depth  # ALBERT: no group without a layer
    try:
        config.num_hidden_layers = depth
    except NotImplementedError as error:
        raise UserError(
            "student",
            "a teacher whose depth is a number of layers",
            f"{type(config).__name__}: {error}",
            why="a shallower student cannot be made of it",
            fix="name a smaller model with the same vocabulary by student.name",
        ) from error


def followers(config: PretrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that may have to go with a changed width, and their values."""
    width, heads = (_changed(config, changes, name) for name in ("hidden_size", "num_attention_heads"))
    if not isinstance(width, int) or not heads or width % heads:
        return {}
    head = config.hidden_size // config.num_attention_heads
    equal = {name: width for name in _OF_EQUAL_WIDTH if getattr(config, name, None) == config.hidden_size}
    return equal | {name: width // heads for name in OF_A_HEAD if getattr(config, name, None) == head}


def _of_old_width(config: PretrainedConfig, changes: dict[str, Any]) -> list[str]:
    """Return the names of fields that equal the teacher's width, if the student's is another."""
    if _changed(config, changes, "hidden_size") == config.hidden_size:
        return []
    own = {config.attribute_map.get(name, name) for name in ("hidden_size", "vocab_size", *changes)}
    equal = [name for name, value in vars(config).items() if type(value) is int and value == config.hidden_size]
    return [name for name in equal if name not in own and re.search("size|dim|width", name)]


def _changed(config: PretrainedConfig, changes: dict[str, Any], field: str) -> Any:
    """Return the student's value of a field, whichever of its names `changes` has."""
    names = {config.attribute_map.get(name, name): value for name, value in changes.items()}
    return names.get(config.attribute_map.get(field, field), getattr(config, field))
