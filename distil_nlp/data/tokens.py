"""Data of token classification: sentences that are lists of words, with a list of tags.

The first sub-word of each word has its tag as a label, all others −100. Words that a model does not read (beyond
`data.max_length`, or of characters that the tokenizer drops) are kept for the scores, which count them as missed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset, List, Value
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.data import sequences
from distil_nlp.data.common_text import cut_words_alike
from distil_nlp.data.encodings import OWN, batch_of, encoding_name, further_encodings
from distil_nlp.data.labels import LabelReader, Labels, is_missing
from distil_nlp.data.tag_columns import (
    all_tags,
    check_every_word,
    check_word_lists,
    inner_feature,
    known_tags,
    tag_names,
    tell_repairs,
)
from distil_nlp.data.token_alignment import PARTNERS
from distil_nlp.data.tokenization import tokenise
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed
from distil_nlp.tasks import Head, Task
from distil_nlp.tasks.tags import Tags
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return tokenised sentences and the collator that pads them; say what was repaired, and what is not read.

    Tags with the prefixes B- and I- are scored as entities, others one by one (the task `tags`).

    Args:
        splits: as `load_splits` gives them.
        tokenizer: changed in place where it would read words without the space before them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.

    Raises:
        UserError: for columns that are not words and tags, and for the errors of `sequences.load`.
    """
    for one in (tokenizer, *limits.encodings.values()):
        read_words_with_spaces(one)
    given = tuple(map(str, options.label_names or ()))
    data = sequences.load(splits, tokenizer, dataclasses.replace(task, labels=given), options, limits)
    tags = tags_of(data.head)
    if task.name == "tags" and tags.are_entities:
        raise UserError(
            "data.task",
            "tokens for tags with prefixes",
            f"tags ({listed(tags.names)})",
            why="entities would be scored word by word",
            fix="set data.task=tokens",
        )
    data.task = "tokens" if tags.are_entities else "tags"
    inner = inner_feature(splits[options.train_split].features.get(task.label_column))
    has_numbers = isinstance(inner, Value) and "int" in inner.dtype
    data.head = dataclasses.replace(data.head, are_named_by_recipe=has_numbers and bool(given))
    data.collator = TokenCollator(tokenizer, tags, options.pad_to_multiple_of, limits.encodings)
    for name, rows in {"training": data.split.train, **data.split.evaluation}.items():
        _tell_unread_words(name, rows, options.max_length)
    return data


def labelled_rows(rows: Dataset) -> Dataset:
    """Return the tokenised sentences in which a word has a tag; the dataset itself if all have one."""
    known = np.array([any(label != -100 for label in labels) for labels in rows["labels"]], dtype=bool)
    return rows if known.all() else rows.select(np.flatnonzero(known))


def tags_of(head: Head) -> Tags:
    """Return the tags of a head; numbers where the data has no names."""
    return Tags(head.labels or tuple(map(str, range(head.num_labels or 0))))


