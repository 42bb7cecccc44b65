"""Distillation as DistilBERT's authors' code does it: the loop that others are measured by.

Logits of all tokens for both models, copies of those that count, all hidden states, eager attention, the loss read at
each step (huggingface/transformers, research project `distillation`, its `Distiller.step`; written anew for
transformers 5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.workload import TEMPERATURE, WEIGHTS, Workload, optimizer


def run_distilbert_loop(turns: StepGate, work: Workload, only_masked: bool = False, attention: str = "eager") -> None:
    """Steps of the reference loop; `only_masked` takes the KL on masked tokens (its option `restrict_ce_to_mask`)."""
    student, teacher = work.models(attention)
    student.train()
    optimiser = optimizer(student)
    batches = work.batches()
    while True:
        turns()
        batch = {name: value.to(work.device) for name, value in next(batches).items()}
        with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
            loss = reference_loss(student, teacher, batch, only_masked)
        loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()


def reference_loss(
    student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], only_masked: bool = False
) -> Tensor:
    """5 · T² · KL + 2 · cross-entropy of masked tokens + 1 · (1 − cos) of the last hidden states, each a mean."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ours = student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(**inputs, output_hidden_states=True)
    attended, labels = batch["attention_mask"].bool(), batch["labels"]
    counted = labels > -1 if only_masked else attended
    student_logits, teacher_logits = _selected(ours.logits, counted), _selected(theirs.logits, counted)
    soft = F.kl_div(
        F.log_softmax(student_logits / TEMPERATURE, dim=-1),
        F.softmax(teacher_logits / TEMPERATURE, dim=-1),
        reduction="batchmean",
    )
    loss = WEIGHTS["soft_target_kl"] * soft * TEMPERATURE**2
    hard = F.cross_entropy(ours.logits.view(-1, ours.logits.size(-1)), labels.view(-1), ignore_index=-100)
    loss = loss + WEIGHTS["hard_label"] * hard
    states = [_selected(one.hidden_states[-1], attended) for one in (ours, theirs)]
    target = states[0].new_ones(states[0].size(0))
    return loss + WEIGHTS["hidden_cosine"] * F.cosine_embedding_loss(*states, target)


def _selected(values: Tensor, counted: Tensor) -> Tensor:
    """The rows that count, copied, (rows, width)."""
    mask = counted.unsqueeze(-1).expand_as(values)
    return torch.masked_select(values, mask).view(-1, values.size(-1))
