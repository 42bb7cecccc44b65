"""The recipe section `student.pruning`: a student cut from the important parts of its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import feed_forward_width
from distil_nlp.models.pruning import Axes, Importance, Kept, axes_of, check_axes, cut_model, everything, shares_heads
from distil_nlp.models.student import LayerChoice
from distil_nlp.models.widening import head_width
from distil_nlp.recipe.sections import PruningSection, StudentSection

_MULTIPLE = 8
"""Feed-forward units are cut to a multiple of it, so that products run as fast as they can."""
_TOGETHER = ("replacing", "augment", "peers", "branches")
"""Keys of `student` whose models are made of the whole teacher's layers."""
_SIZES = ("hidden_size", "dim", "num_attention_heads", "n_heads", "intermediate_size", "hidden_dim")


@dataclass(frozen=True)
class Cut:
    """What a pruned student is made of.

    Attributes:
        model: the teacher's layers with what is kept of each.
        whole: the same model, uncut.
        layers: those that the student copies.
        kept: the numbers of what is kept, for all of the teacher's layers.
    """

    model: PreTrainedModel
    whole: PreTrainedModel
    layers: LayerChoice
    kept: Kept

    def facts(self, section: PruningSection) -> dict[str, Any]:
        """Return what of the block `pruning` of `results.json` is known before training."""
        config, whole = self.model.config, self.whole.config
        return {
            "importance": section.importance,
            "rows": section.rows,
            "feed_forward": feed_forward_width(config),
            "heads": config.num_attention_heads,
            "width": config.hidden_size,
            "of": {
                "feed_forward": feed_forward_width(whole),
                "heads": whole.num_attention_heads,
                "width": whole.hidden_size,
            },
        }


def pruning_of(section: StudentSection) -> PruningSection | None:
    """Return how a student is cut from its teacher; None for one that has whole layers."""
    return section.pruning or (PruningSection() if section.layers == "important" else None)


def validate_pruning(section: StudentSection) -> None:
    """Raise UserError for a pruned student that is described in another way too, or trains beside uncut ones."""
    pruning = pruning_of(section)
    if pruning is None:
        return
    others = [f"student.{key}" for key in ("name", *_TOGETHER) if getattr(section, key) is not None]
    others += [f"student.config.{name}" for name in _SIZES if name in section.config]
    if others:
        raise UserError(
            "student.pruning",
            "a student whose sizes are all told by student.num_layers and student.pruning",
            f"{', '.join(others)} too",
            why="that is of other sizes, or of the teacher's whole layers",
            fix="leave one of the two out",
        )


def cut_from(section: StudentSection, whole: PreTrainedModel, importance: Importance | None) -> Cut | None:
    """Return what a student is made of; None for one that has whole layers.

    Args:
        section: of the student.
        whole: the model that it is cut from.
        importance: of its parts; None where any of them will do, to try a shape or for random weights.

    Raises:
        UserError: for a family whose parts cannot be told from each other.
    """
    pruning, config = pruning_of(section), whole.config
    if pruning is None:
        return None
    layers: LayerChoice = section.layers
    if layers == "important":
        depth = section.num_layers or max(config.num_hidden_layers // 2, 1)
        _check_depth(depth, config)
        layers = _top(importance.layers, depth).tolist() if importance else list(range(depth))
    if pruning.feed_forward == pruning.width == 1:
        return Cut(whole, whole, layers, everything(whole))
    axes = axes_of(whole)
    if importance is None:
        check_axes(whole, axes)
    kept = _kept(whole, axes, importance, *_sizes(pruning, config))
    return Cut(cut_model(whole, axes, kept), whole, layers, kept)


def _kept(
    whole: PreTrainedModel, axes: Axes, importance: Importance | None, heads: int, width: int, units: int
) -> Kept:
    """Return what stays of all layers: the most important parts, or the first ones."""
    if importance is None:
        all_parts = everything(whole)
        return Kept(
            all_parts.width[:width],
            [one[:heads] for one in all_parts.heads],
            [one[:units] for one in all_parts.units],
        )
    by_head = importance.heads
    if shares_heads(whole, axes):
        by_head = by_head.sum(0, keepdim=True).expand_as(by_head)
    return Kept(
        _top(importance.width, width),
        [_top(one, heads) for one in by_head],
        [_top(one, units) for one in importance.units],
    )


def _sizes(pruning: PruningSection, config: PretrainedConfig) -> tuple[int, int, int]:
    """Return the numbers of heads, features and feed-forward units that stay."""
    heads, units = config.num_attention_heads, feed_forward_width(config) or 0
    kept = max(round(pruning.width * heads), 1)
    width = config.hidden_size if kept == heads else kept * head_width(config)
    if pruning.feed_forward < 1 and units:
        multiple = _MULTIPLE if units >= 8 * _MULTIPLE else 1
        units = max(round(pruning.feed_forward * units / multiple), 1) * multiple
    return kept, width, units


def _check_depth(depth: int, config: PretrainedConfig) -> None:
    if depth > config.num_hidden_layers:
        raise UserError(
            "student.num_layers",
            f"at most {config.num_hidden_layers}, the teacher's layers, for student.layers=important",
            str(depth),
            why="there are no more to choose from",
            fix="lower it, or set student.layers=interpolate",
        )


def _top(values: Tensor, count: int) -> Tensor:
    """Return the places of the largest values, in their order."""
    return torch.sort(torch.topk(values, count).indices).values
