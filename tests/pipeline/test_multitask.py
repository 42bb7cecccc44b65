"""Whole runs of several tasks: what is left of each, and that nothing is refused late."""

import json

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distil_nlp.cli import distill
from distil_nlp.results.schema import schema_mismatches
from distil_nlp.training.multitask import MultitaskTrainer
from tests.helpers import tiny
from tests.helpers.runs import Place

OBJECTIVE = {"soft_target_kl": {"weight": 1.0}, "hard_label": {"weight": 1.0}, "hidden_cosine": {"weight": 1.0}}
KINDS = {
    "topics": {"task": "classification", "text_columns": ["text"], "label_column": "topic"},
    "moods": {"task": "multilabel", "text_columns": ["text"], "label_columns": ["calm", "loud"]},
    "grades": {"task": "regression", "text_columns": ["text"], "label_column": "grade"},
}
"""Name of a task → its section `data`."""
COLUMNS = {
    "topic": lambda i: i % 3,
    "grade": lambda i: i % 5 * 0.5,
    "calm": lambda i: i % 2,
    "loud": lambda i: (i // 2) % 2,
}


class Tasks:
    """A folder with the data of several tasks, their teachers, and a recipe of all of them."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "run"
        self.texts = Place(folder).texts
        for name, size in {"topics": 24, "moods": 16, "grades": 20}.items():
            self.rows(name, size)
        self.model("topics", tiny.classifier(4, 3))
        self.model("moods", tiny.classifier(4, 2, seed=1, problem_type="multi_label_classification"))
        self.model("grades", tiny.classifier(4, 1, seed=2, problem_type="regression"))
        self.recipe = {
            "teacher": {"name": str(folder / "teachers" / "topics"), "folder": str(folder / "tuned")},
            "student": {"num_layers": 2},
            "data": [self.entry(name) for name in KINDS],
            "objective": OBJECTIVE,
            "training": {
                "output_dir": str(self.out),
                "per_device_train_batch_size": 4,
                "max_steps": 12,
                "logging_steps": 3,
                "save_steps": 3,
                "use_cpu": True,
                "disable_tqdm": True,
            },
            "evaluation": {"efficiency": "off"},
            "run": {"accept_weak_teacher": True},
        }

    def entry(self, name):
        """Return the section of a task, with a teacher of its own."""
        own = {"path": str(self.folder / "data" / name), "task_name": name, "max_length": 32}
        return {**KINDS[name], **own, "teacher": {"name": str(self.folder / "teachers" / name)}}

    def rows(self, name, size):
        folder = self.folder / "data" / name
        folder.mkdir(parents=True)
        for split, numbers in {"train": range(size), "test": range(size, size + 9)}.items():
            texts = [f"{self.texts[i % len(self.texts)]} {'not ' * (split == 'test')}" for i in numbers]
            columns = {key: [value(i) for i in numbers] for key, value in COLUMNS.items()}
            Dataset.from_dict({"text": texts, **columns}).to_parquet(folder / f"{split}-00000-of-00001.parquet")

    def model(self, name, model):
        model.save_pretrained(self.folder / "teachers" / name)
        tiny.tokenizer().save_pretrained(self.folder / "teachers" / name)

    def file(self):
        """Write the recipe, and return its path."""
        path = self.folder / "tasks.yaml"
        path.write_text(yaml.safe_dump(self.recipe))
        return str(path)

    def run(self, *overrides):
        return distill([self.file(), *overrides])

    def results(self, name):
        """Return the results of a task, validated against their schema."""
        results = json.loads((self.out / name / "results.json").read_text())
        assert schema_mismatches(results) == []
        return results


@pytest.fixture
def tasks(tmp_path):
    return Tasks(tmp_path)


def plain(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_each_task_has_an_ordinary_folder(tasks, capsys):
    """Prevents encoders that drifted apart, a student that plain transformers cannot load, and figures that are lost."""
    assert tasks.run() == 0
    found = {name: tasks.results(name) for name in KINDS}
    steps = {name: one["training"]["steps"] for name, one in found.items()}
    assert sum(steps.values()) == 12
    assert min(steps.values()) > 0
    models = {name: plain(tasks.out / name / "student")[0] for name in KINDS}
    assert [models[name].config.num_labels for name in KINDS] == [3, 2, 1]
    encoders = [dict(model.bert.named_parameters()) for model in models.values()]
    for key, value in encoders[0].items():
        equal = [torch.equal(value, other[key]) for other in encoders[1:]]
        assert not any(equal) if key.startswith("pooler") else all(equal), key
    for name, one in found.items():
        assert set(one["training"]["final_terms"]) == set(OBJECTIVE)
        assert "Trained together with" in one["schemes"]["used"][0]["sentence"]
        page = (tasks.out / name / "report" / "report.html").read_text()
        assert "Trained together with" in page
        assert (tasks.out / name / "student" / "README.md").is_file()
    table = json.loads((tasks.out / "tasks.json").read_text())
    assert [(one["name"], one["steps"]) for one in table] == list(steps.items())
    assert "grades/report/report.html" in (tasks.out / "report" / "report.html").read_text()
    assert "all tasks" in capsys.readouterr().out


def test_one_task_is_the_plain_run_bit_for_bit(tasks):
    """Prevents a step of several tasks that is another one than that of a task alone: rows, dropout, loss, schedule."""
    tasks.recipe["data"] = tasks.recipe["data"][:1]
    tasks.recipe["training"] |= {"num_train_epochs": 2, "max_steps": -1, "eval_strategy": "steps", "eval_steps": 3}
    tasks.model("topics", tiny.classifier(4, 3, hidden_dropout_prob=0.1))
    assert tasks.run() == 0
    (entry,) = tasks.recipe["data"]
    tasks.recipe["teacher"] = entry.pop("teacher")
    del entry["task_name"]
    tasks.recipe["data"] = entry
    tasks.recipe["training"]["output_dir"] = str(tasks.folder / "alone")
    assert tasks.run() == 0
    weights = [
        plain(folder)[0].state_dict() for folder in (tasks.out / "topics" / "student", tasks.folder / "alone/student")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    records = [
        json.loads((folder / "training.json").read_text()) for folder in (tasks.out / "topics", tasks.folder / "alone")
    ]
    together, alone = (
        [{k: v for k, v in one.items() if k != "loss"} for one in record["history"]] for record in records
    )
    assert together == alone
    for key in ("steps", "max_steps", "tokens", "tokens_forward", "tokens_backward", "flops", "final_terms"):
        assert records[0][key] == records[1][key], key


def test_a_stopped_run_carries_on_bit_for_bit(tasks, monkeypatch):
    """Prevents draws of tasks, rows or dropout that differ after a resume, and students that are trained again."""
    for name in KINDS:
        model = tiny.classifier(4, {"topics": 3, "moods": 2, "grades": 1}[name], hidden_dropout_prob=0.1)
        model.config.problem_type = {"moods": "multi_label_classification", "grades": "regression"}.get(name)
        tasks.model(name, model)
    assert tasks.run() == 0
    whole = {name: plain(tasks.out / name / "student")[0].state_dict() for name in KINDS}
    record = {name: tasks.results(name)["training"] for name in KINDS}
    tasks.recipe["training"]["output_dir"] = str(tasks.folder / "stopped")
    tasks.out = tasks.folder / "stopped"
    step = MultitaskTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MultitaskTrainer, "training_step", stop)
        assert tasks.run() != 0
    assert (tasks.out / "checkpoint-6").is_dir()
    assert not (tasks.out / "topics" / "student").exists()
    assert tasks.run() == 0
    for name, weights in whole.items():
        resumed = plain(tasks.out / name / "student")[0].state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in resumed.items()), name
        own = tasks.results(name)["training"]
        assert own["resumed_from"] == "checkpoint-6"
        for key in ("steps", "tokens", "tokens_forward", "tokens_backward", "flops", "final_terms"):
            assert own[key] == record[name][key], key
    (tasks.out / "moods" / "results.json").unlink()
    monkeypatch.setattr(MultitaskTrainer, "training_step", None)
    assert tasks.run() == 0, "nothing is trained again"
