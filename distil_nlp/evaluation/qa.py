"""Scores of question answering: exact match and F1 over questions, agreement of answers, KL over positions.

The answer to a question is the best over all windows of its context: among the 20 likeliest starts and the 20
likeliest ends of each, the pair with the highest sum of logits, of 30 tokens at most. Where questions may have none,
the answer is empty if [CLS] as start and end has a higher sum, in the window where that sum is lowest: higher by more
than a threshold, that of the best F1 on the rows to choose by (`best_f1_thresh` of SQuAD 2.0's script), 0 without any.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.data.qa_collator import Windows
from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures, RowScores
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.evaluation.squad import exact_and_f1, normalize_answer
from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.signals.spans import NOT_ALLOWED, span_rows
from distil_nlp.training.evaluation_loop import BatchMetrics

N_BEST = 20
"""Starts, and ends, that are combined."""
LONGEST_ANSWER = 30
"""Tokens of the longest answer."""
NULL_THRESHOLD = 0.0
"""Threshold where no rows chose one, as in SQuAD 2.0's script and the code of BERT."""
_SCORE, _NULL, _EXACT, _F1, _TEXT, _ANSWERABLE = range(6)
"""Columns of predictions."""


class QAEvaluator(Evaluator):
    """Predictions are what a window says, (windows, 6), in float64; labels are the numbers of questions.

    The columns are the score of its best answer, that of none (`NOT_ALLOWED` where each question has one), exact match,
    F1 and a checksum of that answer, and whether the question has one. NaN in a window whose logits are not finite.
    """

    fidelity_sets = frozenset({"sequences"})

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return what each window says, and the number of its question."""
        predictions, labels, _ = self.outputs_with_texts(logits, batch)
        return predictions, labels

    def outputs_with_texts(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
        """Return `outputs`, and the best answer in each window; empty where it has no token of the context."""
        found, windows = _best_answers(logits, batch)
        rows = [_of_window(*best, answers) for best, answers in zip(found, windows.answers, strict=True)]
        texts = np.array([text for _, _, text in found], dtype=object)
        return np.stack(rows), np.array(windows.question_ids, dtype=np.int64), texts

    def metric_names(self, task: str) -> list[str]:
        """Return F1 and exact match; where questions may have no answer, also those of either sort."""
        both = ["f1", "exact_match"]
        return [*both, "HasAns_f1", "HasAns_exact", "NoAns_f1"] if task == "qa_v2" else both

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function for rows that choose: its scores are at the threshold that is best on these very rows."""

        def compute(outputs: EvalPrediction) -> Metrics:
            rows = Outputs(np.asarray(outputs.predictions), np.asarray(outputs.label_ids))
            return self.score(task, self.with_threshold(rows, rows) if self.has_threshold(task) else rows)

        return compute

    def score(self, task: str, outputs: Outputs) -> Metrics:
        """Return the metrics of `metric_names` of outputs at their threshold."""
        found = _metrics(_of_outputs(outputs))
        return {name: found[name] for name in self.metric_names(task)}

    def has_threshold(self, task: str) -> bool:
        """Return whether questions may have no answer."""
        return task == "qa_v2"

    def with_threshold(self, outputs: Outputs, chosen_on: Outputs | None) -> Outputs:
        """Return outputs with the threshold of the highest F1 on the rows to choose by; 0 without any."""
        if chosen_on is None:
            return replace(outputs, threshold=NULL_THRESHOLD)
        return replace(outputs, threshold=best_null_threshold(chosen_on.predictions, chosen_on.labels))

    def number_of(self, rows: Any) -> int:
        """Return how many questions windows are of."""
        return len(np.unique(rows["question_id"][:]))

    def trainer_metrics(self, task: str) -> BatchMetrics:
        """Return the metrics of what windows say, which is taken batch by batch."""
        return BatchMetrics(self.outputs, self.metrics(task))

    def majority(self, task: str, train: Any, rows: Any, collator: Callable) -> Metrics:
        """Return the metrics of the sentence that shares most words with the question; of no answer for `qa_v2`."""
        columns = (rows[name][:] for name in ("question_id", "question", "context", "answers"))
        found = {}
        for number, question, context, right in zip(*columns, strict=True):
            if number not in found:
                answer = "" if task == "qa_v2" else nearest_sentence(question, context)
                found[number] = (*exact_and_f1(answer, right), 0.0, float(bool(right)))
        metrics = _metrics(np.array([*found.values()]))
        return {name: metrics[name] for name in self.metric_names(task)}

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return the mean over questions as sums: questions are resampled, with all their windows."""
        column = {"exact_match": 0, "f1": 1}[metric]

        def features(outputs: Any) -> np.ndarray:
            values = _of_outputs(outputs)[:, column]
            return np.stack([values, np.ones(len(values))], axis=1)

        return features, ratio_of_sums

    def row_labels(self, outputs: Any, rows: Any) -> np.ndarray:
        """Return the first right answer to each question; empty where there is none."""
        first = np.unique(outputs.labels, return_index=True)[1][_appearance(outputs.labels)]
        return np.array([answers[0] if answers else "" for answers in rows.select(first)["answers"]], dtype=object)

    def row_scores(self, outputs: Any) -> RowScores | None:
        """Return the answer to each question, and whether it is no exact match; None of outputs without their texts.

        Questions are in the order of the rows.
        """
        if outputs.texts is None:
            return None
        order, first = _best_first(outputs.predictions, outputs.labels)
        questions, shown = _of_outputs(outputs), _appearance(outputs.labels)
        texts = np.where(questions[:, 2] == _checksum(""), "", outputs.texts[order][first])
        return RowScores(texts.astype(object)[shown], None, 1 - questions[shown, 0])

    def row_lengths(self, outputs: Any, lengths: np.ndarray) -> np.ndarray:
        """Return the tokens of all windows of each question."""
        _, question = np.unique(outputs.labels, return_inverse=True)
        return np.bincount(question, lengths).astype(int)[_appearance(outputs.labels)]

    def own_rows(self, rows: Any, texts: Any) -> np.ndarray:
        """Return the first row of each question: rows with the same texts and answers are one question."""
        question, context = texts.column_names
        numbers: dict[tuple[str, str], list[int]] = {}
        for *texts_of, number in zip(rows["question"], rows["context"], rows["question_id"], strict=True):
            known = numbers.setdefault((texts_of[0], texts_of[1]), [])
            known.extend([number] * (number not in known))
        found: dict[int, int] = {}
        for place, pair in enumerate(zip(texts[question], texts[context], strict=True)):
            own = numbers[(pair[0] or "", pair[1] or "")]
            found.setdefault(own.pop(0) if len(own) > 1 else own[0], place)
        return np.array([found[number] for number in dict.fromkeys(rows["question_id"][:])])

    def compare_batch(
        self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return what the windows say to both models, the questions, and Σ KL over windows."""
        (own, numbers), (other, _) = self.outputs(student, batch), self.outputs(teacher, batch)
        rows, wanted = (span_rows(logits, batch["is_allowed"]) for logits in (student, teacher))
        return other, own, numbers, float(soft_target_kl(rows, wanted)) / 2

    def fidelity(self, batches: Sequence[tuple], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement`, the fraction of questions with the same answer, `rows` of them, and `kl`.

        `kl` is in nats a window, the mean of start and end, over allowed positions, at T = 1. Answers are those at the
        default threshold.
        """
        teacher, student, numbers = (np.concatenate(parts) for parts in list(zip(*batches, strict=True))[:3])
        kl = sum(batch[3] for batch in batches) / len(numbers)
        both = (Outputs(predictions, numbers) for predictions in (teacher, student))
        return {**_agreement(*both), "kl": kl}

    def agreement_of(self, teacher: Any, student: Any) -> dict[str, Any]:
        """Return `agreement` over all questions, and `rows`, their number."""
        return _agreement(teacher, student)


EVALUATOR = QAEvaluator()


def best_span(start: np.ndarray, end: np.ndarray, inside: np.ndarray) -> tuple[float, int, int] | None:
    """Return (sum of logits, first token, last token) of the best answer in a window; None where it has no token.

    Args:
        start: logits, (seq,).
        end: logits, (seq,).
        inside: the positions of the context's tokens.
    """
    if not len(inside):
        return None
    firsts, lasts = (inside[np.argsort(-values[inside], kind="stable")[:N_BEST]] for values in (start, end))
    length = lasts[None] - firsts[:, None] + 1
    sums = np.where((length > 0) & (length <= LONGEST_ANSWER), start[firsts][:, None] + end[lasts], -np.inf)
    i, j = np.unravel_index(sums.argmax(), sums.shape)
    return None if sums[i, j] == -np.inf else (float(sums[i, j]), int(firsts[i]), int(lasts[j]))


def of_questions(predictions: np.ndarray, numbers: np.ndarray, threshold: float = NULL_THRESHOLD) -> np.ndarray:
    """Return exact match, F1, checksum of the answer, and whether there is one, (questions, 4), ordered by number.

    Args:
        predictions: what windows say, as `QAEvaluator` has it.
        numbers: of their questions.
        threshold: how far the score of none may exceed that of the best answer, for this to be the answer.
    """
    order, first = _best_first(predictions, numbers)
    rows, best = predictions[order], predictions[order][first]
    answerable = best[:, _ANSWERABLE]
    is_null = _differences(predictions, numbers) > threshold
    right = np.where(is_null, 1 - answerable, best[:, _EXACT]), np.where(is_null, 1 - answerable, best[:, _F1])
    found = np.stack([*right, np.where(is_null, 0, best[:, _TEXT]), answerable], axis=1)
    found[np.isnan(np.add.reduceat(rows[:, _SCORE], first))] = np.nan
    return found


def best_null_threshold(predictions: np.ndarray, numbers: np.ndarray) -> float:
    """Return the threshold of `of_questions` with the highest F1 over questions, the lowest of equally good ones.

    It is the difference, score of none − score of the best answer, of the last question that is to be answered, as
    `find_best_thresh` of SQuAD 2.0's evaluation script has it. Where F1 is highest with no question answered, it is 1
    below all differences (the script says 0 there, for probabilities of no answer).

    Args:
        predictions: what windows say, as `QAEvaluator` has it; questions with NaN do not count.
        numbers: of their questions.
    """
    answered = of_questions(predictions, numbers, np.inf)
    differences, f1, answerable = _differences(predictions, numbers), answered[:, 1], answered[:, 3]
    known = np.flatnonzero(~np.isnan(f1))
    if not len(known):
        return NULL_THRESHOLD
    order = known[np.argsort(differences[known], kind="stable")]
    levels, last = np.unique(differences[order][::-1], return_index=True)
    gains = np.cumsum(f1[order] - (1 - answerable[order]))[len(order) - 1 - last]  # of answering all up to a level
    best = int(gains.argmax())
    return float(levels[best] if gains[best] > 0 else levels[0] - 1)


def _differences(predictions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the score of none − that of the best answer of each question, (questions,), ordered by number."""
    order, first = _best_first(predictions, numbers)
    rows = predictions[order]
    return np.minimum.reduceat(rows[:, _NULL], first) - rows[first, _SCORE]


def _of_outputs(outputs: Outputs) -> np.ndarray:
    """Return `of_questions` of outputs at their threshold."""
    threshold = NULL_THRESHOLD if outputs.threshold is None else outputs.threshold
    return of_questions(outputs.predictions, outputs.labels, threshold)


def _best_first(predictions: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows ordered by question and score, the best first, and where each question begins in them."""
    order = np.lexsort((-predictions[:, _SCORE], numbers))
    numbers = numbers[order]
    return order, np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])


def _appearance(numbers: np.ndarray) -> np.ndarray:
    """Return the places of questions, which are ordered by number, in the order in which the rows have them."""
    return np.argsort(np.unique(numbers, return_index=True)[1], kind="stable")


def nearest_sentence(question: str, context: str) -> str:
    """Return the sentence of a context that shares most words with a question; of equal ones the first."""
    words = set(normalize_answer(question).split())
    sentences = re.split(r"(?<=[.!?])\s+", context.strip())
    return max(sentences, key=lambda sentence: len(words & set(normalize_answer(sentence).split())))


def _best_answers(logits: Tensor, batch: Mapping[str, Any]) -> tuple[list[tuple[float, float, str]], Windows]:
    """Return the best answer of each window, see `_best_answer`, and the batch's windows."""
    windows, allowed = batch["windows"], batch["is_allowed"].cpu().numpy()
    count, length = allowed.shape
    values = span_rows(logits, batch["is_allowed"]).double().cpu().numpy().reshape(count, 2, length)
    places = zip(windows.contexts, windows.starts, windows.ends, strict=True)
    found = [_best_answer(*one, *place) for one, place in zip(zip(values, allowed, strict=True), places, strict=True)]
    return found, windows


def _best_answer(
    values: np.ndarray, allowed: np.ndarray, context: str, starts: Sequence[int], ends: Sequence[int]
) -> tuple[float, float, str]:
    """Return (score, score of none, text) of a window's best answer; NaN for scores where logits are not finite."""
    if not np.isfinite(values).all():
        return np.nan, np.nan, ""
    inside = np.flatnonzero(np.asarray(starts) >= 0)
    nulls = np.setdiff1d(np.flatnonzero(allowed), inside)
    null = float(values[:, nulls[0]].sum()) if len(nulls) else NOT_ALLOWED
    best = best_span(values[0], values[1], inside)
    return (NOT_ALLOWED, null, "") if best is None else (best[0], null, context[starts[best[1]] : ends[best[2]]])


def _of_window(score: float, null: float, text: str, answers: Sequence[str]) -> np.ndarray:
    """Return what a window says, (6,)."""
    if np.isnan(score):
        return np.full(6, np.nan)
    return np.array([score, null, *exact_and_f1(text, answers), _checksum(text), float(bool(answers))])


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))


def _agreement(teacher: Outputs, student: Outputs) -> dict[str, Any]:
    first, second = (_of_outputs(outputs)[:, 2] for outputs in (teacher, student))
    return {"rows": len(first), "agreement": float((first == second).mean())}


def _metrics(questions: np.ndarray) -> Metrics:
    exact, f1, _, answerable = questions.T
    has = answerable > 0
    return {
        "f1": float(f1.mean()),
        "exact_match": float(exact.mean()),
        "HasAns_f1": _mean(f1[has]),
        "HasAns_exact": _mean(exact[has]),
        "NoAns_f1": _mean(f1[~has]),
    }


def _mean(values: Iterable[float]) -> float:
    array = np.asarray(values)
    return float(array.mean()) if len(array) else float("nan")
