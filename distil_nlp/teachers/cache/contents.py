"""`CachedSignals`: the signals of a teacher that are cached, and their conversion to fields of rows and back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.signals.attention import QueriesKeys
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals
from distil_nlp.tasks import TaskKind, task_kind

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_FIXED = ("all", "cls", "sequences")
"""Row sets that are not drawn at random: the positions of their rows need not be stored."""
TOKEN_FIELDS = ("query/", "key/", "value/", "spans")
"""Prefixes of the fields with a value for every token: those of attention, and logits of start and end."""
Fields = dict[str, Tensor]
"""Name → (rows of its row set, …); `CachedSignals.row_set` gives the row set."""


@dataclass(frozen=True)
class CachedSignals:
    """The signals that are cached, and their precision.

    Attributes:
        logits: the row set of the logits (`sequences`; where they are of tokens `head`, or `all` for start and end), or
            None.
        hidden: (layer, row set) pairs of hidden states.
        attention: layers whose queries and keys are cached, for all tokens.
        values: the layers among these whose values are cached too.
        activations: (layer, row set) pairs of feed-forward units.
        dtype: dtype of cached values: `float32`, `float16` or `bfloat16`.
        top_k: number of a row's likeliest words that are cached, besides the tail probability of all others.
        temperature: temperature of the tail probability.
    """

    logits: str | None
    hidden: tuple[tuple[int, str], ...]
    attention: tuple[int, ...]
    dtype: str
    top_k: int | None = None
    temperature: float | None = None
    values: tuple[int, ...] = ()
    activations: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(
        cls,
        request: SignalRequest,
        kind: TaskKind | str,
        dtype: str,
        top_k: int | None = None,
        temperature: float | None = None,
    ) -> CachedSignals:
        """Return the signals of a request."""
        kind = task_kind(kind)
        words = kind.predicts_words and request.logits
        return cls(
            logits=_logit_rows(kind) if request.logits else None,
            hidden=tuple(sorted(request.hidden)),
            attention=tuple(sorted(request.attention)),
            dtype=dtype,
            top_k=top_k if words else None,
            temperature=temperature if words else None,
            values=tuple(sorted(request.values)),
            activations=tuple(sorted(request.activations)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as part of a cache's key."""
        return asdict(self)

    def row_sets(self) -> list[str]:
        """Return the row sets of all fields."""
        named = [self.logits] if self.logits else []
        by_layer = [name for _, name in (*self.hidden, *self.activations)]
        return list(dict.fromkeys([*named, *by_layer, *(["all"] if self.attention else [])]))

    def random_row_sets(self) -> list[str]:
        """Return the row sets that are drawn at random."""
        return [name for name in self.row_sets() if name not in _FIXED]

    def row_set(self, field: str) -> str:
        """Return the row set of a field."""
        if field.startswith(("hidden/", "activations/", "places/")):
            return field.split("/")[-1]
        return "all" if field.startswith(TOKEN_FIELDS) else str(self.logits)

    # Signals → fields ----------------------------------------------------------------------------------------

    def fields(self, signals: Signals, rows: Mapping[str, Tensor]) -> Fields:
        """Return the cached fields of a batch, in the order of its rows.

        Raises:
            UserError: if a value does not fit the dtype, or attention cannot be cached.
        """
        fields: Fields = {}
        if self.logits == "sequences":
            fields["logits"] = signals.logits.index_select(0, rows["sequences"])
        elif self.logits == "all":
            fields["spans"] = signals.logits.flatten(0, 1).index_select(0, rows["all"])
        elif self.top_k is not None:
            fields |= self._top(signals, len(rows["head"]))
        elif self.logits:
            fields["logits"] = signals.logits
        for layer, name in self.hidden:
            fields[f"hidden/{_layer_name(layer)}/{name}"] = signals.hidden[layer, name]
        for layer, name in self.activations:
            fields[f"activations/{layer}/{name}"] = signals.activations[layer, name]
        for layer in self.attention:
            attention: Any = signals.attention[layer]
            _check_attention(attention, layer)
            cached = {"query": attention.query, "key": attention.key}
            if layer in self.values:
                cached["value"] = attention.value
            for name, states in cached.items():
                flat = states.transpose(1, 2).flatten(0, 1)  # (batch · seq, heads, head width)
                fields[f"{name}/{layer}"] = flat.index_select(0, rows["all"])
        return {name: self._narrow(name, value).cpu() for name, value in fields.items()}

    def scalings(self, signals: Signals) -> dict[str, float]:
        """Return the scaling factor of attention scores in each layer."""
        attention: dict[int, Any] = signals.attention
        return {str(layer): attention[layer].scaling for layer in self.attention}

    def _top(self, signals: Signals, count: int, chunk: int = 512) -> Fields:
        assert self.top_k is not None
        assert self.temperature is not None
        parts = [
            TopLogits.of(signals.vocabulary.logits(start, min(start + chunk, count)), self.top_k, self.temperature)
            for start in range(0, max(count, 1), chunk)
        ]
        return {
            "top/words": torch.cat([part.words for part in parts]).int(),
            "top/logits": torch.cat([part.values for part in parts]),
            "top/others": torch.cat([part.others for part in parts]),
        }

    def _narrow(self, name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point() or name == "top/others":
            return value
        narrow = value.to(DTYPES[self.dtype])
        if not torch.isfinite(narrow).all():
            reason = "is not finite" if not torch.isfinite(value).all() else f"is outside {self.dtype}"
            raise UserError(
                "teacher.cache",
                f"finite {name} of the teacher",
                f"a number that {reason}, up to {value.abs().max():g}",
                why="it could not be read back",
                fix="set teacher.cache.dtype to bfloat16 or float32, or check the teacher",
            )
        return narrow

    # Fields → signals ----------------------------------------------------------------------------------------

    def signals(self, fields: Fields, scalings: Mapping[str, float], attention_mask: Tensor | None) -> Signals:
        """Return the signals, as if the teacher had just run; fields of all tokens must be padded already."""
        visible = None if attention_mask is None else attention_mask[:, None, None].bool()
        signals = Signals(
            hidden={(layer, name): fields[f"hidden/{_layer_name(layer)}/{name}"] for layer, name in self.hidden},
            activations={(layer, name): fields[f"activations/{layer}/{name}"] for layer, name in self.activations},
        )
        for layer in self.attention:
            states = fields[f"query/{layer}"], fields[f"key/{layer}"]
            value = fields.get(f"value/{layer}")
            signals.attention[layer] = QueriesKeys(*states, scalings[str(layer)], visible, value)
        if self.logits == "all":
            signals.logits = fields["spans"].transpose(1, 2)
        elif self.logits and self.top_k is None:
            signals.logits = fields["logits"]
        elif self.logits:
            signals.vocabulary = TopLogits(fields["top/words"].long(), fields["top/logits"], fields["top/others"])
        return signals


def _logit_rows(kind: TaskKind) -> str:
    """Return the row set of a kind's logits."""
    if kind.output == "spans":
        return "all"
    return "head" if kind.level == "token" else "sequences"


def validate_attention(recorder: Recorder, inputs: Mapping[str, Tensor]) -> None:
    """Run a teacher on a row, and check that its attention can be restored from a cache.

    Args:
        recorder: of all that the teacher shows.
        inputs: a row of the longest inputs, so that layers which attend to a window are seen to.

    Raises:
        UserError: as where the cache is written.
    """
    if recorder.request.attention:
        for layer, attention in recorder.attention_of(inputs).items():
            _check_attention(attention, layer)


def _check_attention(attention: Any, layer: int) -> None:
    """Validate that queries and keys determine the attention: every query attends to the same keys.

    Raises:
        UserError: for eager attention maps, and for layers that attend to a window only.
    """
    problem = None
    if not isinstance(attention, QueriesKeys):
        problem = "whole attention maps"
    elif attention.mask is not None and not (attention.mask == attention.mask[:, :, :1]).all():
        problem = f"a layer {layer} whose queries attend to different keys"
    if problem:
        raise UserError(
            "teacher.cache",
            "attention that queries and keys determine",
            problem,
            why="it could not be restored from the cache",
            fix="leave teacher.cache out, or set the attention terms' weights to 0",
        )


def _layer_name(layer: int) -> str:
    return "embeddings" if layer == EMBEDDINGS else str(layer)


@dataclass(frozen=True)
class RowPositions:
    """The positions of a batch's rows in each row set, and checksums of its tokens.

    Attributes:
        counts: row set → number of rows in each sequence, (sequences,).
        drawn: randomly drawn row set → token positions within their sequences.
        checksums: checksum of each sequence's tokens as the models read them, after masking, (sequences,).
    """

    counts: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    checksums: np.ndarray

    @classmethod
    def of(cls, batch: Mapping[str, Any], contents: CachedSignals, attended: np.ndarray) -> RowPositions:
        """Return the positions of a batch.

        Args:
            batch: a batch of the collator, with its row sets.
            attended: True for tokens that are not padding, (batch, seq).

        Raises:
            UserError: for padding on the left, with which positions depend on the batch.
        """
        size, length = attended.shape
        if attended.argmax(1).any():
            raise UserError(
                "teacher.cache",
                "padding on the right",
                "padding on the left",
                why="the positions of a row would depend on the other rows of its batch",
                fix="set padding_side=right in the teacher's tokenizer_config.json, or leave teacher.cache out",
            )
        counts, drawn = {}, {}
        for name in contents.row_sets():
            places = batch["rows"][name].numpy()
            sequence = places if name == "sequences" else places // length
            counts[name] = np.bincount(sequence, minlength=size)
            if name in contents.random_row_sets():
                drawn[name] = (places % length).astype(np.int32)
        tokens = np.ascontiguousarray(batch["input_ids"].numpy(), dtype=np.int32)
        checksums = [zlib.crc32(row[mask].tobytes()) for row, mask in zip(tokens, attended, strict=True)]
        return cls(counts, drawn, np.array(checksums, dtype=np.int64))
