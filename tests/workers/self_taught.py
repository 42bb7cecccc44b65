"""A process of two, whose student teaches itself; writes the losses of its steps."""

from pathlib import Path

from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy
from distil_nlp.teachers.averaged import CheckpointMeanTeacher, EMATeacher
from distil_nlp.teachers.last_epoch import LastEpochTeacher
from tests.helpers import tiny
from tests.helpers.training import curve, task_rows, trainer
from tests.helpers.worker import write_results

SOURCES = {"last_epoch": LastEpochTeacher, "ema": EMATeacher, "checkpoints": CheckpointMeanTeacher}


def train(folder: Path, kind: str, batch: int) -> dict:
    """Return the losses of three epochs over eleven rows, shuffled anew each epoch."""
    student = tiny.classifier(2, 3, seed=1)
    source = SOURCES[kind](student.config if kind == "last_epoch" else student)
    made = trainer(
        folder,
        student,
        source,
        [SoftTargetCrossEntropy()],
        kind="classification",
        rows=task_rows(11, 3),
        per_device_train_batch_size=batch,
        max_steps=-1,
        num_train_epochs=3,
    )
    made.train()
    return {"world_size": made.args.world_size, "curve": curve(made)}


if __name__ == "__main__":
    write_results(train)
