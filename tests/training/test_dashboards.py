"""What a dashboard shows of a training."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import TensorBoardCallback

from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.schedule import Schedule
from distil_nlp.training.dashboards import _GROUPED, group_terms
from tests.helpers import tiny
from tests.helpers.training import task_rows, trainer
from tests.training.test_multitask import trainer_of


def scalars(folder):
    """Return tag → values of a TensorBoard log."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_terms_and_weights_have_groups(tmp_path, monkeypatch):
    """Prevents `report_to` from showing the sum alone, and terms from drowning among the Trainer's own curves."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    terms = [SoftTargetKL(Schedule(2.0, 0.5, "linear")), HardLabel(1.0)]
    models = tiny.classifier(2, 3), tiny.classifier(4, 3)
    run = trainer(
        tmp_path, *models, terms, kind="classification", report_to="tensorboard", eval_strategy="epoch",
        eval_rows=task_rows(8, 3),
    )  # fmt: skip
    run.train()
    shown = scalars(tmp_path / "tb")
    logged = [entry for entry in run.state.log_history if "loss" in entry]
    for tag, name in {
        "terms/soft_target_kl": "soft_target_kl",
        "terms/hard_label": "hard_label",
        "weights/soft_target_kl": "soft_target_kl_weight",
        "train/loss": "loss",
    }.items():
        assert shown[tag] == pytest.approx([entry[name] for entry in logged], rel=1e-6)
    assert {"train/learning_rate", "train/tokens_per_second", "eval/soft_target_kl", "eval/loss"} <= set(shown)
    assert not {"train/hard_label", "train/soft_target_kl_weight", "terms/loss", "weights/hard_label"} & set(shown)


def test_terms_of_several_tasks_have_groups(tmp_path, monkeypatch):
    """Prevents the curves of one task under another's name."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tb"))
    run = trainer_of(tmp_path, report_to="tensorboard")
    for part in run.parts.values():
        part.pop_callback(TensorBoardCallback)
    run.train()
    shown = set(scalars(tmp_path / "tb"))
    assert {f"terms/{task}/hard_label" for task in run.parts} <= shown
    assert not [tag for tag in shown if tag.startswith("train/") and "hard_label" in tag]


class Callbacks:
    """Stands in for a trainer with one reporter."""

    def __init__(self, kind):
        self.kind, self.added = kind, None

    def pop_callback(self, kind):
        return object() if kind is self.kind else None

    def add_callback(self, callback):
        self.added = callback


class Backend:
    """Stands in for the modules `wandb` and `trackio`."""

    def __init__(self):
        self.entries = []

    def log(self, values):
        self.entries.append(values)


def test_other_dashboards_get_the_same_groups(monkeypatch):
    """Prevents a dashboard that is not installed here from getting what it cannot show, or the same twice."""
    for plain, grouped in _GROUPED.items():
        if plain is TensorBoardCallback:
            continue
        monkeypatch.setattr(plain, "__init__", lambda self: None)
        run = Callbacks(plain)
        group_terms(run)
        reporter, backend = run.added, Backend()
        assert isinstance(reporter, grouped)
        assert isinstance(reporter, plain)
        reporter._wandb = reporter._trackio = backend
        reporter._initialized = True
        run.log_groups = {"hard_label": "terms/hard_label"}
        state = type("State", (), {"is_world_process_zero": True, "global_step": 4})
        reporter.on_log(None, state, None, logs={"loss": 2.0, "hard_label": 1.0})
        reporter.on_log(None, state, None, logs={"eval_loss": 2.0, "eval_hard_label": 3.0})
        assert backend.entries == [
            {"train/loss": 2.0, "train/global_step": 4},
            {"terms/hard_label": 1.0, "train/global_step": 4},
            {"eval/loss": 2.0, "eval/hard_label": 3.0, "train/global_step": 4},
        ]
