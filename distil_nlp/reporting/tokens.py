"""What is told of a run whose teacher reads other tokens than its student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distil_nlp.redaction import last_component
from distil_nlp.reporting.formatting import percent, plural
from distil_nlp.results import RunResults


def tokens_sentences(run: RunResults) -> list[str]:
    """Return whose tokens the models read, and how many rows were cut for it; [] for one vocabulary."""
    return [*([vocabulary_sentence(run.get("vocabulary"))] if run.get("vocabulary") else []), *_reading(run)]


def _reading(run: RunResults) -> list[str]:
    block = run.get("tokenizers")
    if not block:
        return []
    others = [last_component(name) for name in block["others"]]
    own = "reads its own tokens" if len(others) == 1 else "read their own tokens"
    names = f"The student has the tokenizer of {last_component(block['student'])}; {' and '.join(others)} {own}"
    return [f"{names} of the same texts.", cuts(block), *_shares(block["rows"]["train"])]


def _shares(train: Mapping[str, int]) -> list[str]:
    """Return which of the student's tokens, and of its words, could be compared; [] for files that do not tell."""
    if "tokens" not in train:
        return []
    found = [
        f"{_part(train, 'aligned', 'tokens')} of the student's tokens have tokens of the teacher's on the same "
        "characters; terms on states of tokens are over these."
    ]
    if "words" in train:
        found.append(
            f"For {_part(train, 'matched', 'words')} of the words that it is to predict the teacher has an output; "
            "soft targets skip the others."
        )
    return found


def _part(counts: Mapping[str, int], part: str, whole: str) -> str:
    return f"{percent(counts[part] / max(counts[whole], 1))} ({counts[part]:,} of {counts[whole]:,})"


def participation(block: Mapping[str, Any]) -> str:
    """Return which rows, tokens and words took part, from the block `tokenizers` of `results.json`."""
    return " ".join([cuts(block), *_shares(block["rows"]["train"])])


def vocabulary_sentence(block: Mapping[str, Any]) -> str:
    """Return how many words the student knows, and what that makes of texts, from the block `vocabulary`."""
    student, teacher = block["student"], block["teacher"]
    known = (
        f"The student knows {block['tokens']:,} of its teacher’s {block['of']:,} tokens, which are "
        f"{percent(block['coverage'], 2)} of those in {plural(block['texts'], 'text')}."
    )
    if not student or not teacher:
        return known
    on = f"On {plural(block['held_out_texts'], 'further text')} it has {student['tokens_per_word']:.3f} tokens a word"
    return (
        f"{known} {on}, {teacher['tokens_per_word']:.3f} by the teacher’s tokenizer; {percent(student['unknown'], 2)} "
        f"of them are unknown, {percent(teacher['unknown'], 2)} before."
    )


def cuts(block: Mapping[str, Any]) -> str:
    """Return how many rows took part, and how many were cut, from the block `tokenizers` of `results.json`."""
    train, *others = block["rows"].items()
    parts = [f"{_cut(own)} of {name}" for name, own in others if own["cut"]]
    more = f" ({', '.join(parts)} likewise)" if parts else ""
    return (
        f"All {plural(train[1]['rows'], 'training row')} took part; {_cut(train[1])} were cut where the first of the "
        f"tokenizers comes to its last token, so that all models read the same text{more}."
    )


def _cut(rows: Mapping[str, int]) -> str:
    return f"{rows['cut']:,} ({percent(rows['cut'] / max(rows['rows'], 1))})"
