"""TextBrewer's `GeneralDistiller` (arXiv:2002.12620) on the same models, batches and terms, where it is installed."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import nn

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import TEMPERATURE, WEIGHTS, Workload, optimizer


def run_textbrewer(turns: StepGate, work: Workload) -> None:
    """Steps as its own loop takes them, which can only be stopped at checkpoints."""
    student, teacher = work.models()
    student.train()
    match = {"layer_T": work.size.layers, "layer_S": len(student.distilbert.transformer.layer)}
    brewer = textbrewer_distiller(teacher, student, work.device, match | {"weight": WEIGHTS["hidden_cosine"]})
    optimiser = optimizer(student)
    batches = work.batches()
    while True:
        turns()
        batch = next(batches)
        batch.pop("token_type_ids", None)
        with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
            loss, _ = brewer.train_on_batch(batch, {})
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()


def textbrewer_distiller(teacher: nn.Module, student: nn.Module, device: str, match: dict[str, Any]) -> Any:
    """A `GeneralDistiller` with soft targets, hard labels and the cosine of matched hidden states."""
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
    """What TextBrewer reads of a model's output."""
    found = {"logits": (output.logits,), "hidden": output.hidden_states, "inputs_mask": batch["attention_mask"]}
    return found if output.loss is None else {**found, "losses": (output.loss,)}
