"""SIGTERM at every moment of a training: it ends soon, says so, and what is resumed is as if nothing had been."""

import os
import signal

import pytest
import torch
from transformers import TrainerCallback

from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.teachers.cache import CacheConfig, builder
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.preemption import Preempted
from tests.helpers import tiny
from tests.helpers.training import text_rows, trainer

pytestmark = pytest.mark.integration


class Told(TrainerCallback):
    """Sends this process SIGTERM at the n-th event of a name, and counts all events."""

    def __init__(self, event, number=1):
        self.number, self.seen, self.predictions = number, 0, 0
        setattr(self, event, self.tell)

    def on_prediction_step(self, args, state, control, **kwargs):
        self.predictions += 1

    def tell(self, args, state, control, **kwargs):
        self.seen += 1
        if self.seen == self.number:
            os.kill(os.getpid(), signal.SIGTERM)


def new(folder, told=None, **changes):
    student = tiny.mlm_model(2, seed=1, hidden_dropout_prob=0.1)
    arguments = {
        "per_device_train_batch_size": 6,
        "max_steps": 6,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "eval_rows": text_rows(8, seed=3),
        "per_device_eval_batch_size": 2,
        **changes,
    }
    terms = [SoftTargetKL(1.0)]
    return trainer(folder, student, tiny.mlm_model(2), terms, callbacks=[told] if told else None, **arguments)


def state_of(run):
    """Return the weights, and what was logged without times."""
    timed = ("runtime", "per_second")
    log = [{k: v for k, v in entry.items() if not any(word in k for word in timed)} for entry in run.state.log_history]
    entries = [entry for entry in log if "train_loss" not in entry]
    return run.model.state_dict(), entries, run.state.best_metric, run.state.best_global_step


def assert_same(one, other):
    assert one[1:] == other[1:]
    for name, value in one[0].items():
        assert torch.equal(value, other[0][name]), name


EPOCHS = {"eval_strategy": "epoch", "save_strategy": "epoch", "per_device_train_batch_size": 8, "eval_steps": None}
BEST = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
MOMENTS = {
    "before the first step": (Told("on_train_begin"), {}, 1),
    "in a step": (Told("on_step_begin", 3), {}, 3),
    "at the end of a step that is evaluated": (Told("on_step_begin", 2), {}, 2),
    "in an evaluation": (Told("on_prediction_step", 2), {}, 2),
    "in a later evaluation": (Told("on_prediction_step", 6), {}, 4),
    "in the last evaluation": (Told("on_prediction_step", 10), {}, 6),
    "in an evaluation, best checkpoint": (Told("on_prediction_step", 6), BEST, 4),
    "after the last step": (Told("on_train_end"), {}, 6),
    "in the last step of an epoch": (Told("on_step_begin", 3), EPOCHS, 3),
    "in the evaluation of an epoch": (Told("on_prediction_step", 2), EPOCHS, 3),
    "on saving": (Told("on_save", 1), {"save_strategy": "steps", "save_steps": 3}, 4),
    "at the end, best checkpoint": (Told("on_train_end"), BEST, 6),
}
_WHOLE = {}


def whole(folder, changes):
    """Return the state of an uninterrupted run, once for each set of arguments."""
    key = tuple(changes)
    if key not in _WHOLE:
        run = new(folder / "whole", **changes)
        run.train()
        _WHOLE[key] = state_of(run)
    return _WHOLE[key]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_is_heard_at_once_and_costs_nothing(tmp_path, moment):
    """Prevents a signal that waits for an evaluation to end, or is forgotten, and an evaluation that is left out."""
    told, changes, step = MOMENTS[moment]
    told.seen = told.predictions = 0
    run = new(tmp_path / "told", told, **changes)
    with pytest.raises(Preempted, match=f"step {step} of 6 is saved in .*told.*same command"):
        run.train()
    checkpoint = last_complete_checkpoint(tmp_path / "told")
    assert checkpoint.name == f"checkpoint-{step}"
    if "evaluation" in moment:
        assert run.state.global_step == step
    resumed = new(tmp_path / "told", **changes)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same(state_of(resumed), whole(tmp_path, changes))


def test_an_evaluation_ends_with_the_batch_that_it_is_at(tmp_path):
    """Prevents an evaluation of an hour that the machine does not wait for."""
    told = Told("on_train_begin", 0)
    counted, told.on_prediction_step = [], lambda *args, **kwargs: (counted.append(1), os.kill(os.getpid(), 15))
    with pytest.raises(Preempted):
        new(tmp_path, told).train()
    assert len(counted) == 1


def test_the_same_trainer_goes_on_after_a_signal(tmp_path):
    """Prevents a flag that stops the next training too, and evaluations outside training that are broken off."""
    run = new(tmp_path, Told("on_step_begin", 3))
    with pytest.raises(Preempted):
        run.train()
    assert run.evaluate()["eval_loss"] > 0
    run.train(resume_from_checkpoint=str(last_complete_checkpoint(tmp_path)))
    assert run.state.global_step == 6


def test_an_evaluation_at_the_start_is_broken_off(tmp_path):
    """Prevents a traceback where there is no step to save."""
    run = new(tmp_path, Told("on_prediction_step", 1), eval_on_start=True)
    with pytest.raises(Preempted, match="no step since the last checkpoint"):
        run.train()


def test_the_asking_of_the_teacher_ends_with_a_part(tmp_path, monkeypatch):
    """Prevents hours of asking that nobody waits for; what was asked is kept."""
    monkeypatch.setattr(builder, "_SHARD_BYTES", 2**12)
    asked, compute = [], builder._TeacherPass.compute

    def tell(self, shard, layout):
        asked.append(shard)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, shard, layout)

    monkeypatch.setattr(builder._TeacherPass, "compute", tell)
    arguments = {"cache": CacheConfig(tmp_path / "caches", dtype="float32"), "max_steps": 2, "eval_strategy": "no"}
    with pytest.raises(Preempted, match="no step since the last checkpoint"):
        new(tmp_path / "run", **arguments).train()
    assert len(asked) == 2
    run = new(tmp_path / "run", **arguments)
    run.train()
    assert len(asked) == len(run.source.cache.layout.shards()) > 3
    assert run.state.global_step == 2
