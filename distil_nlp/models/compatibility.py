"""Checks that teacher, student and data have the same vocabulary."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from distil_nlp.errors import UserError


def has_vocabulary_of(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Return whether the token → id maps are equal; equal sizes are not enough."""
    return one.get_vocab() == other.get_vocab()


def check_vocabulary(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Check that the token → id maps are equal.

    Raises:
        UserError: if they are not, with the number of tokens that differ, and an example.
    """
    if has_vocabulary_of(teacher, student):
        return
    student_ids, teacher_ids = student.get_vocab(), teacher.get_vocab()
    tokens = student_ids.keys() | teacher_ids.keys()
    differing = sorted(token for token in tokens if student_ids.get(token) != teacher_ids.get(token))
    example = differing[0]
    raise UserError(
        None,
        "one vocabulary for teacher and student",
        (
            f"{len(teacher_ids):,} and {len(student_ids):,} tokens, of which {len(differing):,} differ (for "
            f"instance {example!r} is {teacher_ids.get(example)} and {student_ids.get(example)})"
        ),
        why="positions or words of the one are none of the other",
        fix=(
            "take a student with the teacher's tokenizer; for classification, regression, multilabel, tokens and mlm "
            "one teacher and its student may have any tokenizers"
        ),
    )


def count_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of ids up to a tokenizer's largest; more than its tokens where a vocabulary has holes."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def check_words(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """Check that a model has an embedding for every token.

    Raises:
        UserError: if it has fewer, with both numbers.
    """
    tokens = count_ids(tokenizer)
    if tokens > getattr(config, "vocab_size", tokens):  # CANINE takes any character
        raise UserError(
            None,
            f"embeddings for all {tokens:,} tokens",
            f"{config.vocab_size:,} in {name}",
            why="some words would have none",
            fix="take model and tokenizer from one place",
        )
