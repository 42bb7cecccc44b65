"""Teacher and student answering: plain, and compiled."""

from __future__ import annotations

import torch
from transformers import BertForSequenceClassification

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import Workload


@torch.inference_mode()
def run_inference(turns: StepGate, work: Workload, role: str, compiled: bool = False) -> None:
    """Forwards of a classifier of the teacher's or the student's depth."""
    student, teacher = work.models()
    config = teacher.config
    config.num_hidden_layers = (
        len(student.distilbert.transformer.layer) if role == "student" else config.num_hidden_layers
    )
    model = BertForSequenceClassification(config).to(work.device).eval()
    if compiled:
        model.compile()
    ids = torch.tensor([row["input_ids"] for row in work.rows(work.batch)], device=work.device)
    while True:
        turns()
        with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
            model(input_ids=ids)
