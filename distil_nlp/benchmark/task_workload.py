"""The task stage: epochs over ragged rows, with and without the teacher's answers at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments

from distil_nlp.benchmark import textbrewer as brewer
from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.trainer_steps import GateCallback
from distil_nlp.benchmark.workload import bare_arguments, optimizer
from distil_nlp.data import TaskCollator, load_splits, load_task
from distil_nlp.data.sampling import training_order
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student, choose_layers, load_model, load_tokenizer
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import GLUE, Head
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training.trainer import DistillationTrainer


@dataclass(frozen=True)
class TaskWorkload:
    """Epochs over some rows of a GLUE task.

    Attributes:
        model: a folder or a name on the Hub; its head starts untrained, which costs the same.
        data: GLUE, in the layout of nyu-mll/glue.
        rows: of an epoch.
    """

    model: str
    data: str
    task: str
    rows: int = 640
    batch: int = 32
    length: int = 128
    device: str = "cpu"
    bf16: bool = False

    def load(self, rows: int | None = None) -> tuple[Dataset, Head]:
        """Tokenised training rows."""
        splits = load_splits(self.data, self.task)
        found = load_task(splits, self.tokenizer(), GLUE[self.task], max_length=self.length, max_train_rows=rows)
        return found.split.train, found.head

    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    def models(self, head: Head) -> tuple[PreTrainedModel, PreTrainedModel]:
        """(student, teacher)."""
        torch.manual_seed(0)
        teacher = load_model(self.model, head, new_head=True)
        student, _ = build_student(teacher, choose_layers("every_other", teacher.config.num_hidden_layers, None))
        teacher = teacher.to(self.device, torch.bfloat16 if self.bf16 else torch.float32)
        return student.to(self.device), teacher.requires_grad_(False)

    def arguments(self, **changes: Any) -> TrainingArguments:
        fields = {
            "per_device_eval_batch_size": self.batch,
            "num_train_epochs": 1000,
            "learning_rate": 1e-4,
            "train_sampling_strategy": "group_by_length",
        }
        return bare_arguments(self.batch, self.device, self.bf16, **{**fields, **changes})


def run_finetuning(turns: StepGate, work: TaskWorkload) -> None:
    """Plain `Trainer` on the labels alone: the same student, rows and sampling, no teacher."""
    rows, head = work.load(work.rows)
    student, _ = work.models(head)
    collator = DataCollatorWithPadding(work.tokenizer())
    Trainer(student, work.arguments(), collator, rows, callbacks=[GateCallback(turns, "epoch")]).train()


def run_distillation(turns: StepGate, work: TaskWorkload, cached: bool = False, attention: bool = False) -> None:
    """Soft targets, hard labels and the cosine of all layers; attention maps if asked for."""
    rows, head = work.load(work.rows)
    student, teacher = work.models(head)
    terms = [SoftTargetKL(1.0, 2.0), HardLabel(1.0), HiddenCosine(1.0, "uniform")]
    DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective([*terms, *([AttentionKL(1.0)] if attention else [])], head.kind),
        cache=CacheConfig(tempfile.mkdtemp(prefix="benchmark-")) if cached else None,
        args=work.arguments(),
        train_dataset=rows,
        data_collator=TaskCollator(work.tokenizer(), head.kind),
        callbacks=[GateCallback(turns, "epoch")],
    ).train()


def run_textbrewer_task(turns: StepGate, work: TaskWorkload) -> None:
    """TextBrewer, which knows no grouping by length: rows are shuffled, as its examples do."""
    rows, head = work.load(work.rows)
    student, teacher = work.models(head)
    student.train()
    depths = {"layer_T": teacher.config.num_hidden_layers, "layer_S": student.config.num_hidden_layers}
    brewery = brewer.textbrewer_distiller(teacher, student, work.device, depths | {"weight": 1.0})
    optimiser = optimizer(student)
    rows = rows.remove_columns("length")
    loader = DataLoader(rows, work.batch, shuffle=True, collate_fn=DataCollatorWithPadding(work.tokenizer()))
    while True:
        turns()
        for batch in loader:
            with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
                loss, _ = brewery.train_on_batch(dict(batch), {})
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()


def workload_padding(work: TaskWorkload) -> float:
    """Of an epoch's tokens over the whole task, as `group_by_length` batches them."""
    rows, _ = work.load()
    order = training_order(rows, work.arguments())(0)
    return padding_fraction([rows["length"][i] for i in order], work.batch)


def padding_fraction(lengths: Sequence[int], batch: int) -> float:
    """Filled-up places ÷ all places, where each batch is as long as its longest row."""
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return 1 - sum(lengths) / sum(len(one) * max(one) for one in batches)
