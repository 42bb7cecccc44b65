"""Steps of `DistillationTrainer` as it ships, data loading, clipping and logging included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import TEMPERATURE, WEIGHTS, Workload
from distil_nlp.kernels.fallback import Kernels
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import LossTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.training.trainer import DistillationTrainer


class GateCallback(TrainerCallback):
    """Make a `Trainer` wait at the gate before the first step and after each step or epoch."""

    def __init__(self, gate: StepGate, each: str = "step"):
        self.gate, self.each = gate, each

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.gate()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.each == "step":
            self.gate()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.each == "epoch":
            self.gate()


def distillation_trainer(
    work: Workload,
    callbacks: Sequence[TrainerCallback],
    rows: Any = "masked",
    attention: Sequence[tuple[int, int]] = (),
    kernels: Kernels = "torch",
    **arguments: Any,
) -> DistillationTrainer:
    """Return a trainer with DistilBERT's objective, the KL on `rows`, and attention maps of some layers if named."""
    student, teacher = work.models()
    terms: list[LossTerm] = [
        SoftTargetKL(WEIGHTS["soft_target_kl"], TEMPERATURE, rows),
        HardLabel(WEIGHTS["hard_label"]),
        HiddenCosine(WEIGHTS["hidden_cosine"], "last"),
    ]
    if attention:
        terms.append(AttentionKL(1.0, list(attention)))
    return DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(terms, "mlm"),
        args=work.arguments(**arguments),
        train_dataset=work.rows(64 * work.batch),
        data_collator=work.collator(),
        callbacks=callbacks,
        kernels=kernels,
    )


def run_trainer(gate: StepGate, work: Workload, compiled: bool = False, **options: Any) -> None:
    """Take steps of `distillation_trainer(**options)`."""
    distillation_trainer(work, [GateCallback(gate)], torch_compile=compiled, **options).train()
