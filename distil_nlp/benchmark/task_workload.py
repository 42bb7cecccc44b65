"""Epochs over the rows of a task, of unequal lengths, with teacher outputs computed or cached."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel, Trainer, TrainingArguments

from distil_nlp.benchmark.interleaved import StepGate
from distil_nlp.benchmark.textbrewer import textbrewer_distiller
from distil_nlp.benchmark.trainer_steps import GateCallback
from distil_nlp.benchmark.workload import Placement, adamw, bare_arguments, update
from distil_nlp.data import TaskCollator, load_splits, load_task
from distil_nlp.data.sampling import training_order
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student, choose_layers, load_model, load_tokenizer
from distil_nlp.objective import LossTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import GLUE, Head
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training.trainer import DistillationTrainer


@dataclass(frozen=True)
class TaskWorkload(Placement):
    """Epochs over some rows of a GLUE task.

    Attributes:
        model: a folder or a name on the Hub; its head starts untrained, which costs the same.
        data: GLUE, in the layout of nyu-mll/glue.
        rows: the number of rows in an epoch.
    """

    model: str
    data: str
    task: str
    rows: int = 640
    batch: int = 32
    length: int = 128

    def load(self, rows: int | None = None) -> tuple[Dataset, Head]:
        """Return tokenised training rows, at most `rows`, and the head of the task."""
        splits = load_splits(self.data, self.task)
        data = load_task(splits, self.tokenizer(), GLUE[self.task], max_length=self.length, max_train_rows=rows)
        return data.split.train, data.head

    def tokenizer(self) -> Any:
        return load_tokenizer(self.model)

    def models(self, head: Head) -> tuple[PreTrainedModel, PreTrainedModel]:
        """Return (student, teacher)."""
        torch.manual_seed(0)
        teacher = load_model(self.model, head, new_head=True)
        student, _ = build_student(teacher, choose_layers("every_other", teacher.config.num_hidden_layers, None))
        return self.place(student, teacher)

    def arguments(self, **changes: Any) -> TrainingArguments:
        fields = {
            "per_device_eval_batch_size": self.batch,
            "num_train_epochs": 1000,
            "learning_rate": 1e-4,
            "train_sampling_strategy": "group_by_length",
        }
        return bare_arguments(self.batch, self.device, self.bf16, **{**fields, **changes})


def task_trainer(
    work: TaskWorkload,
    terms: Sequence[LossTerm],
    rows: Dataset,
    head: Head,
    callback: GateCallback,
    cache: CacheConfig | None = None,
    **arguments: Any,
) -> DistillationTrainer:
    """Return a trainer that distils the workload's models with these terms, on these rows."""
    student, teacher = work.models(head)
    return DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(terms, head.kind),
        cache=cache,
        args=work.arguments(**arguments),
        train_dataset=rows,
        data_collator=TaskCollator(work.tokenizer(), head.kind),
        callbacks=[callback],
    )


def run_finetuning(gate: StepGate, work: TaskWorkload) -> None:
    """Take epochs of plain `Trainer` on labels only: the same student, rows and sampling, no teacher."""
    rows, head = work.load(work.rows)
    student, _ = work.models(head)
    collator = DataCollatorWithPadding(work.tokenizer())
    Trainer(student, work.arguments(), collator, rows, callbacks=[GateCallback(gate, "epoch")]).train()


def run_distillation(gate: StepGate, work: TaskWorkload, cached: bool = False, attention: bool = False) -> None:
    """Take epochs with soft targets, hard labels and the cosine of all layers; with attention maps if chosen."""
    rows, head = work.load(work.rows)
    terms = [SoftTargetKL(1.0, 2.0), HardLabel(1.0), HiddenCosine(1.0, "uniform")]
    if attention:
        terms.append(AttentionKL(1.0))
    cache = CacheConfig(tempfile.mkdtemp(prefix="benchmark-")) if cached else None
    task_trainer(work, terms, rows, head, GateCallback(gate, "epoch"), cache).train()


def run_textbrewer_task(gate: StepGate, work: TaskWorkload) -> None:
    """Take epochs of TextBrewer, which cannot group rows by length: they are shuffled, as in its examples."""
    rows, head = work.load(work.rows)
    student, teacher = work.models(head)
    student.train()
    depths = {"layer_T": teacher.config.num_hidden_layers, "layer_S": student.config.num_hidden_layers}
    distiller = textbrewer_distiller(teacher, student, work.device, depths | {"weight": 1.0})
    optimizer = adamw(student)
    rows = rows.remove_columns("length")
    loader = DataLoader(rows, work.batch, shuffle=True, collate_fn=DataCollatorWithPadding(work.tokenizer()))
    while True:
        gate()
        for batch in loader:
            with work.autocast():
                loss, _ = distiller.train_on_batch(dict(batch), {})
            update(student, optimizer, loss, max_norm=1.0)


def workload_padding(work: TaskWorkload) -> float:
    """Return the padding fraction of an epoch over the whole task, batched as `group_by_length` does."""
    rows, _ = work.load()
    order: Any = training_order(rows, work.arguments())  # never row order
    return padding_fraction([rows["length"][i] for i in order(0)], work.batch)


def padding_fraction(lengths: Sequence[int], batch: int) -> float:
    """Return padding positions ÷ all positions, where each batch is as long as its longest row."""
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return 1 - sum(lengths) / sum(len(rows) * max(rows) for rows in batches)
