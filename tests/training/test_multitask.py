"""A trainer of several tasks: what a step touches, what is logged, and what is refused by nobody."""

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from distil_nlp.data import TaskCollator
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.shared_encoder import share_encoder
from distil_nlp.objective.objective import Objective
from distil_nlp.training.multitask import MultitaskTrainer
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.training import task_rows

KINDS = {"topics": ("classification", 3, 24), "grades": ("regression", 1, 16)}


def trainer_of(folder, callbacks=None, **changes):
    """Return a trainer of two tasks, whose teachers have other widths."""
    fields = {"per_device_train_batch_size": 4, "max_steps": 8, "logging_steps": 1, "save_strategy": "no", "seed": 7}
    fields |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, **changes}
    students = {name: tiny.classifier(2, labels, seed=5) for name, (_, labels, _) in KINDS.items()}
    share_encoder(list(students.values()), list(students))
    parts = {}
    for number, (name, (kind, labels, count)) in enumerate(KINDS.items()):
        number_type = float if kind == "regression" else int
        rows = [row | {"labels": number_type(row["labels"])} for row in task_rows(count, 3, seed=number)]
        parts[name] = DistillationTrainer(
            model=students[name],
            teacher=tiny.classifier(4, labels, seed=number, hidden_size=(32, 48)[number], initializer_range=0.2),
            objective=Objective([SoftTargetKL(1.0), HardLabel(1.0), HiddenMSE(1.0), AttentionKL(1.0)], kind),
            args=TrainingArguments(str(folder / name), **fields),
            train_dataset=rows,
            eval_dataset=rows[:5],
            data_collator=TaskCollator(tiny.tokenizer(), kind),
        )
    return MultitaskTrainer(parts, TrainingArguments(str(folder), **fields), 0.75, callbacks=callbacks)


class Gradients(TrainerCallback):
    """Notes which parameters have a gradient in each step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name for name, value in model.named_parameters() if value.grad is not None})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    noted = Gradients()
    trainer = trainer_of(tmp_path_factory.mktemp("tasks"), [noted])
    before = {name: value.clone() for name, value in trainer.models.state_dict().items()}
    trainer.train()
    return trainer, noted.steps, before


def test_a_step_touches_its_head_and_the_encoder_alone(trained):
    """Prevents a head that moves, or decays, in the steps of another task."""
    trainer, steps, _ = trained
    assert len(steps) == 8
    names = {name for name, _ in trainer.models.named_parameters()}
    encoder = {name for name in names if ".bert.embeddings" in name or ".bert.encoder" in name}
    assert all(name.startswith("models.0.") for name in encoder)
    own = {task: {name for name in names - encoder if name.startswith(f"models.{task}.")} for task in (0, 1)}
    assert any("classifier" in name for name in own[1])
    assert any("distillation_projections" in name for name in own[1]), "the second teacher is wider"
    tasks = [trainer.draws.task(step) for step in range(8)]
    assert set(tasks) == {0, 1}
    for task, touched in zip(tasks, steps, strict=True):
        assert touched == encoder | own[task]


def test_the_log_has_each_task_by_its_name(trained):
    """Prevents means over steps of other tasks, and records that count another task's steps."""
    trainer, _, _ = trained
    tasks = [[*KINDS][trainer.draws.task(step)] for step in range(8)]
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    for task, entry in zip(tasks, log, strict=True):
        terms = {key: value for key, value in entry.items() if "/" in key}
        assert {key.partition("/")[0] for key in terms} == {task}
        assert sum(terms.values()) == pytest.approx(entry["loss"], rel=1e-5)
    record = {"history": log, "final_terms": trainer.last_terms}
    records = trainer.records(record)
    for name, own in records.items():
        assert own["steps"] == own["max_steps"] == tasks.count(name) == len(own["history"])
        assert own["final_terms"].keys() == {"soft_target_kl", "hard_label", "hidden_mse", "attention_kl"}
        assert own["tokens_forward"] == 2 * own["tokens"] == 2 * own["tokens_backward"]
        assert own["flops"] > 0
    assert sum(own["tokens"] for own in records.values()) == trainer.spent()["tokens"]


def test_an_evaluation_is_of_all_tasks(trained):
    """Prevents a checkpoint that is chosen by one task, and scores of the head of another."""
    trainer, _, _ = trained
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx((found["eval_topics/loss"] + found["eval_grades/loss"]) / 2)
    for name, part in trainer.parts.items():
        alone = part.evaluation_loop(part.get_eval_dataloader(), "alone", True).metrics
        assert found[f"eval_{name}/hard_label"] == alone["eval_hard_label"]


def test_students_leave_plain(tmp_path):
    """Prevents hooks and projections of a training on what is saved."""
    trainer = trainer_of(tmp_path, max_steps=2)
    trainer.train()
    students = trainer.students
    assert trainer.detach() is students["topics"]
    one, other = students.values()
    assert one.bert.encoder is other.bert.encoder
    assert not [name for name in (*one.state_dict(), *other.state_dict()) if "projections" in name]
    ids = torch.tensor([[2, 7, 8, 3]])
    assert other.eval()(input_ids=ids).logits.shape == (1, 1)
    assert other.config._attn_implementation == one.config._attn_implementation == "sdpa"


def test_gradient_accumulation_is_exact(tmp_path):
    """Prevents micro-batches of two tasks in one step, and rows that count more in a smaller one."""
    whole, parts = Gradients(), Gradients()
    one = trainer_of(tmp_path / "one", [whole], per_device_train_batch_size=8, max_steps=3, optim="sgd")
    other = trainer_of(tmp_path / "two", [parts], per_device_train_batch_size=4, gradient_accumulation_steps=2,
                       max_steps=3, optim="sgd")  # fmt: skip
    for trainer in (one, other):
        trainer.train()
    assert whole.steps == parts.steps
    state = other.models.state_dict()
    for name, value in one.models.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=1e-6, rtol=1e-5)
