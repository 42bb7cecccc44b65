"""The input of a tree, from texts or from states of the teacher: a matrix of features for each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from distil_nlp.errors import UserError
from distil_nlp.tree.loading import TRAIN, TreeData

TFIDF, EMBEDDING = "tfidf", "embedding"
MOST_WORDS = 20_000


@dataclass(frozen=True)
class TreeInputs:
    """Features of all rows, and the words of their texts.

    Attributes:
        features: `train` and each evaluation split → (rows, features).
        words: likewise → TF-IDF, (rows, words), sparse; the features themselves where the input is TF-IDF.
        names: names of the words, (words,).
        has_words: whether the features are the words.
    """

    features: Mapping[str, Any]
    words: Mapping[str, Any]
    names: list[str]
    has_words: bool


def tree_inputs(data: TreeData, kind: str) -> TreeInputs:
    """Return the features of all rows.

    TF-IDF is scikit-learn's `TfidfVectorizer` as it is, of the training texts' 20,000 most frequent words. The texts of
    a pair share the vocabulary, and have features of their own. Embeddings are standardised by the training rows.

    Args:
        data: rows and states.
        kind: `tfidf` or `embedding`.

    Raises:
        UserError: if no training text has a word.
    """
    words, names = _words(data)
    if kind == TFIDF:
        return TreeInputs(words, words, names, True)
    scaler = StandardScaler().fit(data.states[TRAIN])
    features = {name: scaler.transform(states) for name, states in data.states.items()}
    return TreeInputs(features, words, names, False)


def _words(data: TreeData) -> tuple[dict[str, Any], list[str]]:
    """Return (split → TF-IDF, names of the columns)."""
    train = data.texts[TRAIN]
    vectorizer = TfidfVectorizer(max_features=MOST_WORDS, dtype=np.float32)
    try:
        vectorizer.fit([text for row in train for text in row])
    except ValueError as error:
        raise UserError(
            "data.text_columns",
            "words in the training texts",
            "none that scikit-learn's TfidfVectorizer finds",
            why="the tree has no input",
            fix="use --input embedding with a teacher that reads these texts, or name another column",
        ) from error
    vocabulary = [str(name) for name in vectorizer.get_feature_names_out()]
    columns = len(train[0])
    names = vocabulary if columns == 1 else [f"{name} ({i + 1})" for i in range(columns) for name in vocabulary]
    return {split: _transform(vectorizer, rows, columns) for split, rows in data.texts.items()}, names


def _transform(vectorizer: TfidfVectorizer, rows: list[tuple[str, ...]], columns: int) -> Any:
    parts = [vectorizer.transform([row[i] for row in rows]) for i in range(columns)]
    return hstack(parts, format="csr")
