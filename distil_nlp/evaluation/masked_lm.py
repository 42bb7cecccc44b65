"""Scores of masked language modelling: perplexity and top-1 accuracy over masked tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.evaluation.bootstrap import ratio_of_sums
from distil_nlp.evaluation.fidelity.outputs import count_agreement
from distil_nlp.evaluation.kinds import Evaluator, MetricOfSums, Metrics, RowFeatures
from distil_nlp.models import count_ids


class MaskedLMEvaluator(Evaluator):
    """Scores of masked tokens. Predictions are (blocks, 3): summed loss in nats, correct and masked tokens.

    Labels are unused.
    """

    fidelity_sets = frozenset({"masked"})

    def outputs(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return sums over each block's masked tokens, from the logits of those tokens."""
        labels, masked = batch["labels"], batch["rows"]["masked"]
        truth, block = labels.flatten()[masked], masked // labels.shape[1]
        loss = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        correct = (logits.argmax(-1) == truth).float()
        tokens = torch.stack([loss, correct, torch.ones_like(loss)], dim=1).cpu().double()
        blocks = tokens.new_zeros(len(labels), 3).index_add_(0, block.cpu(), tokens)
        return blocks.numpy(), labels[:, 0].cpu().numpy()

    def metric_names(self, task: str) -> list[str]:
        """Return perplexity and accuracy."""
        return ["perplexity", "accuracy"]

    def metrics(self, task: str) -> Callable[[EvalPrediction], Metrics]:
        """Return the function that gives `loss` in nats per masked token, `perplexity` and top-1 `accuracy`."""
        return _metrics

    def trainer_metrics(self, task: str) -> None:
        """Return None: the trainer's own sums are exact."""

    def majority(self, task: str, train: Any, rows: Any, collator: Any) -> Metrics:
        """Return the metrics of token frequencies."""
        return unigram_metrics(train, rows, collator)

    def resampling(self, metric: str) -> tuple[RowFeatures, MetricOfSums]:
        """Return accuracy: correct tokens ÷ masked tokens."""
        return (lambda outputs: outputs.predictions[:, 1:]), ratio_of_sums

    def row_marks(self, predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the number of masked tokens."""
        return predictions[:, 2]

    def compare_batch(self, teacher: Tensor, student: Tensor, batch: Mapping[str, Any]) -> tuple[int, int, float]:
        """Return sums: logits of a vocabulary are too many to keep."""
        return count_agreement(teacher, student)

    def fidelity(self, batches: Sequence[tuple[int, int, float]], labels: Tensor | None) -> dict[str, Any]:
        """Return `agreement` and `kl` over the masked tokens, `tokens` of them."""
        tokens, equal, kl = map(sum, zip(*batches, strict=True))
        return {"tokens": tokens, "agreement": equal / tokens, "kl": kl / tokens}


EVALUATOR = MaskedLMEvaluator()


def unigram_metrics(train: Iterable[dict], held_out: Iterable[dict], collator: MaskingCollator) -> Metrics:
    """Return perplexity and accuracy of a model that knows the token frequencies of the training set alone.

    A teacher whose scores are close to these has not learnt the language.
    """
    frequencies = token_frequencies(train, count_ids(collator.tokenizer))
    frequencies[list(collator.tokenizer.all_special_ids)] = 0  # they are never masked
    logs = np.log(np.maximum(frequencies, 1e-12) / frequencies.sum())
    labels = np.concatenate([_masked_tokens(collator, row) for row in held_out])
    loss = float(-logs[labels].mean())
    return {
        "loss": loss,
        "perplexity": math.exp(loss),
        "accuracy": float((labels == frequencies.argmax()).mean()),
    }


def _masked_tokens(collator: MaskingCollator, row: dict) -> np.ndarray:
    labels = collator([row])["labels"].numpy()
    return labels[labels != -100]


def _metrics(outputs: EvalPrediction) -> Metrics:
    sums: Any = outputs.predictions
    loss, correct, tokens = sums.sum(0).tolist()
    loss = loss / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": correct / tokens}
