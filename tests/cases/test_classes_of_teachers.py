"""Teachers whose classes are called, ordered or meant otherwise than the data's."""

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification

from distil_nlp.data.fingerprint import hash_model
from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.scoring import score_on_glue
from distil_nlp.hub.card_context import _usage
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student, class_mapping, label_outputs, load_model, start_from_checkpoint
from distil_nlp.models.classes import arrange_classes
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import Head
from distil_nlp.tasks.class_order import are_placeholders, order_by_names
from distil_nlp.teachers.ensemble import Ensemble
from tests.helpers import tiny
from tests.helpers.families import FAMILIES
from tests.helpers.glue import glue_folder
from tests.helpers.runs import Place
from tests.helpers.training import trainer

pytestmark = pytest.mark.integration

MNLI = ("entailment", "neutral", "contradiction")
HEAD = Head("classification", MNLI, 3)
NUMBERED = Head("classification", None, 3)
INPUTS = {"input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 9, 12, 30, 3]])}


def teacher(names=None, **changes):
    model = tiny.classifier(2, num_labels=3, **changes)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    return model


def saved(folder, names=None, **changes):
    model = teacher(names, **changes)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return model


@torch.no_grad()
def logits(model):
    return model(**INPUTS).logits


# Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "wanted", "order"),
    [
        (("no", "yes"), ("no", "yes"), (0, 1)),
        (("no", "yes"), ("yes", "no"), (1, 0)),
        (("CONTRADICTION", "Neutral", "entailment"), MNLI, (2, 1, 0)),
        (("not-entailment", "Entailment"), ("entailment", "not_entailment"), (1, 0)),
        (("POS", "neg"), ("negative", "positive"), (1, 0)),
        (("paraphrase", "not_paraphrase"), ("not_equivalent", "equivalent"), (1, 0)),
        (("a", "A"), ("A", "a"), (1, 0)),  # alike but for case: as they are
        (("a", "A"), ("a", "b"), None),
        (("-1", "1"), ("1", "-1"), (1, 0)),
        (("1", "0"), ("-1", "0"), None),  # a minus is no separator
        (("no", "yes"), ("no", "maybe"), None),
        (("x", "x"), ("x", "y"), None),
        (("ＹＥＳ", "no"), ("no", "yes"), (1, 0)),
        (("LABEL_0", "LABEL_1"), ("no", "yes"), None),
    ],
)
def test_classes_are_matched_by_name(names, wanted, order):
    """Prevents a teacher that cannot be used, since its classes are those of the data in another order or spelling."""
    assert order_by_names(names, wanted) == order


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("LABEL_0", "LABEL_1"), True),
        (("label 0", "label 1"), True),
        (("0", "1", "2"), True),
        (("1", "2", "3"), True),
        (("class_0", "class_1"), True),
        (("LABEL_1", "LABEL_0"), False),
        (("5", "7"), False),
        (("LABEL_A", "LABEL_B"), False),
        (("1 star", "2 stars"), False),
    ],
)
def test_names_that_only_number_are_told(names, expected):
    """Prevents names that mean something from being passed over, and numbers from being taken for names."""
    assert are_placeholders(names) is expected


# Outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "XLNet", "XLM", "SqueezeBert"])
def test_outputs_follow_the_names_in_every_family(family):
    """Prevents a head that is not permuted, or whose names are not: it may be called classifier, out_proj, summary …"""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    special = {
        "DistilBert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
        "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        "XLM": {"emb_dim": 32, "n_layers": 2, "n_heads": 4},
        "SqueezeBert": {**sizes, "embedding_size": 32},
    }
    fields = special.get(family, sizes) | FAMILIES.get(family, {})
    config = getattr(transformers, f"{family}Config")(vocab_size=100, num_labels=3, **{"pad_token_id": 0} | fields)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    model.config.id2label = dict(enumerate(("CONTRADICTION", "NEUTRAL", "ENTAILMENT")))
    before = logits(model)
    arrange_classes(model, HEAD, family)
    assert torch.equal(logits(model), before[:, [2, 1, 0]])
    assert model.config.id2label == dict(enumerate(MNLI))
    assert model.config.label2id == {name: i for i, name in enumerate(MNLI)}


