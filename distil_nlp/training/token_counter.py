"""`TokenCounter`: the tokens that go forward and backward through all models in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.data.encodings import OWN
from distil_nlp.models.tails import Tail

TOKENS_FORWARD, TOKENS_BACKWARD = "tokens_forward", "tokens_backward"


class TokenCounter:
    """Counts, by hooks on encoders, how many tokens without padding go through each model, whatever the objective is.

    A row that a student reads twice counts twice, and once more for each teacher, peer and branch that reads it. Blocks
    that train together with a student count as their share of its depth: a branch of two blocks, beside a student of
    six, a third; an exit, which is a head alone, nothing. A pass whose output has a gradient counts backward, once.
    Module replacing counts as the student's pass alone. The host counts, and waits for no device.

    Args:
        student: counts whole.
        teachers: likewise, where they run.
        encodings: the tokens that each teacher reads; the student's if None.
        joint: modules that train together with the student.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teachers: Sequence[PreTrainedModel],
        joint: Sequence[nn.Module] = (),
        encodings: Sequence[str] | None = None,
    ):
        self._batch: Mapping[str, Any] | None = None
        self.start()
        read = zip(teachers, encodings or [OWN] * len(teachers), strict=True)
        parts = [(student.base_model, 1.0, OWN), *((model.base_model, 1.0, encoding) for model, encoding in read)]
        parts += [(encoder, share, OWN) for encoder, share in _parts(joint, student)]
        self._handles = [
            encoder.register_forward_hook(partial(self._count, share, encoding), with_kwargs=True)
            for encoder, share, encoding in parts
            if share
        ]

    def start(self) -> None:
        """Count from 0."""
        self._forward, self._backward = 0.0, 0.0

    @property
    def totals(self) -> dict[str, int]:
        """The counts of this process since `start`."""
        return {TOKENS_FORWARD: round(self._forward), TOKENS_BACKWARD: round(self._backward)}

    @contextmanager
    def counting(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Within this context, count the forwards that read a batch of a `RowCollator`."""
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None

    def _count(
        self, share: float, encoding: str, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any
    ) -> None:
        if self._batch is None:
            return
        tokens, size = self._batch.get(f"{encoding}tokens", 0), len(self._batch["input_ids"])
        read = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        passed = share * tokens * len(read) / size
        self._forward += passed
        if output[0].requires_grad:
            self._backward += passed

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def _parts(joint: Sequence[nn.Module], student: PreTrainedModel) -> Iterator[tuple[nn.Module, float]]:
    """Yield the encoders of modules that train together with a student, with their shares of its depth."""
    for module in joint:
        if isinstance(module, Tail):
            yield module.model.base_model, module.blocks / student.config.num_hidden_layers
            continue
        models = [one for one in module.modules() if isinstance(one, PreTrainedModel)]
        yield from ((one, 1.0) for one in models if one.base_model is one)
