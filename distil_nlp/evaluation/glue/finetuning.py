"""Fine-tuning of an encoder on a task with a seed."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments

from distil_nlp.data import TaskCollator, TaskData, labelled_rows
from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.encoder import Encoder
from distil_nlp.evaluation.glue.processes import on_cpu
from distil_nlp.evaluation.glue.settings import FinetuningSettings
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.models import load_model
from distil_nlp.objective.objective import Objective
from distil_nlp.training.fit import fit
from distil_nlp.training.trainer import DistillationTrainer

MODEL_FOLDER = "model"
CHECKPOINT_STEPS = 2000
"""Steps between checkpoints. Shorter fine-tunings write none: starting again costs less than saving."""
_MEMORY_REMEDY = "lower --batch-size or --max-length, or add --bf16"


def finetune(
    encoder: Encoder,
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    settings: FinetuningSettings,
    seed: int,
    folder: Path,
) -> PreTrainedModel:
    """Train the encoder with a new head on a task's labels; return the model, read back from `folder/model`.

    An unfinished fine-tuning resumes from its last checkpoint.
    """
    rows, head = labelled_rows(data.split.train), data.head
    args = _arguments(settings, seed, folder, len(rows))
    with args.main_process_first(desc="folder"):
        folder.mkdir(parents=True, exist_ok=True)
    set_seed(seed)
    trainer = DistillationTrainer(
        model=encoder.with_head(head).train(),
        args=args,
        objective=Objective([HardLabel()], data.kind),
        train_dataset=rows,
        data_collator=TaskCollator(tokenizer, data.kind),
    )
    trainer.remove_callback(PrinterCallback)
    fit(trainer, folder / MODEL_FOLDER, tokenizer, memory_remedy=_MEMORY_REMEDY)
    return load_model(str(folder / MODEL_FOLDER), head)


def _arguments(settings: FinetuningSettings, seed: int, folder: Path, rows: int) -> TrainingArguments:
    """Return training arguments. The batch is divided among the processes, so that their number changes no score.

    Raises:
        UserError: if the batch cannot be divided equally.
    """
    processes = PartialState().num_processes
    if settings.batch_size % processes:
        raise UserError(
            "--batch-size",
            f"a multiple of the {processes} processes",
            str(settings.batch_size),
            why="they share each batch",
            fix="choose another one",
        )
    steps = settings.max_steps or math.ceil(math.ceil(rows / settings.batch_size) * settings.epochs)
    return TrainingArguments(
        str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size // processes,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=settings.bf16,
        use_cpu=on_cpu(),
        seed=seed,
        save_strategy="steps" if steps > CHECKPOINT_STEPS else "no",
        save_steps=CHECKPOINT_STEPS,
        save_total_limit=2,
        logging_steps=50,
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
