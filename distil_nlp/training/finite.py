"""A check that weights and optimizer state are finite, made where training saves, as the host must wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distil_nlp.errors import UserError


class NotFiniteError(UserError):
    """Training has come to a loss, weights or moments that are NaN or infinite."""


def broken_weights(model: nn.Module, accelerator: Any) -> list[str]:
    """Return the names of parameters with NaN or infinity on any process; every process must call this."""
    names, values = zip(*model.named_parameters(), strict=True)
    flags = accelerator.reduce(_flags(values, accelerator.device).float(), "sum").tolist()
    return [name for name, flag in zip(names, flags, strict=True) if flag]


def has_broken_state(optimizer: Any, accelerator: Any) -> bool:
    """Return whether an optimizer's moments hold NaN or infinity on any process; every process must call this."""
    flag = _flags(_moments(optimizer), accelerator.device).any().float()
    return bool(accelerator.reduce(flag, "sum").item())


def broken_tensors_of(folder: Path) -> list[str]:
    """Return the names of tensors with NaN or infinity in a folder's safetensors files, but for unreadable ones."""
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError):  # damage is told by checksums
            continue
        found += [name for name, value in tensors.items() if not value.isfinite().all()]
    return found


def named(tensors: list[str]) -> str:
    """Return the first names of a list, and how many there are besides."""
    more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
    return ", ".join(tensors[:3]) + more


def _flags(values: Iterable[Tensor], device: torch.device) -> Tensor:
    """Return True for each tensor that is not finite; of a sharded tensor, this process's part.

    The tensors may be on several devices: most optimizers of torch count their steps on the CPU.
    """
    own = [getattr(value, "_local_tensor", value).detach() for value in values]
    flags = [(~value.isfinite().all()).to(device) for value in own]
    return torch.stack(flags) if flags else torch.zeros(1, dtype=torch.bool, device=device)


def _moments(optimizer: Any) -> Iterator[Tensor]:
    """Yield the tensors that an optimizer keeps for each parameter; none of one that keeps them elsewhere."""
    states = getattr(optimizer, "state", None) or {}
    for state in states.values():
        values = state.values() if isinstance(state, dict) else ()
        yield from (value for value in values if isinstance(value, Tensor) and value.is_floating_point())
