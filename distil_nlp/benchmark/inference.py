"""Inference of teacher and student, eager and compiled."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BertForSequenceClassification

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload


@torch.inference_mode()
def run_inference(gate: StepGate, work: Workload, role: str, compiled: bool = False) -> None:
    """Take forward passes of a classifier of the teacher's or the student's depth."""
    student, teacher = work.models()
    config: Any = teacher.config
    if role == "student":
        config.num_hidden_layers = student.config.num_hidden_layers
    device: Any = work.device  # transformers wraps `to` without its types
    model = BertForSequenceClassification(config).to(device).eval()
    if compiled:
        model.compile()
    ids = torch.tensor([row["input_ids"] for row in work.rows(work.batch)], device=work.device)
    while True:
        gate()
        with work.autocast():
            model(input_ids=ids)
