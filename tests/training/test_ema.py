"""The averaged weights are the recursion's, are what is evaluated and saved, and survive a restart bit for bit."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from distil_nlp.cli import check
from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.training.ema import AVERAGE, EMA, WeightAverage, decay_at, validate_averaging
from distil_nlp.training.preemption import EvaluationStopped
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place
from tests.helpers.training import StopAt, task_rows, trainer

DECAY = 0.4


def new(folder, ema=DECAY, **arguments):
    """A trainer with a projection, dropout, and a checkpoint of every step."""
    student = tiny.classifier(2, 3, seed=1, hidden_size=16, intermediate_size=32, hidden_dropout_prob=0.1)
    often = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "gradient_accumulation_steps": 2}
    often |= {"per_device_train_batch_size": 2, "learning_rate": 0.01, "kind": "classification"}
    terms = [SoftTargetKL(1.0), HardLabel(1.0), HiddenMSE(1.0, "last")]
    changes = {"extensions": [None if ema is None else EMA(ema)]}
    return trainer(folder, student, tiny.classifier(4, 3), terms, **often | changes | arguments)


def weights(folder, name="model.safetensors"):
    return load_file(Path(folder) / name)


class Seen(TrainerCallback):
    """Keeps the weights at the begin of training and in each evaluation step."""

    def __init__(self):
        self.first, self.evaluated = {}, {}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.first = {name: value.clone() for name, value in model.state_dict().items()}

    def on_prediction_step(self, args, state, control, model=None, **kwargs):
        now = {name: value.clone() for name, value in model.state_dict().items()}
        self.evaluated.setdefault(state.global_step, now)


def test_the_average_is_the_recursion_of_the_weights_of_all_steps(tmp_path):
    """Prevents an average of gradients' accumulation steps, one without the initial weights, and a decay that starts
    too high: in float64, from the weights in the checkpoints."""
    seen = Seen()
    run = new(tmp_path, callbacks=[seen])
    run.train()
    average = {name: value.double() for name, value in seen.first.items()}
    for step in range(1, 7):
        saved = weights(tmp_path / f"checkpoint-{step}")
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, value in saved.items():
            average[name] = decay * average[name] + (1 - decay) * value.double()
        kept = weights(tmp_path / f"checkpoint-{step}", AVERAGE)
        assert kept.keys() <= average.keys()
        assert any(name.startswith("distillation_projections") for name in kept)
        for name, value in kept.items():
            assert torch.allclose(value.double(), average[name], atol=1e-6), (step, name)
    assert decay == DECAY != decay_at(1, DECAY)
    student = run.detach()
    for name, value in student.state_dict().items():
        assert torch.allclose(value.double(), average[name], atol=1e-6), name
    assert not torch.allclose(student.classifier.weight, saved["classifier.weight"], atol=1e-4)


def test_resumed_equals_uninterrupted_bit_for_bit_with_an_average(tmp_path):
    """Prevents an average that starts anew from the weights of the checkpoint."""
    whole = new(tmp_path / "whole")
    whole.train()
    new(tmp_path / "stopped", callbacks=[StopAt(3)]).train()
    resumed = new(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for file in ("model.safetensors", AVERAGE):
        ours, theirs = (weights(tmp_path / place / "checkpoint-6", file) for place in ("whole", "stopped"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    anew = new(tmp_path / "again")
    anew.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))  # which has nothing left to do
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, anew.model.state_dict()[name]), name


def test_the_average_is_evaluated_and_training_goes_on_with_the_weights(tmp_path):
    """Prevents scores of other weights than are saved, and an evaluation that leaves the average in the model."""
    seen = Seen()
    rows = {"eval_rows": task_rows(5, 3), "eval_strategy": "steps", "eval_steps": 2}
    run = new(tmp_path / "with", callbacks=[seen], **rows)
    run.train()
    without = new(tmp_path / "without", ema=None, **rows)
    without.train()
    assert sorted(seen.evaluated) == [2, 4, 6]
    for step in seen.evaluated:
        for name, value in weights(tmp_path / "with" / f"checkpoint-{step}", AVERAGE).items():
            assert torch.equal(seen.evaluated[step][name], value), (step, name)
    ours, theirs = (weights(tmp_path / place / "checkpoint-6") for place in ("with", "without"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    last = [entry for entry in run.state.log_history if "eval_loss" in entry][-1]
    assert run.evaluate()["eval_loss"] == pytest.approx(last["eval_loss"])


def _break_off(average, look):
    with average.evaluated():
        look()
        raise EvaluationStopped


def test_an_evaluation_that_breaks_off_leaves_the_weights(tmp_path):
    """Prevents a checkpoint after SIGTERM that has the average for the weights of its step."""
    run = new(tmp_path)
    running = run.extensions.of(WeightAverage)
    running.on_train_begin(None, None, None)
    weight = run.model.classifier.weight
    average = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1.0)
    before = weight.detach().clone()
    seen = []
    with pytest.raises(EvaluationStopped):
        _break_off(running, lambda: seen.append(weight.detach().clone()))
    assert torch.equal(seen[0], average)
    assert torch.equal(weight, before)


def test_the_best_checkpoint_is_that_of_its_average(tmp_path):
    """Prevents a best score of the average with the weights of that step, or the average of the last."""
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.2}
    run = new(tmp_path, eval_rows=task_rows(5, 3), **arguments)
    run.train()
    losses = {e["step"]: e["eval_loss"] for e in run.state.log_history if "eval_loss" in e}
    best = min(losses, key=losses.get)
    assert best != 6
    assert Path(run.state.best_model_checkpoint).name == f"checkpoint-{best}"
    for name, value in weights(tmp_path / f"checkpoint-{best}", AVERAGE).items():
        assert torch.equal(run.model.state_dict()[name], value), name
    assert run.evaluate()["eval_loss"] == pytest.approx(losses[best])


def test_a_checkpoint_without_the_average_is_refused(tmp_path):
    """Prevents a resumed average that silently begins in the middle."""
    new(tmp_path, ema=None, max_steps=1).train()
    with pytest.raises(UserError, match=r"student\.ema: expected the averaged weights .* got none"):
        new(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_sharded_weights_and_wrong_decays_are_refused(tmp_path, capsys):
    """Prevents averages of a part of the weights, and a run that fails where its first step ends."""
    validate_averaging(DECAY, is_sharded=False)
    with pytest.raises(UserError, match=r"student\.ema: expected one process or DDP"):
        validate_averaging(DECAY, is_sharded=True)
    for wrong in (0.0, 1.0):
        with pytest.raises(UserError, match=re.escape(f"a decay above 0 and below 1 / got {wrong:g}")):
            new(tmp_path, ema=wrong)
    place = Place(tmp_path / "place").prepare()
    assert check(place.command("student.ema=1.5")) == 2
    assert "student.ema" in capsys.readouterr().err


@pytest.mark.integration
def test_a_run_saves_and_scores_the_average(tmp_path):
    """Prevents a student folder, scores or a baseline with the weights of the last step."""
    place = Place(tmp_path / "place").prepare()
    assert place.run("student.ema=0.9", "training.save_total_limit=1") == 0
    saved, last = place.out / "student", max(place.out.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    average = weights(last, AVERAGE)
    for name, value in weights(saved).items():
        assert torch.equal(average[name], value), name
    assert any(not torch.equal(average[name], value) for name, value in weights(last).items() if name in average)


@pytest.mark.integration
def test_two_processes_average_alike(tmp_path):
    """Prevents averages that drift apart, and a checkpoint that only the main process can read."""
    forked_pair("-m", "tests.workers.averaged", str(tmp_path))
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in ours["average"].items():
        assert torch.equal(value, theirs["average"][name]), name
        assert torch.equal(value, ours["resumed"][name]), name
