"""What is kept of a teacher: which of its signals, and how they are cut into rows and put together again."""

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
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, Signals
from distil_nlp.tasks import TaskKind, task_kind

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_FIXED = ("all", "cls", "sequences")
"""Row sets that are no draw: they need no record of which rows they had."""
TOKEN_FIELDS = ("query/", "key/", "value/")
"""How the names of fields begin that are of all tokens, as attention needs them."""
Fields = dict[str, Tensor]
"""Name → (rows of its row set, …), as `Contents.sets` says."""


@dataclass(frozen=True)
class CachedSignals:
    """Which signals are kept, and how.

    Attributes:
        logits: the row set of the logits (`sequences`, or `head` for a vocabulary), or None.
        hidden: (layer, row set) pairs.
        attention: layers whose queries and keys are kept, of all tokens.
        values: those of them whose values are kept too.
        activations: (layer, row set) pairs of feed-forward units.
        dtype: of what is kept: `float32`, `float16` or `bfloat16`.
        top_k: words of a vocabulary that are kept for each row, the likeliest; the others' mass is kept as one.
        temperature: that of the others' mass.
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
        """All that a teacher is asked for."""
        kind = task_kind(kind)
        words = kind.predicts_words and request.logits
        return cls(
            logits=("head" if kind.level == "token" else "sequences") if request.logits else None,
            hidden=tuple(sorted(request.hidden)),
            attention=tuple(sorted(request.attention)),
            dtype=dtype,
            top_k=top_k if words else None,
            temperature=temperature if words else None,
            values=tuple(sorted(request.values)),
            activations=tuple(sorted(request.activations)),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sets(self) -> list[str]:
        """The row sets that the fields are cut by."""
        named = [self.logits] if self.logits else []
        by_layer = [name for _, name in (*self.hidden, *self.activations)]
        return list(dict.fromkeys([*named, *by_layer, *(["all"] if self.attention else [])]))

    def draws(self) -> list[str]:
        """Those of them that are drawn at random."""
        return [name for name in self.sets() if name not in _FIXED]

    def set_of(self, field: str) -> str:
        """The row set of a field."""
        if field.startswith(("hidden/", "activations/", "places/")):
            return field.split("/")[-1]
        return "all" if field.startswith(TOKEN_FIELDS) else self.logits

    # Signals → fields ----------------------------------------------------------------------------------------

    def fields(self, seen: Signals, rows: Mapping[str, Tensor]) -> Fields:
        """What is kept of one batch, in the order of its rows.

        Raises:
            UserError: if a number does not fit the dtype, or attention cannot be kept.
        """
        found: Fields = {}
        if self.logits == "sequences":
            found["logits"] = seen.logits.index_select(0, rows["sequences"])
        elif self.logits:
            found |= self._top(seen, len(rows["head"]))
        for layer, name in self.hidden:
            found[f"hidden/{_layer_name(layer)}/{name}"] = seen.hidden[layer, name]
        for layer, name in self.activations:
            found[f"activations/{layer}/{name}"] = seen.activations[layer, name]
        for layer in self.attention:
            one = seen.attention[layer]
            _check_attention(one, layer)
            kept = {"query": one.query, "key": one.key} | ({"value": one.value} if layer in self.values else {})
            for name, states in kept.items():
                flat = states.transpose(1, 2).flatten(0, 1)  # (batch · seq, heads, head width)
                found[f"{name}/{layer}"] = flat.index_select(0, rows["all"])
        return {name: self._narrow(name, value).cpu() for name, value in found.items()}

    def scalings(self, seen: Signals) -> dict[str, float]:
        return {str(layer): seen.attention[layer].scaling for layer in self.attention}

    def _top(self, seen: Signals, count: int, chunk: int = 512) -> Fields:
        parts = [
            TopLogits.of(seen.vocabulary.logits(start, min(start + chunk, count)), self.top_k, self.temperature)
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
                fix="set teacher.cache.dtype to bfloat16 or float32, or look at the teacher",
            )
        return narrow

    # Fields → signals ----------------------------------------------------------------------------------------

    def signals(self, fields: Fields, scalings: Mapping[str, float], attention_mask: Tensor | None) -> Signals:
        """What the terms see, as if the teacher had just run; those of all tokens are padded already."""
        visible = None if attention_mask is None else attention_mask[:, None, None].bool()
        seen = Signals(
            hidden={(layer, name): fields[f"hidden/{_layer_name(layer)}/{name}"] for layer, name in self.hidden},
            activations={(layer, name): fields[f"activations/{layer}/{name}"] for layer, name in self.activations},
        )
        for layer in self.attention:
            states = fields[f"query/{layer}"], fields[f"key/{layer}"]
            value = fields.get(f"value/{layer}")
            seen.attention[layer] = QueriesKeys(*states, scalings[str(layer)], visible, value)
        if self.logits == "sequences":
            seen.logits = fields["logits"]
        elif self.logits:
            seen.vocabulary = TopLogits(fields["top/words"].long(), fields["top/logits"], fields["top/others"])
        return seen


def _check_attention(seen: Any, layer: int) -> None:
    """Queries and keys say all, if a key's visibility is the same for every query.

    Raises:
        UserError: for eager maps, and for layers that see a window only.
    """
    problem = None
    if not isinstance(seen, QueriesKeys):
        problem = "whole attention maps"
    elif seen.mask is not None and not (seen.mask == seen.mask[:, :, :1]).all():
        problem = f"a layer {layer} whose queries see different keys"
    if problem:
        raise UserError(
            "teacher.cache",
            "attention that queries and keys tell",
            f"{problem}",
            why="the cache could not give it back",
            fix="leave teacher.cache out, or set the attention terms' weights to 0",
        )


def _layer_name(layer: int) -> str:
    return "embeddings" if layer == EMBEDDINGS else str(layer)


@dataclass(frozen=True)
class RowPositions:
    """Where a batch's rows of each set lie, and what the batch says.

    Attributes:
        counts: set → how many each sequence has, (sequences,).
        drawn: set that is drawn at random → token positions within their sequences.
        checksums: of each sequence's tokens as the models see them, masks and all, (sequences,).
    """

    counts: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    checksums: np.ndarray

    @classmethod
    def of(cls, batch: Mapping[str, Any], contents: CachedSignals, attended: np.ndarray) -> RowPositions:
        """Args: batch: with its row sets, as the collator made it. attended: (batch, seq).

        Raises:
            UserError: for padding on the left, which moves the positions of a row from batch to batch.
        """
        size, length = attended.shape
        if attended.argmax(1).any():
            raise UserError(
                "teacher.cache",
                "padding on the right",
                "padding on the left",
                why="a row's answers would depend on the rows beside it",
                fix=("set padding_side=right in the teacher's tokenizer_config.json, or leave teacher.cache out"),
            )
        counts, drawn = {}, {}
        for name in contents.sets():
            places = batch["rows"][name].numpy()
            sequence = places if name == "sequences" else places // length
            counts[name] = np.bincount(sequence, minlength=size)
            if name in contents.draws():
                drawn[name] = (places % length).astype(np.int32)
        tokens = np.ascontiguousarray(batch["input_ids"].numpy(), dtype=np.int32)
        checksums = [zlib.crc32(row[seen].tobytes()) for row, seen in zip(tokens, attended, strict=True)]
        return cls(counts, drawn, np.array(checksums, dtype=np.int64))
