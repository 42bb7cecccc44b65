"""Row sets: the rows that a step's terms use, drawn in the collator, so that every count is known before the forward.

Token row sets are flat positions in (batch × seq): `all` attended tokens, `masked` ones (labels ≠ −100), or a sampled
fraction of the attended ones, named by the number (`0.3`); `ordinary` are attended tokens other than special ones,
masked ones included; `cls` is the first token of each sequence. Sequence row sets are positions in the batch:
`sequences`, and `labelled` ones; where tokens have the labels, `labelled` ones are tokens (first sub-words), and
`sub_words` those of any word. `answered/<set>` are the rows of a set to which a file of answers has one. `batch` has
one row if there are at least two sequences (in all processes), for terms with one value per micro-batch. Where the
documents of queries are ranked, `queries` are the first rows of queries with two or more, and `pairs` flat positions in
(batch × batch) of a query's rows of unlike relevance. `head` holds the tokens that the language-model head runs on;
`logits/<set>` are the positions of a set's rows among the logits. Row sets are integer positions instead of boolean
masks, because masks would synchronise a GPU. Where rows have further encodings, each has row sets of its own, such as
`teacher_rows`: a sequence is at the same position in all of them, a token is not. `aligned/<set>` are the tokens of a
set that have partners in the first further encoding, `matched/<set>` those with an equal there (`Partners`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distil_nlp.data.augmentation.mixup import MIXED
from distil_nlp.data.encodings import OWN, PARTNERED, batch_of, encoding_name, further_encodings
from distil_nlp.data.partners import Partners
from distil_nlp.data.query_groups import pair_positions, query_positions
from distil_nlp.errors import UserError
from distil_nlp.tasks import TaskKind, task_kind
from distil_nlp.tasks.kind import ALIGNED, ANSWERED, MATCHED

EPOCH, FILLER, NUMBER = "epoch", "filler", "number"
"""Columns that the trainer adds to a row: its epoch, whether it is a filler of the last batch, its number."""
NUMBERS = "row_numbers"
"""Column of a batch with the numbers of its rows, for a teacher that reads them; fillers come after all rows."""
_LABELS = frozenset({"labels", "label", "label_ids"})
ANSWERS = "teacher_logits"
"""Column of rows and batches with a teacher's outputs that were made elsewhere; NaN where there are none."""
_OF_QUERIES = {"queries": query_positions, "pairs": pair_positions}
"""Row set → (labels, which rows are fillers) → positions, where documents of queries are ranked."""


