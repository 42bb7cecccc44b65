"""A process of two, whose teacher reads other tokens than its student; writes the losses of its steps."""

from pathlib import Path

from datasets import Dataset, DatasetDict

from distil_nlp.data import load_task
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.pkd import PKD
from distil_nlp.losses.similarity import SimilarityPreserving
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.tasks import Task
from distil_nlp.teachers.frozen import FrozenTeacher
from tests.helpers import byte_pairs, tiny
from tests.helpers.training import curve, trainer
from tests.helpers.worker import write_results

TEXTS = [f"{text} {word}" for word in ("the", "a zebra", "fish naïve 🙂 fish") for text in tiny.SENTENCES][:11]


def rows(*further, max_length=32):
    """Return eleven ragged rows, with an encoding by each further tokenizer."""
    texts = Dataset.from_dict({"text": TEXTS, "label": [i % 3 for i in range(len(TEXTS))]})
    splits = DatasetDict({"train": texts, "validation": texts})
    encodings = {f"teacher{number + 1 if number else ''}_": one for number, one in enumerate(further)}
    task = Task("classification", ("text",))
    return load_task(splits, tiny.tokenizer(), task, max_length=max_length, encodings=encodings).split.train


def terms():
    """Return terms on outputs, on first and on all tokens, and on relations between rows."""
    return [SoftTargetKL(2.0), HardLabel(1.0), PKD(1.0), HiddenCosine(1.0), SimilarityPreserving(1.0)]


def new(folder: Path, teacher=None, source=None, **arguments):
    """Return a trainer of a BERT student and a RoBERTa teacher over eleven rows, twice."""
    further = (byte_pairs.tokenizer(),)
    teacher = source or FrozenTeacher(teacher or byte_pairs.classifier(4, 3), "teacher_")
    fields = {"per_device_train_batch_size": 4, "max_steps": -1, "num_train_epochs": 2, "terms": terms(), **arguments}
    fields = {"rows": rows(*further), "encodings": {"teacher_": further[0]}, **fields}
    return trainer(folder, tiny.classifier(2, 3, seed=1), teacher, kind="classification", **fields)


def train(folder: Path, batch: int) -> dict:
    made = new(folder, per_device_train_batch_size=batch)
    made.train()
    return {"world_size": made.args.world_size, "curve": curve(made)}


if __name__ == "__main__":
    write_results(train)
