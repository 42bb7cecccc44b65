"""A process of two, whose student learns from answers in the rows; writes the losses of its steps."""

from pathlib import Path

from distil_nlp.data.row_sets import ANSWERS
from distil_nlp.losses.decoupled_kd import DecoupledKD
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.teachers.answers import AnswersTeacher
from tests.helpers import tiny
from tests.helpers.training import curve, task_rows, trainer
from tests.helpers.worker import write_results

NAN = float("nan")
NO_ANSWER = [NAN, NAN, NAN]


def answered_rows(count: int = 11) -> list:
    """Return rows of three classes; some without an answer, some without a label, one without either."""
    rows = task_rows(count, 3)
    for i, row in enumerate(rows):
        row[ANSWERS] = NO_ANSWER if i % 4 == 1 else [float(i % 5) - 1, 0.5 * (i % 3), -0.25 * i]
        row["labels"] = -100 if i % 5 == 1 else row["labels"]
    return rows


def train(folder: Path, batch: int, accumulation: int = 1, epochs: int = 3, **arguments) -> dict:
    """Return the losses of some epochs over eleven rows, shuffled anew each epoch."""
    student = tiny.classifier(2, 3, seed=1)
    arguments = {"rows": answered_rows(), "max_steps": -1, "num_train_epochs": epochs} | arguments
    made = trainer(
        folder,
        student,
        AnswersTeacher(student.config),
        [SoftTargetKL(1.0, 3.0), DecoupledKD(0.5), HardLabel(0.5)],
        kind="classification",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        **arguments,
    )
    made.train()
    names = ("loss", "soft_target_kl", "decoupled_kd", "hard_label")
    return {"world_size": made.args.world_size, "curves": {name: curve(made, name) for name in names}}


if __name__ == "__main__":
    write_results(train)