@dataclass(frozen=True)
class RowSets:
    """The row sets that an objective needs.

    Attributes:
        kind: a kind of task, or its name.
        names: all row sets.
        logits: the row sets whose logits are needed.
        chunk: number of rows whose vocabulary logits are computed at a time; None to run the head on all rows at once.
        draws: True for a number from 0 to 1 for each masked token, `uniforms`, by which a word is drawn.
    """

    kind: TaskKind
    names: frozenset[str]
    logits: frozenset[str]
    chunk: int | None = None
    draws: bool = False

    if TYPE_CHECKING:  # the constructor takes names of kinds too

        def __init__(
            self,
            kind: TaskKind | str,
            names: frozenset[str],
            logits: frozenset[str],
            chunk: int | None = None,
            draws: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Replace the name of the kind by the kind."""
        object.__setattr__(self, "kind", task_kind(self.kind))

    @property
    def of_partners(self) -> list[str]:
        """The sets of tokens whose partners in the first further encoding are looked up."""
        return sorted(name for name in self.names if name.startswith((ALIGNED, MATCHED)))

    def of_further(self) -> RowSets:
        """Return the row sets of a further encoding: all tokens where those of the student's have partners there."""
        if self.kind.level == "sequence":
            names = {"all" if name in self.of_partners else name for name in self.names}
            return replace(self, names=frozenset(names), chunk=None)
        has_outputs = bool(self.logits) and self.kind.has_labels
        names = {"all"} | self.names & {"cls"}
        return replace(self, names=frozenset(names), logits=frozenset({"all"} if has_outputs else ()), chunk=None)


@dataclass(frozen=True)
class Chunks:
    """Division of the head's rows into chunks, as numbers on the host, so that slicing never synchronises a device.

    Attributes:
        size: rows of a chunk.
        cuts: row set with logits → the positions at which its chunks begin.
    """

    size: int
    cuts: dict[str, list[int]]

    def rows(self, rows: Mapping[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        """Return the row sets of a chunk; positions of logits are relative to its first row."""
        parts = {}
        for name, cuts in self.cuts.items():
            part = slice(cuts[number], cuts[number + 1])
            parts[name] = rows[name][part]
            parts[f"logits/{name}"] = rows[f"logits/{name}"][part] - number * self.size
        return parts


def row_generator(seed: int, epoch: int, token_ids: np.ndarray, salt: int) -> np.random.Generator:
    """Return a random generator that is a pure function of (seed, epoch, row).

    It is the same in any worker, process, batch or resumed run. A row is identified by its content, so that this works
    for streams too.
    """
    content = zlib.crc32(np.ascontiguousarray(token_ids, dtype=np.int64).tobytes())
    return np.random.default_rng((seed, epoch, content, salt))


@dataclass
class RowCollator:
    """Wraps a collator: passes on the columns that the models read, and adds the row sets to the padded batch.

    Args:
        collate: features → batch of tensors with `input_ids`, `attention_mask` and, if any, `labels`.
        sets: the row sets to draw.
        columns: names that may reach the collator (the inputs of teacher and student, and the labels).
        seed: seed of the sampled row sets.
        lookup_outputs: (numbers of the rows, their epochs, the batch, tokens that are not padding) → the teacher's
            cached outputs, for rows that have a number.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    sets: RowSets
    columns: frozenset[str]
    seed: int = 0
    lookup_outputs: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        """Raise UserError where special tokens are to be left out, and nothing tells which they are."""
        if "ordinary" in self.sets.names and getattr(self.collate, "tokenizer", None) is None:
            raise UserError(
                "data_collator",
                "a collator with a tokenizer, which tells the special tokens",
                type(self.collate).__name__,
                why="a term leaves them out",
                fix="pass MaskingCollator(tokenizer), or DataCollatorForLanguageModeling(tokenizer)",
            )

    @property
    def group_size(self) -> int | None:
        """Most rows of a query in a batch that has whole queries; None for batches of single rows."""
        return getattr(self.collate, "group_size", None)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        fillers = np.array([bool(feature.get(FILLER, False)) for feature in features])
        epochs = [int(feature.get(EPOCH, 0)) for feature in features]
        known = self.columns | {EPOCH} if getattr(self.collate, "wants_epoch", False) else self.columns
        known = known - {ANSWERS}
        batch = dict(self.collate([{k: v for k, v in feature.items() if k in known} for feature in features]))
        if ANSWERS in self.columns and ANSWERS in features[0]:
            batch[ANSWERS] = torch.tensor([feature[ANSWERS] for feature in features], dtype=torch.float32)
        mixed, present = batch.pop(MIXED, {}), present_tokens(batch)
        partners = self._partners(features, batch)
        for encoding in (OWN, *further_encodings(batch)):
            self._add_row_sets(batch, encoding, fillers, epochs, partners)
        if partners is not None:
            self._add_partners(batch, partners)
        batch["rows"] |= mixed
        if self.sets.draws:
            batch["uniforms"] = torch.from_numpy(self._uniforms(batch, present, epochs))
        if self.sets.chunk and self.sets.logits and "head" in batch["rows"]:
            rows = {name: places.numpy() for name, places in batch["rows"].items()}
            batch["chunks"] = self._chunks(rows, self.sets.chunk)
        if NUMBER not in features[0]:
            return batch
        numbers = [feature[NUMBER] for feature in features]
        if self.lookup_outputs is None:
            batch[NUMBERS] = torch.tensor(numbers)
        else:
            batch["cached_outputs"] = self.lookup_outputs(numbers, epochs, batch, present)
        return batch

    def of(self, encoding: str) -> RowCollator:
        """Return the collator of rows that have one of the further encodings alone, by the usual names."""
        collate: Any = self.collate
        sets = self.sets.of_further()
        columns = {name.removeprefix(encoding) for name in self.columns if name.startswith(encoding)}
        columns |= self.columns & (_LABELS | self.sets.kind.columns)
        of_one = {"collate": collate.of(encoding), "sets": sets, "columns": frozenset(columns)}
        return replace(self, **of_one, lookup_outputs=None)

    def _partners(self, features: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> Partners | None:
        """Return the partners of the student's tokens in the first further encoding; None where no set needs them."""
        if not self.sets.of_partners or not further_encodings(batch):  # a teacher that reads the student's tokens
            return None
        other = batch_of(batch, encoding_name(0))
        return Partners.of(features, present_tokens(batch), present_tokens(other))

    def _add_partners(self, batch: dict[str, Any], partners: Partners) -> None:
        """Add the partners of each set of tokens that the teacher is asked for."""
        rows, other = batch["rows"], batch[f"{encoding_name(0)}rows"]
        among = other["all"].numpy()
        batch[PARTNERED] = {name: partners.bags(name, rows[name].numpy(), among) for name in self.sets.of_partners}
        if self.sets.kind.predicts_words and self.sets.logits:  # a row of the teacher's for each of the student's
            other["head"] = torch.from_numpy(np.maximum(partners.equals[rows["head"].numpy()], 0))

    def _add_row_sets(
        self,
        batch: dict[str, Any],
        encoding: str,
        fillers: np.ndarray,
        epochs: list[int],
        partners: Partners | None,
    ) -> None:
        """Add the row sets and the number of tokens of an encoding, and drop a mask that masks nothing."""
        own = batch_of(batch, encoding)
        present = present_tokens(own)
        if present.all():  # without padding attention needs no mask, and runs its fastest kernels
            batch.pop(f"{encoding}attention_mask", None)
        attended = present & ~fillers[:, None]
        sets = self.sets if encoding == OWN else self.sets.of_further()
        rows = self._draw(sets, own, attended, fillers, epochs, partners)
        places = {name: torch.from_numpy(np.asarray(places, dtype=np.int64)) for name, places in rows.items()}
        batch |= {f"{encoding}rows": places, f"{encoding}tokens": int(attended.sum())}

    def _chunks(self, rows: dict[str, np.ndarray], size: int) -> Chunks:
        edges = np.arange(0, len(rows["head"]) + size, size)
        cuts = {name: np.searchsorted(rows[f"logits/{name}"], edges).tolist() for name in self.sets.logits}
        return Chunks(size, cuts)

    def _draw(
        self,
        sets: RowSets,
        batch: Mapping,
        attended: np.ndarray,
        fillers: np.ndarray,
        epochs: list[int],
        partners: Partners | None,
    ) -> dict:
        draw = partial(self._positions, batch=batch, attended=attended, fillers=fillers, epochs=epochs)
        rows = {name: draw(name) for name in sets.names if name not in sets.of_partners}
        if partners is not None:
            rows |= {name: partners.with_any(name, draw(name.partition("/")[2])) for name in sets.of_partners}
        if sets.kind.level == "sequence":
            return rows | {f"logits/{name}": rows[name] for name in sets.logits}
        head = np.unique(np.concatenate([np.empty(0, np.int64), *(rows[name] for name in sets.logits)]))
        places = {f"logits/{name}": np.searchsorted(head, rows[name]) for name in sets.logits}
        return rows | places | {"head": head}

    def _positions(
        self, name: str, batch: Mapping, attended: np.ndarray, fillers: np.ndarray, epochs: list[int]
    ) -> np.ndarray:
        if name.startswith(ANSWERED):
            among = self._positions(name.removeprefix(ANSWERED), batch, attended, fillers, epochs)
            return among[_answered(batch, len(fillers))[among]]
        if name == "all":
            return np.flatnonzero(attended)
        if name == self.sets.kind.label_rows and self.sets.kind.level == "token":
            return np.flatnonzero(_labelled(batch, batch["input_ids"].shape) & ~fillers[:, None])
        if name == "ordinary":
            return np.flatnonzero(attended & ~self._special(batch))
        if name == "sub_words":
            return np.flatnonzero(batch["is_word"].numpy() & ~fillers[:, None])
        if name == "cls":
            return np.flatnonzero(~fillers) * attended.shape[1] + attended[~fillers].argmax(1)
        if name == "sequences":
            return np.flatnonzero(~fillers)
        if name == "batch":
            return np.arange(int((~fillers).sum() > 1))
        if name in _OF_QUERIES:
            return _OF_QUERIES[name](batch["labels"].numpy(), fillers)
        if name == "labelled":
            return np.flatnonzero(_labelled(batch, fillers.shape) & ~fillers)
        return self._sample(float(name), batch["input_ids"].numpy(), attended, epochs)

    def _special(self, batch: Mapping) -> np.ndarray:
        """Return which tokens are special, (batch, seq); the mask token stands for a word."""
        tokenizer: Any = self.collate.tokenizer  # type: ignore[attr-defined]  # as `__post_init__` makes sure
        ids = batch["input_ids"].numpy()
        return np.isin(ids, tokenizer.all_special_ids) & ~_labelled(batch, ids.shape)

    def _uniforms(self, batch: Mapping, present: np.ndarray, epochs: list[int]) -> np.ndarray:
        """Draw a number from 0 to below 1 for each masked token, row by row."""
        rows = zip(batch["input_ids"].numpy(), present, epochs, self._masked_of_each(batch), strict=True)
        drawn = [
            row_generator(self.seed, epoch, row[mask], salt=2).random(count, dtype=np.float32)
            for row, mask, epoch, count in rows
        ]
        return np.concatenate(drawn)

    @staticmethod
    def _masked_of_each(batch: Mapping) -> np.ndarray:
        size, length = batch["input_ids"].shape
        return np.bincount(batch["rows"]["masked"].numpy() // length, minlength=size)

    def _sample(self, fraction: float, ids: np.ndarray, attended: np.ndarray, epochs: list[int]) -> np.ndarray:
        """Draw a fraction of each row's attended tokens, at least one, row by row."""
        chosen = []
        for i, (row, mask, epoch) in enumerate(zip(ids, attended, epochs, strict=True)):
            places = np.flatnonzero(mask)
            if len(places):
                generator = row_generator(self.seed, epoch, row[places], salt=1)
                drawn = generator.choice(places, size=max(1, round(fraction * len(places))), replace=False)
                chosen.append(np.sort(drawn) + i * ids.shape[1])
        return np.concatenate([np.empty(0, np.int64), *chosen])


def present_tokens(batch: Mapping[str, Any]) -> np.ndarray:
    """Return True for tokens that are not padding, (batch, seq); all of them without a mask."""
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"])).numpy().astype(bool)


def logit_labels(batch: Mapping[str, Any], kind: TaskKind) -> Any:
    """Return the labels of the rows of logits: those of the batch, or of the tokens that the head runs on; or None."""
    labels = batch.get("labels")
    if labels is None or kind.level == "sequence":
        return labels
    return labels.flatten().index_select(0, batch["rows"]["head"])


def _answered(batch: Mapping[str, Any], size: int) -> np.ndarray:
    return ~torch.isnan(batch[ANSWERS]).any(1).numpy() if ANSWERS in batch else np.zeros(size, dtype=bool)


def _labelled(batch: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return which rows or tokens have a label; none where the batch has no labels."""
    if "labels" not in batch:
        return np.zeros(shape, dtype=bool)
    labels = batch["labels"].numpy()
    known = ~np.isnan(labels) if np.issubdtype(labels.dtype, np.floating) else labels != -100
    return known.reshape(*shape, -1).all(-1)


def sample_rows(rows: Any, count: int, seed: int = 0) -> Any:
    """Return at most so many rows of a dataset in their order, drawn the same way each time."""
    chosen = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
    return rows.select(np.sort(chosen))
