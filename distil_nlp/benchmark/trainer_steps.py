"""`DistillationTrainer` as it is, data loading, clipping and logging included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import TEMPERATURE, WEIGHTS, Workload
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import LossTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.training.trainer import DistillationTrainer


class GateCallback(TrainerCallback):
    """A `Trainer` that stops after each step (or epoch) until its turn comes."""

    def __init__(self, turns: StepGate, each: str = "step"):
        self.turns, self.each = turns, each

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.turns()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self.each == "step":
            self.turns()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        if self.each == "epoch":
            self.turns()


def distillation_trainer(
    work: Workload,
    callbacks: Sequence[TrainerCallback],
    rows: str | float = "masked",
    attention: Sequence[tuple[int, int]] = (),
    **arguments: Any,
) -> DistillationTrainer:
    """With DistilBERT's objective, the KL on these rows, and attention maps of some layers if named."""
    student, teacher = work.models()
    found: list[LossTerm] = [
        SoftTargetKL(WEIGHTS["soft_target_kl"], TEMPERATURE, rows),
        HardLabel(WEIGHTS["hard_label"]),
        HiddenCosine(WEIGHTS["hidden_cosine"], "last"),
    ]
    if attention:
        found.append(AttentionKL(1.0, list(attention)))
    return DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(found, "mlm"),
        args=work.arguments(**arguments),
        train_dataset=work.rows(64 * work.batch),
        data_collator=work.collator(),
        callbacks=callbacks,
    )


def run_trainer(turns: StepGate, work: Workload, compiled: bool = False, **how: Any) -> None:
    """Steps, each in its turn."""
    distillation_trainer(work, [GateCallback(turns)], torch_compile=compiled, **how).train()
