"""The classes of a model and of the data: one order for both, and outputs of one meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError, listed
from distil_nlp.tasks import KINDS, Head, TaskKind
from distil_nlp.tasks.class_order import are_placeholders, order_by_names
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_MEANINGS = {
    "multi_label_classification": "each output is the probability of a class by itself, and classes do not exclude "
    "each other",
    "single_label_classification": "outputs are one distribution over classes that exclude each other",
    "regression": "outputs are numbers",
}
"""transformers' `problem_type` → what the outputs of such a model are."""
_UNSAID = ("regression", "single_label_classification")
"""What transformers takes outputs for where a configuration does not say it, by their number."""
_SHOWN = 10


@dataclass(frozen=True)
class ClassMapping:
    """The place of a model's classes in the data's order.

    Attributes:
        order: for each class of the data, the number of the model's class.
        own: the model's names of its classes.
        wanted: the data's names; numbers where it has none.
        told: what told the order: `names`, `setting` (data.label_names), `number` where the data names its classes and
            the model does not, or `id` where the data has numbers only.
    """

    order: tuple[int, ...]
    own: tuple[str, ...]
    wanted: tuple[str, ...]
    told: str

    @property
    def is_permuted(self) -> bool:
        """True if the model's classes are not in the data's order."""
        return self.order != tuple(range(len(self.order)))

    @property
    def is_told(self) -> bool:
        """True if names, or somebody, told the order; False if it was taken by number."""
        return self.told in ("names", "setting")

    @property
    def names(self) -> tuple[str, ...]:
        """The data's names of the model's classes, in the model's order."""
        return tuple(self.wanted[self.order.index(i)] for i in range(len(self.order)))

    def reordered(self, order: Sequence[int]) -> ClassMapping:
        """Return the mapping in which a class of the data is the one that is `order`'s for it now."""
        return replace(self, order=tuple(self.order[i] for i in order))

    def __str__(self) -> str:
        pairs = [f"{own} → {name}" for own, name in zip(self.own, self.names, strict=True)]
        return ", ".join(pairs[:_SHOWN]) + (" …" if len(pairs) > _SHOWN else "")

    def remark(self, name: str) -> str:
        """Return the line that says how the classes were matched; empty where that goes without saying.

        Names in the same order do, and numbers in the data: these are a model's own, or a caller says so.
        """
        if self.told == "setting":
            return f"{name}: classes as data.label_names says: {self}"
        if self.told == "number":
            return f"{name}: classes are matched by number, not by name: {self} (data.label_names sets another order)"
        if self.is_permuted:
            return f"{name}: classes are put in the data's order, by their names: {self}"
        has_same_names = [own.casefold() for own in self.own] == [name.casefold() for name in self.wanted]
        return "" if has_same_names or self.told == "id" else f"{name}: classes have other names in the data: {self}"


def class_mapping(
    config: PretrainedConfig, head: Head, name: str, label_names: Sequence[str] | None = None
) -> ClassMapping:
    """Return the place of a model's classes in the data's order.

    Args:
        config: the model's.
        head: the head that the data needs.
        name: of the model, for messages.
        label_names: the data's names in the order of the model's classes, which then need not tell anything.

    Raises:
        UserError: if the numbers of classes differ, or nothing tells which class is which.
    """
    own = _own_names(config)
    count, numbers = head.num_labels, tuple(map(str, range(head.num_labels or 0)))
    if len(own) != count:
        raise UserError(
            None,
            f"{count} labels as in the data{_list(head.labels)}",
            f"{len(own)} in {name}{_list(own)}",
            why="the outputs cannot be compared",
            fix=("choose the teacher's own task, or set teacher.finetune={} with a checkpoint that has no head"),
        )
    wanted = head.labels or numbers
    if label_names and not head.are_named_by_recipe:
        return ClassMapping(_checked_order(label_names, wanted), own, wanted, "setting")
    order = order_by_names(own, wanted)
    if order is not None:
        return ClassMapping(order, own, wanted, "names")
    if wanted == numbers or are_placeholders(own):
        return ClassMapping(tuple(range(count)), own, wanted, "id" if wanted == numbers else "number")
    raise UserError(
        None,
        f"the names of the data's classes{_list(wanted)}",
        f"{name} with{_list(own)}",
        why="each class could be taught as another one, and scores would be those of the wrong classes",
        fix="set data.label_names=[…] to the data's names, in the order in which the teacher has its classes",
    )


def names_classes(config: PretrainedConfig, head: Head) -> bool:
    """Return whether a model's names of its classes are those of the data, in whatever order."""
    return order_by_names(_own_names(config), head.labels or ()) is not None


def class_names(config: PretrainedConfig) -> list[str] | None:
    """Return the names of a model's classes; None for transformers' own LABEL_0 and so on, which name nothing."""
    names = _own_names(config)
    return None if names == tuple(f"LABEL_{i}" for i in range(len(names))) else list(names)