class TagLabels(LabelReader):
    """Reads lists of tags: ids, names in a `ClassLabel`, or plain strings; −100 or null marks a word without one."""

    dtype, missing = np.int64, -100

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return the names of the tags, the same in all splits, and their number; say what is repaired."""
        for name, rows in splits.items():
            check_word_lists(rows, task, name)
        labels, count = tag_names(splits, train_split, task)
        tags = Tags(labels or tuple(map(str, range(count))))
        if tags.other_prefixes:
            raise UserError(
                "data.label_column",
                "BIO tags (O, B- and I- with a type), or tags without prefixes",
                listed(tags.other_prefixes),
                why="entities in another scheme would be taken for more types than there are",
                fix="write them as BIO: S- and U- become B-, E- and L- become I-",
            )
        if count < 2:
            raise UserError(
                "data.label_column",
                f"two tags or more in {train_split}",
                str(count),
                why="there is nothing to tell apart",
                fix="name the column of tags with data.label_column",
            )
        for name, rows in splits.items():
            if name != train_split:
                check_every_word(rows, task, name)
            if not self.invalid(known_tags(rows, task), labels, count):  # told later, with the rows that are used
                tell_repairs(self.numbers(known_tags(rows, task), labels), tags, name)
        return labels, count

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return unknown names of tags, and numbers that are none."""
        known = set(labels or ())
        return [
            tag
            for tag in all_tags(values)
            if (tag not in known if isinstance(tag, str) else not (isinstance(tag, int) and 0 <= tag < num_labels))
        ]

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return the range of ids, and the names if there are any."""
        return f"lists of tags from 0 to {num_labels - 1}{f' ({listed(labels)})' if labels else ''}"

    def numbers(self, values: Sequence[Any], labels: Labels) -> list[list[int]]:
        """Return the ids of each sentence's tags, as the data has them; [] for a sentence without tags."""
        ids = {name: number for number, name in enumerate(labels or ())}
        return [
            [self.missing if is_missing(tag) else ids[tag] if isinstance(tag, str) else tag for tag in sentence or ()]
            for sentence in (None if is_missing(value) else value for value in values)
        ]

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[list[int]]:
        """Return the ids of each sentence's tags, repaired (see `Tags.repaired`)."""
        tags = Tags(labels or ())
        return [tags.repaired(sentence)[0] for sentence in self.numbers(values, labels)]

    def features(self, num_labels: int) -> dict[str, Any]:
        """Return the label of each token, whether it is of a word, the tag of each word, and whether that is read."""
        return self._features | {"word_labels": List(Value("int64"))}

    @property
    def _features(self) -> dict[str, Any]:
        """The columns that each encoding has for itself."""
        numbers, flags = List(Value("int64")), List(Value("bool"))
        return {"labels": numbers, "is_word": flags, "is_read": flags}

    def columns(self, values: Sequence[Any], classes: Any, tokens: BatchEncoding) -> dict[str, list[Any]]:
        """Return the columns of `features` of tokenised sentences."""
        word_labels = self.encode(values, *classes)
        words = [tokens.word_ids(i) for i in range(len(word_labels))]
        found = [_aligned(own, tags) for own, tags in zip(words, word_labels, strict=True)]
        return {
            "is_word": [[word is not None for word in own] for own in words],
            "labels": [sub_words for sub_words, _ in found],
            "word_labels": word_labels,
            "is_read": [is_read for _, is_read in found],
        }

    def further_features(self, encodings: Iterable[str]) -> dict[str, Any]:
        """Return the columns of each encoding, the equals of the student's tokens, and the numbers of words."""
        own = {f"{encoding}{name}": kind for encoding in encodings for name, kind in self._features.items()}
        return own | {PARTNERS: List(Value("int32"))} | {name: Value("int32") for name in ("words", "matched")}

    def further_columns(
        self, values: Sequence[Any], classes: Any, read: Mapping[str, BatchEncoding]
    ) -> dict[str, list[Any]]:
        """Return the columns of `further_features`; the equal of a first sub-word is that of the same word."""
        found = {encoding: self.columns(values, classes, tokens) for encoding, tokens in read.items()}
        columns = {
            f"{encoding}{name}": one[name] for encoding, one in found.items() if encoding for name in self._features
        }
        own, other = read[OWN], read[encoding_name(0)]
        columns[PARTNERS] = [
            _same_words(own.word_ids(i), other.word_ids(i), labels) for i, labels in enumerate(found[OWN]["labels"])
        ]
        columns["words"] = [sum(label != -100 for label in labels) for labels in found[OWN]["labels"]]
        columns["matched"] = [sum(place >= 0 for place in places) for places in columns[PARTNERS]]
        return columns

    def cut_alike(
        self, texts: Mapping[str, Sequence[Any]], tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int
    ) -> tuple[dict[str, list[Any]], list[bool]]:
        """Return the words that all tokenizers read, and which rows were cut for it."""
        ((column, sentences),) = texts.items()
        kept, cut = cut_words_alike([list(words or ()) for words in sentences], tokenizers, max_length)
        return {column: kept}, cut

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return one group: sentences are divided whatever tags they have."""
        return [None] * len(values)

    def tokenise(
        self, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[Any]], max_length: int | None
    ) -> BatchEncoding:
        """Return the sub-words of sentences that are lists of words, cut at `max_length`; whole if that is None.

        Raises:
            UserError: for a tokenizer that does not tell which word a sub-word is of.
        """
        if not tokenizer.is_fast:
            raise UserError(
                None,
                "a fast tokenizer, which tells the word of each sub-word",
                type(tokenizer).__name__,
                why="tags would not find their sub-words",
                fix="take a teacher with tokenizer.json",
            )
        sentences = {column: [list(words or ()) for words in rows] for column, rows in texts.items()}
        limits = {"truncation": max_length is not None, "max_length": max_length}
        return tokenise(tokenizer, sentences, **limits, is_split_into_words=True)


LABELS = TagLabels()


@dataclass(frozen=True)
class Words:
    """The words of a batch's sentences, those included that no model reads.

    Attributes:
        tags: all tags.
        labels: for each sentence the tags of its words; −100 for a word without one.
        is_read: for each sentence whether its words have a sub-word among the tokens.
    """

    tags: Tags
    labels: list[list[int]]
    is_read: list[list[bool]]


@dataclass
class TokenCollator:
    """Pads sentences and their labels (−100) to the longest of the batch, or further to a multiple.

    For scores a batch also has `words`. Each encoding is padded for itself, where the rows have it.

    Attributes:
        tokenizer: of the student's own encoding.
        tags: all tags.
        pad_to_multiple_of: of the length.
        encodings: tokenizers of further encodings, by the encodings' names.
    """

    tokenizer: PreTrainedTokenizerBase
    tags: Tags
    pad_to_multiple_of: int | None = None
    encodings: Mapping[str, PreTrainedTokenizerBase] = field(default_factory=dict)

    def of(self, encoding: str) -> TokenCollator:
        """Return the collator of rows that have one of the further encodings alone, by the usual names."""
        return TokenCollator(self.encodings[encoding], self.tags, self.pad_to_multiple_of)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = self._padded_inputs(features)
        for encoding in further_encodings(features[0]):
            padded = self.of(encoding)._padded_inputs([batch_of(row, encoding) for row in features])
            batch |= {f"{encoding}{name}": value for name, value in padded.items()}
        if "labels" in features[0]:
            length = batch["input_ids"].shape[1]
            batch["labels"] = self._padded([row["labels"] for row in features], length, -100)
            batch["is_word"] = self._padded([row["is_word"] for row in features], length, False)
        if "word_labels" in features[0]:
            columns = ([row[name] for row in features] for name in ("word_labels", "is_read"))
            batch["words"] = Words(self.tags, *columns)
        return batch

    def _padded_inputs(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        inputs = [{k: v for k, v in row.items() if k in self.tokenizer.model_input_names} for row in features]
        return dict(self.tokenizer.pad(inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"))

    def _padded(self, columns: Sequence[Sequence[int]], length: int, filling: int) -> torch.Tensor:
        padded = torch.full((len(columns), length), filling)
        for row, own in zip(padded, columns, strict=True):
            place = slice(length - len(own), None) if self.tokenizer.padding_side == "left" else slice(len(own))
            row[place] = torch.tensor(own, dtype=padded.dtype)
        return padded


def read_words_with_spaces(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a tokenizer of bytes read each word of a list with the space before it, as it is in a text.

    RoBERTa's would refuse a list of words otherwise, and ModernBERT's would read words as if they were parts of one.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = None if backend is None else json.loads(backend.to_str())
    if state is None or not _set_prefix_space(state["pre_tokenizer"]):
        return
    if "add_prefix_space" in (state["post_processor"] or {}):  # by it a word's first character is told from that space
        state["post_processor"]["add_prefix_space"] = True
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_prefix_space = True
    tokenizer.init_kwargs["add_prefix_space"] = True


def _set_prefix_space(part: Any) -> bool:
    """Set the field in a part of a tokenizer's description and in all within it; return whether anything changed."""
    if isinstance(part, list):
        return any([_set_prefix_space(one) for one in part])
    if not isinstance(part, dict):
        return False
    changed = part.get("type") == "ByteLevel" and not part["add_prefix_space"]
    if changed:
        part["add_prefix_space"] = True
    return _set_prefix_space(list(part.values())) or changed


