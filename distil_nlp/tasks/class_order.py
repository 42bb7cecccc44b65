"""The order of a model's classes against that of the data: by their names, or by the labels that predictions fit."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

_NUMBERED = re.compile(r"(?:label|class)?[\s_-]*(\d+)", re.IGNORECASE)
_SYNONYMS = {
    "neg": "negative",
    "neu": "neutral",
    "pos": "positive",
    "contradict": "contradiction",
    "contradictory": "contradiction",
    "entail": "entailment",
    "entails": "entailment",
    "entailed": "entailment",
    "notentailment": "not entailment",
    "non entailment": "not entailment",
    "not entailed": "not entailment",
    "paraphrase": "equivalent",
    "is paraphrase": "equivalent",
    "not paraphrase": "not equivalent",
    "notequivalent": "not equivalent",
    "duplicates": "duplicate",
    "is duplicate": "duplicate",
    "notduplicate": "not duplicate",
    "non duplicate": "not duplicate",
}
"""Other names of GLUE's classes in published models. Each has one meaning whatever the task is."""


def order_by_names(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Return for each wanted class the number of the class of the same name; None if the names are not the same.

    Names are compared as they are, then without case and with one kind of separator, then with GLUE's synonyms. A way
    that makes two names of one list alike is not taken.
    """
    for form in (str, _plain, _meaning):
        places = _places(names, form)
        if places is not None and places.keys() == (_places(wanted, form) or {}).keys():
            return tuple(places[form(name)] for name in wanted)
    return None


def are_placeholders(names: Sequence[str]) -> bool:
    """Return whether names are numbers in order, such as LABEL_0 and LABEL_1, or 1 and 2, which tell no class."""
    matches = [_NUMBERED.fullmatch(name.strip()) for name in names]
    if not names or not all(matches):
        return False
    numbers = [int(match[1]) for match in matches if match]
    return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def better_order(confusion: np.ndarray, is_told: bool) -> tuple[int, ...] | None:
    """Return for each class of the data the predicted class that fits it, where another order than theirs fits better.

    Two things must be beyond chance. More rows are right than if predictions knew nothing of the labels, or a model
    that always says the same would have a better order. And more are right than in the order as it is, by a sign test
    over the rows that are right in one of the two alone. An order is the best of many, so chances are multiplied by
    their number; not those of the sign test where nothing told the order, and any is as likely beforehand. The limit
    is 1 %, and 5 % where nothing told it.

    Args:
        confusion: counts of rows, true classes as rows and predicted ones as columns.
        is_told: whether names, or somebody, told the order; otherwise it was taken by number.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import binom

    counts = np.asarray(confusion)
    ties = np.eye(len(counts), dtype=int)  # a class that fits no better elsewhere stays
    order = linear_sum_assignment(counts * (len(counts) + 1) + ties, maximize=True)[1]
    moved = order != np.arange(len(order))
    gained = int(counts[moved, order[moved]].sum())
    lost = int(counts[moved, np.flatnonzero(moved)].sum())
    if gained <= lost:
        return None
    total = counts.sum()
    right, expected = counts[np.arange(len(order)), order].sum(), counts.sum(1) @ counts.sum(0)[order] / total**2
    guessed = binom.logsf(right - 1, total, min(expected, 1.0)) + math.lgamma(len(order) + 1)
    as_good = binom.logsf(gained - 1, gained + lost, 0.5) + (math.lgamma(len(order) + 1) if is_told else 0)
    limit = math.log(0.01 if is_told else 0.05)
    return tuple(map(int, order)) if max(guessed, as_good) < limit else None


def _places(names: Sequence[str], form: Callable[[str], str]) -> dict[str, int] | None:
    """Return name → number; None if two names have the same form."""
    places = {form(name): i for i, name in enumerate(names)}
    return places if len(places) == len(names) else None


def _plain(name: str) -> str:
    """Return a name without case, and with a space for separators between words: a minus before a number stays."""
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("_", " ").strip())


def _meaning(name: str) -> str:
    plain = _plain(name)
    return _SYNONYMS.get(plain, plain)
