"""Teachers that are averages of the student's own weights."""

import json

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.logit_mse import LogitMSE
from distil_nlp.teachers.averaged import CheckpointMeanTeacher, EMATeacher
from distil_nlp.training.checks import validate_averaged_teacher
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, trainer
from tests.workers.self_taught import train

KINDS = {
    "ema": lambda student: EMATeacher(student, 0.6),
    "checkpoints": lambda student: CheckpointMeanTeacher(student, 3),
    "far-apart": lambda student: CheckpointMeanTeacher(student, 2, every=2),
}


def run(folder, kind, **arguments):
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=0.1, hidden_size=16, intermediate_size=16)
    source = KINDS[kind](student)
    often = {"max_steps": 6, "per_device_train_batch_size": 4, **arguments}
    made = trainer(folder, student, source, [HardLabel(), LogitMSE(), HiddenMSE(0.5)], kind="classification",
                   rows=task_rows(11, 3), **often)  # fmt: skip
    return made, source


class Follow:
    """Notes the weights of student and teacher at the start, and after each step."""

    def __init__(self, source):
        self.student, self.teacher, self.source = [], [], source
        start, end = source.start, source.end_step
        source.start = lambda student: (start(student), self.note(student))
        source.end_step = lambda step, student: (end(step, student), self.note(student))

    def note(self, student):
        for kept, model in ((self.student, student), (self.teacher, self.source.model)):
            kept.append({name: value.detach().double().clone() for name, value in model.named_parameters()})


def expected(kind, history, before):
    """The definitions in float64: the teacher after the student had these weights, from the teacher before."""
    step = len(history) - 1
    if kind == "ema":
        decay = min(0.6, 1 - 1 / (step + 1))
        return {name: decay * value + (1 - decay) * history[-1][name] for name, value in before.items()}
    count, every = {"checkpoints": (3, 1), "far-apart": (2, 2)}[kind]
    if step % every:
        return before
    pool = history[:-1][::every][-count:]
    return {name: torch.stack([kept[name] for kept in pool]).mean(0) for name in before}


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_state_is_known_before_it_is_full(tmp_path, kind):
    """Prevents an estimate of disk without the copies of the weights that a checkpoint keeps."""
    made, source = run(tmp_path, kind)
    estimated = source.state_bytes(8)
    made.train()
    assert estimated == sum(value.nbytes for value in source.state().values()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_is_the_average_of_the_definition(tmp_path, kind):
    """Prevents averages with the student itself in them, of the wrong steps, of nothing, or that train."""
    made, source = run(tmp_path, kind)
    followed = Follow(source)
    made.train()
    assert len(followed.student) == 7
    for step in range(1, 7):
        wanted = expected(kind, followed.student[: step + 1], followed.teacher[step - 1])
        for name, value in wanted.items():
            torch.testing.assert_close(followed.teacher[step][name], value, rtol=0, atol=1e-6)
    assert any(not torch.equal(value, followed.teacher[0][name]) for name, value in followed.teacher[-1].items())
    assert not any(parameter.requires_grad for parameter in source.model.parameters())
    assert not source.model.training


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, kind):
    """Prevents averages that begin anew, or are added up in another order, in the middle of an epoch."""
    often = {"save_strategy": "steps", "save_steps": 4}
    whole, average = run(tmp_path / "whole", kind, **often)
    whole.train()
    run(tmp_path / "stopped", kind, callbacks=[StopAt(4)], **often)[0].train()
    resumed, again = run(tmp_path / "stopped", kind, **often)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    for one, other in ((whole.model, resumed.model), (average.model, again.model)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    assert curve(whole) == curve(resumed)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["ema", "checkpoints"])
def test_two_processes_equal_one(tmp_path, kind):
    """Prevents averages of each process's own."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.self_taught", str(out), json.dumps({"kind": kind, "batch": 2}))
    found, one = json.loads(out.read_text()), train(tmp_path / "one", kind, 4)
    assert found["world_size"] == 2
    assert found["curve"] == pytest.approx(one["curve"], rel=2e-4)


def test_a_copy_has_the_students_weights_and_nothing_of_its_trainer(tmp_path):
    """Prevents a teacher with the hooks and projections of a student that another trainer has."""
    student = tiny.classifier(2, 3, seed=1)
    made = trainer(tmp_path, student, tiny.classifier(4, 3, hidden_size=16), [HiddenMSE()], kind="classification")
    copied = EMATeacher(student).model
    own = {name: value for name, value in student.state_dict().items() if name in copied.state_dict()}
    assert len(own) == len(copied.state_dict()) < len(student.state_dict())
    assert all(torch.equal(value, copied.state_dict()[name]) for name, value in own.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copied.modules())
    made.detach()


def test_it_follows_one_student(tmp_path):
    """Prevents an average of two students, and one of parts of weights."""
    made, source = run(tmp_path, "ema")
    with pytest.raises(UserError, match="one that another trainer has"):
        source.for_trainer()
    made.detach()
    with pytest.raises(UserError, match="one process or DDP with ema"):
        validate_averaged_teacher(is_sharded=True)
