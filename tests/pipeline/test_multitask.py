"""Whole runs of several tasks: what is left of each, and that nothing is refused late."""

import json
import shutil

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distil_nlp.cli import distill
from distil_nlp.cli import main as command
from distil_nlp.results.schema import schema_mismatches
from distil_nlp.training.multitask import MultitaskTrainer
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

OBJECTIVE = {"soft_target_kl": {"weight": 1.0}, "hard_label": {"weight": 1.0}, "hidden_cosine": {"weight": 1.0}}
EMBEDDING_TERMS = {"soft_target_kl": None, "hard_label": None, "embedding_cosine": {"weight": 1.0}}
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
    """Prevents encoders that drifted apart, students that plain transformers cannot load, and figures that are lost."""
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
        card = (tasks.out / name / "student" / "README.md").read_text()
        whole = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
        assert [entry["task_name"] for entry in whole["data"]] == [*KINDS]  # the run can be repeated from any card
        assert ("of the teacher of topics." in card) == (name != "topics")
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


def test_other_rows_of_another_task_are_told(tasks, capsys):
    """Prevents a run that carries on with an encoder that learnt from other rows than its provenance says."""
    assert tasks.run() == 0
    (tasks.out / "topics" / "results.json").unlink()
    kept = json.loads((tasks.out / "topics" / "provenance.json").read_text())
    shutil.rmtree(tasks.folder / "data" / "grades")
    tasks.rows("grades", 21)
    assert tasks.run() == 2
    said = one_line(capsys.readouterr().err)
    assert "topics was begun with / got other rows or teachers of the other tasks" in said
    assert json.loads((tasks.out / "topics" / "provenance.json").read_text()) == kept


def test_seeds_and_baselines(tasks):
    """Prevents seeds and labels-only students that do not train together, and a task alone with other steps."""
    tasks.recipe["evaluation"] |= {"seeds": 2, "baselines": ["no_distillation", "plain"]}
    assert tasks.run() == 0
    for name in KINDS:
        found = tasks.results(name)
        assert len(found["seeds"][found["headline"]]["values"]) == 2
        assert {"no_distillation", "plain", "copied_only"} <= found["baselines"].keys()
        for variant in ("no_distillation-42", "plain-42", "distilled-43"):
            record = json.loads((tasks.out / name / "variants" / variant / "training.json").read_text())
            assert record["steps"] == found["training"]["steps"] or variant == "distilled-43"
            terms = ["hard_label"] if variant.startswith("no") else list(OBJECTIVE)
            assert sorted(record["final_terms"]) == sorted(terms)
            assert not (tasks.out / name / "variants" / variant / "student").exists()
    assert not (tasks.out / "variants").exists()
    text = (tasks.out / "tasks.md").read_text()
    assert "labels only" in text
    assert "trained alone" in text


def test_two_processes_train_as_one(tasks):
    """Prevents processes that draw other tasks, and gradients of a head that are not exchanged."""
    assert tasks.run() == 0
    one = {name: plain(tasks.out / name / "student")[0].state_dict() for name in KINDS}
    tasks.recipe["training"] |= {"output_dir": str(tasks.folder / "two"), "per_device_train_batch_size": 2}
    forked_pair("scripts/distill.py", tasks.file())
    for name, weights in one.items():
        both = plain(tasks.folder / "two" / name / "student")[0].state_dict()
        for key, value in weights.items():
            torch.testing.assert_close(both[key], value, atol=2e-5, rtol=1e-4)


REFUSED = {
    "two tasks of one name": (
        lambda recipe: recipe["data"].append(recipe["data"][0]),
        "expected a name of its own for each task / got topics twice",
    ),
    "no task": (lambda recipe: recipe.update(data=[]), "expected a section, or a list of sections / got an empty list"),
    "a name that is no folder": (lambda recipe: recipe["data"][0].update(task_name="a/b"), "call it a-b"),
    "an unknown key of one task": (lambda recipe: recipe["data"][1].update(taks=1), "moods: data.taks: unknown key"),
    "a term that a kind has no use for": (
        lambda recipe: recipe["data"][0].update(objective={"margin_mse": {"weight": 1.0}}),
        "task topics, objective.margin_mse",
    ),
    "an unknown term of one task": (
        lambda recipe: recipe["data"][1].update(objective={"soft_kl": {}}),
        "moods: objective.soft_kl: unknown",
    ),
    "labels of a kind that learns from none": (
        lambda recipe: (
            recipe.update(evaluation=recipe["evaluation"] | {"baselines": ["no_distillation"]})
            or recipe["data"][2].update(task="embedding", label_column="grade", objective=EMBEDDING_TERMS)
        ),
        "task grades, evaluation.baselines",
    ),
    "a probe": (
        lambda recipe: recipe.update(evaluation={"probe": {"path": "x", "every": 1}}),
        "evaluation.probe",
    ),
    "a scheme": (
        lambda recipe: recipe["student"].update(ema=0.9),
        "task topics, student.ema: expected its default with several tasks",
    ),
    "balancing": (lambda recipe: recipe.update(balance={"kind": "uncertainty"}), "balance.kind"),
    "a metric of one task": (
        lambda recipe: recipe["training"].update(
            metric_for_best_model="accuracy", load_best_model_at_end=True, eval_strategy="steps", eval_steps=3
        ),
        "loss, the mean over the tasks",
    ),
    "too few steps": (lambda recipe: recipe["training"].update(max_steps=1), "a step of each task"),
    "power": (lambda recipe: recipe.update(multitask={"sampling_power": 2}), "multitask.sampling_power"),
    "names by hand": (lambda recipe: recipe.update(multitask={"tasks": ["a"]}), "it is filled in from the list data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_trained(tasks, case, capsys, monkeypatch):
    """Prevents hours of training before a mistake in the list is told."""
    monkeypatch.setattr(MultitaskTrainer, "__init__", None)
    change, message = REFUSED[case]
    change(tasks.recipe)
    assert tasks.run() == 2
    assert message in one_line(capsys.readouterr().err)
    assert not tasks.out.exists() or not list(tasks.out.rglob("training.json"))


def test_teachers_of_unlike_shapes_are_refused(tasks, capsys):
    """Prevents heads that do not fit the encoder of the first task, told after teachers were fine-tuned."""
    tasks.model("moods", tiny.classifier(4, 2, hidden_size=16, problem_type="multi_label_classification"))
    assert tasks.run() == 2
    assert "teachers of one shape for topics and moods / got hidden_size 32 and 16" in one_line(capsys.readouterr().err)


def test_check_tells_of_each_task_and_trains_nothing(tasks, capsys):
    """Prevents a check that knows one task alone."""
    assert command(["check", tasks.file(), "data.moods.max_length=16"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.index("task topics") < out.index("task moods") < out.index("task grades")
    assert "12 steps of 4 rows, 4 of topics, 2 of moods, 6 of grades" in out
    assert not tasks.out.exists()


def test_the_recipe_of_one_task_is_not_run_alone(tasks, capsys):
    """Prevents a student that is trained alone in the place of one that was trained with others."""
    recipe = tasks.recipe | {
        "data": tasks.entry("topics"),
        "multitask": {"tasks": ["topics", "moods"], "task": "topics"},
    }
    del recipe["data"]["task_name"], recipe["data"]["teacher"]
    path = tasks.folder / "one.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert distill([str(path)]) == 2
    assert "run the recipe.yaml in the folder above" in one_line(capsys.readouterr().err)
