"""`distil-nlp tree` on tiny models: of a run and of a recipe, its files, its page, and what it refuses."""

import json
import re

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset

from distil_nlp.cli import main
from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.tree.loading import TreeData
from distil_nlp.tree.pooled_states import keep_pooled_states
from distil_nlp.tree.schema import TreeLine, TreeResults
from distil_nlp.tree.targets import label_targets, teacher_targets
from distil_nlp.tree.training import TreeSettings
from tests.helpers import ROOT, byte_pairs, tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.helpers.two_tokenizers import NAMES, TwoTokenizers
from tests.tree.conftest import QUICK


@pytest.fixture(scope="module")
def results(place):
    return json.loads((place.out / "tree" / "results.json").read_text())


def test_all_lines_are_scored_on_the_same_rows(results):
    """Prevents a table without its baselines, or a run's student that is forgotten."""
    TreeResults.model_validate(results)
    lines = [(line["name"], line["taught_by"]) for line in results["models"]]
    assert lines[:2] == [("teacher", ""), ("student", "")]
    names = ["soft tree", "soft tree, mixture of leaves", "decision tree, depth 2", "decision tree, unlimited"]
    assert {(name, taught_by) for name in names for taught_by in ("teacher", "labels")} <= set(lines)
    assert ("logistic regression", "labels") in lines
    assert ("logistic regression", "teacher") not in lines, "this teacher knows one class alone"
    assert {line["interval"]["rows"] for line in results["models"]} == {results["rows"]["test"]}
    assert [line["gain"] is None for line in results["models"]].count(True) == 1
    teacher = results["models"][0]
    assert teacher["agreement"]["median"] == 1
    assert results["seeds"] == [0, 1]


def test_the_student_and_the_teacher_have_the_scores_of_the_run(place, results):
    """Prevents a tree that is compared with a teacher, rows or a student of another run."""
    run, (teacher, student) = place.results, results["models"][:2]
    assert teacher["seeds"]["accuracy"]["median"] == run["teacher"]["metrics"]["accuracy"]
    assert student["seeds"]["accuracy"]["median"] == run["student"]["metrics"]["accuracy"]
    assert student["agreement"]["median"] == run["fidelity"]["agreement"]


def test_the_tree_in_words(place, results):
    """Prevents nodes without words, shares that are no shares, and leaves that are no distributions."""
    tree = json.loads((place.out / "tree" / "tree.json").read_text())
    assert (len(tree["nodes"]), len(tree["leaves"])) == (3, 4)
    assert sum(leaf["share"] for leaf in tree["leaves"]) == pytest.approx(1)
    assert tree["nodes"][0]["share"] == pytest.approx(1)
    assert all(sum(leaf["distribution"].values()) == pytest.approx(1) for leaf in tree["leaves"])
    assert tree["leaves"][0]["distribution"].keys() == {"no", "yes"}
    words = [word["word"] for word in tree["nodes"][0]["words"]["left"] + tree["nodes"][0]["words"]["right"]]
    assert "cat" in words
    assert all(word["weight"] < 0 < word["strength"] for word in tree["nodes"][0]["words"]["left"])
    assert all(word["weight"] > 0 < word["strength"] for word in tree["nodes"][0]["words"]["right"])
    assert results["leaves_used"] == sum(leaf["share"] > 0 for leaf in tree["leaves"])


def test_the_page_has_the_tree_the_ways_and_no_network(place, results):
    """Prevents a page without drawing or examples, with a foreign address, or with a script that its policy blocks."""
    page = (place.out / "tree" / "tree.html").read_text()
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert page.count('class="leaf"') == results["leaves_used"]
    assert page.count('class="branch"') >= results["leaves_used"]
    assert page.count("<option>") == page.count('class="way"') == results["rows"]["test"]
    assert page.count('class="turn"') == 2 * results["rows"]["test"]
    assert "against the same tree taught by labels" in page.lower()
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_a_second_tree_does_not_run_the_teacher_again(place, capsys, monkeypatch):
    """Prevents minutes of the teacher for another depth, and a teacher's answers that belong to other rows."""

    def refuse(*_, **__):
        raise AssertionError("the teacher ran again")

    with monkeypatch.context() as patch:
        patch.setattr("distil_nlp.tree.loading.predict", refuse)
        assert main(["tree", str(place.out), *QUICK, "--depth", "1"]) == 0
    printed = capsys.readouterr().out
    assert "those of an earlier start" in printed
    assert printed.rstrip().endswith(str(place.out / "tree" / "tree.html"))
    assert "decision tree, depth 1" in printed
    file = place.out / "tree" / "teacher.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert main(["tree", str(place.out), *QUICK]) == 0
    assert "running the teacher on 24 training rows" in capsys.readouterr().out


