"""Words with tags and questions beside a classification: steps, evaluation, and what a step touches."""

import pytest
import torch
from transformers import TrainingArguments

from distil_nlp.data.task_sampling import TaskDraws
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.shared_encoder import share_encoder
from distil_nlp.training.multitask import MultitaskTrainer
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import squad, tiny
from tests.helpers.training import span_rows, task_rows, token_rows, trainer

ROWS = {
    "classification": lambda: [{**row, "labels": int(row["labels"])} for row in task_rows(24, 3)],
    "tokens": lambda: token_rows(20),
    "qa": lambda: span_rows(16),
}
EVALUATION = {
    "classification": lambda: task_rows(7, 3, seed=3),
    "tokens": lambda: token_rows(9, seed=3),
    "qa": lambda: squad.windows(9, 3, 4, scoring=True),
}
TASKS = {"classification": "classification", "tokens": "tokens", "qa": "qa_v2"}
KINDS = [*ROWS]


def students():
    """Return one student for each kind, with dropout, which share the encoder of the first."""
    shape = {"hidden_dropout_prob": 0.1, "initializer_range": 0.2}
    made = [tiny.classifier(2, 3, seed=5, **shape), tiny.tagger(2, seed=5, **shape), tiny.reader(2, seed=5, **shape)]
    share_encoder(made, KINDS)
    return made


def teacher_of(kind):
    made = {"classification": lambda **given: tiny.classifier(4, 3, **given), "tokens": tiny.tagger, "qa": tiny.reader}
    if kind == "classification":
        return made[kind](initializer_range=0.2)
    return made[kind](4, initializer_range=0.2, hidden_size=48)


def part_of(folder, kind, student, **changes):
    """Return the trainer of a task alone."""
    terms = [SoftTargetKL(1.0), HardLabel(1.0), HiddenMSE(1.0), AttentionKL(1.0)]
    return trainer(
        folder / kind, student, teacher_of(kind), terms, kind=kind, rows=ROWS[kind](), eval_rows=EVALUATION[kind](),
        compute_metrics=evaluator_of(kind).trainer_metrics(TASKS[kind]), per_device_train_batch_size=4,
        per_device_eval_batch_size=4, **changes,
    )  # fmt: skip


def together(folder, **changes):
    parts = {kind: part_of(folder, kind, student, **changes) for kind, student in zip(KINDS, students(), strict=True)}
    first: DistillationTrainer = parts["classification"]
    return MultitaskTrainer(parts, TrainingArguments(str(folder), **_given(first.args)), 0.75)


def _given(args):
    names = ("per_device_train_batch_size", "max_steps", "logging_steps", "learning_rate", "seed", "use_cpu",
             "gradient_accumulation_steps")  # fmt: skip
    kept = {name: getattr(args, name) for name in names}
    return kept | {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}


@pytest.mark.parametrize("number", range(3), ids=KINDS)
def test_steps_of_one_task_are_those_of_it_alone(tmp_path, monkeypatch, number):
    """Prevents rows, dropout or a loss that change where a trainer of several tasks takes the step."""
    given = {"gradient_accumulation_steps": 2, "max_steps": 2}
    monkeypatch.setattr(TaskDraws, "task", lambda self, step: number)
    monkeypatch.setattr(TaskDraws, "steps", lambda self, count: [count * (i == number) for i in range(3)])
    before = {name: value.clone() for name, value in together(tmp_path / "start").models.state_dict().items()}
    many = together(tmp_path / "many", **given)
    many.train()
    alone = part_of(tmp_path / "alone", KINDS[number], students()[number], **given)
    alone.train()
    own, whole = alone.model.state_dict(), many.students[KINDS[number]].state_dict()
    assert own.keys() == whole.keys()
    for name, value in own.items():
        assert torch.equal(value, whole[name]), name
    for other in set(range(3)) - {number}:
        heads = {key: value for key, value in many.models.state_dict().items() if key.startswith(f"models.{other}.")}
        heads = {key: value for key, value in heads.items() if ".bert.enc" not in key and ".bert.emb" not in key}
        assert heads
        assert all(torch.equal(value, before[key]) for key, value in heads.items())


def test_each_task_is_evaluated_by_its_own_metrics(tmp_path):
    """Prevents F1 of entities and of answers from being lost among tasks, or taken from the head of another."""
    run = together(tmp_path, max_steps=4)
    run.train()
    found = run.evaluate()
    assert 0 < found["eval_qa/f1"] < 1
    assert {key.rpartition("/")[2] for key in found if key.startswith("eval_tokens/")} >= {"f1", "precision", "recall"}
    for kind, part in run.parts.items():
        alone = part.evaluation_loop(part.get_eval_dataloader(), "alone", None).metrics
        for name in ("f1", "accuracy", "loss", "hard_label"):
            assert found.get(f"eval_{kind}/{name}") == alone.get(f"eval_{name}"), (kind, name)
    losses = [found[f"eval_{kind}/loss"] for kind in KINDS]
    assert found["eval_loss"] == pytest.approx(sum(losses) / 3)
