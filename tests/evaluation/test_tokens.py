"""Scores of words: entities by strict IOB2 as seqeval has them, tags as scikit-learn has them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score
from transformers import EvalPrediction

from distil_nlp.data.tokens import Words
from distil_nlp.evaluation.bootstrap import paired_gain, score_interval
from distil_nlp.evaluation.kinds import task_evaluator
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.evaluation.tokens import EVALUATOR
from distil_nlp.tasks.tags import Tags
from tests.helpers import tiny
from tests.helpers.training import collator_of

BIO = Tags(("O", "B-A", "I-A", "B-B", "I-B"))
POS = Tags(("NOUN", "VERB", "DET"))


def drawn(tags, seed=0, sentences=40):
    """True and predicted tags of ragged sentences; the prediction is right in about half of the words."""
    generator = np.random.default_rng(seed)
    truth = [
        tags.repaired(generator.integers(0, len(tags.names), n).tolist())[0]
        for n in generator.integers(1, 12, sentences)
    ]
    predicted = [
        [own if generator.random() < 0.5 else int(generator.integers(0, len(tags.names))) for own in row]
        for row in truth
    ]
    return truth, predicted


def batch_of(tags, truth, is_read):
    """A batch in which each word is a token, with room for words that are not read."""
    length = max(map(len, truth))
    places = [
        i * length + k for i, row in enumerate(truth) for k, tag in enumerate(row) if is_read[i][k] and tag != -100
    ]
    rows = {"labelled": torch.tensor(places), "logits/labelled": torch.arange(len(places))}
    labels = torch.full((len(truth) * length,), -100)
    labels[places] = torch.tensor([truth[place // length][place % length] for place in places])
    return {
        "words": Words(tags, truth, is_read), "rows": rows, "labels": labels.view(len(truth), length),
        "input_ids": torch.zeros(len(truth), length),
    }  # fmt: skip


def outputs_of(tags, truth, predicted, is_read=None):
    """What the evaluator makes of logits whose largest is the prediction; None is a word that is not read."""
    is_read = is_read or [[True] * len(row) for row in truth]
    words = [zip(*one, strict=True) for one in zip(truth, predicted, is_read, strict=True)]
    chosen = [guess for row in words for tag, guess, one in row if one and tag != -100]
    logits = torch.nn.functional.one_hot(torch.tensor(chosen), len(tags.names)).float()
    return Outputs(*EVALUATOR.outputs(logits, batch_of(tags, truth, is_read)))


def metrics(task, outputs):
    return EVALUATOR.metrics(task)(EvalPrediction(outputs.predictions, outputs.labels))


def test_entities_are_those_of_seqeval_in_strict_mode():
    """Prevents an entity F1 of one's own: micro averages, and each type, against the library on the same tags."""
    truth, predicted = drawn(BIO)
    outputs = outputs_of(BIO, truth, predicted)
    names = [[[BIO.names[tag] for tag in row] for row in one] for one in (truth, predicted)]
    wanted = classification_report(*names, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    found = metrics("tokens", outputs)
    assert found == pytest.approx(
        {
            "f1": wanted["micro avg"]["f1-score"],
            "precision": wanted["micro avg"]["precision"],
            "recall": wanted["micro avg"]["recall"],
        }
    )
    assert 0.1 < found["f1"] < 0.9
    for unit, scores in zip(BIO.units, EVALUATOR.class_scores(outputs), strict=True):
        assert scores["f1"] == pytest.approx(wanted[unit]["f1-score"])
        assert scores["rows"] == wanted[unit]["support"]


def test_tags_without_prefixes_are_scored_as_scikit_learn_does():
    """Prevents a macro F1 over tags that are nowhere, and one over sentences."""
    truth, predicted = drawn(POS)
    flat = [np.concatenate(one) for one in (truth, predicted)]
    assert metrics("tags", outputs_of(POS, truth, predicted)) == pytest.approx(
        {"accuracy": accuracy_score(*flat), "f1_macro": f1_score(*flat, average="macro")}
    )
    wider = Tags((*POS.names, "NOWHERE"))
    assert metrics("tags", outputs_of(wider, truth, predicted))["f1_macro"] == pytest.approx(
        f1_score(*flat, average="macro")
    )


def test_what_is_not_read_is_missed():
    """Prevents scores over the words that a short input leaves: entities cut off, or cut in two, are not found."""
    truth = [[1, 2, 0, 3], [1, 2, 0, 3]]
    outputs = outputs_of(BIO, truth, truth, [[True, True, True, False], [True, False, False, False]])
    assert metrics("tokens", outputs) == pytest.approx({"precision": 0.5, "recall": 0.25, "f1": 1 / 3})
    flat = outputs_of(POS, [[0, 1, 2]], [[0, 1, 2]], [[True, False, True]])
    assert metrics("tags", flat)["accuracy"] == pytest.approx(2 / 3)


def test_words_without_a_tag_do_not_count():
    """Prevents predictions for them from being taken for false entities."""
    outputs = outputs_of(BIO, [[1, -100, 0]], [[1, 3, 0]], [[True, True, True]])
    assert metrics("tokens", outputs)["f1"] == 1.0


def test_logits_that_are_not_finite_are_seen():
    """Prevents NaN from being the first tag."""
    logits = torch.zeros(3, 5)
    logits[1, 2] = torch.nan
    sums, _ = EVALUATOR.outputs(logits, batch_of(BIO, [[0, 1], [0]], [[True, True], [True]]))
    assert np.isnan(sums).all(1).tolist() == [True, False]


def test_the_interval_is_that_of_resampled_sentences():
    """Prevents a bootstrap over words, or one whose middle is another metric: F1 is taken of resampled sums."""
    truth, predicted = drawn(BIO, sentences=60)
    outputs = outputs_of(BIO, truth, predicted)
    found = score_interval("tokens", [outputs])
    assert found["mean"] == pytest.approx(metrics("tokens", outputs)["f1"])
    assert found["rows"] == 60
    generator, own = np.random.default_rng(1), []
    for _ in range(1000):
        rows = generator.integers(0, 60, 60)
        own.append(metrics("tokens", Outputs(outputs.predictions[rows], outputs.labels[rows]))["f1"])
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(own, [0.025, 0.975])), abs=0.02)
    other = outputs_of(BIO, truth, truth)
    assert paired_gain("tokens", [other], [outputs]).mean == pytest.approx(1 - found["mean"])


