"""A forward over some rows, timed and counted, as models are scored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.predict import predict
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.pipeline.planning.batches import row_lengths
from distil_nlp.training.flops import flop_counter

_BATCHES, _MANY = 2, 16
"""Batches that are timed; those that are if the first ones take less than `_SHORT` seconds."""
_SHORT = 0.5
_COUNTED_ROWS = 8


@dataclass(frozen=True)
class ForwardRate:
    """What a forward costs for each token that is no padding.

    Attributes:
        flops: operations.
        seconds: None where nothing was timed.
    """

    flops: float
    seconds: float | None = None

    def __add__(self, other: ForwardRate) -> ForwardRate:
        seconds = None if self.seconds is None or other.seconds is None else self.seconds + other.seconds
        return ForwardRate(self.flops + other.flops, seconds)


NOTHING = ForwardRate(0.0, 0.0)
"""The rate of no model."""


def probe_forward(
    model: PreTrainedModel, data: TransferSet, args: TrainingArguments, is_timed: bool, member: int = -1
) -> ForwardRate:
    """Return what a forward of a model costs over the evaluation rows, for each token that the student reads of them.

    Args:
        model: stays as it is.
        data: some of its rows are run, evenly spaced, in batches as they are scored.
        args: device, precision and rows of a batch.
        is_timed: whether to time it too.
        member: the teacher that the model is, by its number, whose tokens it reads; −1 for a student.
    """
    lengths = row_lengths(next(iter(data.split.evaluation.values())))
    read = data.read_by(member) if member >= 0 else data
    rows, size = next(iter(read.split.evaluation.values())), args.per_device_eval_batch_size

    def run(count: int) -> tuple[float, int]:
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        begin = time.perf_counter()
        predict(
            model,
            read.kind,
            {"rows": rows.select(chosen)},
            read.scored_by,
            batch_size=size,
            device=args.device,
            bf16=args.bf16,
        )
        return time.perf_counter() - begin, int(lengths[chosen].sum())

    with flop_counter() as counter:
        _, tokens = run(_COUNTED_ROWS)
    flops = counter.get_total_flops() / tokens
    if not is_timed:
        return ForwardRate(flops)
    seconds, tokens = run(_BATCHES * size)
    if seconds < _SHORT and len(rows) > _BATCHES * size:
        seconds, tokens = run(_MANY * size)
    return ForwardRate(flops, seconds / tokens)


def probe_teachers(teacher: PreTrainedModel, data: TransferSet, args: TrainingArguments, is_timed: bool) -> ForwardRate:
    """Return what a forward of all teachers costs, one after the other."""
    members = enumerate(ensemble_members(teacher))
    return sum((probe_forward(model, data, args, is_timed, number) for number, model in members), NOTHING)


def row_tokens(rows: Any) -> int:
    """Return the tokens of rows; 0 for a stream or none."""
    return int(row_lengths(rows).sum()) if hasattr(rows, "__len__") else 0
