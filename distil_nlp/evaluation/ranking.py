"""Scores of ranking: NDCG and reciprocal rank of each query's documents, and how alike two models order them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.data.query_groups import QUERY, RELEVANCE
from distil_nlp.data.ranking import OVERLAP
from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures, RowScores

_DEPTH = 10
_NAMES = ["ndcg_at_10", "mrr_at_10"]


class RankingEvaluator(Evaluator):
    """Predictions are scores, (rows, 1); labels are relevance and number of the query, (rows, 2).

    Queries without a relevant document, or with one document, are left out. Rows whose relevance is not known, or that
    fill up a batch, are in no query.
    """

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and labels."""
        return logits.cpu().numpy(), batch["labels"].cpu().numpy()

    def metric_names(self, task: str) -> list[str]:
        """Return NDCG@10 and MRR@10."""
        return _NAMES

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function that gives the means over queries."""
        return lambda outputs: _means(np.asarray(outputs.predictions), np.asarray(outputs.label_ids))

    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of ordering documents by the words that they share with the query (TF-IDF)."""
        return _means(np.asarray(rows[OVERLAP][:]), np.asarray(rows["labels"][:]))

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return the metric as a mean over queries, which are what is resampled."""
        return _SUMMED[metric], ratio_of_sums

    def row_marks(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return a number of each row's query and relevance."""
        return 2 * labels[:, QUERY] + labels[:, RELEVANCE]

    def row_labels(self, outputs: Any, rows: Any) -> np.ndarray:
        """Return the relevance of each document."""
        return outputs.labels[:, RELEVANCE]

    def row_scores(self, outputs: Any) -> RowScores:
        """Return the score of each document, and the fraction of its query's others that it is wrongly ordered with.

        The others are the documents of another relevance; one of equal score counts a half. NaN where there is none.
        """
        scores, errors = outputs.predictions.reshape(-1).astype(float), np.full(len(outputs.labels), np.nan)
        for places in _queries(outputs.labels):
            errors[places] = _wrongly_ordered(scores[places], outputs.labels[places, RELEVANCE])
        return RowScores(scores, None, errors)

    def fidelity(self, batches: Sequence[tuple[Tensor, Tensor]], labels: Tensor | None) -> dict[str, Any]:
        """Return `kendall_tau`, the mean over queries of the rank correlation of both models' scores (tau-b).

        And `same_top`, the fraction of queries with the same first document. Both are of queries with two documents or
        more; None without any. A query whose scores are all equal in one of the models has a correlation of 0.
        """
        teacher, student = (torch.cat(parts).double().flatten().numpy() for parts in zip(*batches, strict=True))
        assert labels is not None
        groups = [places for places in _queries(labels.numpy()) if len(places) > 1]
        if not groups:
            return {"kendall_tau": None, "same_top": None}
        taus = [kendalltau(teacher[places], student[places]).statistic for places in groups]
        same = [teacher[places].argmax() == student[places].argmax() for places in groups]
        return {"kendall_tau": float(np.nan_to_num(taus).mean()), "same_top": float(np.mean(same))}


def reciprocal_rank(relevance: np.ndarray, scores: np.ndarray) -> float:
    """Return 1 ÷ the rank of the first relevant document; 0 where it is not among the first ten.

    Among documents of equal score those that are not relevant come first.

    Args:
        relevance: (documents,), above 0 for relevant ones, of which there is one or more.
        scores: (documents,).
    """
    best = scores[relevance > 0].max()
    rank = 1 + ((relevance <= 0) & (scores >= best)).sum()
    return 1 / rank if rank <= _DEPTH else 0.0


def _wrongly_ordered(scores: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Return for each document the fraction of those of other relevance that are on the wrong side of it."""
    wanted = np.sign(relevance[:, None] - relevance)
    wrong = np.abs(np.sign(scores[:, None] - scores) - wanted) / 2 * (wanted != 0)
    others = (wanted != 0).sum(1)
    return np.divide(wrong.sum(1), others, out=np.full(len(scores), np.nan), where=others > 0)


def _queries(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places of the rows of each query."""
    known = np.flatnonzero(~np.isnan(labels).any(1))
    _, inverse = np.unique(labels[known, QUERY], return_inverse=True)
    order = known[np.argsort(inverse, kind="stable")]
    yield from np.split(order, np.cumsum(np.bincount(inverse))[:-1])


def _by_query(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (queries, 2): NDCG@10 and MRR@10 of each query that is scored."""
    scores, relevance = scores.reshape(-1).astype(float), labels[:, RELEVANCE]
    found = [
        (
            ndcg_score(relevance[places][None], scores[places][None], k=_DEPTH),
            reciprocal_rank(relevance[places], scores[places]),
        )
        for places in _queries(labels)
        if len(places) > 1 and (relevance[places] > 0).any()
    ]
    return np.array(found).reshape(-1, 2)


def _means(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Return the means over queries; none where no query is scored."""
    found = _by_query(scores, labels)
    return dict(zip(_NAMES, map(float, found.mean(0)), strict=True)) if len(found) else {}


def _summed(column: int) -> RowFeatures:
    """Return the function from outputs to (queries, 2): a metric, and 1."""

    def features(outputs: Any) -> np.ndarray:
        values = _by_query(outputs.predictions, outputs.labels)[:, column]
        return np.stack([values, np.ones_like(values)], axis=1)

    return features


_SUMMED = {name: _summed(column) for column, name in enumerate(_NAMES)}
EVALUATOR = RankingEvaluator()
