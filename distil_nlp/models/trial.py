"""A forward of a few tokens, which shows whether a model runs, before anything is trained. Nothing changes by it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import output_capturing

from distil_nlp.errors import UserError
from distil_nlp.models.loading import usable_positions
from distil_nlp.models.outputs import output_logits

_LENGTHS = (6, 11, 8)
"""Tokens of the rows: neither axis of a batch can pass for the other, and padding shows."""
_DEFAULT_VOCABULARY = 1000
_HOOKED = "_output_capturing_hooks_installed"
"""The attribute by which transformers knows that it has hooked a model."""
_ONE_AT_A_TIME = threading.RLock()
"""Held while a model is run: hooks, modes and random numbers belong to all threads, which may share a teacher."""


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Within this context, run a model in eval mode without gradients; then leave all of it as it was."""
    with (
        _ONE_AT_A_TIME,
        _keeping_modes(model),
        keeping_random_state(model.device),
        torch.no_grad(),
        _keeping_attention_type(model.base_model),
        _keeping_hooks(model),
    ):
        model.eval()
        yield


@contextmanager
def _keeping_modes(model: nn.Module) -> Iterator[None]:
    """Put each module back into train or eval mode, as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def keeping_random_state(device: torch.device | str = "cpu") -> Iterator[None]:
    """Within this context, whatever draws random numbers does not change those that come after it."""
    device, states = torch.device(device), (random.getstate(), np.random.get_state())
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _keeping_attention_type(base: Any) -> Iterator[None]:
    """BigBird takes to full attention for good at its first short batch: give it back what it had."""
    kind = getattr(base, "attention_type", None)
    yield
    if getattr(base, "attention_type", None) != kind:
        base.set_attention_type(kind)


@contextmanager
def _keeping_hooks(model: nn.Module) -> Iterator[None]:
    """When states are first asked for, transformers hooks all blocks for good: take these hooks off again."""
    unhooked = [module for module in model.modules() if _HOOKED not in vars(module)]
    try:
        yield
    finally:
        for module in unhooked:
            vars(module).pop(_HOOKED, None)
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__module__", "") == output_capturing.__name__:
                    del module._forward_hooks[key]


def trial_batch(model: PreTrainedModel, multiple: int = 1) -> dict[str, Tensor]:
    """Return rows of ordinary words, padded at the right to a multiple of a length, (rows, tokens)."""
    config, positions = model.config, usable_positions(model.config)
    lengths = torch.tensor([min(length, positions) if positions > 0 else length for length in _LENGTHS])
    mask = torch.arange(-(-int(lengths.max()) // multiple) * multiple) < lengths[:, None]
    words = torch.tensor(_words(config))
    ids = words.repeat(mask.numel() // len(words) + 1)[: mask.numel()].view(mask.shape)
    ids = ids.where(mask, torch.tensor(config.pad_token_id or 0))
    return {"input_ids": ids.to(model.device), "attention_mask": mask.long().to(model.device)}


def logit_difference(one: PreTrainedModel, other: PreTrainedModel, order: Tensor | None = None) -> tuple[float, float]:
    """Return the largest difference of two models' logits on a few tokens, and the largest logit of the first.

    Args:
        one, other: of the same words.
        order: for each logit of the other model, its place in the first; None where it is the same.

    Raises:
        UserError: if one of them does not run.
    """
    batch, logits = trial_batch(one), []
    for model in (one, other):
        with undisturbed(model):
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            logits.append(output_logits(run_plainly(model, inputs)).float().cpu())
    if logits[0].ndim == 3:  # of tokens; what a model makes of padding is never read
        logits = [values[batch["attention_mask"].bool().cpu()] for values in logits]
    if order is not None:
        logits[0] = logits[0][..., order]
    return float((logits[0] - logits[1]).abs().max()), float(logits[0].abs().max())


def run_plainly(model: nn.Module, batch: dict[str, Tensor], **options: Any) -> Any:
    """Return the model's own output for a batch.

    Raises:
        UserError: if the model does not run, with its reason.
    """
    try:
        return model(**batch, **options)
    except UserError:
        raise
    except Exception as error:  # whatever a family asks for
        raise UserError(
            None,
            f"{type(model).__name__} to run on padded rows of token ids",
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            why="it could be neither trained nor scored",
            fix="mend the field of its config.json that the reason is about, or data.pad_to_multiple_of for a length",
        ) from error


def _words(config: PretrainedConfig) -> list[int]:
    """Return up to 20 numbers of ordinary words, from the end of the vocabulary, where no special tokens are."""
    special = [value for name, value in vars(config).items() if name.endswith("token_id")]
    size = getattr(config, "vocab_size", None) or _DEFAULT_VOCABULARY
    return [word for word in range(size - 1, max(size - 100, -1), -1) if word not in special][:20] or [0]