def test_a_head_that_cannot_be_permuted_is_refused():
    """Prevents outputs in an order that is only believed to be the data's."""
    model = teacher(("contradiction", "neutral", "entailment"))
    model.register_forward_hook(lambda module, inputs, output: output.logits.mul_(torch.arange(1, 4)) and None)
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.LayerNorm(3))
    model.classifier[1].weight.data = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(UserError, match=r"end in one linear layer.*cast the data's label column"):
        arrange_classes(model, HEAD, "odd")


@pytest.mark.parametrize("names", [None, MNLI, ("Entailment", "NEUTRAL", "contradiction")])
def test_a_teacher_in_the_datas_order_stays_as_it_is(tmp_path, names):
    """Prevents caches that no longer fit: the key of a cache hashes weights and configuration."""
    saved(tmp_path, names)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert hash_model(load_model(str(tmp_path), HEAD)) == hash_model(plain)


def test_the_mapping_is_logged(tmp_path, capsys):
    """Prevents classes that are matched without a word, by number or by name."""
    orders = {
        None: "matched by number, not by name: LABEL_0 → entailment, LABEL_1 → neutral, LABEL_2 → contradiction",
        ("ENTAIL", "neutral", "contradiction"): "have other names in the data: ENTAIL → entailment",
        ("contradiction", "neutral", "entailment"): "are put in the data's order, by their names: contradiction → co",
        MNLI: "",
    }
    for names, line in orders.items():
        saved(tmp_path, names)
        load_model(str(tmp_path), HEAD)
        said = capsys.readouterr().out
        assert (line in said) if line else not said


def test_label_names_say_what_names_do_not(tmp_path, capsys):
    """Prevents classes without names that are taught as each other; numbers in the data have an order to say too."""
    model = saved(tmp_path)
    names = ["contradiction", "entailment", "neutral"]
    assert torch.equal(logits(load_model(str(tmp_path), HEAD, label_names=names)), logits(model)[:, [1, 2, 0]])
    assert "as data.label_names says: LABEL_0 → contradiction, LABEL_1" in capsys.readouterr().out
    numbered = load_model(str(tmp_path), NUMBERED, label_names=["2", "0", "1"])
    assert torch.equal(logits(numbered), logits(model)[:, [1, 2, 0]])
    assert list(numbered.config.id2label.values()) == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize(
    ("own", "label_names", "message"),
    [
        (("a", "b", "c"), None, r"names of the data's classes \(entailment.*with \(a, b, c\).*set data\.label_names="),
        (("LABEL_1", "LABEL_0", "LABEL_2"), None, r"with \(LABEL_1, LABEL_0.*set data\.label_names="),
        (None, ["neutral", "entailment"], r"got 2 names .*missing: contradiction"),
        (None, [*MNLI, "neutral"], r"got 4 names .*named twice: neutral"),
        (None, ["neutral", "entailment", "sad"], r"unknown: sad; missing: contradiction"),
    ],
)
def test_classes_that_cannot_be_matched_are_refused(own, label_names, message):
    """Prevents remedies that send to each other: `data.label_names` works for GLUE's tasks as for all."""
    with pytest.raises(UserError, match=message):
        class_mapping(teacher(own).config, HEAD, "teacher", label_names)


def test_members_of_an_ensemble_have_one_order(tmp_path):
    """Prevents a mean of logits of which each is another class's."""
    saved(tmp_path / "a", MNLI, seed=1)
    saved(tmp_path / "b", ("CONTRADICTION", "ENTAILMENT", "NEUTRAL"), seed=2)
    a, b = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name).eval() for name in "ab")
    both = Ensemble([load_model(str(tmp_path / name), HEAD) for name in "ab"])
    expected = torch.stack([logits(a), logits(b)[:, [1, 2, 0]]]).mean(0)
    torch.testing.assert_close(both(**INPUTS).logits, expected)


