"""Columns of words and of tags: what is asked of them, and the names of the tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List, Value

from distil_nlp.data.labels import Labels, is_missing
from distil_nlp.errors import UserError, listed, quoted, shown
from distil_nlp.tasks import Task
from distil_nlp.tasks.tags import OUTSIDE, Tags, type_of
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_WORDS_FIX = "store it as a list of words a row (JSON lines or Parquet), and name it with data.text_columns=[tokens]"


def inner_feature(feature: Any) -> Any:
    """Return the feature of a list's values; None for a column that is no list."""
    return feature.feature if isinstance(feature, List | LargeList) else None


def check_word_lists(rows: Dataset, task: Task, split: str) -> None:
    """Raise UserError unless a split has a list of words and, where it has tags, as many tags."""
    words, column = task.text_columns[0], task.label_column
    inner = inner_feature(rows.features[words])
    if not isinstance(inner, Value) or inner.dtype not in ("string", "large_string"):
        raise UserError(
            "data.text_columns",
            f"a list of words in {quoted(words)}",
            f"{shown(rows.features[words])} in {split}",
            why="tags belong to words, and nothing tells where these begin",
            fix=_WORDS_FIX,
        )
    if column not in rows.column_names:
        return
    if inner_feature(rows.features[column]) is None:
        raise UserError(
            "data.label_column",
            f"a list of tags in {quoted(column)}",
            f"{shown(rows.features[column])} in {split}",
            why="each word needs a tag",
            fix="name the column of tags with data.label_column; a class for each text is data.task=classification",
        )
    for number, (sentence, tags) in enumerate(zip(rows[words], rows[column], strict=True)):
        if tags is not None and len(tags) != len(sentence or ()):
            raise UserError(
                "data.label_column",
                f"a tag for each of the {len(sentence or ())} words in row {number} of {split}",
                str(len(tags)),
                why="tags would belong to other words",
                fix="correct that row, or set its tags to null",
            )
        if any(word is None for word in sentence or ()):
            raise UserError(
                "data.text_columns",
                f"words in {quoted(words)}",
                f"null in row {number} of {split}",
                why="it cannot be tokenised",
                fix="take the word and its tag out",
            )


def known_tags(rows: Dataset, task: Task) -> list[Any]:
    """Return the lists of tags of the sentences that have one."""
    values = rows[task.label_column] if task.label_column in rows.column_names else []
    return [value for value in values if value is not None]


def all_tags(values: Iterable[Any]) -> list[Any]:
    """Return all tags of lists of tags, but for those of words without one."""
    return [tag for sentence in values for tag in sentence if not is_missing(tag)]


def tag_names(splits: Mapping[str, Dataset], train_split: str, task: Task) -> tuple[Labels, int]:
    """Return the names of the tags and their number: from the column's type, from the values, or from the recipe.

    Raises:
        UserError: for a training split without tags, splits with other ones, and too few names in the recipe.
    """
    column = task.label_column
    inner = inner_feature(splits[train_split].features.get(column))
    present = set(all_tags(known_tags(splits[train_split], task)))
    if not present:
        raise UserError(
            "data.label_column",
            f"tags in {quoted(column)} of {train_split}",
            "none" if inner is not None else f"no such column, but {listed(splits[train_split].column_names)}",
            why="the number of tags is unknown",
            fix="name the column of tags with data.label_column",
        )
    if isinstance(inner, ClassLabel):
        for name, rows in splits.items():
            other = inner_feature(rows.features.get(column))
            if isinstance(other, ClassLabel) and other.names != inner.names:
                raise UserError(
                    "data.label_column",
                    f"the tags {listed(inner.names)} in {name} too, in this order",
                    listed(other.names),
                    why="scores would be computed for the wrong tags",
                    fix="cast the column",
                )
        names = _with_begins(tuple(inner.names))
        return names, len(names)
    everywhere = {name: set(all_tags(known_tags(rows, task))) for name, rows in splits.items()}
    if all(isinstance(tag, str) for tag in present):
        for name, others in everywhere.items():
            unknown = sorted(str(tag) for tag in others - present)
            if unknown:
                logger.warning(f"{name} has tags that {train_split} has not, which cannot be learnt: {listed(unknown)}")
        found = {tag for tags in everywhere.values() for tag in tags if isinstance(tag, str)}
        names = _with_begins(tuple(sorted(found, key=lambda tag: (tag != OUTSIDE, *_by_type(tag)))))
        return names, len(names)
    if not all(isinstance(tag, int) for tag in present) or min(present) < 0:
        examples = ", ".join(map(quoted, sorted(map(str, present))[:5]))
        raise UserError(
            "data.label_column",
            "names of tags, or numbers from 0 on",
            examples,
            why="these are no tags",
            fix="name the column of tags; −100 or null marks a word without one",
        )
    return _given_names(max(present) + 1, task)


def _given_names(count: int, task: Task) -> tuple[Labels, int]:
    """Return the names that the recipe gives to numbered tags; None if it gives none."""
    if not task.labels:
        logger.info(f"{task.label_column} has numbers for tags, scored one by one: data.label_names=[O, …] names them")
        return None, count
    if len(task.labels) < count:
        raise UserError(
            "data.label_names",
            f"a name for each of the {count} tags, in the order of their numbers",
            f"{len(task.labels)} names ({listed(task.labels)})",
            why="the last tags would have none",
            fix="add the missing names",
        )
    names = _with_begins(task.labels)
    return names, len(names)


def _by_type(tag: str) -> tuple[str, str]:
    """Return the key by which tags are ordered: those of a type together, B- first."""
    return (type_of(tag), tag) if Tags((tag,)).are_entities else (tag, "")


def _with_begins(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, and a tag B- for each type that has none, as in IOB1, where entities begin with I-."""
    missing = tuple(f"B-{unit}" for unit in Tags(names).without_begin)
    if missing:
        logger.warning(f"tags without a B- (IOB1): {listed(missing)} added, with which their entities begin")
    return names + missing


def check_every_word(rows: Dataset, task: Task, split: str) -> None:
    """Raise UserError for words without a tag in a split that is scored; whole sentences are told elsewhere."""
    missing = sum(is_missing(tag) for tags in known_tags(rows, task) for tag in tags)
    if missing:
        raise UserError(
            f"data.{task.label_column}",
            f"a tag for every word of {split}",
            f"{missing:,} words without one",
            why="scores need tags",
            fix="name another split with data.evaluation_splits, or take those sentences out",
        )


def tell_repairs(sentences: Sequence[Sequence[int]], tags: Tags, split: str) -> None:
    """Log a warning if tags of a split are read as others than they are."""
    changed = [tags.repaired(sentence)[1] for sentence in sentences]
    if any(changed):
        rows = sum(map(bool, changed))
        logger.warning(
            f"{split}: {sum(changed):,} tags I- in {rows:,} of {len(sentences):,} rows continue no entity of their "
            "type (IOB1, or slips); each is read as the B- of its type, with which an entity begins"
        )
