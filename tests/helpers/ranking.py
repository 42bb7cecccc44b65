"""Queries with documents, of the words of the tiny tokenizer."""

from datasets import Dataset

from tests.helpers import tiny

_NOUNS = ("cat", "dog", "bird", "fish", "tree", "house", "river", "stone")


def queries(count: int, offset: int = 0) -> Dataset:
    """Return rows of so many queries with four documents each, of which the one that shares its noun is relevant."""
    rows = []
    for i in range(offset, offset + count):
        noun, word = _NOUNS[i % 8], tiny.VOCABULARY[-20 + i // 8]
        for j in range(4):
            other = _NOUNS[(i + j) % 8]
            rows.append({"query": f"{noun} {word}", "document": f"see {other} {'by the ' * j}", "label": int(j == 0)})
    return Dataset.from_list(rows)
