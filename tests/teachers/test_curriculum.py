"""The teacher's own checkpoints, one after another (RCO)."""

import torch

from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.teachers.curriculum import TeacherCurriculum
from tests.helpers import tiny
from tests.helpers.training import StopAt, curve, task_rows, trainer


def run(folder, source, **arguments):
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=0.1)
    often = {"max_steps": 7, "per_device_train_batch_size": 4, **arguments}
    made = trainer(folder, student, source, [SoftTargetKL()], kind="classification", rows=task_rows(11, 3), **often)
    return made


def teachers():
    return [tiny.classifier(4, 3, seed=seed) for seed in (2, 3, 4)]


def losses_at_rest(folder, models):
    """The losses of six steps at learning rate 0."""
    made = run(folder, TeacherCurriculum(models), max_steps=6, learning_rate=0.0)
    made.train()
    return curve(made)


def test_each_teaches_for_its_share_of_the_steps(tmp_path):
    """Prevents a teacher that teaches too long, twice or never."""
    alone = [losses_at_rest(tmp_path, [teacher]) for teacher in teachers()]
    assert losses_at_rest(tmp_path, teachers()) == [alone[step // 2][step] for step in range(6)]
    assert len({losses[0] for losses in alone}) == 3


def test_another_trainer_has_a_curriculum_of_its_own(tmp_path):
    """Prevents hooks of two students on one source."""
    source = TeacherCurriculum(teachers())
    assert source.for_trainer() is source
    made = run(tmp_path, source)
    other = source.for_trainer()
    assert (other is source, other.model is source.model) == (False, True)
    made.detach()
    assert source.for_trainer() is source


def test_a_resume_goes_on_with_the_teacher_of_its_step(tmp_path):
    """Prevents a curriculum that begins anew; the switches are after steps 3 and 5 of 7."""
    often = {"save_strategy": "steps", "save_steps": 4}
    whole = run(tmp_path / "whole", TeacherCurriculum(teachers()), **often)
    whole.train()
    run(tmp_path / "stopped", TeacherCurriculum(teachers()), callbacks=[StopAt(4)], **often).train()
    resumed = run(tmp_path / "stopped", TeacherCurriculum(teachers()), **often)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert curve(whole) == curve(resumed)
