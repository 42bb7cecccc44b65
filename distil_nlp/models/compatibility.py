"""Do teacher, student and data speak of the same words and the same classes?"""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from distil_nlp.errors import UserError


def check_vocabulary(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase) -> None:
    """Token → id maps must be equal; equal sizes are not enough.

    Raises:
        UserError: naming how many tokens differ, and one of them.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    differing = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    example = differing[0]
    raise UserError(
        f"expected one vocabulary for teacher and student / got {len(theirs):,} and {len(ours):,} tokens, of which "
        f"{len(differing):,} differ (for instance {example!r} is {theirs.get(example)} and {ours.get(example)}) / "
        "the student would read other words than the teacher / take a student with the teacher's tokenizer"
    )


def check_words(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str) -> None:
    """A model has an embedding for every token.

    Raises:
        UserError: with both numbers.
    """
    tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if tokens > config.vocab_size:
        raise UserError(
            f"expected embeddings for all {tokens:,} tokens / got {config.vocab_size:,} in {name} / some words would "
            "have none / take model and tokenizer from one place"
        )


def check_labels(config: PretrainedConfig, labels: tuple[str, ...] | None, num_labels: int, name: str) -> None:
    """The classes of a model and of the data must agree in number, in name and in order.

    Names such as `LABEL_0` say nothing, and are passed; so are data without class names.

    Raises:
        UserError: with both lists.
    """
    ours = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
    if len(ours) != num_labels:
        raise UserError(
            f"expected {num_labels} labels as in the data{_list(labels)} / got {len(ours)} in {name}{_list(ours)} / "
            "the outputs cannot be compared / choose the teacher's own task, or set teacher.finetune={} with a "
            "checkpoint that has no head"
        )
    if labels is None or num_labels == 1 or all(label.upper().startswith("LABEL_") for label in ours):
        return
    if [label.lower() for label in ours] != [label.lower() for label in labels]:
        raise UserError(
            f"expected the data's labels in its order{_list(labels)} / got {name} with{_list(ours)} / each class "
            "would be taught as another one, and scores would be those of the wrong classes / cast the data's "
            "label column to the teacher's order, or mend id2label in the teacher's config.json"
        )


def _list(labels: tuple[str, ...] | None) -> str:
    shown = ", ".join((labels or ())[:10]) + (" …" if len(labels or ()) > 10 else "")
    return f" ({shown})" if labels else ""
