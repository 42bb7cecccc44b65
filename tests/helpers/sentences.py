"""Tiny sentence encoders, their folders, and pairs of texts."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import BertModel, PreTrainedModel

from distil_nlp.models import save_sentence_encoder
from distil_nlp.models.sentence_encoder import SETTINGS, sentence_encoder_class
from distil_nlp.models.sentence_folder import VectorSettings
from tests.helpers import tiny

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
