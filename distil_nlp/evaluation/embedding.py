"""Scores of sentence embeddings: cosines of pairs against scores, and vectors against the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.data.embedding import CONTENT_COLUMN, PAIR_COLUMN, SCORE_COLUMN
from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, Resampled, RowFeatures, RowScores

_LOWEST = 0.05
_NEIGHBOURS_OF = 2000
"""Texts whose nearest neighbours are compared, at most."""


class EmbeddingEvaluator(Evaluator):
    """Predictions are vectors, (texts, length); labels as in `data.embedding`; the reference is the teacher's."""

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors and labels."""
        return logits.cpu().numpy(), batch["labels"].cpu().numpy()

    def beside_teacher(self, outputs: Any, teacher: Any) -> Any:
        """Return the outputs with the teacher's vectors as the reference."""
        return replace(outputs, reference=teacher.predictions)

    def metric_names(self, task: str) -> list[str]:
        """Return the metrics that need no teacher."""
        return ["spearman_cosine", "pearson_cosine"]

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function that gives the correlations of pairs, and the cosine to the teacher."""
        return _metrics

    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of the cosines of TF-IDF vectors of tokens; none without pairs."""
        labels = np.asarray(rows["labels"])
        first, second = pair_places(labels)
        if not len(first):
            return {}
        transformer = TfidfTransformer().fit(_counts(train["input_ids"]))
        size = transformer.n_features_in_
        vectors = normalize(transformer.transform(_counts(rows["input_ids"], size)))
        cosines = np.asarray(vectors[first].multiply(vectors[second]).sum(1)).ravel()
        return _correlations(cosines, labels[first, SCORE_COLUMN])

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return the cosine to the teacher as sums over texts; ranks are no sums, see `resampled`."""
        return _teacher_cosines, ratio_of_sums

    def resampled(self, metric: str, outputs: Any) -> Resampled:
        """Return the metric of resampled pairs, whose ranks are taken anew; of texts for the cosine to the teacher."""
        if metric != "spearman_cosine":
            return super().resampled(metric, outputs)
        first, second = pair_places(outputs.labels)
        cosines, scores = _cosines(outputs.predictions, first, second), outputs.labels[first, SCORE_COLUMN]
        return Resampled(len(first), lambda counts: rank_correlations(cosines, scores, counts))

    def row_marks(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the hash of each text's tokens."""
        return labels[:, CONTENT_COLUMN]

    def row_labels(self, outputs: Any, rows: Any) -> np.ndarray:
        """Return the score of each pair; NaN for single texts."""
        return outputs.labels[_first_texts(outputs.labels), SCORE_COLUMN]

    def row_scores(self, outputs: Any) -> RowScores:
        """Return the cosine of each pair, and how far its rank is from that of the score, as a fraction of the pairs.

        For single texts the cosine to the teacher's vector, and its distance from 1.
        """
        first, second = pair_places(outputs.labels)
        if not len(first):
            reference = outputs.predictions if outputs.reference is None else outputs.reference
            cosines = _cosines_of(outputs.predictions, reference)
            return RowScores(cosines, None, 1 - cosines)
        cosines, scores = _cosines(outputs.predictions, first, second), outputs.labels[first, SCORE_COLUMN]
        return RowScores(cosines, None, np.abs(rankdata(cosines) - rankdata(scores)) / max(len(first) - 1, 1))

    def row_lengths(self, outputs: Any, lengths: np.ndarray) -> np.ndarray:
        """Return the tokens of each pair, of both texts together; of each single text."""
        first, second = pair_places(outputs.labels)
        return lengths[first] + lengths[second] if len(first) else lengths

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return how alike the vectors are: `cosine` and `cosine_lowest`, the mean and the 5th percentile.

        And `same_neighbour`, the fraction of texts whose nearest other text is the same one for both models.
        """
        teacher, student = (torch.cat(parts).double().numpy() for parts in zip(*batches, strict=True))
        cosines = np.einsum("ij,ij->i", normalize(teacher), normalize(student))
        nearest = [_nearest(vectors[:_NEIGHBOURS_OF]) for vectors in (teacher, student)]
        return {
            "cosine": float(cosines.mean()),
            "cosine_lowest": float(np.quantile(cosines, _LOWEST)),
            "same_neighbour": float((nearest[0] == nearest[1]).mean()) if len(teacher) > 1 else None,
        }


def pair_places(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the first and of the second text of each pair that has a score, (pairs,) each.

    Args:
        labels: (texts, 3); the texts of a pair have the same number, the first one the lower place.
    """
    known = np.flatnonzero(~np.isnan(labels[:, SCORE_COLUMN]))
    order = known[np.argsort(labels[known, PAIR_COLUMN], kind="stable")]
    return order[0::2], order[1::2]


