"""A training with modules beside the student, in this process or in one of several that torchrun started."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.data import TaskCollator
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.joint import JOINT_SCHEMES
from distil_nlp.pipeline.joint.base import JointScheme
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.gradients import Steps
from tests.helpers.training import curve, task_rows
from tests.helpers.worker import end

SETTINGS: dict[str, Any] = {
    "exits": {"after": [1, 2], "alpha": 0.3, "hint": 0.01},
    "peers": {"models": [{}, {"num_layers": 2}], "weight": 0.7, "temperature": 2.0, "ramp": "linear"},
    "branches": {"models": 3, "blocks": 1, "weight": 0.7, "temperature": 2.0},
}


def scheme_of(name: str) -> JointScheme:
    return JOINT_SCHEMES[name](StudentSection(num_layers=3, **{name: SETTINGS[name]}))


def models(labels: int, **changes: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return student and teacher, whose weights are large enough for their outputs to differ."""
    student, teacher = (tiny.classifier(n, labels, seed=n, initializer_range=0.2, **changes) for n in (3, 4))
    return student, teacher


def rows(kind: str) -> list[dict[str, Any]]:
    """Return ragged rows, every third without a label."""
    found = task_rows(24, 3)
    unknown = float("nan") if kind == "regression" else -100
    known = float if kind == "regression" else int
    return [row | {"labels": unknown if i % 3 == 1 else known(row["labels"])} for i, row in enumerate(found)]


def train(
    folder: Path,
    name: str,
    *,
    kind: str = "classification",
    callbacks: Any = None,
    dropout: float = 0.0,
    resume: bool = False,
    **arguments: Any,
) -> tuple[DistillationTrainer, JointScheme]:
    """Train a student of three blocks by a scheme; return the trainer, not yet detached, and the scheme."""
    labels = 1 if kind == "regression" else 3
    student, teacher = models(labels, hidden_dropout_prob=dropout)
    scheme = scheme_of(name)
    objective = Objective([SoftTargetKL(5.0, 2.0), HardLabel(2.0)], kind)
    defaults = {"per_device_train_batch_size": 8, "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3}
    defaults |= {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 7}
    run = DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=scheme.extend(objective, student, teacher, seed=3),
        args=TrainingArguments(str(folder), **{"dataloader_pin_memory": False, **defaults, **arguments}),
        train_dataset=rows(kind),
        data_collator=TaskCollator(tiny.tokenizer(), kind),
        callbacks=callbacks,
    )
    for callback in callbacks or ():
        if isinstance(callback, Steps):
            callback.watch(run)
    checkpoint = last_complete_checkpoint(folder) if resume else None
    run.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return run, scheme


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    run, _ = train(out.parent / "run", sys.argv[2], per_device_train_batch_size=4)
    names = ["loss", "grad_norm", *run.objective.names]
    found = {"world_size": run.args.world_size, "wrapper": type(run.model_wrapped).__name__}
    found["curves"] = {name: curve(run, name) for name in names}
    found["norm"] = sum(float(value.square().sum()) for value in run.model.state_dict().values())
    if int(dist.get_rank()) == 0:
        out.write_text(json.dumps(found))
    del run
    end()