def arrange_classes(
    model: PreTrainedModel, head: Head, name: str, label_names: Sequence[str] | None = None
) -> ClassMapping:
    """Put the outputs of a model, and their names, in the order of the data's classes.

    A model whose classes are in that order already stays as it is, its names included.

    Raises:
        UserError: for the errors of `class_mapping`, or if the outputs cannot be put in another order.
    """
    mapping = class_mapping(model.config, head, name, label_names)
    if mapping.is_permuted:
        _permute_outputs(model, mapping.order, name)
        own = mapping.own if are_placeholders(mapping.own) else [mapping.own[i] for i in mapping.order]
        _name_outputs(model.config, head.labels or own)
    return mapping


def label_outputs(config: PretrainedConfig, head: Head) -> None:
    """Write into a configuration what the outputs will be trained for: the data's names, if any, and problem type."""
    if not head.kind.has_labels:
        return
    if head.labels:
        _name_outputs(config, head.labels)
    config.problem_type = head.kind.problem_type


def check_meaning(config: PretrainedConfig, kind: TaskKind, name: str, *, will_be_trained: bool = False) -> None:
    """Check that a model was trained for outputs of the kind's meaning, by its `problem_type`.

    Args:
        config: the model's; where the model will be trained, its problem type becomes the kind's.
        kind: the kind of task.
        name: of the model, for messages.
        will_be_trained: whether the model is trained on this data next.

    Raises:
        UserError: if its outputs mean something else, and stay so.
    """
    found, needed = getattr(config, "problem_type", None), kind.problem_type
    if needed is None or found == needed:
        return
    if found is None:
        if needed not in _UNSAID and not will_be_trained:
            logger.warning(
                f"warning: {name}: config.json has no problem_type; {_MEANINGS[needed]} is taken for its meaning"
            )
        return
    if will_be_trained:
        logger.info(f"{name}: problem_type {found} becomes {needed}, for which it is trained here")
        config.problem_type = needed
        return
    other = next((other.name for other in KINDS.values() if other.problem_type == found), None)
    raise UserError(
        None,
        f"a model whose {_MEANINGS.get(needed, needed)} (problem_type {needed})",
        f"problem_type {found} in {name}: {_MEANINGS.get(found, 'its outputs are of another kind')}",
        why="the student would be taught what these outputs do not mean",
        fix=(
            "set teacher.finetune={} to train it on this data first, or name another teacher"
            + (f", or set data.task={other} if the data is of that kind" if other else "")
            + "; where config.json is wrong, correct its problem_type"
        ),
    )


def _checked_order(label_names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    """Return the order that `data.label_names` tells.

    Raises:
        UserError: unless it has each class of the data once.
    """
    order = order_by_names(label_names, wanted)
    if order is not None:
        return order
    unknown = [name for name in label_names if name not in wanted]
    missing = [name for name in wanted if name not in label_names]
    twice = sorted({name for name in label_names if label_names.count(name) > 1})
    wrong = {"unknown": unknown, "missing": missing, "named twice": twice}
    details = "; ".join(f"{what}: {', '.join(names[:_SHOWN])}" for what, names in wrong.items() if names)
    raise UserError(
        "data.label_names",
        f"each of the data's {len(wanted)} classes once{_list(wanted)}",
        f"{len(label_names)} names{_list(label_names)}; {details}",
        why="class i of the teacher is the i-th name",
        fix="give the data's names, in the order in which the teacher has its classes",
    )


def _permute_outputs(model: PreTrainedModel, order: Sequence[int], name: str) -> None:
    """Permute the rows of the last linear layer, and compare the outputs of a short input before and after.

    Raises:
        UserError: if there is no such layer, or the outputs are not permuted by it.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == len(order)]
    index, before = torch.tensor(order), _short_logits(model)
    if layers and before is not None:
        with torch.no_grad():
            for parameter in (layers[-1].weight, layers[-1].bias):
                if parameter is not None:
                    parameter.copy_(parameter[index])
        after = _short_logits(model)
        if after is not None and torch.allclose(after, before[..., index], rtol=1e-4, atol=1e-5):
            return
    raise UserError(
        None,
        f"{type(model).__name__} to end in one linear layer",
        "another head",
        why=f"the classes of {name} are not in the data's order, and cannot be put in it here",
        fix="cast the data's label column to the teacher's order",
    )


@torch.no_grad()
def _short_logits(model: PreTrainedModel) -> Tensor | None:
    """Return the logits of an input of a few tokens; None where the model takes no such input."""
    was_training = model.training
    model.eval()
    try:
        words = torch.arange(1, 9, device=model.device)[None] % getattr(model.config, "vocab_size", 100)
        return model(input_ids=words, attention_mask=torch.ones_like(words), return_dict=True).logits
    except Exception:  # whatever a model that needs other inputs raises
        return None
    finally:
        model.train(was_training)


def _own_names(config: PretrainedConfig) -> tuple[str, ...]:
    names: Any = config.id2label
    return tuple(str(names[i]) for i in sorted(names))


def _name_outputs(config: PretrainedConfig, names: Sequence[str]) -> None:
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}


def _list(labels: Sequence[str] | None) -> str:
    return f" ({listed(labels)})" if labels else ""
