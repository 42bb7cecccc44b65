"""Scores of question answering: exact match and F1 over questions, agreement of answers, KL over positions.

The answer to a question is the best over all windows of its context: among the 20 likeliest starts and the 20
likeliest ends of each, the pair with the highest sum of logits, of 30 tokens at most. Where questions may have none,
the answer is empty if [CLS] as start and end has a higher sum, in the window where that sum is lowest.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures
from distil_nlp.evaluation.squad import exact_and_f1, normalize_answer
from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.signals.spans import NOT_ALLOWED, span_rows
from distil_nlp.training.evaluation_loop import BatchMetrics

N_BEST = 20
"""Starts, and ends, that are combined."""
LONGEST_ANSWER = 30
"""Tokens of the longest answer."""
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
        windows, allowed = batch["windows"], batch["is_allowed"].cpu().numpy()
        count, length = allowed.shape
        values = span_rows(logits, batch["is_allowed"]).double().cpu().numpy().reshape(count, 2, length)
        texts = zip(windows.contexts, windows.answers, windows.starts, windows.ends, strict=True)
        rows = [_of_window(*of_row, *row) for of_row, row in zip(zip(values, allowed, strict=True), texts, strict=True)]
        return np.stack(rows), np.array(windows.question_ids, dtype=np.int64)

    def metric_names(self, task: str) -> list[str]:
        """Return F1 and exact match; where questions may have no answer, also those of either sort."""
        both = ["f1", "exact_match"]
        return [*both, "HasAns_f1", "HasAns_exact", "NoAns_f1"] if task == "qa_v2" else both

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function from what windows say to the metrics of `metric_names`."""
        names = self.metric_names(task)

        def compute(outputs: EvalPrediction) -> Metrics:
            found = _metrics(of_questions(np.asarray(outputs.predictions), np.asarray(outputs.label_ids)))
            return {name: found[name] for name in names}

        return compute

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
            values = of_questions(outputs.predictions, outputs.labels)[:, column]
            return np.stack([values, np.ones(len(values))], axis=1)

        return features, ratio_of_sums

    def compare_batch(
        self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return what the windows say to both models, the questions, and Σ KL over windows."""
        (own, numbers), (other, _) = self.outputs(student, batch), self.outputs(teacher, batch)
        rows, wanted = (span_rows(logits, batch["is_allowed"]) for logits in (student, teacher))
        return other, own, numbers, float(soft_target_kl(rows, wanted)) / 2

    def fidelity(self, batches: Sequence[tuple], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement`, the fraction of questions with the same answer, `rows` of them, and `kl`.

        `kl` is in nats a window, the mean of start and end, over allowed positions, at T = 1.
        """
        teacher, student, numbers = (np.concatenate(parts) for parts in list(zip(*batches, strict=True))[:3])
        kl = sum(batch[3] for batch in batches) / len(numbers)
        return {**_agreement(teacher, student, numbers), "kl": kl}

    def agreement_of(self, teacher: Any, student: Any) -> dict[str, Any]:
        """Return `agreement` over all questions, and `rows`, their number."""
        return _agreement(teacher.predictions, student.predictions, student.labels)


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


def of_questions(predictions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return exact match, F1, checksum of the answer, and whether there is one, (questions, 4), ordered by number.

    Args:
        predictions: what windows say, as `QAEvaluator` has it.
        numbers: of their questions.
    """
    order = np.lexsort((-predictions[:, _SCORE], numbers))
    rows, numbers = predictions[order], numbers[order]
    first = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    best, null = rows[first], np.minimum.reduceat(rows[:, _NULL], first)
    answerable = best[:, _ANSWERABLE]
    is_null = null > best[:, _SCORE]
    right = np.where(is_null, 1 - answerable, best[:, _EXACT]), np.where(is_null, 1 - answerable, best[:, _F1])
    found = np.stack([*right, np.where(is_null, 0, best[:, _TEXT]), answerable], axis=1)
    found[np.isnan(np.add.reduceat(rows[:, _SCORE], first))] = np.nan
    return found


def nearest_sentence(question: str, context: str) -> str:
    """Return the sentence of a context that shares most words with a question; of equal ones the first."""
    words = set(normalize_answer(question).split())
    sentences = re.split(r"(?<=[.!?])\s+", context.strip())
    return max(sentences, key=lambda sentence: len(words & set(normalize_answer(sentence).split())))


def _of_window(
    values: np.ndarray,
    allowed: np.ndarray,
    context: str,
    answers: Sequence[str],
    starts: Sequence[int],
    ends: Sequence[int],
) -> np.ndarray:
    """Return what a window says, (6,)."""
    if not np.isfinite(values).all():
        return np.full(6, np.nan)
    inside = np.flatnonzero(np.asarray(starts) >= 0)
    nulls = np.setdiff1d(np.flatnonzero(allowed), inside)
    null = float(values[:, nulls[0]].sum()) if len(nulls) else NOT_ALLOWED
    best = best_span(values[0], values[1], inside)
    score, text = NOT_ALLOWED, ""
    if best is not None:
        score, text = best[0], context[starts[best[1]] : ends[best[2]]]
    return np.array([score, null, *exact_and_f1(text, answers), _checksum(text), float(bool(answers))])


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "replace"))


def _agreement(teacher: np.ndarray, student: np.ndarray, numbers: np.ndarray) -> dict[str, Any]:
    first, second = (of_questions(predictions, numbers)[:, 2] for predictions in (teacher, student))
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