def test_a_student_has_the_datas_classes(tmp_path):
    """Prevents a student whose head or names are in the teacher's order, from layers and from a checkpoint."""
    model = saved(tmp_path, ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    students = [build_student(load_model(str(tmp_path), HEAD), [1])[0], start_from_checkpoint(str(tmp_path), HEAD)[0]]
    for student in students:
        label_outputs(student.config, HEAD)
        assert torch.equal(student.classifier.weight, model.classifier.weight[[2, 1, 0]])
        assert list(student.config.id2label.values()) == [*MNLI]
        assert student.config.problem_type == "single_label_classification"


def test_a_score_on_glue_is_that_of_the_right_classes(tmp_path):
    """Prevents an MNLI model of another order that `evaluate-glue` refuses, or scores by the wrong classes."""
    glue_folder(tmp_path, "mnli")
    plain = saved(tmp_path / "plain", MNLI)
    moved = teacher(("contradiction", "entailment", "neutral"))
    moved.load_state_dict(plain.state_dict())
    for parameter in (moved.classifier.weight, moved.classifier.bias):
        parameter.data = parameter.data[[2, 0, 1]]
    moved.save_pretrained(tmp_path / "moved")
    tiny.tokenizer().save_pretrained(tmp_path / "moved")
    scores = [
        score_on_glue(str(tmp_path / name), ["mnli"], str(tmp_path), output=tmp_path / f"{name}.json").read_text()
        for name in ("plain", "moved")
    ]
    assert scores[0].replace("plain", "moved") == scores[1]


# Meaning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", ["multi_label_classification", "regression"])
def test_outputs_of_another_meaning_are_refused(tmp_path, found, capsys):
    """Prevents sigmoids, or numbers, that are taught as a distribution; a model that will be trained here may start."""
    saved(tmp_path, MNLI, problem_type=found)
    with pytest.raises(UserError, match=f"problem_type {found} in .*set teacher.finetune="):
        load_model(str(tmp_path), HEAD)
    assert load_model(str(tmp_path), HEAD, new_head=True).config.problem_type == "single_label_classification"
    assert f"problem_type {found} becomes single_label_classification" in capsys.readouterr().out
    student = start_from_checkpoint(str(tmp_path), HEAD)[0]
    assert student.config.problem_type == "single_label_classification"


def test_a_class_is_no_number(tmp_path):
    """Prevents a regression to one log-odds."""
    found = "multi_label_classification"
    tiny.classifier(2, num_labels=1, problem_type=found).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"outputs are numbers \(problem_type regression\).*problem_type {found}"):
        load_model(str(tmp_path), Head("regression", None, 1))


def test_a_trainer_of_ones_own_looks_at_the_meaning_too(tmp_path):
    """Prevents the same in a notebook, with several teachers as with one."""
    wrong, objective = teacher(problem_type="multi_label_classification"), Objective([SoftTargetKL()], "classification")
    for model in (wrong, Ensemble([teacher(), wrong])):
        with pytest.raises(UserError, match="problem_type multi_label_classification in"):
            trainer(tmp_path, teacher(), model, objective.terms, kind="classification")
    student = teacher(problem_type="multi_label_classification")
    trainer(tmp_path, student, None, [HardLabel()], kind="classification")
    assert student.config.problem_type == "single_label_classification"


# Card -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"id2label": {"0": "happy", "1": "unhappy"}}, ["`happy`", "`unhappy`"]),
        ({"id2label": {"0": "unhappy", "1": "happy"}}, []),
        ({"architectures": ["BertForSequenceClassification"]}, []),
        ({}, ["`happy`", "`unhappy`"]),
    ],
)
def test_a_card_names_no_class_that_the_model_has_not(tmp_path, config, shown):
    """Prevents a card of an earlier run that names the data's classes, where the model answers LABEL_0."""
    facts = CardFacts("run", tmp_path, {"task": "classification", "labels": ["happy", "unhappy"]})
    assert _usage(facts, config)["labels"] == shown


@pytest.mark.with_pictures
def test_an_ensemble_of_three_orders_goes_through_a_run(tmp_path, capsys):
    """Prevents names in results, card and student that differ, and members that are checked less than the first."""
    place = Place(tmp_path).prepare()
    for folder, names in (("b", ("YES", "NO")), ("c", None)):
        model = tiny.classifier(4, seed=len(folder))
        if names:
            model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
        model.save_pretrained(tmp_path / folder)
        tiny.tokenizer().save_pretrained(tmp_path / folder)
    further = f"teacher.ensemble=[{tmp_path / 'b'}, {tmp_path / 'c'}]"
    assert place.run(further, "data.label_names=[yes, no]") == 0
    said = capsys.readouterr().out
    assert "/b: classes are put in the data's order, by their names: YES → yes, NO → no" in said
    assert "/c: classes as data.label_names says: LABEL_0 → yes, LABEL_1 → no" in said
    assert "teacher: classes" not in said
    assert place.results["labels"] == ["no", "yes"]
    student = AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    assert student.config.id2label == {0: "no", 1: "yes"}
    assert "Classes: `no`, `yes`." in (place.out / "student" / "README.md").read_text()
