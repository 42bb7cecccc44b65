"""The student's own predictions of the epoch before as its targets (PS-KD)."""

import json

import pytest
import torch

from distil_nlp.data.row_sets import NUMBERS
from distil_nlp.errors import UserError
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import Signals
from distil_nlp.teachers.last_epoch import LastEpochTeacher
from distil_nlp.training.changing_teacher import TEACHER_STATE
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, trainer
from tests.workers.self_taught import train

ALPHA, EPOCHS = 0.8, 3


class Watch(LastEpochTeacher):
    """Notes the row numbers, labels and epoch of each micro-batch, and the logits and targets of its rows."""

    def begin_epoch(self, epoch, epochs):
        super().begin_epoch(epoch, epochs)
        self.epoch, self.seen = epoch, getattr(self, "seen", [])

    def observe(self, batch, student):
        target = self.signals(batch).logits
        self.seen.append((self.epoch, batch[NUMBERS], batch["labels"], student.logits.detach(), target))
        super().observe(batch, student)


def run(folder, source, rows=11, **arguments):
    often = {"max_steps": -1, "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4, **arguments}
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=arguments.pop("dropout", 0.1))
    often.pop("dropout", None)
    source = source(student.config, ALPHA)
    made = trainer(folder, student, source, [SoftTargetCrossEntropy()], kind="classification",
                   rows=task_rows(rows, 3), **often)  # fmt: skip
    return made, source


def expected_target(label, before, epoch):
    """The definition, in float64: a list of probabilities."""
    one = [float(label == c) for c in range(3)]
    if before is None:
        return one
    powers = [torch.exp(value).item() for value in before.double()]
    alpha = ALPHA * (epoch + 1) / EPOCHS
    return [(1 - alpha) * y + alpha * p / sum(powers) for y, p in zip(one, powers, strict=True)]


def test_targets_and_loss_are_those_of_the_definition(tmp_path):
    """Prevents predictions of another row or epoch, of eval mode, a share that is not the epoch's, and a loss of rows
    that fill up a batch: α_t, targets and the loss of each step by the formulas in float64."""
    made, source = run(tmp_path, Watch)
    made.train()
    assert [epoch for epoch, *_ in source.seen] == [0] * 3 + [1] * 3 + [2] * 3
    last, losses = {}, []
    for epoch, numbers, labels, logits, targets in source.seen:
        rows = [i for i, number in enumerate(numbers.tolist()) if number < 11]
        loss = 0.0
        for i in rows:
            number = int(numbers[i])
            wanted = expected_target(int(labels[i]), last.get((number, epoch - 1)), epoch)
            assert targets[i].exp().tolist() == pytest.approx(wanted, abs=1e-6)
            last[number, epoch] = logits[i]
            loss -= (torch.tensor(wanted, dtype=torch.float64) * logits[i].double().log_softmax(-1)).sum().item()
        losses.append(loss / len(rows))
    assert len(last) == 11 * EPOCHS
    assert curve(made, "soft_target_cross_entropy") == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("stop", [4, 6])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop):
    """Prevents predictions that a checkpoint loses, in the middle of an epoch and at its end."""
    often = {"save_strategy": "steps", "save_steps": stop, "per_device_train_batch_size": 2, "rows": 12}
    often["gradient_accumulation_steps"] = 2
    whole, _ = run(tmp_path / "whole", LastEpochTeacher, **often)
    whole.train()
    run(tmp_path / "stopped", LastEpochTeacher, callbacks=[StopAt(stop)], **often)[0].train()
    resumed, _ = run(tmp_path / "stopped", LastEpochTeacher, **often)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == 9
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert curve(whole) == curve(resumed)


def test_a_checkpoint_without_predictions_is_refused(tmp_path):
    """Prevents training that goes on with labels alone."""
    often = {"save_strategy": "steps", "save_steps": 4}
    run(tmp_path, LastEpochTeacher, callbacks=[StopAt(4)], **often)[0].train()
    (tmp_path / "checkpoint-4" / TEACHER_STATE).unlink()
    with pytest.raises(UserError, match="a checkpoint without it"):
        run(tmp_path, LastEpochTeacher, **often)[0].train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_accumulation_changes_nothing(tmp_path):
    """Prevents a micro-batch whose predictions are used in the epoch in which they are made."""
    curves = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "dropout": 0.0}
        made, _ = run(tmp_path / str(batch), LastEpochTeacher, rows=12, **cut)
        made.train()
        curves.append(curve(made))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.integration
def test_two_processes_equal_one(tmp_path):
    """Prevents predictions that stay in the process that made them, when the next epoch deals the rows anew."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.self_taught", str(out), json.dumps({"kind": "last_epoch", "batch": 2}))
    found, one = json.loads(out.read_text()), train(tmp_path / "one", "last_epoch", 4)
    assert found["world_size"] == 2
    assert found["curve"] == pytest.approx(one["curve"], rel=2e-4)


def test_a_regression_has_the_mixture_of_two_numbers():
    """Prevents a softmax of a single output."""
    source = LastEpochTeacher(tiny.classifier(2, 1).config, 0.5)
    source._is_number, source._count, source._device = True, 2, torch.device("cpu")
    source._clear()
    source.begin_epoch(1, 2)
    batch = {"input_ids": torch.zeros(2, 3), "labels": torch.tensor([3.0, 4.0]), NUMBERS: torch.tensor([1, 2])}
    assert source.signals(batch).logits.tolist() == [[3.0], [4.0]]
    source.observe(batch, Signals(logits=torch.tensor([[2.0], [9.0]])))
    assert source.signals(batch).logits.tolist() == [[2.5], [4.0]]  # the second only fills up the batch
    source.observe(batch, Signals(logits=torch.tensor([[1.0], [7.0], [9.0], [8.0]])))  # two passes, as r_drop makes
    assert source.signals(batch).logits.tolist() == [[2.0], [4.0]]


def test_what_it_cannot_serve_is_refused(tmp_path):
    """Prevents N × vocabulary numbers, and terms on states that nobody kept."""
    student = tiny.mlm_model(2)
    with pytest.raises(UserError, match="kept by row, not by token"):
        trainer(tmp_path, student, LastEpochTeacher(student.config), [SoftTargetKL()])
    student = tiny.classifier(2)
    with pytest.raises(UserError, match="terms on outputs with last_epoch / got hidden_mse"):
        trainer(tmp_path, student, LastEpochTeacher(student.config), [HiddenMSE()], kind="classification")


def test_another_trainer_begins_without_predictions(tmp_path):
    """Prevents predictions of one student as the targets of another."""
    made, source = run(tmp_path, LastEpochTeacher)
    made.train()
    assert source.for_trainer() is not source


def test_the_size_of_the_state_is_known_before_it_is_made():
    """Prevents an estimate of disk without the predictions that a checkpoint keeps."""
    source = LastEpochTeacher(tiny.classifier(2, 3).config)
    source.attach(Objective([SoftTargetCrossEntropy()], "classification"))
    source.prepare(task_rows(11, 3), None, device="cpu")
    assert source.state_bytes(11) == sum(value.nbytes for value in source.state().values()) > 0
