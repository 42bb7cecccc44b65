"""`CommonVocabulary`: which tokens of two vocabularies are the same word, or the same piece of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from tokenizers import decoders
from transformers import PreTrainedTokenizerBase

from distil_nlp.errors import UserError
from distil_nlp.models import count_ids

_ROLES = ("cls_token_id", "sep_token_id", "pad_token_id", "unk_token_id", "mask_token_id")
_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class CommonVocabulary:
    """The tokens that two vocabularies share.

    A word is the same where text and place agree: a beginning of a word (`the`, `Ġthe`, `▁the`) is no piece within one
    (`##the`, `the`). Of WordPiece and a tokenizer that marks spaces, punctuation is the same as it is without a space
    before it. A token that the student's normaliser makes the same (`ĠThe` where it reads lower case) is that word too.

    Attributes:
        student_of: (teacher ids,), the student's token of the same word; −1 where there is none.
        teacher_of: (student ids,), the teacher's token of the same word, the one of the same letters if there are
            several; −1 where there is none.
    """

    student_of: np.ndarray
    teacher_of: np.ndarray

    @classmethod
    def of(cls, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> CommonVocabulary:
        """Return the tokens that the vocabularies of two fast tokenizers share.

        Raises:
            UserError: for a tokenizer whose tokens do not tell where words begin.
        """
        marks = [_mark(one) for one in (student, teacher)]
        is_mixed = len({mark == "pieces" for mark in marks}) > 1
        words, others = (_words(one, mark, is_mixed) for one, mark in zip((student, teacher), marks, strict=True))
        normalizer = student.backend_tokenizer.normalizer
        normalised = normalizer.normalize_str if normalizer is not None else str
        known = {word: number for number, word in words.items()}
        student_of, teacher_of = (np.full(count_ids(one), -1) for one in (teacher, student))
        for number, word in others.items():
            if word in known:
                student_of[number], teacher_of[known[word]] = known[word], number
        for number, word in others.items():
            if word not in known and isinstance(word, tuple):
                found = known.get((normalised(word[0]), word[1]), -1)
                student_of[number] = found
                if found >= 0 and teacher_of[found] < 0:
                    teacher_of[found] = number
        return cls(student_of, teacher_of)

    @property
    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        """`student_of`, and the student's tokens in it, each once."""
        return self.student_of, np.unique(self.student_of[self.student_of >= 0])


def _mark(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what a tokenizer marks: `pieces` within words, or spaces before them, as `bytes` or as `spaces`."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] == "WordPiece":
        return "pieces"
    parts = json.dumps([state["pre_tokenizer"], state["decoder"], state["normalizer"]])
    if '"ByteLevel"' in parts:
        return "bytes"
    if '"Metaspace"' in parts:
        return "spaces"
    raise UserError(
        "teacher.name",
        "WordPiece, a BPE of bytes or SentencePiece, where words of two vocabularies are compared",
        f"{state['model']['type']} of {tokenizer.name_or_path or type(tokenizer).__name__}",
        why="its tokens do not tell where words begin",
        fix="take models of one vocabulary",
    )


def _words(tokenizer: PreTrainedTokenizerBase, mark: str, is_mixed: bool) -> dict[int, Hashable]:
    """Return of each token (text, place in a word); of a special token its role, of a part of a character itself."""
    read = _readers(tokenizer)[mark]
    roles = {getattr(tokenizer, role): role for role in reversed(_ROLES)}
    special = set(tokenizer.all_special_ids)
    words: dict[int, Hashable] = {}
    for token, number in tokenizer.get_vocab().items():
        text, is_begin = read(token)
        if number in special or not text or _BROKEN in text:
            words[number] = roles.get(number, token)
            continue
        place = "begin" if is_begin else "inside"
        if is_mixed and mark != "pieces" and not any(map(str.isalnum, text)):
            place = "spaced" if is_begin else "begin"
        words[number] = (text, place)
    return words


def _readers(tokenizer: PreTrainedTokenizerBase) -> dict[str, Callable[[str], tuple[str, bool]]]:
    """Return for each mark the function from a token to its text, and whether it begins a word."""
    model, decoder = tokenizer.backend_tokenizer.model, decoders.ByteLevel()
    prefix = getattr(model, "continuing_subword_prefix", None) or "##"

    def of_bytes(token: str) -> tuple[str, bool]:
        text = decoder.decode([token])
        return text.removeprefix(" "), text.startswith(" ")

    return {
        "pieces": lambda token: (token.removeprefix(prefix), not token.startswith(prefix)),
        "bytes": of_bytes,
        "spaces": lambda token: (token.removeprefix("▁"), token.startswith("▁")),
    }
