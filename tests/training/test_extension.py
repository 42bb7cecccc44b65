"""An extension of one's own: a file that the package does not know, through a whole training and its checkpoints."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from distil_nlp.errors import UserError
from distil_nlp.training.ema import EMA
from distil_nlp.training.extension import Extension, RunningExtension
from distil_nlp.training.further_passes import FurtherPass
from distil_nlp.training.sparsity import Sparsity
from tests.helpers import tiny
from tests.helpers.training import StopAt, curve, task_rows, trainer


@dataclass(frozen=True)
class Clipping(Extension):
    """Keeps the student's weights within ±limit, and counts the steps in which it had to."""

    limit: float = 0.01

    @property
    def is_on(self):
        return self.limit > 0

    def validate(self, setup):
        if setup.is_widened:
            raise UserError("clipping", "a student that trains alone", "a wider net")

    def modules(self, setup):
        return {"gain": torch.nn.Linear(1, 1)}

    def begin(self, trainer, setup):
        return RunningClipping(self, setup.student, trainer.teacher_student.carried("gain"))


class RunningClipping(TrainerCallback, RunningExtension):
    def __init__(self, settings, student, gain):
        self.limit, self.student, self.gain = settings.limit, student, gain
        self.called, self.steps, self.is_removed = [], 0, False

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1
        for parameter in self.student.parameters():
            parameter.data.clamp_(-self.limit, self.limit)

    def logs(self, accelerator, step, progress):
        return {"clipped": float(self.steps)}

    def begin_step(self, step, max_steps):
        self.called.append("step")

    def begin_forward(self, step, progress):
        self.called.append("forward")

    def save(self, folder):
        (folder / "clipped.txt").write_text(str(self.steps))

    def load(self, folder):
        self.steps = int((folder / "clipped.txt").read_text())

    def end(self):
        self.called.append("end")

    def remove(self):
        self.is_removed = True


def new(folder, *extensions, **arguments):
    arguments = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "rows": task_rows(40), **arguments}
    student = tiny.classifier(2, 2, seed=1)
    return trainer(
        folder, student, tiny.classifier(4, 2), kind="classification", extensions=extensions,
        per_device_train_batch_size=2, gradient_accumulation_steps=2, **arguments,
    )  # fmt: skip


def test_an_extension_is_asked_at_every_place(tmp_path):
    """Prevents a hook of the seam that nobody calls."""
    made = new(tmp_path, Clipping())
    running = made.extensions.of(RunningClipping)
    assert running.gain is made.model.distillation_projections["gain"]
    made.train()
    assert running.called == ["step", "forward", "forward"] * 4 + ["end"]
    assert curve(made, "clipped") == [1, 2, 3, 4]
    assert Path(tmp_path, "checkpoint-4", "clipped.txt").read_text() == "4"
    student = made.detach()
    assert running.is_removed
    assert not hasattr(student, "distillation_projections")
    assert max(float(parameter.abs().max()) for parameter in student.parameters()) <= 0.01


@dataclass(frozen=True)
class Again(Extension):
    """Takes each micro-batch a second time, with a weight."""

    weight: float

    def begin(self, trainer, setup):
        return RunningAgain(self.weight)


class RunningAgain(RunningExtension):
    takes_further_passes = True

    def __init__(self, weight):
        self.weight, self.losses = weight, []

    def further_pass(self, step, max_steps):
        return FurtherPass("again", self.weight, nullcontext, self.losses.append) if step % 2 == 0 else None


def test_further_passes_add_their_gradients(tmp_path):
    """Prevents a second pass that is not weighted, of another objective, or whose operations are not counted."""
    constant = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "save_strategy": "no"}

    def trained(name, rate, *extensions, steps=1):
        made = new(tmp_path / name, *extensions, max_steps=steps, learning_rate=rate, **constant)
        made.train()
        return made

    thrice, again = trained("thrice", 0.9), trained("again", 0.3, Again(1.0), Again(1.0))
    for name, value in again.detach().state_dict().items():
        torch.testing.assert_close(value, thrice.model.state_dict()[name], atol=1e-6, rtol=1e-5)
    two = trained("two", 0.3, Again(0.5), steps=2)  # the second step has none
    assert len(two.extensions.of(RunningAgain).losses) == 2  # two micro-batches
    spent = two.spent()
    assert 0 < spent["further_flops"] < spent["flops_per_token"] * spent["tokens"] / 2  # the teacher is asked once
    forward, backward, tokens = spent["tokens_forward"], spent["tokens_backward"], spent["tokens"]
    assert forward - backward == tokens  # the teacher's
    assert tokens < backward < 2 * tokens


def test_a_resumed_training_goes_on_with_its_state(tmp_path):
    """Prevents an extension that starts anew in the middle."""
    new(tmp_path, Clipping(), callbacks=[StopAt(2)]).train()
    made = new(tmp_path, Clipping())
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert curve(made, "clipped")[-1] == 4


def test_settings_without_effect_are_left_out_and_others_checked(tmp_path):
    """Prevents modules and hooks for nothing, and a check that comes after the first step."""
    from distil_nlp.training.netaug import NetAug

    assert new(tmp_path, Clipping(0.0)).extensions.of(RunningClipping) is None
    with pytest.raises(UserError, match="clipping: expected a student that trains alone"):
        new(tmp_path, Clipping(), NetAug([2.0], 1.0))


@pytest.mark.parametrize("extension", [EMA(0.5), Sparsity(0.5), Sparsity(0.5, by="movement")], ids=lambda one: str(one))
def test_the_state_in_a_plan_is_that_of_a_checkpoint(tmp_path, extension):
    """Prevents a plan of the disk without the averages, masks and scores that checkpoints have."""

    def written(folder, *extensions):
        new(folder, *extensions, max_steps=1).train()
        return sum(path.stat().st_size for path in (folder / "checkpoint-1").iterdir())

    student = tiny.classifier(2, 2)
    more = written(tmp_path / "with", extension) - written(tmp_path / "without")
    assert more == pytest.approx(extension.state_bytes(student), rel=0.25)