def _first_texts(labels: np.ndarray) -> np.ndarray:
    """Return the place of the first text of each pair; of each text without pairs."""
    first, _ = pair_places(labels)
    return first if len(first) else np.arange(len(labels))


def rank_correlations(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of rows that are there several times, (draws,); 0 where x or y is constant.

    Args:
        x: (rows,).
        y: (rows,).
        counts: how often each row was drawn, (draws, rows).
    """
    first, second = _ranks(x, counts), _ranks(y, counts)
    total = counts.sum(1, keepdims=True)
    first, second = (ranks - (counts * ranks).sum(1, keepdims=True) / total for ranks in (first, second))
    product, squares = (counts * first * second).sum(1), [(counts * one**2).sum(1) for one in (first, second)]
    root = np.sqrt(squares[0] * squares[1])
    return np.divide(product, root, out=np.zeros_like(root), where=root > 0)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean rank of each row among the drawn ones, (draws, rows)."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2)[:, group]


def _metrics(outputs: EvalPrediction) -> Metrics:
    vectors, labels = np.asarray(outputs.predictions), np.asarray(outputs.label_ids)
    first, second = pair_places(labels)
    metrics: Metrics = {}
    if len(first):
        metrics |= _correlations(_cosines(vectors, first, second), labels[first, SCORE_COLUMN])
    if outputs.inputs is not None:
        reference: Any = outputs.inputs
        if len(first):
            cosines = _cosines_of(vectors[first], reference[second])
            metrics["spearman_asymmetric"] = _spearman(cosines, labels[first, SCORE_COLUMN])
        metrics["teacher_cosine"] = float(_cosines_of(vectors, reference).mean())
    return metrics


def _correlations(cosines: np.ndarray, scores: np.ndarray) -> Metrics:
    pearson = float(pearsonr(cosines, scores).statistic) if np.ptp(cosines) > 0 else 0.0
    return {"spearman_cosine": _spearman(cosines, scores), "pearson_cosine": pearson}


def _spearman(cosines: np.ndarray, scores: np.ndarray) -> float:
    return float(spearmanr(cosines, scores).statistic) if np.ptp(cosines) > 0 else 0.0


def _cosines(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _cosines_of(vectors[first], vectors[second])


def _cosines_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", normalize(one.astype(float)), normalize(other.astype(float)))


def _teacher_cosines(outputs: Any) -> np.ndarray:
    """Return (texts, 2): the cosine to the teacher's vector, and 1."""
    cosines = _cosines_of(outputs.predictions, outputs.reference)
    return np.stack([cosines, np.ones_like(cosines)], axis=1)


def _nearest(vectors: np.ndarray) -> np.ndarray:
    cosines = normalize(vectors) @ normalize(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(1)


def _counts(rows: Sequence[Sequence[int]], size: int | None = None) -> csr_matrix:
    """Return how often each token is in each row, (rows, tokens); tokens beyond `size` are left out."""
    lengths = np.array([len(ids) for ids in rows])
    tokens = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in rows])
    places, size = np.repeat(np.arange(len(lengths)), lengths), size or int(tokens.max()) + 1
    known = tokens < size
    counted = (np.ones(known.sum()), (places[known], tokens[known]))
    return csr_matrix(counted, shape=(len(lengths), size))


EVALUATOR = EmbeddingEvaluator()
