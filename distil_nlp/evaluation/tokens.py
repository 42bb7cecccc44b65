"""Scores of token classification: entities by strict IOB2, or accuracy and macro F1 of tags without prefixes.

Entities are those of seqeval in its mode `strict`. Words that the model does not read, such as those that were cut off,
have no prediction: entities there are missed, and such a tag is wrong.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from seqeval.scheme import IOB2, Tokens
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import f1_of_sums, ratio_of_sums
from distil_nlp.evaluation.fidelity.outputs import (
    calibration_error_of_sums,
    confidence_gaps,
    count_agreement,
    negative_log_likelihoods,
)
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures, RowScores, rows_of_tuples
from distil_nlp.tasks.tags import OUTSIDE, Tags
from distil_nlp.training.evaluation_loop import BatchMetrics

_UNREAD = -1
"""Prediction for a word that the model does not read."""
_BINS = 15
_OF_CALIBRATION = _BINS + 2
"""Last columns of predictions: gaps by bin of confidence, −log likelihood, and the words that these are of."""


class TokenEvaluator(Evaluator):
    """Predictions are sums of each sentence, (rows, 3 · units + 2 + 17), in float32.

    They are true positives, false positives and false negatives of each unit (a type of entity, or a tag), right words
    and words; then, of words that are read and have a tag, the gaps of `confidence_gaps` in 15 bins, −log likelihood in
    nats, and their number. NaN in a row whose logits are not finite. Sums without the last 17 have scores alone.
    """

    fidelity_sets = frozenset({"labelled"})

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of each sentence, and a checksum of its tags."""
        sums, marks, _ = self.outputs_with_texts(logits, batch)
        return sums, marks

    def outputs_with_texts(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Return `outputs`, and the ids of the predicted tags of each sentence; −1 for a word that is not read."""
        words, pairs = batch["words"], [*_by_sentence(batch, _predicted(logits, batch))]
        sums = np.stack([sums_of(words.tags, *pair) for pair in pairs])
        texts = np.array([" ".join(map(str, guess)) for _, guess in pairs], dtype=object)
        marks = [zlib.crc32(np.asarray(labels, dtype=np.int64).tobytes()) for labels in words.labels]
        sums = np.hstack([sums, _calibration_sums(logits, batch, len(sums))])
        return sums.astype(np.float32), np.array(marks, dtype=np.int64), texts

    def metric_names(self, task: str) -> list[str]:
        """Return precision, recall and F1 of entities; accuracy and macro F1 of tags without prefixes."""
        return ["accuracy", "f1_macro"] if task == "tags" else ["f1", "precision", "recall"]

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function from sums to the metrics of `metric_names`."""
        return _metrics_of_tags if task == "tags" else _metrics_of_entities

    def trainer_metrics(self, task: str) -> BatchMetrics:
        """Return the metrics of sums, which are taken batch by batch."""
        return BatchMetrics(self.outputs, self.metrics(task))

    def majority(self, task: str, train: Any, rows: Any, collator: Any) -> Metrics:
        """Return the metrics of the commonest tag of each word in training; of all tags, for a word unknown there."""
        around = _ids_around_words(collator.tokenizer)
        guess = _commonest_tags(_words_of(row, around) for row in train)
        sums = []
        for row in rows:
            truth, predicted = np.array(row["word_labels"]), [guess(word) for word, _ in _words_of(row, around)]
            scored = np.array(row["is_read"], dtype=bool) & (truth != -100)
            sums.append(sums_of(collator.tags, truth, _of_words(scored, np.array(predicted, dtype=np.int64))))
        return self.metrics(task)(EvalPrediction(np.stack(sums), np.zeros(len(sums))))

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return F1 of entities, or accuracy, as sums over sentences."""
        if metric == "accuracy":
            return (lambda outputs: _of_scores(outputs.predictions)[:, -2:]), ratio_of_sums
        return (lambda outputs: _cells(outputs.predictions).sum(2)), f1_of_sums

    def units(self, labels: Sequence[str]) -> Sequence[str]:
        """Return the types of entities, or the tags where they have no prefixes."""
        return Tags(tuple(labels)).units

    def row_labels(self, outputs: Any, rows: Any) -> np.ndarray:
        """Return the ids of the tags of each sentence, as a tuple."""
        return rows_of_tuples(map(tuple, rows["word_labels"][:]))

    def row_scores(self, outputs: Any) -> RowScores | None:
        """Return the tags of each sentence, and whether any is wrong; None of outputs without their texts."""
        if outputs.texts is None:
            return None
        right, words = _of_scores(outputs.predictions)[:, -2:].T
        errors = np.where(words > 0, (right < words).astype(float), np.nan)
        return RowScores(rows_of_tuples(tuple(map(int, text.split())) for text in outputs.texts), None, errors)

    def calibration(self) -> Mapping[str, tuple[RowFeatures, MetricOfSums]]:
        """Return `ece` and `nll` as of classification, over words that are read and have a tag."""
        return {
            "ece": (lambda outputs: np.delete(_of_calibration(outputs), _BINS, axis=1), calibration_error_of_sums),
            "nll": (lambda outputs: _of_calibration(outputs)[:, _BINS:], ratio_of_sums),
        }

    def class_scores(self, outputs: Any) -> list[dict[str, float]]:
        """Return precision, recall and F1 of each type of entity, or of each tag; 0 where nothing was predicted."""
        true, false, missed = _cells(outputs.predictions).sum(0, dtype=np.float64)
        scores = {
            "precision": _ratio(true, true + false),
            "recall": _ratio(true, true + missed),
            "f1": _ratio(2 * true, 2 * true + false + missed),
            "rows": true + missed,
        }
        return [dict(zip(scores, map(float, values), strict=True)) for values in zip(*scores.values(), strict=True)]

    def compare_batch(
        self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]
    ) -> tuple[int, int, float, np.ndarray | None]:
        """Return sums: words, equal tags, KL, and the cells of the student's entities against the teacher's."""
        words = batch["words"]
        if not words.tags.are_entities:
            return *count_agreement(teacher, student), None
        pairs = (_by_sentence(batch, model.argmax(-1).cpu().numpy()) for model in (teacher, student))
        sums = [sums_of(words.tags, truth, guess) for (_, truth), (_, guess) in zip(*pairs, strict=True)]
        return *count_agreement(teacher, student), _cells(np.stack(sums)).sum((0, 2))

    def fidelity(
        self, batches: Sequence[tuple[int, int, float, np.ndarray | None]], labels: Tensor | None
    ) -> dict[str, Any]:
        """Return `agreement` and `kl` over the words that have a tag, `tokens` of them, and `entity_f1`.

        `entity_f1` takes the teacher's entities for the truth; it is absent where tags make no entities, and None where
        neither model finds any.
        """
        words, equal, kl, cells = zip(*batches, strict=True)
        fidelity: dict[str, Any] = {"tokens": sum(words), "agreement": sum(equal) / sum(words)}
        fidelity["kl"] = sum(kl) / sum(words)
        if cells[0] is None:
            return fidelity
        total = np.sum(np.stack([one for one in cells if one is not None]), axis=0)
        return {**fidelity, "entity_f1": float(f1_of_sums(total[None])[0]) if total.any() else None}


EVALUATOR = TokenEvaluator()


def _predicted(logits: Tensor, batch: Mapping[str, Any]) -> np.ndarray:
    """Return the tag of each labelled word, (words,); far below 0 where logits are not finite."""
    chosen = logits.index_select(0, batch["rows"]["logits/labelled"])
    return torch.where(chosen.isfinite().all(-1), chosen.argmax(-1), np.iinfo(np.int64).min).cpu().numpy()


def _calibration_sums(logits: Tensor, batch: Mapping[str, Any], sentences: int) -> np.ndarray:
    """Return the sums of calibration of each sentence, (sentences, 17); NaN where logits are not finite."""
    places = batch["rows"]["labelled"]
    chosen = logits.index_select(0, batch["rows"]["logits/labelled"]).double()
    labels = batch["labels"].flatten().index_select(0, places).cpu().numpy()
    gaps = confidence_gaps(chosen.softmax(-1).nan_to_num().cpu().numpy(), labels, _BINS)
    losses = negative_log_likelihoods(chosen.cpu().numpy(), labels)
    found = np.hstack([gaps, losses[:, None], np.ones((len(labels), 1))])
    found[~chosen.isfinite().all(-1).cpu().numpy()] = np.nan
    sums = np.zeros((sentences, _OF_CALIBRATION))
    np.add.at(sums, places.cpu().numpy() // batch["input_ids"].shape[1], found)
    return sums


def sums_of(tags: Tags, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the sums of a sentence, as `TokenEvaluator` has them, (3 · units + 2,).

    Args:
        tags: all tags.
        truth: ids of the words' tags; words without one (−100) do not count.
        predicted: ids of the predicted tags; −1 for a word that is not read, and lower for one without a finite
            prediction.
    """
    truth, predicted = truth[truth != -100], predicted[truth != -100]
    cells = np.zeros((3, len(tags.units)))
    if tags.are_entities:
        places = {unit: number for number, unit in enumerate(tags.units)}
        known, found = (_entities(tags, ids) for ids in (truth, predicted))
        for cell, entities in zip(cells, (known & found, found - known, known - found), strict=True):
            for unit, _, _ in entities:
                cell[places[unit]] += 1
    else:
        right = truth == predicted
        np.add.at(cells[0], truth[right], 1)
        np.add.at(cells[1], predicted[~right & (predicted >= 0)], 1)
        np.add.at(cells[2], truth[~right], 1)
    sums = np.array([*cells.flatten(), (truth == predicted).sum(), len(truth)])
    return np.full_like(sums, np.nan) if (predicted < _UNREAD).any() else sums


def _entities(tags: Tags, ids: np.ndarray) -> set[tuple[str, int, int]]:
    """Return (type, first word, word behind the last) of each entity; a word without a prediction is in none."""
    names = [tags.names[number] if number >= 0 else OUTSIDE for number in ids]
    return {(entity.tag, entity.start, entity.end) for entity in Tokens(names, IOB2).entities}


def _by_sentence(batch: Mapping[str, Any], predicted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the true and the predicted tags of each sentence's words; none of a sentence that only fills up a batch.

    Args:
        batch: with its row set `labelled`, which holds no tokens of such a sentence.
        predicted: of the words that are read and have a tag, in order.
    """
    words, sentence = batch["words"], batch["rows"]["labelled"].cpu().numpy() // batch["input_ids"].shape[1]
    counts = np.bincount(sentence, minlength=len(words.labels))
    parts = np.split(predicted, counts.cumsum()[:-1])
    for labels, is_read, own in zip(words.labels, words.is_read, parts, strict=True):
        truth = np.array(labels, dtype=np.int64)
        scored = np.array(is_read, dtype=bool) & (truth != -100)
        truth = truth if len(own) == scored.sum() else truth[:0]
        yield truth, _of_words(scored[: len(truth)], own)


def _of_words(scored: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return a tag for each word of a sentence: the predictions in order where there are any, else none."""
    guess = np.full(len(scored), _UNREAD)
    guess[scored] = predicted
    return guess


def _cells(sums: np.ndarray) -> np.ndarray:
    """Return true positives, false positives and false negatives of each unit, (rows, 3, units)."""
    return _of_scores(sums)[:, :-2].reshape(len(sums), 3, -1)


def _of_scores(sums: np.ndarray) -> np.ndarray:
    """Return the sums without those of calibration, (rows, 3 · units + 2)."""
    return sums if (sums.shape[1] - 2) % 3 == 0 else sums[:, :-_OF_CALIBRATION]


def _of_calibration(outputs: Any) -> np.ndarray:
    """Return the sums of calibration, (rows, 17); 0 where the outputs have none."""
    sums = outputs.predictions
    return np.zeros((len(sums), _OF_CALIBRATION)) if _of_scores(sums) is sums else sums[:, -_OF_CALIBRATION:]


def _ratio(part: Any, whole: Any) -> Any:
    return np.divide(part, whole, out=np.zeros_like(np.asarray(part, dtype=float)), where=np.asarray(whole) > 0)


def _metrics_of_entities(outputs: EvalPrediction) -> Metrics:
    true, false, missed = _cells(np.asarray(outputs.predictions)).sum((0, 2), dtype=np.float64)
    return {
        "f1": float(_ratio(2 * true, 2 * true + false + missed)),
        "precision": float(_ratio(true, true + false)),
        "recall": float(_ratio(true, true + missed)),
    }


def _metrics_of_tags(outputs: EvalPrediction) -> Metrics:
    sums = np.asarray(outputs.predictions)
    right, words = _of_scores(sums)[:, -2:].sum(0, dtype=np.float64)
    true, false, missed = _cells(sums).sum(0, dtype=np.float64)
    present = true + false + missed > 0  # as in scikit-learn, tags that are nowhere do not count
    f1 = _ratio(2 * true, 2 * true + false + missed)[present]
    return {"accuracy": float(_ratio(right, words)), "f1_macro": float(f1.mean()) if len(f1) else 0.0}


# The baseline -----------------------------------------------------------------------------------------------------


def _commonest_tags(sentences: Iterable[Iterable[tuple[tuple[int, ...], int]]]) -> Callable[[tuple[int, ...]], int]:
    """Return the function from a word's sub-words to its commonest tag; of equally common ones the lowest.

    Args:
        sentences: the words of each, with their tags.
    """
    counts: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    overall: Counter = Counter()
    for sentence in sentences:
        for word, tag in sentence:
            counts[word][tag] += 1
            overall[tag] += 1
    default = _commonest(overall) if overall else 0
    known = {word: _commonest(own) for word, own in counts.items()}
    return lambda word: known.get(word, default)


def _commonest(counts: Counter) -> int:
    return min(counts, key=lambda tag: (-counts[tag], tag))


def _words_of(row: Mapping[str, Any], around: frozenset[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the sub-words and the tag of each word of a sentence that is read and has a tag, in order.

    Args:
        row: of the tokenised data.
        around: ids of the tokens that are put around the words.
    """
    ids, labels = row["input_ids"], row["labels"]
    starts = [place for place, label in enumerate(labels) if label != -100]
    for start, stop in pairwise([*starts, len(ids)]):
        yield tuple(number for number in ids[start:stop] if number not in around), labels[start]


def _ids_around_words(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the tokens that a tokenizer puts around words."""
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    return frozenset(number for name in names if (number := getattr(tokenizer, name, None)) is not None)
