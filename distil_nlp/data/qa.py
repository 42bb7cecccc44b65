"""Data of question answering, in SQuAD's form: windows of a context, with the place of the answer in each.

A context that is longer than an input is cut into windows that overlap by `data.stride` tokens; a row of the tokenised
data is a window. Where some questions have no answer (SQuAD 2.0), the answer of a window without one is at [CLS].
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, List, Value
from transformers import BatchEncoding, PreTrainedTokenizerBase

from distil_nlp.data import sequences
from distil_nlp.data.labels import LabelReader, Labels
from distil_nlp.data.qa_answers import FORM_OF_ANSWERS, checked_answers
from distil_nlp.data.qa_collator import NOT_CONTEXT, QACollator
from distil_nlp.data.sequences import labelled_rows
from distil_nlp.data.splits import Split
from distil_nlp.data.tokenization import tokenise
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.tasks import Task
from distil_nlp.utils.logging import get_logger

__all__ = ["LABELS", "SpanLabels", "labelled_rows", "load"]

logger = get_logger(__name__)

LONGEST_QUESTION = 64
"""Tokens of a question that are read, as in BERT's own code; at most half of the input."""


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return windows and the collator that pads them.

    The task is `qa_v2` where a question of the data has no answer. Rows that are kept for scoring have contexts that no
    training row has.

    Args:
        splits: as `load_splits` gives them.
        tokenizer: a fast one.
        task: its text columns are question and context.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.

    Raises:
        UserError: for columns that are not SQuAD's, and for the errors of `sequences.load`.
    """
    if len(task.text_columns) != 2:
        raise UserError(
            "data.text_columns",
            "two columns, of questions and of contexts",
            listed(task.text_columns),
            why="an answer is a piece of the context",
            fix="set data.text_columns=[question,context]",
        )
    _check_tokenizer(tokenizer, options.max_length, options.stride)
    own = splits if options.streaming else _with_test_contexts(splits, task, options)
    reader = SpanLabels(options.stride)
    data = sequences.load(own, tokenizer, task, options, limits, reader)
    data.task = "qa_v2" if reader.has_unanswerable else "qa"
    data.split.held_out = next((name for name in own if name not in splits), None)
    _tell_windows(data.split, reader.has_unanswerable)
    _tell_cut_questions(data.split, _longest_question(tokenizer, options.max_length))
    data.split = _without_notes(data.split)
    data.collator = QACollator(tokenizer, options.pad_to_multiple_of)
    return data


def _with_test_contexts(splits: Any, task: Task, options: Any) -> Any:
    """Return the splits; of a single one some contexts, with all their questions, are kept for scoring."""
    missing = [name for name in task.text_columns if name not in splits[options.train_split].column_names]
    by_context = task if missing else dataclasses.replace(task, text_columns=task.text_columns[1:])
    return sequences.with_test_rows(splits, by_context, options)


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int) -> None:
    """Raise UserError for a tokenizer without offsets, and a stride that leaves no room for the next window."""
    if not tokenizer.is_fast:
        raise UserError(
            None,
            "a fast tokenizer, which tells where in the text a token is",
            type(tokenizer).__name__,
            why="answers would not find their tokens",
            fix="take a teacher with tokenizer.json",
        )
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - _longest_question(tokenizer, max_length)
    if stride >= room:
        raise UserError(
            "data.stride",
            f"less than {room}, the tokens of context beside a question of {_longest_question(tokenizer, max_length)}",
            str(stride),
            why="windows would not move on",
            fix="lower data.stride, or raise data.max_length",
        )


def _longest_question(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    return min(LONGEST_QUESTION, (max_length - tokenizer.num_special_tokens_to_add(pair=True)) // 2)


def _tell_windows(split: Split, has_unanswerable: bool) -> None:
    """Log what form of SQuAD the data has, and how many windows there are of how many questions."""
    form = "some questions have no answer (as in SQuAD 2.0)" if has_unanswerable else "all questions have an answer"
    questions: Any = split.train_texts
    logger.info(f"{form}; {len(split.train):,} windows of {len(questions):,} questions to train on")


def _tell_cut_questions(split: Split, limit: int) -> None:
    """Log how many questions are longer than what is read of them.

    Args:
        split: windows that tell whether their question is cut.
        limit: tokens that are read.
    """
    for name, rows in {"train": split.train, **split.evaluation}.items():
        numbers, is_cut = np.asarray(rows["question_id"][:]), np.asarray(rows[_IS_CUT][:], dtype=bool)
        cut, questions = (len(np.unique(some)) for some in (numbers[is_cut], numbers))
        if cut:
            fix = "" if limit == LONGEST_QUESTION else ": raise data.max_length"
            logger.warning(f"{name}: {cut:,} of {questions:,} questions are cut at {limit} tokens{fix}")


def _without_notes(split: Split) -> Split:
    """Return a split without the column that is told of, and to train on without those that scores read."""
    return dataclasses.replace(
        split,
        train=split.train.remove_columns([*_SCORING, _IS_CUT]),
        selection=split.selection and split.selection.remove_columns(_IS_CUT),
        evaluation={name: rows.remove_columns(_IS_CUT) for name, rows in split.evaluation.items()},
    )


# The columns ------------------------------------------------------------------------------------------------------


@dataclass
class SpanLabels(LabelReader):
    """Reads answers: texts and the characters at which they start, several of a question where annotators differ.

    The first one is learned. A question with null has no label, and learns from the teacher alone.

    Args:
        stride: tokens that two windows have in common.

    Attributes:
        has_unanswerable: whether a question of the data has no answer; set by `read`.
    """

    stride: int = 128
    has_unanswerable: bool = False

    dtype, missing = np.int64, -100

    def read(self, splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
        """Return (None, 2): the outputs are start and end."""
        kept = {name: checked_answers(rows, task, name) for name, rows in splits.items()}
        counts = [len(answers["text"]) for own in kept.values() for answers in own if answers is not None]
        if not any(counts):
            raise UserError(
                "data.label_column",
                f"answers in {quoted(task.label_column)}",
                "none in any row",
                why="there is nothing to score by",
                fix=f"name the column of answers, {FORM_OF_ANSWERS}",
            )
        self.has_unanswerable = not all(counts)
        return None, 2

    def invalid(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Return nothing: `read` has looked at all answers."""
        return []

    def expected(self, labels: Labels, num_labels: int) -> str:
        """Return the form of answers."""
        return FORM_OF_ANSWERS

    def encode(self, values: Sequence[Any], labels: Labels, num_labels: int) -> list[Any]:
        """Raise TypeError: places depend on the windows, see `columns`."""
        raise TypeError("expected windows, for the places of answers")

    def strata(self, values: Sequence[Any]) -> list[Hashable]:
        """Return for each question whether it has an answer."""
        return [bool(value and value["text"]) for value in values]

    def features(self, num_labels: int) -> dict[str, Any]:
        """Return the place of the answer, positions that may be one, what scores need, and if the question is cut."""
        numbers, text = List(Value("int32")), Value("string")
        return {
            "labels": List(Value("int64")),
            "is_allowed": List(Value("bool")),
            "question_id": Value("int64"),
            "question": text,
            "context": text,
            "answers": List(text),
            "token_starts": numbers,
            "token_ends": numbers,
            _IS_CUT: Value("bool"),
        }

    def tokenise(
        self, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[Any]], max_length: int | None
    ) -> BatchEncoding:
        """Return the windows of questions and contexts, with the texts of each; whole texts if `max_length` is None."""
        if max_length is None:
            return tokenise(tokenizer, texts)
        (name, questions), (_, contexts) = texts.items()
        read = _cut(tokenizer, questions, _longest_question(tokenizer, max_length))
        encoded = tokenise(
            tokenizer,
            {**texts, name: read},
            truncation="only_second",
            max_length=max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        rows = encoded["overflow_to_sample_mapping"]
        encoded["question"] = [questions[row] for row in rows]
        encoded[_IS_CUT] = [read[row] != questions[row] for row in rows]
        encoded["context"] = [contexts[row] for row in rows]
        encoded["cls"] = [_cls_place(ids, tokenizer.cls_token_id) for ids in encoded["input_ids"]]
        return encoded

    def columns(self, values: Sequence[Any], classes: Any, tokens: BatchEncoding) -> dict[str, list[Any]]:
        """Return the columns of `features` of windows."""
        found: dict[str, list[Any]] = {name: [] for name in self.features(2)}
        for window, row in enumerate(tokens["overflow_to_sample_mapping"]):
            in_context = [part == 1 for part in tokens.sequence_ids(window)]
            places = zip(in_context, tokens["offset_mapping"][window], strict=True)
            offsets = np.array([place if inside else (NOT_CONTEXT, NOT_CONTEXT) for inside, place in places])
            own = self._window(values[row], offsets, tokens["cls"][window])
            question, context = tokens["question"][window], tokens["context"][window]
            texts = list(values[row]["text"]) if values[row] else []
            own |= {"question": question, "context": context, "answers": texts, _IS_CUT: tokens[_IS_CUT][window]}
            own["question_id"] = _question_id(question, context, texts)
            for name, value in own.items():
                found[name].append(value)
        return found

    def _window(self, answers: Any, offsets: np.ndarray, cls: int) -> dict[str, Any]:
        """Return the label of a window, the allowed positions, and the characters of each token of the context."""
        allowed = offsets[:, 0] != NOT_CONTEXT
        span = _place(answers, offsets) if answers and answers["text"] else None
        absent = [cls, cls] if self.has_unanswerable else [self.missing, self.missing]
        label = [self.missing, self.missing] if answers is None else span or absent
        if self.has_unanswerable:
            allowed[cls] = True
        starts, ends = offsets.T.tolist()
        return {"labels": label, "is_allowed": allowed.tolist(), "token_starts": starts, "token_ends": ends}


LABELS = SpanLabels()
_SCORING = ["question_id", "question", "context", "answers", "token_starts", "token_ends"]
"""Columns that scores read, and training does not."""
_IS_CUT = "question_is_cut"
"""Column that tells whether a window has less than its whole question."""


def _cut(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], limit: int) -> list[str]:
    """Return the questions, without what is behind their first `limit` tokens."""
    encoded = tokenise(tokenizer, {"question": questions}, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(questions, encoded["offset_mapping"], strict=True)
    return [text if len(offsets) <= limit else text[: offsets[limit - 1][1]] for text, offsets in places]


def _cls_place(ids: Sequence[int], cls: int | None) -> int:
    """Return the position of [CLS]; the first token for a tokenizer without, as transformers' own examples do."""
    return ids.index(cls) if cls in ids else 0


def _place(answers: Mapping[str, Any], offsets: np.ndarray) -> list[int] | None:
    """Return the first and the last token of the first answer; None where the window does not have all of it."""
    start = answers["answer_start"][0]
    stop = start + len(answers["text"][0])
    inside = np.flatnonzero(offsets[:, 0] != NOT_CONTEXT)
    touched = inside[(offsets[inside, 1] > start) & (offsets[inside, 0] < stop)]
    if not len(touched) or offsets[inside[0], 0] > start or offsets[inside[-1], 1] < stop:
        return None
    return [int(touched[0]), int(touched[-1])]


def _question_id(question: str, context: str, answers: Sequence[str]) -> int:
    """Return a number of a question, the same for all its windows and in all runs."""
    content = "\x1f".join((question, context, *answers)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)
