"""A folder with a tiny teacher, data and a recipe, and whole runs in it."""

from __future__ import annotations

import json
import shutil

from datasets import ClassLabel, Dataset

from distil_nlp.cli import distill
from distil_nlp.results import schema_mismatches
from tests.helpers import tiny

RECIPE = """
teacher: {name: TEACHER, folder: TEACHERS}
data: {path: DATA, task: classification, text_columns: [text], max_length: 32}
objective:
  soft_target_kl: {weight: 1.0}
  hard_label: {weight: 1.0}
  hidden_cosine: {weight: 1.0}
  attention_kl: {weight: 1.0}
training:
  per_device_train_batch_size: 4
  num_train_epochs: 1
  logging_steps: 2
  save_steps: 2
  train_sampling_strategy: group_by_length
  use_cpu: true
  disable_tqdm: true
evaluation: {efficiency: off}
run: {accept_weak_teacher: true}
"""


class Place:
    """A folder with a teacher, data, a recipe, and a way to run it."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "run"
        words = ["the", "a", "cat", "dog", "bird", "fish"]
        self.texts = [f"{text} {word}" for text in tiny.SENTENCES for word in words]

    def teacher(self, model):
        model.save_pretrained(self.folder / "teacher")
        tiny.tokenizer().save_pretrained(self.folder / "teacher")

    def classes(self, **columns):
        """Write rows with two named classes."""
        rows = Dataset.from_dict({"text": self.texts, "label": [i % 2 for i in range(len(self.texts))], **columns})
        rows = rows.cast_column("label", ClassLabel(names=["no", "yes"]))
        self.save({"train": rows, "validation": rows.select(range(7)), "test": rows.select(range(9))})

    def save(self, splits):
        """Write a file for each split; a text that is a training text too gets one more word in the others."""
        known = (
            set(splits["train"]["text"]) - {None}
            if "text" in getattr(splits.get("train"), "column_names", ())
            else set()
        )
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir()
        for name, rows in splits.items():
            if name != "train" and known:
                texts = [f"{text} and" if text in known and text.strip() else text for text in rows["text"]]
                rows = Dataset.from_dict({**rows.to_dict(), "text": texts}, features=rows.features)
            rows.to_parquet(self.folder / "data" / f"{name}-00000-of-00001.parquet")

    def command(self, *overrides):
        names = {"TEACHERS": "teachers", "TEACHER": "teacher", "DATA": "data"}
        text = RECIPE
        for name, folder in names.items():
            text = text.replace(name, str(self.folder / folder))
        path = self.folder / "tiny.yaml"
        path.write_text(text)
        return [str(path), f"training.output_dir={self.out}", *overrides]

    def run(self, *overrides):
        return distill(self.command(*overrides))

    @property
    def results(self):
        """The results of the run, validated against their schema."""
        results = json.loads((self.out / "results.json").read_text())
        assert schema_mismatches(results) == []
        return results

    @property
    def variants(self):
        return sorted((self.out / "variants").iterdir())

    def prepare(self):
        """Write a teacher of two classes, and rows of them."""
        model = tiny.classifier(4)
        model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
        self.folder.mkdir(exist_ok=True)
        self.teacher(model)
        self.classes()
        return self
