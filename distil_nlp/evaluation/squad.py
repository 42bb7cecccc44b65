"""Exact match and F1 of an answer, as the official scripts of SQuAD have them (evaluate-v2.0.py)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, its words separated by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_and_f1(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 of words, each the best over all right answers.

    Args:
        answer: the predicted text; empty for none.
        right: the right answers; none where the empty one is right. Answers without a word but articles do not count.
    """
    words = normalize_answer(answer).split()
    golds = [normalize_answer(one).split() for one in right]
    golds = [gold for gold in golds if gold] or [[]]
    return max(float(words == gold) for gold in golds), max(_f1(words, gold) for gold in golds)


def _f1(words: Sequence[str], gold: Sequence[str]) -> float:
    """Return F1 of two bags of words; 1 where both are empty."""
    if not words or not gold:
        return float(words == gold)
    same = sum((Counter(words) & Counter(gold)).values())
    return 2 * same / (len(words) + len(gold))
