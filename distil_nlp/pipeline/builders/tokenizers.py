"""The tokenizers of a run: the student's, and those of teachers that read other tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from distil_nlp.data.encodings import OWN, encoding_name
from distil_nlp.errors import UserError
from distil_nlp.models import check_vocabulary, has_vocabulary_of, load_tokenizer
from distil_nlp.pipeline.builders.teacher import single_teachers
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import TaskKind


@dataclass(frozen=True)
class RunTokenizers:
    """The tokenizers of a run.

    Attributes:
        student: the tokenizer that rows are read by, and that is saved with the student.
        further: encoding → tokenizer, for teachers that read other tokens; see `distil_nlp.data.encodings`.
        teachers: the encoding that each teacher reads, in their order.
    """

    student: PreTrainedTokenizerBase
    further: Mapping[str, PreTrainedTokenizerBase]
    teachers: tuple[str, ...]

    def of_teacher(self, number: int = 0) -> PreTrainedTokenizerBase:
        """Return the tokenizer of a teacher by its number."""
        return self.further.get(self.teachers[number], self.student)


def tokenizers_of(recipe: Recipe, kind: TaskKind, students: PreTrainedTokenizerBase | None = None) -> RunTokenizers:
    """Load the tokenizers of a recipe; those of equal vocabularies are one.

    Args:
        recipe: names the models.
        kind: kind of task.
        students: the student's, where it is that of no model; see `vocabulary_of`.

    Raises:
        UserError: for unlike vocabularies where words are predicted, and for texts that cannot be cut alike.
    """
    teachers = [load_tokenizer(one.teacher.name, one.teacher.revision) for one in single_teachers(recipe)]
    own, section = teachers[0], recipe.student
    if section.name is not None:
        named = load_tokenizer(section.name, section.revision)
        own = own if has_vocabulary_of(own, named) else named
    own = students or own
    known, encodings = {OWN: own}, []
    for tokenizer in teachers:
        encoding = next((name for name, one in known.items() if has_vocabulary_of(one, tokenizer)), None)
        if encoding is None:
            encoding = encoding_name(len(known) - 1)
            known[encoding] = tokenizer
        encodings.append(encoding)
    del known[OWN]
    if known and (not kind.reads_other_tokens or (kind.level == "token" and len(teachers) > 1)):
        for tokenizer in known.values():
            check_vocabulary(tokenizer, own)
    for tokenizer in (own, *known.values()) if known else ():
        _check_offsets(tokenizer)
    return RunTokenizers(own, known, tuple(encodings))


def _check_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError for a tokenizer that does not tell which characters it keeps of a long text."""
    if tokenizer.is_fast and tokenizer.truncation_side == "right":
        return
    name = f"{type(tokenizer).__name__} of {tokenizer.name_or_path}"
    got = f"truncation_side={tokenizer.truncation_side}" if tokenizer.is_fast else "one without offsets"
    raise UserError(
        "teacher.name",
        "fast tokenizers that truncate on the right, where teacher and student have other tokens",
        f"{got} ({name})",
        why="a long text is cut at the same character for both",
        fix="convert it to a tokenizer.json, set truncation_side=right, or take models of one vocabulary",
    )
