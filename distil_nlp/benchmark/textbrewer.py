"""TextBrewer's `GeneralDistiller` (arXiv:2002.12620) on the same models, batches and terms, where it is installed."""

from __future__ import annotations

import tempfile
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import MAX_GRAD_NORM, TEMPERATURE, WEIGHTS, Workload, adamw, update


def run_textbrewer(gate: StepGate, work: Workload) -> None:
    """Take steps as TextBrewer's own loop does, which can only be stopped at checkpoints."""
    student, teacher = work.models()
    student.train()
    match = {"layer_T": work.size.layers, "layer_S": student.config.num_hidden_layers}
    distiller = textbrewer_distiller(teacher, student, work.device, match | {"weight": WEIGHTS["hidden_cosine"]})
    optimizer = adamw(student)
    batches = work.batches()
    while True:
        gate()
        batch = next(batches)
        batch.pop("token_type_ids", None)
        with work.autocast():
            loss, _ = distiller.train_on_batch(batch, {})
        update(student, optimizer, loss, MAX_GRAD_NORM)


def textbrewer_distiller(teacher: PreTrainedModel, student: PreTrainedModel, device: str, match: dict[str, Any]) -> Any:
    """Return a `GeneralDistiller` with soft targets, hard labels and the cosine of matched hidden states."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    folder = tempfile.mkdtemp(prefix="textbrewer-")
    config = DistillationConfig(
        temperature=TEMPERATURE,
        kd_loss_weight=WEIGHTS["soft_target_kl"],
        hard_label_weight=WEIGHTS["hard_label"],
        intermediate_matches=[{"feature": "hidden", "loss": "cos", **match}],
    )
    training = TrainingConfig(device=device, log_dir=folder, output_dir=folder)
    for model in (student, teacher):
        model.config.output_hidden_states = True
    return GeneralDistiller(training, config, teacher, student, _adapt, _adapt)


def _adapt(batch: Any, output: Any) -> dict[str, Any]:
    """Return the values that TextBrewer reads of a model's output."""
    values = {"logits": (output.logits,), "hidden": output.hidden_states, "inputs_mask": batch["attention_mask"]}
    return values if output.loss is None else {**values, "losses": (output.loss,)}
