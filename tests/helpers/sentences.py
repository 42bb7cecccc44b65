"""Tiny sentence encoders, their folders, texts, and a trainer around them."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertModel, PreTrainedModel, TrainingArguments

from distil_nlp.data.embedding import EmbeddingCollator
from distil_nlp.models import save_sentence_encoder
from distil_nlp.models.sentence_encoder import SETTINGS, sentence_encoder_class
from distil_nlp.models.sentence_folder import VectorSettings
from distil_nlp.objective.objective import Objective
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.training import text_rows

ST_RECIPE = """
teacher: {name: TEACHER}
data: {path: DATA, task: embedding, text_columns: [sentence1, sentence2], label_column: score, max_length: 32}
objective:
  embedding_cosine: {weight: 1.0}
  embedding_similarity_kl: {weight: 1.0}
  hidden_cosine: {weight: 1.0}
  attention_kl: {weight: 1.0}
training:
  per_device_train_batch_size: 4
  num_train_epochs: 1
  logging_steps: 2
  save_steps: 2
  use_cpu: true
  disable_tqdm: true
evaluation: {efficiency: off}
"""


def sentence_encoder(num_layers: int, seed: int = 0, *, settings: Any = None, **changes: Any) -> PreTrainedModel:
    """Return a tiny sentence encoder with weights by seed; settings are those of `VectorSettings`."""
    config = tiny.bert_config(num_layers, **changes)
    vectors = {"dimension": config.hidden_size, "has_pooler": True} | (settings or {})
    setattr(config, SETTINGS, VectorSettings(**vectors).to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sentence_encoder_class(BertModel)(config).eval()


def save_teacher(folder: Path, **options: Any) -> PreTrainedModel:
    """Write a teacher as a sentence-transformers folder, with its tokenizer; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = sentence_encoder(4, **options)
    save_sentence_encoder(model, model.state_dict(), folder)
    tiny.tokenizer().save_pretrained(folder)
    return model


def pairs(count: int = 24) -> Dataset:
    """Return pairs of texts with scores from 0 to 5, ragged, some of whose words are in both texts."""
    words = ["cat", "dog", "bird", "fish", "tree", "house", "river", "stone"]
    first = [f"the {words[i % 8]} sees {'a big ' * (i % 3)}{words[(i + 1) % 8]} ." for i in range(count)]
    second = [f"the {words[(i + i % 2) % 8]} finds a {words[(i + 3) % 8]} {words[i % 7]}" for i in range(count)]
    return Dataset.from_dict({"sentence1": first, "sentence2": second, "score": [float(i % 6) for i in range(count)]})


def embedding_trainer(
    folder: Path,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    terms: Any,
    *,
    cache: Any = None,
    callbacks: Any = None,
    rows: Any = None,
    **arguments: Any,
) -> DistillationTrainer:
    """Return a trainer on the CPU, by default with three steps of eight ragged texts."""
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
    return DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective(terms, "embedding"),
        args=TrainingArguments(str(folder), **{**defaults, **arguments}),
        train_dataset=rows or text_rows(),
        data_collator=EmbeddingCollator(tiny.tokenizer()),
        cache=cache,
        callbacks=callbacks,
    )
