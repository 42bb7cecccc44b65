"""Ragged rows and a trainer around tiny models, for the tests of training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.data.embedding import EmbeddingCollator
from distil_nlp.data.qa_collator import QACollator
from distil_nlp.data.ranking import RankingCollator
from distil_nlp.data.tokens import TokenCollator
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import LossTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks.tags import Tags
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny


def all_terms(rows: Any = "all") -> list[LossTerm]:
    """Return terms of four kinds, with different weights and row sets."""
    return [
        SoftTargetKL(5.0, 2.0, rows),
        HardLabel(2.0),
        HiddenCosine(1.0),
        HiddenMSE(0.5, "last"),
        AttentionKL(3.0),
        AttentionMSE(1.0, "last"),
    ]


def text_rows(count: int = 24, seed: int = 0) -> list[dict[str, list[int]]]:
    """Return token ids of ragged length, for masked language modelling."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 30, (count,), generator=generator).tolist()
    words = [torch.randint(5, len(tiny.VOCABULARY), (n,), generator=generator).tolist() for n in lengths]
    return [{"input_ids": [2, *ids, 3]} for ids in words]


def task_rows(count: int = 24, num_labels: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Return ragged pairs with segments and labels."""
    rows = text_rows(count, seed)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        row["token_type_ids"] = [0] * (length // 2) + [1] * (length - length // 2)
        row["attention_mask"] = [1] * length
        row["labels"] = i % num_labels
    return rows


def ranked_rows(count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Return ragged pairs of query and document, two documents a query, of which the second one is relevant."""
    rows = task_rows(count, seed=seed)
    return [row | {"labels": [float(i % 2), float(i // 2)]} for i, row in enumerate(rows)]


def label_set(number: int, num_labels: int = 3) -> list[float]:
    """Return a 0 or 1 for each label: the binary digits of a number, so that rows have none, some or all of them."""
    return [float(number >> i & 1) for i in range(num_labels)]


def token_rows(count: int = 24, num_labels: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Return ragged sentences with a label on two tokens of three; every fifth sentence has none."""
    rows: list[dict[str, Any]] = text_rows(count, seed)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        inner = [(i + place) % num_labels if place % 3 and i % 5 != 4 else -100 for place in range(length - 2)]
        row["attention_mask"], row["labels"] = [1] * length, [-100, *inner, -100]
        row["is_word"] = [False, *[True] * (length - 2), False]
        row["word_labels"] = [label for label in inner if label != -100]
        row["is_read"] = [True] * len(row["word_labels"])
    return rows


def span_rows(count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Return ragged windows whose second half may be an answer, and [CLS] in every other; every fifth has no label."""
    rows: list[dict[str, Any]] = text_rows(count, seed)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        first, last = length // 2, length - 2
        row["attention_mask"] = [1] * length
        row["is_allowed"] = [(i % 2 == 0 and place == 0) or first <= place <= last for place in range(length)]
        row["labels"] = [-100, -100] if i % 5 == 4 else [first + i % (last - first + 1), last]
    return rows


def collator_of(kind: str, num_labels: int = 3, encodings: Any = None) -> Any:
    """Return the collator of a kind of task, for the rows of these helpers."""
    if kind == "mlm":
        return MaskingCollator(tiny.tokenizer(), seed=7)
    if kind == "embedding":
        return EmbeddingCollator(tiny.tokenizer())
    if kind == "ranking":
        return RankingCollator(tiny.tokenizer(), group_size=2)
    if kind == "tokens":
        return TokenCollator(tiny.tokenizer(), Tags(("O", "B-one", "I-one", "B-two")[:num_labels]))
    if kind == "qa":
        return QACollator(tiny.tokenizer())
    return TaskCollator(tiny.tokenizer(), kind, encodings=encodings or {})


def trainer(
    folder: Path,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    terms: Sequence[LossTerm] | None = None,
    *,
    kind: str = "mlm",
    rows: Any = None,
    eval_rows: Any = None,
    compute_metrics: Any = None,
    callbacks: Any = None,
    cache: Any = None,
    gradients_every: int | None = None,
    balance: Any = None,
    changes: dict[str, Any] | None = None,
    extensions: Sequence[Any] = (),
    encodings: Any = None,
    **arguments: Any,
) -> DistillationTrainer:
    """Return a trainer on the CPU, by default with three steps of eight rows.

    Args:
        changes: augmentation of rows, and kernels.
        extensions: of the training; those that are None are left out.
        encodings: tokenizers of further encodings of the rows.
    """
    defaults = {
        "per_device_train_batch_size": 8,
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 7,
    }
    makers = {"mlm": text_rows, "embedding": text_rows, "tokens": token_rows, "ranking": ranked_rows, "qa": span_rows}
    drawn = makers.get(kind, task_rows)
    return DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(list(terms or all_terms()), kind, balance),
        args=TrainingArguments(str(folder), **{**defaults, **arguments}),
        train_dataset=rows if rows is not None else drawn(),
        eval_dataset=eval_rows,
        data_collator=collator_of(kind, encodings=encodings),
        compute_metrics=compute_metrics,
        callbacks=callbacks,
        cache=cache,
        gradients_every=gradients_every,
        extensions=[one for one in extensions if one is not None],
        **(changes or {}),
    )


class StopAt(TrainerCallback):
    """Stops a run after a step, with a checkpoint."""

    def __init__(self, step: int | None):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def curve(trained: DistillationTrainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trained.state.log_history if "loss" in entry and name in entry]


def weights(trained: DistillationTrainer) -> dict[str, Any]:
    """Return copies of all weights of a trained student, as it leaves."""
    return {name: weight.detach().clone() for name, weight in trained.detach().named_parameters()}
