"""Scores of ranking: NDCG and reciprocal ranks by query, what is left out, intervals, and fidelity."""

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.evaluation.ranking import EVALUATOR, reciprocal_rank

SIZES = (12, 3, 5, 1, 4, 20)


def outputs(seed: int, noise: float = 1.0) -> Outputs:
    """Scores that are the grades with noise; the query of one document, and the fifth without relevant ones."""
    generator = np.random.default_rng(0)
    rows = [[float(generator.integers(4)) / 3, float(query)] for query, size in enumerate(SIZES) for _ in range(size)]
    labels = np.array(rows)
    labels[labels[:, 1] == 4, 0] = 0
    labels[[0, 12, 15], 0] = 1  # one in each of the first three
    scores = labels[:, :1] + noise * np.random.default_rng(seed).normal(size=(len(labels), 1))
    return Outputs(scores.astype(np.float32), labels)


def test_metrics_are_means_over_the_queries_that_can_be_scored():
    """Prevents a mean over documents, queries without an answer as zeros, and single documents as ones."""
    own = outputs(1)
    ndcg, ranks = [], []
    for query in (0, 1, 2, 5):
        places = own.labels[:, 1] == query
        grades, scores = own.labels[places, 0], own.predictions[places, 0].astype(float)
        ndcg.append(ndcg_score([grades], [scores], k=10))
        first = next(i for i, place in enumerate(np.argsort(-scores), 1) if grades[place] > 0)
        ranks.append(1 / first if first <= 10 else 0)
    found = metrics_of("ranking", {"validation": own})
    assert found == pytest.approx({"ndcg_at_10": np.mean(ndcg), "mrr_at_10": np.mean(ranks)})
    order = np.random.default_rng(5).permutation(len(own.labels))
    shuffled = Outputs(own.predictions[order], own.labels[order])
    assert metrics_of("ranking", {"validation": shuffled}) == pytest.approx(found)


def test_ndcg_is_that_of_its_definition():
    """Prevents another discount, or a gain that is not the grade."""
    labels = np.array([[0.0, 1], [1.0, 1], [0.5, 1]])
    found = metrics_of("ranking", {"validation": Outputs(np.array([[3.0], [2.0], [1.0]]), labels)})
    gained = 1 / np.log2(3) + 0.5 / np.log2(4)
    assert found["ndcg_at_10"] == pytest.approx(gained / (1 + 0.5 / np.log2(3)))
    assert found["mrr_at_10"] == 0.5


def test_equal_scores_are_no_good_rank():
    """Prevents a model that scores all alike from having the answer first."""
    assert reciprocal_rank(np.array([1.0, 0.0, 0.0]), np.zeros(3)) == pytest.approx(1 / 3)
    assert reciprocal_rank(np.array([1.0] + [0.0] * 10), np.zeros(11)) == 0.0


def test_rows_that_fill_up_a_batch_are_not_scored():
    """Prevents evaluations in training from scoring fillers."""
    own = outputs(1)
    filled = np.concatenate([own.labels, np.full((3, 2), np.nan)])
    scores = np.concatenate([own.predictions, np.full((3, 1), 9.0)])
    found = EVALUATOR.metrics("ranking")(EvalPrediction(scores, filled))
    assert found == pytest.approx(metrics_of("ranking", {"validation": own}))


def test_intervals_are_over_queries():
    """Prevents documents as independent draws."""
    interval = score_interval("ranking", [outputs(1)], resamples=200)
    assert interval["rows"] == 4
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert interval["mean"] == pytest.approx(metrics_of("ranking", {"v": outputs(1)})["ndcg_at_10"])
    gain = paired_gain("ranking", [outputs(1, 0.1)], [outputs(1, 3.0)], resamples=200)
    assert gain.mean > 0
    assert gain.rows == 4


def test_fidelity_is_of_the_orders_of_documents():
    """Prevents a correlation over all documents of all queries."""
    teacher, student = outputs(1), outputs(2)
    taus, same = [], []
    for query in (0, 1, 2, 4, 5):
        places = teacher.labels[:, 1] == query
        one, other = (part.predictions[places, 0] for part in (teacher, student))
        taus.append(kendalltau(one, other).statistic)
        same.append(one.argmax() == other.argmax())
    found = EVALUATOR.fidelity_of(teacher, student)
    assert found == pytest.approx({"kendall_tau": np.mean(taus), "same_top": np.mean(same)})
    single = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    nothing = EVALUATOR.fidelity([(torch.zeros(2, 1), torch.zeros(2, 1))], single)
    assert nothing == {"kendall_tau": None, "same_top": None}


def test_documents_are_wrong_by_those_that_they_are_ordered_wrongly_with():
    """Prevents an error in a perfect order, and documents of equal relevance that count."""
    labels = np.array([[1.0, 0], [0, 0], [0, 0], [0, 0], [0, 1], [np.nan, 2]])
    scored = EVALUATOR.row_scores(Outputs(np.array([[2.0], [3], [2], [1], [5], [4]]), labels))
    assert scored.errors.tolist() == pytest.approx([0.5, 1, 0.5, 0, np.nan, np.nan], nan_ok=True)
    assert scored.predictions.tolist() == [2, 3, 2, 1, 5, 4]
