"""SIGTERM, as a machine says it before it is taken away: a checkpoint, an end, and a run that carries on."""

import os
import signal
import threading

import pytest
import torch
from transformers import TrainerCallback

from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.preemption import Preempted
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place
from tests.helpers.training import trainer


class Told(TrainerCallback):
    """Sends this process SIGTERM in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def new(folder, **changes):
    student = tiny.mlm_model(2, seed=1, hidden_dropout_prob=0.1)
    arguments = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 7, **changes}
    return trainer(folder, student, tiny.mlm_model(4), **arguments)


def test_sigterm_saves_at_the_end_of_the_step_and_the_rest_is_as_if_nothing_had_been(tmp_path):
    """Prevents a lost night on a preempted machine, a step cut in two, and other weights than without."""
    whole = new(tmp_path / "whole")
    whole.train()
    told = new(tmp_path / "told", callbacks=[Told(3)])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"step 4 of 7 is saved in .*told.*same command"):
        told.train()
    assert signal.getsignal(signal.SIGTERM) is before
    checkpoint = last_complete_checkpoint(tmp_path / "told")
    assert checkpoint.name == "checkpoint-4"
    resumed = new(tmp_path / "told")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_thread_that_cannot_listen_trains_all_the_same(tmp_path):
    """Python lets the main thread alone handle signals: a notebook's worker must not fail for it."""
    run, done = new(tmp_path, max_steps=1), []
    thread = threading.Thread(target=lambda: done.append(run.train()))
    thread.start()
    thread.join()
    assert done


def test_a_run_that_is_told_to_stop_says_so_and_carries_on(tmp_path, monkeypatch, capsys):
    """Prevents a half-trained student that is taken for finished and scored."""
    place, compute_loss = Place(tmp_path).prepare(), DistillationTrainer.compute_loss

    def told(self, *args, **kwargs):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute_loss(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "compute_loss", told)
        assert place.run() == 143
    assert "step 3 of 6 is saved" in capsys.readouterr().err
    assert not (place.out / "student").exists()
    assert not (place.out / "results.json").exists()
    assert place.run() == 0
    assert place.results["training"]["resumed_from"] == "checkpoint-3"


@pytest.mark.integration
def test_two_processes_stop_at_the_same_step_though_one_alone_was_told(tmp_path):
    """Prevents a process that waits for ever in an exchange with one that has gone."""
    forked_pair("-m", "tests.workers.preempted", str(tmp_path))
    assert [(tmp_path / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["10", "10"]
    assert last_complete_checkpoint(tmp_path / "run").name == "checkpoint-10"
