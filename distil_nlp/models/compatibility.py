"""Checks that teacher, student and data have the same vocabulary and the same classes."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from distil_nlp.errors import UserError


def check_vocabulary(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Check that the token → id maps are equal; equal sizes are not enough.

    Raises:
        UserError: if they are not, with the number of tokens that differ, and an example.
    """
    student_ids, teacher_ids = student.get_vocab(), teacher.get_vocab()
    if student_ids == teacher_ids:
        return
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
        why="the student would read other words than the teacher",
        fix="take a student with the teacher's tokenizer",
    )


def check_words(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """Check that a model has an embedding for every token.

    Raises:
        UserError: if it has fewer, with both numbers.
    """
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > config.vocab_size:
        raise UserError(
            None,
            f"embeddings for all {tokens:,} tokens",
            f"{config.vocab_size:,} in {name}",
            why="some words would have none",
            fix="take model and tokenizer from one place",
        )


def check_labels(config: PretrainedConfig, labels: tuple[str, ...] | None, num_labels: int, name: str) -> None:
    """Check that the classes of a model and of the data agree in number, in name and in order.

    Placeholder names such as `LABEL_0` pass, as do data without class names.

    Raises:
        UserError: if they do not agree, with both lists.
    """
    names = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if len(names) != num_labels:
        raise UserError(
            None,
            f"{num_labels} labels as in the data{_list(labels)}",
            f"{len(names)} in {name}{_list(names)}",
            why="the outputs cannot be compared",
            fix=("choose the teacher's own task, or set teacher.finetune={} with a checkpoint that has no head"),
        )
    if labels is None or num_labels == 1 or all(label.upper().startswith("LABEL_") for label in names):
        return
    if [label.lower() for label in names] != [label.lower() for label in labels]:
        raise UserError(
            None,
            f"the data's labels in its order{_list(labels)}",
            f"{name} with{_list(names)}",
            why="each class would be taught as another one, and scores would be those of the wrong classes",
            fix=("cast the data's label column to the teacher's order, or fix id2label in the teacher's config.json"),
        )


def _list(labels: tuple[str, ...] | None) -> str:
    shown = ", ".join((labels or ())[:10]) + (" …" if len(labels or ()) > 10 else "")
    return f" ({shown})" if labels else ""
