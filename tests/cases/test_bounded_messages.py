"""Values that messages quote are cut to what can be read, wherever they come from; paths and short lists stay whole."""

import argparse

import pytest
from datasets import ClassLabel, Dataset

from distil_nlp.cli.parser import names, positive_int
from distil_nlp.data import load_splits, load_task
from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.models import build_student, class_mapping
from distil_nlp.recipe import load_recipe
from distil_nlp.results.files import read_run
from distil_nlp.tasks import CUSTOM_TASKS, Head
from distil_nlp.utils.settings import describe_changes
from tests.helpers import tiny

LONG = "word and " * 400
"""A value with spaces, which no cut between words could shorten."""
SOLID = "x" * 3000
TOKEN = "hf_" + "a1B2" * 9


def recipe_with(tmp_path, text, *overrides):
    path = tmp_path / "r.yaml"
    path.write_text("teacher: {name: t}\ndata: {path: d, task: mrpc}\nobjective: {hard_label: {}}\n" + text)
    return load_recipe(path, overrides)


def named(names, count=4, **columns):
    rows = Dataset.from_dict({"text": ["the cat"] * count, "label": [i % 2 for i in range(count)], **columns})
    return rows.cast_column("label", ClassLabel(names=names))


def tokenised(train, **splits):
    return load_task({"train": train, **splits}, tiny.tokenizer(), CUSTOM_TASKS["classification"])


def with_values(values):
    return Dataset.from_dict({"text": ["the cat"] * len(values), "label": values})


def matched(names, labels):
    config = tiny.bert_config(1, num_labels=len(names))
    config.id2label = dict(enumerate(names))
    return class_mapping(config, Head("classification", labels, len(labels)), "t")


def a_file(tmp_path, header):
    (tmp_path / "train.csv").write_text(f"{header}\n{'a,' * header.count(',')}a\n")
    return load_splits(str(tmp_path / "train.csv"))


def results(tmp_path, version):
    (tmp_path / "results.json").write_text(f'{{"schema_version": "{version}"}}')
    return read_run(tmp_path)


PLACES = {
    "a value of a section": lambda tmp, v: recipe_with(tmp, f"student: {{num_layers: '{v}'}}\n"),
    "a training argument": lambda tmp, v: recipe_with(tmp, f"training: {{seed: '{v}'}}\n"),
    "a choice": lambda tmp, v: recipe_with(tmp, f"balance: {{kind: '{v}'}}\n"),
    "a list": lambda tmp, v: recipe_with(tmp, f"evaluation: {{baselines: ['{v}', '{v}', '{v}']}}\n"),
    "a tree": lambda tmp, v: recipe_with(tmp, f"student: {{layers: {{a: [{{b: '{v}'}}]}}}}\n"),
    "a key": lambda tmp, v: recipe_with(tmp, f"student: {{'{v[:900]}': 1}}\n"),
    "a training argument's name": lambda tmp, v: recipe_with(tmp, f"training: {{'{v[:900]}': 1}}\n"),
    "a key given twice": lambda tmp, v: recipe_with(tmp, f"student: {{'{v[:900]}': 1, '{v[:900]}': 1}}\n"),
    "an override": lambda tmp, v: recipe_with(tmp, "", v),
    "an override's value": lambda tmp, v: recipe_with(tmp, "", f"training.seed=[{v}"),
    "a class of the data": lambda tmp, v: matched(["no", "yes"], (v, "yes")),
    "a class of the teacher": lambda tmp, v: matched([v, "yes"], ("no", "yes")),
    "many classes": lambda tmp, v: matched(["a"] * 5, tuple(f"{v}{i}" for i in range(5000))),
    "classes of two splits": lambda tmp, v: tokenised(named(["no", v]), test=named([v, "no"])),
    "a label that is no class": lambda tmp, v: tokenised(with_values(["a", "b"] * 2), test=with_values([v, "b"])),
    "a split": lambda tmp, v: tokenised(named(["a", "b"]), **{v: with_values([])}),
    "columns": lambda tmp, v: tokenised(with_values([0, 1]).rename_columns({"text": v, "label": f"{v}2"})),
    "many columns": lambda tmp, v: tokenised(Dataset.from_dict({f"{v[:200]}{i}": ["a", "b"] for i in range(500)})),
    "a column given twice": lambda tmp, v: a_file(tmp, f"{v},{v},text,label"),
    "fields of the student": lambda tmp, v: build_student(tiny.classifier(2), [0], config_changes={v: 1}),
    "a version of results": results,
}  # fmt: skip


@pytest.mark.parametrize("value", [LONG, SOLID], ids=["words", "one word"])
@pytest.mark.parametrize("place", PLACES)
def test_a_long_value_is_cut(tmp_path, place, value):
    """Prevents a message of megabytes, in which what to do cannot be found."""
    with pytest.raises(UserError) as caught:
        PLACES[place](tmp_path, value)
    message = caught.value.for_terminal()
    assert value[:101].rstrip() not in " ".join(message.split()), message
    assert len(message) < 3500


@pytest.mark.parametrize("read", [names, positive_int])
def test_an_option_is_cut(read):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read(f"{LONG},,")
    assert len(str(caught.value)) < 200


def test_changed_settings_are_cut():
    (change,) = describe_changes({"a": LONG}, {"a": [SOLID] * 50})
    assert len(change) < 250


def test_many_mistakes_are_counted(tmp_path):
    with pytest.raises(UserError) as caught:
        recipe_with(tmp_path, "".join(f"key{i}: 1\n" for i in range(500)))
    lines = str(caught.value).splitlines()
    assert "500 mistakes" in lines[0]
    assert len(lines) == 41
    assert lines[-1] == "  … and 461 more"


@pytest.mark.parametrize(
    "path", ["/data/" + "folder/" * 27 + "rows.csv", r"C:\\data" + r"\folder" * 25, "~/" + "a b/" * 40, "x" * 100]
)
def test_a_path_stays_readable(path):
    assert path in str(UserError("data.path", f"a dataset at {path}", path, fix=f"check {path}"))


def test_a_very_long_path_keeps_its_ends():
    text = str(UserError(None, "a file", "/start/" + "x/" * 5000 + "end.csv"))
    assert "/start/x/" in text
    assert text.endswith("x/end.csv")
    assert len(text) < 350


def test_lists_that_are_needed_stay_whole():
    """Prevents a hint of which the last names are missing."""
    known = ", ".join(f"soft_target_kl_{i}" for i in range(45))
    assert known in str(UserError("objective", f"one of {known}", "x"))
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


@pytest.mark.parametrize(
    ("value", "written"),
    [("a", "'a'"), (3, "3"), (None, "None"), ([1, "b"], "[1, 'b']"), ({"a": [1]}, "{'a': [1]}"), (2.5, "2.5")],
)
def test_a_short_value_is_quoted_as_python_writes_it(value, written):
    assert quoted(value) == written


def test_what_cannot_be_written_down_is_quoted_too():
    tree = []
    tree.append(tree)
    for value in (16**5000, tree, "\0", "\udce4", object(), {(1,): {2}}, list(range(10**6))):
        assert 0 < len(quoted(value)) <= 100


@pytest.mark.parametrize("before", ["", "x" * 80, "word " * 18, "x" * 150])
def test_no_part_of_a_token_is_left_where_a_value_is_cut(before):
    """Prevents half a token in a message: cut first, its pattern would no longer be found."""
    for text in (quoted(before + " " + TOKEN), quoted([before + " " + TOKEN]), listed([before + " " + TOKEN])):
        assert "a1B2" not in text
    assert "a1B2" not in str(UserError("a", "b", before * 30 + " " + TOKEN))
