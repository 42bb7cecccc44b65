"""Scores of vectors: correlations of cosines, the teacher's vectors, and intervals over pairs."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics.pairwise import cosine_similarity

from distil_nlp.data.embedding import PAIR_COLUMN, SCORE_COLUMN
from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.embedding import EVALUATOR, pair_places, rank_correlations
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.metrics import metrics_of, retention
from distil_nlp.evaluation.predict import Outputs

PAIRS, LENGTH = 40, 6


def outputs(seed: int, noise: float = 0.0, reference=None, scores=True) -> Outputs:
    """Vectors of pairs whose scores are the ranks of their cosines, with noise on the vectors."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(2 * PAIRS, LENGTH))
    cosines = cosine_similarity(vectors[0::2], vectors[1::2]).diagonal()
    labels = np.zeros((2 * PAIRS, 3))
    labels[:, PAIR_COLUMN] = np.repeat(np.arange(PAIRS), 2)
    labels[:, SCORE_COLUMN] = np.repeat(np.round(5 * (cosines + 1)) / 2, 2) if scores else np.nan
    labels[:, 2] = np.arange(2 * PAIRS)
    noisy = vectors + noise * np.random.default_rng(seed).normal(size=vectors.shape)
    return Outputs(noisy.astype(np.float32), labels, reference=reference)


def test_metrics_are_those_of_scipy_and_sklearn():
    """Prevents cosines of other pairs, vectors that are not normalised, and one model's vectors for the other's."""
    teacher = outputs(0).predictions
    own = outputs(1, 0.5, teacher)
    first, second, scores = own.predictions[0::2], own.predictions[1::2], own.labels[0::2, SCORE_COLUMN]
    cosines = cosine_similarity(first, second).diagonal()
    found = metrics_of("embedding", {"validation": own})
    assert found["spearman_cosine"] == pytest.approx(spearmanr(cosines, scores).statistic)
    assert found["pearson_cosine"] == pytest.approx(pearsonr(cosines, scores).statistic)
    asymmetric = cosine_similarity(first, teacher[1::2]).diagonal()
    assert found["spearman_asymmetric"] == pytest.approx(spearmanr(asymmetric, scores).statistic)
    assert found["teacher_cosine"] == pytest.approx(cosine_similarity(own.predictions, teacher).diagonal().mean())
    assert retention(found, {"spearman_cosine": 0.5}, "embedding") == pytest.approx(found["spearman_cosine"] / 0.5)


def test_pairs_are_found_in_any_order():
    """Prevents pairs by place: evaluation in several processes may gather texts in another order."""
    own = outputs(1, 0.5)
    expected = metrics_of("embedding", {"validation": own})
    first = np.argsort(np.random.default_rng(3).random(PAIRS))
    order = np.concatenate([2 * first, 2 * first[::-1] + 1])  # all first texts, then all second ones
    shuffled = Outputs(own.predictions[order], own.labels[order])
    assert metrics_of("embedding", {"validation": shuffled}) == pytest.approx(expected)


def test_texts_without_scores_have_the_cosine_to_the_teacher_alone():
    """Prevents correlations with scores that nobody gave."""
    own = outputs(1, 0.5, outputs(0).predictions, scores=False)
    assert metrics_of("embedding_texts", {"validation": own}).keys() == {"teacher_cosine"}
    assert len(pair_places(own.labels)[0]) == 0
    assert metrics_of("embedding_texts", {"validation": outputs(1, scores=False)}) == {}


def test_a_constant_model_correlates_with_nothing():
    """Prevents NaN in results.json."""
    own = outputs(0)
    constant = Outputs(np.ones_like(own.predictions), own.labels)
    assert metrics_of("embedding", {"validation": constant})["spearman_cosine"] == 0.0


def test_ranks_of_drawn_rows_are_those_of_scipy():
    """Prevents ranks of all rows, where a draw has some of them several times and others never; ties included."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=30), generator.integers(0, 5, 30).astype(float)
    x[3] = x[7]
    counts = generator.multinomial(30, np.full(30, 1 / 30), 20).astype(float)
    found = rank_correlations(x, y, counts)
    for value, drawn in zip(found, counts.astype(int), strict=True):
        expected = spearmanr(np.repeat(x, drawn), np.repeat(y, drawn)).statistic
        assert value == pytest.approx(expected, abs=1e-12)


def test_intervals_are_over_pairs():
    """Prevents resampled texts, which would tear pairs apart, and an interval around another metric."""
    own, worse = outputs(1, 0.3), outputs(2, 3.0)
    found = score_interval("embedding", [own])
    assert found["rows"] == PAIRS
    assert found["mean"] == pytest.approx(metrics_of("embedding", {"v": own})["spearman_cosine"])
    assert found["low"] < found["mean"] < found["high"]
    gain = paired_gain("embedding", [own], [worse])
    assert (gain.rows, gain.metric) == (PAIRS, "spearman_cosine")
    assert gain.low > 0
    texts = [outputs(1, 0.5, outputs(0).predictions, scores=False)]
    assert score_interval("embedding_texts", texts)["rows"] == 2 * PAIRS


def test_other_texts_are_told_by_their_tokens():
    """Prevents a comparison of models on unlike texts that have no scores to tell them apart."""
    here, there = outputs(0, scores=False), outputs(0, scores=False)
    there.labels[0, 2] = 99
    marks = [EVALUATOR.row_marks(one.predictions, one.labels) for one in (here, there)]
    assert not np.array_equal(*marks)


def test_word_overlap_is_a_baseline():
    """Prevents a baseline that does not look at the texts: copies are alike, texts without a common word are not."""
    texts = [[2, 10, 11, 3], [2, 10, 11, 3], [2, 12, 13, 3], [2, 14, 15, 3], [2, 16, 17, 3], [2, 16, 18, 99]]
    labels = [[i // 2, score, i] for i, score in enumerate((5, 5, 0, 0, 2, 2))]
    found = evaluator_of("embedding").majority(
        "embedding", {"input_ids": texts[:5]}, {"input_ids": texts, "labels": labels}, None
    )
    assert found["spearman_cosine"] == pytest.approx(1.0)
    nothing = {"input_ids": texts, "labels": [[i, np.nan, i] for i in range(6)]}
    assert EVALUATOR.majority("embedding_texts", {"input_ids": texts}, nothing, None) == {}


def test_fidelity_compares_vectors_and_neighbours():
    """Prevents a mean that hides the texts on which the student is lost."""
    import torch

    teacher = torch.eye(20)
    student = teacher.clone()
    student[0] = torch.eye(20)[1]
    found = EVALUATOR.fidelity([(teacher, student)], None)
    assert found["cosine"] == pytest.approx(0.95)
    assert found["cosine_lowest"] < 1
    same = EVALUATOR.fidelity([(teacher, teacher)], None)
    assert (same["cosine"], same["same_neighbour"]) == (pytest.approx(1.0), 1.0)
