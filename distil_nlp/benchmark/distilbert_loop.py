"""Distillation as DistilBERT's authors' code does it: the reference loop that others are compared with.

Logits of all tokens for both models, copies of those that count, all hidden states, eager attention, the loss read at
each step (huggingface/transformers, research project `distillation`, its `Distiller.step`; written anew for
transformers 5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import MAX_GRAD_NORM, TEMPERATURE, WEIGHTS, Workload, adamw, update


def run_distilbert_loop(gate: StepGate, work: Workload, only_masked: bool = False, attention: str = "eager") -> None:
    """Take steps of the reference loop; `only_masked` takes the KL on masked tokens (its `restrict_ce_to_mask`)."""
    student, teacher = work.models(attention)
    student.train()
    optimizer = adamw(student)
    batches = work.batches()
    while True:
        gate()
        batch = {name: value.to(work.device) for name, value in next(batches).items()}
        with work.autocast():
            loss = reference_loss(student, teacher, batch, only_masked)
        loss.item()
        update(student, optimizer, loss, MAX_GRAD_NORM)


def reference_loss(
    student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], only_masked: bool = False
) -> Tensor:
    """Return 5 · T² · KL + 2 · cross-entropy of masked tokens + 1 · (1 − cos) of last hidden states, each a mean."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    student_outputs = student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        teacher_outputs = teacher(**inputs, output_hidden_states=True)
    outputs = (student_outputs, teacher_outputs)
    attended, labels = batch["attention_mask"].bool(), batch["labels"]
    counted = labels > -1 if only_masked else attended
    student_logits, teacher_logits = (_selected(output.logits, counted) for output in outputs)
    soft = F.kl_div(
        F.log_softmax(student_logits / TEMPERATURE, dim=-1),
        F.softmax(teacher_logits / TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    loss = WEIGHTS["soft_target_kl"] * soft * TEMPERATURE**2
    all_logits = student_outputs.logits
    hard = F.cross_entropy(all_logits.view(-1, all_logits.size(-1)), labels.view(-1), ignore_index=-100)
    loss = loss + WEIGHTS["hard_label"] * hard
    states = [_selected(output.hidden_states[-1], attended) for output in outputs]
    target = states[0].new_ones(states[0].size(0))
    return loss + WEIGHTS["hidden_cosine"] * F.cosine_embedding_loss(states[0], states[1], target)


def _selected(values: Tensor, counted: Tensor) -> Tensor:
    """Return a copy of the rows that count, (rows, width)."""
    mask = counted.unsqueeze(-1).expand_as(values)
    return torch.masked_select(values, mask).view(-1, values.size(-1))
