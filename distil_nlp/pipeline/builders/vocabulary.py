"""The recipe section `student.vocabulary`: a student that knows some of its teacher's words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.data import load_splits
from distil_nlp.data.splits import named_split
from distil_nlp.data.token_counts import by_need, count_tokens, divided, measured, texts_of
from distil_nlp.errors import UserError
from distil_nlp.models import load_tokenizer
from distil_nlp.models.vocabulary import cut_embeddings, kept_ids, trim_tokenizer
from distil_nlp.pipeline.builders.data import configuration_of, task_of
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import DataSection


@dataclass(frozen=True)
class Vocabulary:
    """A student's smaller vocabulary.

    Attributes:
        tokenizer: of its tokens.
        facts: the block `vocabulary` of `results.json`.
    """

    tokenizer: PreTrainedTokenizerBase
    facts: dict[str, Any]


def vocabulary_of(recipe: Recipe) -> Vocabulary | None:
    """Return the smaller vocabulary of a recipe's student, made of its training text; None for the whole one.

    Raises:
        UserError: for a tokenizer that cannot be cut, or a size below what must stay.
    """
    section, task = recipe.student.vocabulary, task_of(recipe)
    if section is None:
        return None
    columns, configuration = tuple(task.text_columns or ("text",)), configuration_of(recipe, task)
    return _made(
        starting_model(recipe), section.keep, section.coverage, recipe.data.model_dump_json(), columns, configuration
    )


@lru_cache(maxsize=4)  # counting takes minutes where the corpus is large
def _made(
    start: tuple[str, str | None],
    keep: int | None,
    coverage: float | None,
    data: str,
    columns: tuple[str, ...],
    configuration: str | None,
) -> Vocabulary:
    large, options = load_tokenizer(*start), DataSection.model_validate_json(data)
    splits = load_splits(options.path, configuration, options.revision, options.streaming)
    counted, held_out = divided(texts_of(named_split(splits, options.train_split), columns))
    counts = count_tokens(large, counted)
    if not counts.any():
        raise UserError(
            "student.vocabulary",
            "text to count words in",
            f"none in {options.train_split}",
            why="nothing tells which words are needed",
            fix="leave it out, or name another data.train_split",
        )
    small = trim_tokenizer(large, by_need(counts, coverage or 1.0), keep)
    kept = kept_ids(large, small)
    facts = {
        "tokens": len(kept),
        "of": len(large.get_vocab()),
        "coverage": float(counts[kept].sum() / counts.sum()),
        "texts": len(counted),
        "held_out_texts": len(held_out),
        "teacher": measured(large, held_out) if held_out else None,
        "student": measured(small, held_out) if held_out else None,
    }
    return Vocabulary(small, facts)


def starting_model(recipe: Recipe) -> tuple[str, str | None]:
    """Return name and revision of the model that the student starts from."""
    student, teacher = recipe.student, recipe.teacher
    return (student.name, student.revision) if student.name else (teacher.name, teacher.revision)


def with_vocabulary(recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a model that knows the words of the student's tokenizer; itself where the student has all of them."""
    if recipe.student.vocabulary is None:
        return model
    return cut_embeddings(model, kept_ids(load_tokenizer(*starting_model(recipe)), tokenizer))
