"""The evaluation loop of `DistillationTrainer`: exact means of all terms over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from distil_nlp.data.kinds import data_module
from distil_nlp.losses.hard_labels import MaskedAccuracy
from distil_nlp.objective import OutputTerm
from distil_nlp.training.meter import Meter

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer

    from distil_nlp.objective.objective import Objective
    from distil_nlp.teachers.source import TeacherSource
    from distil_nlp.training.teacher_student import TeacherStudent
else:
    _Trainer = object  # a mixin, of a trainer for a type checker alone


@dataclass(frozen=True)
class BatchMetrics:
    """A metrics function of `Trainer` on sums of each row, for logits of tokens, whose number differs from row to row.

    Attributes:
        outputs: (logits in fp32, batch) → (predictions, labels) of its rows, which are gathered instead of the logits.
        metrics: gathered predictions and labels → metrics.
    """

    outputs: Callable[[Tensor, Mapping[str, Any]], tuple[np.ndarray, np.ndarray]]
    metrics: Callable[[EvalPrediction], dict[str, float]]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        return self.metrics(prediction)


class ExactEvaluation(_Trainer):
    """A mixin for `transformers.Trainer` whose evaluation gives Σ ÷ rows of each term, not a mean of batch means.

    It reads `objective`, `teacher_student` and `source` of the trainer.
    """

    objective: Objective
    source: TeacherSource
    teacher_student: TeacherStudent
    _require_hooks: Callable[[], None]
    _eval_meter: Meter

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        *args: Any,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> EvalLoopOutput:
        """Run `Trainer`'s loop; add the exact loss and terms, Σ ÷ rows over all batches and processes."""
        self._require_hooks()
        size = len(self.objective.terms) + len(self._extra_terms)
        self._eval_meter = Meter(size, self.args.device, counted=True)
        self.source.to(self.args.device)
        kwargs["metric_key_prefix"] = metric_key_prefix
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        means = self._eval_meter.read(self.accelerator)
        terms = dict(zip(self.objective.names, means, strict=False))
        weights = self.objective.weights(1.0)  # where schedules end, so that all evaluations compare
        weighted = [weight * value for weight, value in zip(weights, terms.values(), strict=True)]
        loss = sum(value for value in weighted if not math.isnan(value))
        absent = {term.name for term in self.objective.terms if term.compares_passes}  # evaluation has one pass
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in terms.items() if name not in absent}
        if self._extra_terms:
            metrics[f"{metric_key_prefix}_perplexity"] = math.exp(min(terms["hard_label"], 700.0))
            metrics[f"{metric_key_prefix}_accuracy"] = means[-1]
        metrics[f"{metric_key_prefix}_loss"] = loss
        return output._replace(metrics={**(output.metrics or {}), **metrics})

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor | None, Tensor | None]:
        """Add the batch to the exact sums; return (None, logits, labels), without both for language modelling.

        Where `compute_metrics` is a `BatchMetrics`, its outputs are returned instead.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            factors = torch.zeros(len(self.objective.terms), device=self.args.device)
            _, sums, student = self.teacher_student.compute(model, inputs, 1.0, factors, self._extra_terms)
        counts = [
            *self.objective.counts(inputs["rows"]),
            *(len(inputs["rows"][term.counted_rows()]) for term in self._extra_terms),
        ]
        self._eval_meter.add(sums, sums.new_tensor(counts))
        if prediction_loss_only or student.logits is None:
            return None, None, None
        if isinstance(self.compute_metrics, BatchMetrics):
            predictions, own_labels = self.compute_metrics.outputs(student.logits.detach().float(), inputs)
            device = self.args.device
            return None, torch.from_numpy(predictions).to(device), torch.from_numpy(own_labels).to(device)
        if not self.objective.kind.has_row_outputs:
            return None, None, None
        labels = inputs.get("labels")
        if labels is None:  # `Trainer` gathers labels of unlabelled batches too
            unlabelled = data_module(self.objective.kind).LABELS.unlabelled(*student.logits.shape)
            labels = torch.from_numpy(unlabelled).to(student.logits.device)
        return None, student.logits.detach(), labels

    @property
    def _extra_terms(self) -> list[OutputTerm]:
        """Terms of evaluation alone: the accuracy on masked tokens, where a term reads their labels."""
        has_labels = "hard_label" in self.objective.names
        return [MaskedAccuracy(self.objective.kind)] if self.objective.kind.predicts_words and has_labels else []