def test_a_recipe_with_embeddings_and_without_texts(place, tmp_path, capsys):
    """Prevents a page that shows texts which a recipe keeps back, and words that pass for the input."""
    command = place.command("evaluation.show_rows=false", f"training.output_dir={tmp_path / 'none'}")
    assert main(["tree", *command, "--input", "embedding", *QUICK, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["input"], results["features"], results["run"]) == ("embedding", 32, None)
    assert "student" not in [line["name"] for line in results["models"]]
    page = (tmp_path / "out" / "tree.html").read_text()
    assert "The tree does not read them" in page
    assert "<blockquote>" not in page
    assert "sees the dog" not in page
    tree = json.loads((tmp_path / "out" / "tree.json").read_text())
    assert {word["weight"] for word in tree["nodes"][0]["words"]["left"]} == {None}
    assert not (tmp_path / "none").exists()


def test_pairs_and_rows_without_a_label(tmp_path, capsys):
    """Prevents pairs whose texts share their features, and unlabelled rows that teach as if they had a class."""
    found = Place(tmp_path).prepare()
    count = len(found.texts)
    rows = {
        "text": found.texts,
        "other": found.texts[::-1],
        "label": [-100 if i % 3 == 0 else i % 2 for i in range(count)],
    }
    train = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["no", "yes"]))
    test = train.filter(lambda row: row["label"] != -100)
    found.save({"train": train, "test": test})
    command = found.command("data.text_columns=[text,other]")
    assert main(["tree", *command, *QUICK, "--output", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["rows"]["train"], results["rows"]["labelled"]) == (24, 16)
    tree = json.loads((tmp_path / "out" / "tree.json").read_text())
    words = tree["nodes"][0]["words"]
    assert {word["word"][-4:] for word in words["left"] + words["right"]} == {" (1)", " (2)"}


def test_a_teacher_reads_its_own_tokens(tmp_path):
    """Prevents a tree taught by a teacher that was asked with the ids of another tokenizer."""
    found = TwoTokenizers(tmp_path).prepare()
    out = tmp_path / "out"
    assert main(["tree", *found.command(), "--input", "embedding", *QUICK, "--output", str(out)]) == 0
    teacher, tokenizer = byte_pairs.classifier(4, **NAMES).eval(), byte_pairs.tokenizer()
    with np.load(out / "teacher.npz") as kept, torch.no_grad():
        for text, logits in zip(found.texts, kept["predictions/train"], strict=True):
            expected = teacher(**tokenizer(text, return_tensors="pt")).logits[0]
            assert logits == pytest.approx(expected.numpy(), abs=1e-5)
        assert kept["states/train"].shape == (len(found.texts), teacher.config.hidden_size)


def test_targets_mix_teacher_and_labels():
    """Prevents a label weight that acts on rows without a label, and a temperature that is not one."""
    train = Outputs(np.array([[2.0, 0.0], [2.0, 0.0]]), np.array([1, -100]))
    soft = 1 / (1 + np.exp(-1.0))
    targets = teacher_targets(train, TreeSettings(temperature=2.0, label_weight=0.25))
    assert targets[0] == pytest.approx([0.75 * soft, 0.75 * (1 - soft) + 0.25])
    assert targets[1] == pytest.approx([soft, 1 - soft])
    assert label_targets(train).tolist() == [[0, 1], [0, 0]]


def test_the_pooled_state_is_what_the_output_layer_reads():
    """Prevents states of another layer or token: the output layer makes the teacher's logits of them."""
    model, tokens = tiny.classifier(2), tiny.tokenizer()(list(tiny.SENTENCES), padding=True, return_tensors="pt")
    with keep_pooled_states(model) as kept, torch.no_grad():
        model(input_ids=torch.ones(1, 3, dtype=torch.long))  # a trial before
        logits = model(**tokens).logits
    states = torch.from_numpy(kept(len(tiny.SENTENCES)))
    assert torch.allclose(model.classifier(states), logits, atol=1e-6)
    assert not model.classifier._forward_pre_hooks


def test_training_texts_are_those_of_the_training_rows(tmp_path, monkeypatch):
    """Prevents texts beside the answers to others, where rows are limited or some are kept to choose a checkpoint."""
    kept = []
    monkeypatch.setattr("distil_nlp.tree.run.tree_inputs", lambda data, kind: kept.append(data) or stop())
    found = Place(tmp_path).prepare()
    (found.folder / "data" / "validation-00000-of-00001.parquet").unlink()
    options = ("data.max_train_rows=20", "data.selection_share=0.3", "training.eval_strategy=steps",
               "training.eval_steps=2")  # fmt: skip
    assert main(["tree", *found.command(*options), "--output", str(tmp_path / "out")]) == 2
    (data,) = kept
    assert isinstance(data, TreeData)
    wanted = {text: i % 2 for i, text in enumerate(found.texts)}
    assert len(data.texts["train"]) == 14
    assert [wanted[text] for (text,) in data.texts["train"]] == data.train.labels.tolist()


def stop():
    raise UserError("far enough")


def test_what_is_refused(place, tmp_path, capsys, monkeypatch):
    """Prevents a run with another recipe than its own, files of others that are mixed up, and tasks without classes."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["tree", str(place.out), "data.max_length=16"])
    assert "a run keeps its own recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["tree", str(place.out), "--depth", "11"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    assert main(["tree", "other"]) == 2
    assert "expected the folder of a run / got one without recipe.yaml" in one_line(capsys.readouterr().err)
    assert main(["tree", str(place.out), "--output", "other"]) == 2
    assert "got other with letter.txt" in one_line(capsys.readouterr().err)
    assert main(["tree", *place.command("data.task=mlm"), "--output", "new"]) == 2
    assert "data.task: expected a task of texts and classes / got mlm" in one_line(capsys.readouterr().err)
    replaced = "data.augmentation.replacement={}"
    assert main(["tree", *place.command(replaced), "--output", "new"]) == 2
    assert "copies with replaced words" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_every_key_is_documented():
    """Prevents a results.json whose keys nobody can look up."""
    page = (ROOT / "docs" / "tree.md").read_text()
    for block in (TreeResults, TreeLine):
        for name, field in block.model_fields.items():
            assert f"| `{name}` | {field.json_schema_extra['meaning']}" in page, name
