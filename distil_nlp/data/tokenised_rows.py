"""Rows of texts and labels → rows of tokens, as each model reads them; kept on disk by their fingerprint."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.data.encodings import OWN, columns_of, encoding_name
from distil_nlp.data.labels import LabelReader, Labels
from distil_nlp.data.token_alignment import STARTS, STOPS, Spans, overlaps
from distil_nlp.data.tokenization import word_ids
from distil_nlp.errors import UserError, shown
from distil_nlp.tasks import Task

_LENGTH, _CUT, _ALIGNED = "length", "cut", "aligned"
"""Columns: tokens of a row, in each encoding; see `splits.COUNTS` for the others."""


@dataclass(frozen=True)
class RowTokenizers:
    """The tokenizers of all encodings.

    Attributes:
        own: the student's.
        further: those of further encodings, by the encodings' names.
    """

    own: PreTrainedTokenizerBase
    further: Mapping[str, PreTrainedTokenizerBase] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of all encodings."""
        further = {f"{encoding}{_LENGTH}" for encoding in self.further}
        inputs = (columns_of(one.model_input_names, encoding) for encoding, one in self.further.items())
        return sorted({*self.own.model_input_names, _LENGTH}.union(further, *inputs))


def check_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None:
        raise UserError(
            None,
            "a tokenizer with a padding token",
            f"{type(tokenizer).__name__} without one ({shown(tokenizer.name_or_path)})",
            why="rows of unlike length cannot share a batch",
            fix="set pad_token in its tokenizer_config.json",
        )


def tokenised_rows(
    rows: Dataset,
    tokenizers: RowTokenizers,
    task: Task,
    reader: LabelReader,
    classes: tuple[Labels, int],
    max_length: int,
    num_proc: int | None,
    words: bool = False,
) -> Dataset:
    """Return tokenised rows; `classes` are the names of the classes and the number of outputs."""
    features = {name: Value("int32") if name.endswith(_LENGTH) else List(Value("int32")) for name in tokenizers.columns}
    features |= reader.features(classes[1])
    features |= {"word_ids": List(Value("int32"))} if words else {}
    arguments = dict(
        tokenizers=tokenizers,
        columns=(task.text_columns, task.label_column),  # a task's kind has another hash in each process
        reader=reader,
        classes=classes,
        max_length=max_length,
        words=words,
    )
    if tokenizers.further:
        numbers = List(Value("int32"))
        features |= {_CUT: Value("bool"), _ALIGNED: Value("int32"), STARTS: numbers, STOPS: numbers}
        features |= reader.further_features(tokenizers.further)
    return rows.map(
        _encode,
        batched=True,
        remove_columns=rows.column_names,
        num_proc=num_proc if len(rows) > 5000 else None,
        features=Features(features),
        fn_kwargs=arguments,
        new_fingerprint=_fingerprint(rows, features, arguments),
        desc="tokenising",
    )


def _fingerprint(rows: Dataset, features: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Return the fingerprint of tokenised rows, which is the same in each process, so that `datasets` reuses them."""
    tokenizers: RowTokenizers = arguments["tokenizers"]
    states = {name: _state(one) for name, one in {OWN: tokenizers.own, **tokenizers.further}.items()}
    return Hasher.hash([rows._fingerprint, features, {**arguments, "tokenizers": states}, _made_by()])


def _state(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return all that a tokenizer's output depends on, quick to hash where it is a fast one."""
    if not tokenizer.is_fast:
        return tokenizer
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if isinstance(value, str | int | bool)}
    sides = (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.model_input_names)
    of_a_call = {"truncation": None, "padding": None}  # what the call before has set, which the next one sets anew
    model = {**json.loads(tokenizer.backend_tokenizer.to_str()), **of_a_call}
    return [type(tokenizer).__name__, json.dumps(model, sort_keys=True), settings, sides]


@functools.cache
def _made_by() -> list[str]:
    """Return the sources of this package and the versions that tokenise: `datasets` keeps rows by their fingerprint."""
    sources = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
    return [*sources, *(version(name) for name in ("tokenizers", "transformers"))]


def _encode(
    batch: dict[str, list],
    tokenizers: RowTokenizers,
    columns: tuple[Sequence[str], str],
    reader: LabelReader,
    classes: Any,
    max_length: int,
    words: bool,
) -> dict[str, Any]:
    text_columns, label_column = columns
    texts = {column: [text if text is not None else "" for text in batch[column]] for column in text_columns}
    encoded: dict[str, Any] = {}
    if tokenizers.further:
        texts, encoded[_CUT] = reader.cut_alike(texts, [tokenizers.own, *tokenizers.further.values()], max_length)
    read: dict[str, BatchEncoding] = {}
    for encoding, tokenizer in {OWN: tokenizers.own, **tokenizers.further}.items():
        tokens = read[encoding] = reader.tokenise(tokenizer, texts, max_length)
        encoded |= {f"{encoding}{name}": tokens[name] for name in tokenizer.model_input_names}
        encoded[f"{encoding}{_LENGTH}"] = [len(ids) for ids in tokens["input_ids"]]
    values = batch.get(label_column, [None] * len(batch[text_columns[0]]))
    encoded |= reader.columns(values, classes, read[OWN])
    if words:
        encoded["word_ids"] = [word_ids(read[OWN], i, length) for i, length in enumerate(encoded[_LENGTH])]
    if tokenizers.further:
        encoded |= reader.further_columns(values, classes, read)
        encoded |= _partner_columns(read[OWN], read[encoding_name(0)], list(texts.values()))
    return encoded


def _partner_columns(own: BatchEncoding, other: BatchEncoding, texts: Sequence[Any]) -> dict[str, Any]:
    """Return the partners of each token of the student's, and how many tokens of a row have any."""
    rows = range(len(own["input_ids"]))
    found = [overlaps(*(Spans.of(encoded, i, texts) for encoded in (own, other))) for i in rows]
    aligned = [int((stops > 0).sum()) for _, stops in found]
    return {STARTS: [starts for starts, _ in found], STOPS: [stops for _, stops in found], _ALIGNED: aligned}