# The columns ------------------------------------------------------------------------------------------------------


def _same_words(own: Sequence[int | None], other: Sequence[int | None], labels: Sequence[int]) -> list[int]:
    """Return of each token with a label the other tokenizer's first token of the same word; −1 where there is none.

    Args:
        own, other: number of the word of each token.
        labels: of the first tokenizer's tokens.
    """
    firsts = {word: place for place, word in reversed(list(enumerate(other)))}
    return [-1 if label == -100 else firsts.get(word, -1) for word, label in zip(own, labels, strict=True)]


def _tell_unread_words(name: str, rows: Dataset, max_length: int) -> None:
    """Log how many words of a split no model reads: those that are cut off, and those without a sub-word."""
    words = cut = empty = sentences = 0
    for is_read, length in zip(rows["is_read"], rows["length"], strict=True):
        unread = is_read.count(False)
        words += len(is_read)
        if not unread:
            continue
        behind = next((i for i, one in enumerate(reversed(is_read)) if one), len(is_read))
        own_cut = behind if length >= max_length else 0
        cut, empty, sentences = cut + own_cut, empty + unread - own_cut, sentences + bool(own_cut)
    effect = "they teach nothing" if name == "training" else "scores count them as missed"
    if cut:
        logger.warning(
            f"{name}: {cut:,} of {words:,} words, in {sentences:,} of {len(rows):,} rows, are beyond "
            f"data.max_length={max_length} and cut off; {effect}"
        )
    if empty:
        logger.warning(f"{name}: {empty:,} of {words:,} words have no sub-word in this tokenizer; {effect}")


def _aligned(words: Sequence[int | None], tags: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Return the label of each sub-word, and whether each word is read.

    Args:
        words: number of the word of each sub-word; None for special tokens.
        tags: of the words; empty for a sentence without tags.
    """
    labels, is_read, before = [], [False] * len(tags), None
    for word in words:
        is_first = word is not None and word != before and bool(tags)
        labels.append(tags[word] if is_first and word is not None else -100)
        if is_first and word is not None:
            is_read[word] = True
        before = word
    return labels, is_read