def test_the_baseline_knows_the_commonest_tag_of_each_word():
    """Prevents a floor of 0 that every model is above."""
    cat, dog, walk, ed, bird = (tiny.VOCABULARY.index(one) for one in ("cat", "dog", "walk", "##ed", "bird"))

    def row(ids, labels):
        tags = [one for one in labels if one != -100]
        return {
            "input_ids": [2, *ids, 3],
            "labels": [-100, *labels, -100],
            "word_labels": tags,
            "is_read": [True] * len(tags),
        }

    train = Dataset.from_list([row([cat, walk, ed], [1, 0, -100]), row([cat, walk], [1, 3]), row([cat, bird], [0, 1])])
    rows = Dataset.from_list([row([walk, ed, cat, dog], [0, -100, 1, 0])])
    collator = collator_of("tokens", 4)
    found = EVALUATOR.majority("tokens", train, rows, collator)
    assert (
        found["precision"] == 0.5
    )  # cat is B-one, as in two of three; dog, unknown, gets the commonest tag, B-one too
    assert found["recall"] == 1.0


def test_fidelity_compares_words_and_entities_of_both_models():
    """Prevents an agreement over padding, and entities compared with the labels instead of the teacher's."""
    batch = batch_of(BIO, [[0, 0, 0], [0]], [[True, True, True], [True]])
    teacher = torch.nn.functional.one_hot(torch.tensor([1, 2, 0, 3]), 5).float() * 4
    student = torch.nn.functional.one_hot(torch.tensor([1, 0, 0, 3]), 5).float() * 4
    batches = [EVALUATOR.compare_batch(teacher, student, batch)]
    found = EVALUATOR.fidelity(batches, None)
    assert (found["tokens"], found["agreement"]) == (4, 0.75)
    log = [one.double().log_softmax(-1) for one in (teacher, student)]
    assert found["kl"] == pytest.approx(float((log[0].exp() * (log[0] - log[1])).sum() / 4))
    assert found["entity_f1"] == pytest.approx(0.5)
    quiet = torch.nn.functional.one_hot(torch.zeros(4, dtype=torch.long), 5).float()
    assert EVALUATOR.fidelity([EVALUATOR.compare_batch(quiet, quiet, batch)], None)["entity_f1"] is None
    plain = {"words": SimpleNamespace(tags=POS)}
    assert "entity_f1" not in EVALUATOR.fidelity([EVALUATOR.compare_batch(teacher[:, :3], student[:, :3], plain)], None)


def test_calibration_is_that_of_classified_words():
    """Prevents words that are not read, or have no tag, from counting, and gaps of other bins than of a classifier."""
    truth, _ = drawn(POS)
    truth[3] = [-100] * len(truth[3])
    is_read = [[place < 5 for place in range(len(row))] for row in truth]
    labels = [tag for row, one in zip(truth, is_read, strict=True) for tag, read in zip(row, one, strict=True)
              if read and tag != -100]  # fmt: skip
    logits = np.random.default_rng(1).normal(size=(len(labels), 3)) * 2
    outputs = Outputs(*EVALUATOR.outputs(torch.from_numpy(logits).float(), batch_of(POS, truth, is_read)))
    classes = task_evaluator("classification").calibration()
    for name, (features, value) in EVALUATOR.calibration().items():
        wanted_features, wanted = classes[name]
        expected = wanted(wanted_features(Outputs(logits, np.array(labels))).sum(0)[None])
        assert value(features(outputs).sum(0)[None]) == pytest.approx(expected, rel=1e-5), name
        assert features(outputs)[:, -1].sum() == len(labels)
    alone = Outputs(outputs.predictions[:, :-17], outputs.labels)
    assert metrics("tags", alone) == metrics("tags", outputs)
    assert EVALUATOR.class_scores(alone) == EVALUATOR.class_scores(outputs)
    assert all((features(alone)[:, -1] == 0).all() for features, _ in EVALUATOR.calibration().values())
