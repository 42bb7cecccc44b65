"""The parts of the memory that a training takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a process in training, at their peak: what lives in tensors, without Python and its libraries.

    Attributes:
        weights: of the student, and of what trains together with it.
        gradients: one for each trained weight.
        optimizer: the state of the optimiser, such as AdamW's two moments.
        teacher: weights of all models that teach.
        activations: the rest of the peak in a micro-batch of the longest rows: what the backward needs.
    """

    weights: int
    gradients: int
    optimizer: int
    teacher: int
    activations: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(asdict(self).values())

    def to_dict(self) -> dict[str, int]:
        """Return the parts and their total by name."""
        return {**asdict(self), "total": self.total}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, each storage once."""
    known = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return sum(known.values())


def optimizer_bytes(optimizer: Any) -> int:
    """Return the bytes of an optimiser's state; 0 where it does not show it."""
    state = getattr(optimizer, "state", {})
    values = (value for own in state.values() if isinstance(own, Mapping) for value in own.values())
    return bytes_of(value for value in values if isinstance(value, Tensor))


def activations_of(peak: int, gradients: int, accumulates: bool) -> int:
    """Return the bytes of activations.

    Args:
        peak: most bytes of new tensors in a micro-batch, which the gradients are among.
        gradients: bytes of all of them.
        accumulates: whether those of an earlier micro-batch are there already.
    """
    return peak if accumulates else max(peak - gradients, 0)
