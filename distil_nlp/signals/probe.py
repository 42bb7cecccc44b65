"""A look at what a model's states are, by a forward of a few tokens before anything is trained.

Some families pad within their forward, put another axis first, or pool tokens: their blocks' states are then not those
of the batch's tokens.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.trial import run_plainly
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_AXES = ((0, 1, 2), (1, 0, 2))
"""Orders of axes that make (batch, length, width): as it is, and with the length first (XLNet)."""


def own_states(base: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return (the states that an encoder gives by itself, embeddings first; its output), if rows are independent.

    Raises:
        UserError: if its output is not one state for each token, or changes with what other rows hold.
    """
    output = run_plainly(base, batch, output_hidden_states=True)
    last, expected = output[0], (*batch["input_ids"].shape, base.config.hidden_size)
    if tuple(last.shape) != expected:
        raise unlike_states(base, f"an output of shape {tuple(last.shape)} where {expected} would be")
    _check_independence(base, batch, last)
    return list(getattr(output, "hidden_states", None) or ()), last


def check_own_states(base: nn.Module, states: list[Tensor], depth: int, shape: torch.Size) -> None:
    """Check the states within an encoder.

    Args:
        base: the encoder.
        states: from `own_states`.
        depth: number of its blocks.
        shape: of its output.

    Raises:
        UserError: if there is not one after each block, or one has fewer tokens, or another width.
    """
    if len(states) != depth + 1:
        raise unlike_states(base, f"{len(states)} states, embeddings included, of {depth} blocks")
    for found in {tuple(state.shape) for state in states}:
        if len(found) != 3 or found[0] != shape[0] or found[1] < shape[1] or found[2] != shape[2]:
            raise unlike_states(base, f"states of shape {found} within it where {tuple(shape)} would be")


def _check_independence(base: nn.Module, batch: dict[str, Tensor], last: Tensor) -> None:
    """Compare the first row's states with those beside other rows, and without padding.

    Raises:
        UserError: if other rows change them. Of padding it is said.
    """
    tokens, others = int(batch["attention_mask"][0].sum()), batch["input_ids"].clone()
    others[1:, :tokens] = others[1:, :tokens].flip(1)  # the first row is the shortest
    beside = run_plainly(base, batch | {"input_ids": others})[0]
    if not is_close(beside[0], last[0]):
        raise unlike_states(base, "states of a row that change with what other rows hold")
    alone = run_plainly(base, {name: value[:1, :tokens] for name, value in batch.items()})[0]
    if not is_close(alone[0], last[0, :tokens]):
        say_once(
            f"{type(base).__name__}: padding changes the states and outputs of a row, so they depend on the rows it "
            "shares a batch with; with data.pad_to_multiple_of equal to data.max_length they would not"
        )


def axes_of(shape: torch.Size, batch: tuple[int, int]) -> tuple[int, int, int] | None:
    """Return the order of a state's axes that makes (batch, length or more, width); None if there is none."""
    size, length = batch
    fits = [axes for axes in _AXES if shape[axes[0]] == size and shape[axes[1]] >= length] if len(shape) == 3 else []
    exact = [axes for axes in fits if shape[axes[1]] == length]
    return next(iter(exact or fits), None)


def is_close(seen: Tensor, own: Tensor) -> bool:
    """Return whether two states are equal but for rounding."""
    if seen.shape != own.shape:
        return False
    tolerance = 1e-3 if own.dtype == torch.float32 else 0.1
    return bool((seen.float() - own.float()).abs().max() <= tolerance * own.float().abs().max())


def unlike_states(model: nn.Module, got: str) -> UserError:
    """Return the error of a model whose blocks' states are not those of the batch's tokens."""
    return UserError(
        None,
        f"one state for each token after each block of {type(model).__name__}",
        got,
        why="terms on hidden states, attention or activations would compare other things than they say",
        fix="set the weights of these terms to 0 (terms on outputs work), or take a model of another family",
    )


@lru_cache
def say_once(text: str) -> None:
    """Log a warning, unless it was logged before."""
    logger.warning(text)
