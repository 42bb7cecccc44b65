"""Models of a trainer by name, and the kind of task by their class: what users of `Trainer` write first."""

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, DataCollatorWithPadding, TrainingArguments

from distil_nlp import DistillationTrainer, DistIntra, HardLabel, HiddenCosine, Objective, SoftTargetKL, build_student
from distil_nlp.errors import UserError
from tests.helpers import tiny
from tests.helpers.training import task_rows


def objective(**options):
    return Objective([SoftTargetKL(1.0), HardLabel(1.0)], **options)


def trainer(model, teacher, terms=None):
    arguments = TrainingArguments("unused", max_steps=1, use_cpu=True, report_to="none", save_strategy="no")
    return DistillationTrainer(
        model=model,
        teacher=teacher,
        objective=terms or objective(),
        args=arguments,
        train_dataset=[{k: v for k, v in row.items() if k != "token_type_ids"} for row in task_rows(8)],
        data_collator=DataCollatorWithPadding(tiny.tokenizer()),
    )


def classifier(layers, **fields):
    """A classifier with these fields of its configuration."""
    model = tiny.classifier(layers)
    model.config.update(fields)
    return model


class Own(BertForSequenceClassification):
    """A subclass, as people write for a head of their own."""


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: classifier(2), "classification"),
        (lambda: Own(tiny.classifier(2).config), "classification"),
        (lambda: classifier(2, num_labels=1), "regression"),
        (lambda: classifier(2, problem_type="regression"), "regression"),
        (lambda: classifier(2, num_labels=1, problem_type="single_label_classification"), "classification"),
        (lambda: tiny.mlm_model(2), "mlm"),
    ],
)
def test_the_kind_is_that_of_the_student(model, kind):
    """Prevents an IndexError at the first step, for a classifier with the terms of words."""
    student = model()
    run = trainer(student, build_student(student, [0, 1])[0], Objective([HiddenCosine()]))
    assert str(run.objective.kind) == kind


def test_a_classifier_trains_without_a_kind():
    """Prevents a kind that is taken from the model and not used."""
    run = trainer(tiny.classifier(2), tiny.classifier(4))
    run.train()
    assert set(run.last_terms) == {"soft_target_kl", "hard_label"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tiny.mlm_model(2).bert, "objective: expected a kind of task, or a model of a class that tells it"),
        (lambda: nn.Linear(2, 2), "got none with 'Linear' .* give it: Objective"),
    ],
)
def test_a_model_that_tells_no_kind_needs_one(model, message):
    """Prevents a guess."""
    with pytest.raises(UserError, match=message):
        trainer(model(), tiny.classifier(4))


def test_a_kind_that_contradicts_the_model_is_refused():
    """Prevents the class from overruling what somebody wrote."""
    with pytest.raises(UserError, match=r'masked.* got BertForSequenceClassification .* Objective.terms, "class'):
        trainer(tiny.classifier(2), tiny.classifier(4), objective(kind="mlm"))


def test_a_term_that_the_kind_does_not_have_is_refused_by_the_trainer():
    """Prevents a term of sequences on words, where the kind is known late."""
    with pytest.raises(UserError, match=r"objective\.dist_intra: expected classification / got mlm"):
        trainer(tiny.mlm_model(2), tiny.mlm_model(4), Objective([DistIntra()]))


def test_an_objective_without_a_kind_is_not_bound():
    """Prevents an AttributeError where a caller has no trainer."""
    with pytest.raises(UserError, match="objective: expected a kind of task / got none"):
        objective().bind(None, None)


@pytest.fixture
def names(tmp_path):
    """Folders of a teacher and a student with named classes, the student's in another order."""
    folders = {}
    for name, layers, classes in (("teacher", 4, ["no", "yes"]), ("student", 2, ["yes", "no"])):
        model = classifier(layers, id2label=dict(enumerate(classes)), label2id={c: i for i, c in enumerate(classes)})
        model.save_pretrained(tmp_path / name)
        folders[name] = str(tmp_path / name)
    tiny.mlm_model(2).save_pretrained(tmp_path / "words")
    return folders | {"words": str(tmp_path / "words")}


@pytest.mark.parametrize("terms", [objective(), objective(kind="classification")], ids=["inferred", "named"])
def test_models_may_be_names(names, terms):
    """Prevents an AttributeError for what other trainers take; the student gets the teacher's classes, in its order."""
    run = trainer(names["student"], names["teacher"], terms)
    assert (run.model.config.num_hidden_layers, run.teacher.config.num_hidden_layers) == (2, 4)
    assert run.model.config.id2label == run.teacher.config.id2label == {0: "no", 1: "yes"}
    run.train()
    assert run.model.training or not run.teacher.training


def test_a_student_without_the_head_gets_a_new_one(names):
    """Prevents a checkpoint of words that could not start a classifier."""
    run = trainer(names["words"], names["teacher"])
    assert type(run.model).__name__ == "BertForSequenceClassification"
    assert run.model.config.id2label == {0: "no", 1: "yes"}


def test_a_teacher_without_the_head_is_refused(names):
    """Prevents a student that learns noise."""
    with pytest.raises(UserError, match="expected a trained classification head"):
        trainer(tiny.classifier(2), names["words"], objective())


def test_a_student_of_a_name_is_refused():
    """Prevents an AttributeError where the trainer takes a name and `build_student` needs the model."""
    with pytest.raises(UserError, match=r"teacher: expected a model / got 'my-bert' / .* load it with AutoModelFor"):
        build_student("my-bert")


@pytest.mark.parametrize("terms", [{"soft_target_kl": 1.0}, SoftTargetKL(1.0), [SoftTargetKL(1.0), "hard_label"]])
def test_an_objective_is_a_list_of_terms(terms):
    """Prevents an AttributeError for a term alone, a recipe's section or a term's name."""
    with pytest.raises(UserError, match=r"objective: expected a list of loss terms / .*write Objective\(\["):
        Objective(terms)


HALVES = [({}, [1, 3]), ({"layers": "first"}, [0, 1]), ({"num_layers": 1}, [3]), ({"layers": "random"}, None)]


@pytest.mark.parametrize(("arguments", "layers"), HALVES)
def test_a_student_has_half_the_layers_by_default(arguments, layers):
    """Prevents a default in recipes that Python does not have."""
    student, report = build_student(tiny.classifier(4), **arguments)
    assert report.layers == layers
    assert student.config.num_hidden_layers == (len(layers) if layers else 2)
    if layers is None:
        assert not torch.equal(student.bert.embeddings.word_embeddings.weight,
                               tiny.classifier(4).bert.embeddings.word_embeddings.weight)  # fmt: skip
