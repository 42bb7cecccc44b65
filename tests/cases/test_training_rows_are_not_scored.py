"""Rows that were trained on are not scored: the same split by whatever way, and equal texts in another one."""

import dataclasses
import json
import logging

import pytest
from datasets import Dataset, DatasetDict, IterableDatasetDict

from distil_nlp.data import DataLimits, data_module, load_corpus, load_task
from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import DataSection
from distil_nlp.tasks import CUSTOM_TASKS, GLUE
from tests.helpers import tiny
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

TOKENIZER = tiny.tokenizer()
OWN = [f"the cat sees the {word} {other}" for word in ("dog", "bird", "fish", "tree") for other in tiny.SENTENCES]
NEW = [text.replace("cat", "river") for text in OWN]


def rows(texts: list[str], **columns: list) -> Dataset:
    return Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(len(texts))], **columns})


def load(splits: dict[str, Dataset], task: str = "classification", streamed: bool = False, **options):
    """Load rows as a recipe does."""
    splits = DatasetDict(splits)
    if streamed:
        splits = IterableDatasetDict({name: part.to_iterable_dataset() for name, part in splits.items()})
    section = DataSection(path="own", task=task, max_length=16, streaming=streamed, **options)
    own = dataclasses.replace(CUSTOM_TASKS[task], text_columns=tuple(section.text_columns or ["text"]))
    return data_module(task).load(splits, TOKENIZER, own, section, DataLimits(None, 42, 42)).split


@pytest.mark.parametrize("task", ["classification", "regression", "mlm"])
@pytest.mark.parametrize("options", [{}, {"train_split": "test"}], ids=["train", "test"])
def test_the_training_split_is_not_scored_when_named(task, options):
    """Prevents the score of what was learnt by heart, which the message for a single file once advised."""
    name = options.get("train_split", "train")
    with pytest.raises(UserError, match=rf"not trained on / got {name}, the training split .* name another one \("):
        load({"train": rows(OWN), "test": rows(NEW)}, task, evaluation_splits=["test", "train"], **options)


def test_the_training_split_is_not_scored_by_default():
    """Prevents the default's `test` or `validation` from being scored where it is trained on."""
    splits = {"test": rows(OWN), "validation": rows(NEW), "train": rows(NEW[:8])}
    assert list(load(splits, train_split="test").evaluation) == ["validation"]
    assert list(
        load({"validation": rows(OWN * 9)}, "mlm", train_split="validation", held_out_share=0.3).evaluation
    ) == ["held_out"]
    with pytest.raises(UserError, match=r"validation alone .* add one: .* a folder of the two"):
        load_task(DatasetDict(validation=rows(OWN)), TOKENIZER, GLUE["sst2"], train_split="validation")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_of_a_single_file_some_rows_are_kept(task):
    """Prevents a dead end whose only way out is to score the training rows."""
    split = load({"train": rows(OWN)}, task)
    assert split.held_out == "test"
    assert len(split.train) + len(split.evaluation["test"]) == len(OWN)
    assert split.repeated == {"test": 0}
    with pytest.raises(UserError, match=r"got train, the training split .* data.test_share of the rows are kept"):
        load({"train": rows(OWN)}, task, evaluation_splits=["train"])


COPIES = {
    "the same rows": OWN,
    "in another order": OWN[::-1],
    "with other spaces around": [f"  {text}\t" for text in OWN],
    "a slice": OWN[2:5],
    "with few new ones": OWN + NEW[:1],
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize(("task", "streamed"), [("classification", False), ("mlm", False), ("mlm", True)])
def test_a_copy_of_the_training_rows_is_not_scored(name, task, streamed):
    """Prevents the same by another name: two files with one content, or a part of it."""
    splits = {"train": rows(OWN), "validation": rows(COPIES[name])}
    with pytest.raises(UserError, match=r"of \d+ rows of validation \(\d+\.\d%.* with the text of a row of train"):
        load(splits, task, streamed)


def test_a_copy_is_known_among_limited_rows_and_by_both_texts_of_a_pair():
    """Prevents a copy that only a full run would notice, and pairs that are refused because one of two texts is old."""
    with pytest.raises(UserError, match="2 of 2 rows of test"):
        load({"train": rows(OWN), "test": rows(OWN)}, max_train_rows=2, max_evaluation_rows=2)
    splits = {"train": rows(OWN, second=NEW), "test": rows(OWN, second=NEW[::-1])}
    assert load(splits, text_columns=["text", "second"]).evaluation["test"].num_rows == len(OWN)


def test_some_equal_texts_are_counted_and_said(caplog):
    """Prevents scores that are a little too good, without a word; blank rows are equal everywhere and do not count."""
    caplog.set_level(logging.INFO, logger="distil_nlp")
    splits = {"train": rows([*OWN, "", None]), "test": rows([*NEW, *OWN[:4], "", None]), "dev": rows(NEW)}
    split = load(splits, evaluation_splits=["test", "dev"])
    assert split.repeated == {"test": 4, "dev": 0}
    assert "4 of 22 rows of test (18.2%) have the text of a row of train" in caplog.text
    assert "dev" not in caplog.text


def test_texts_that_repeat_anyway_are_counted_and_said(caplog):
    """Prevents a refusal of generated data, whose few texts are in every split."""
    splits = {"train": rows(OWN[:4] * 8), "test": rows(OWN[:4] * 3)}
    assert load(splits).repeated == {"test": 12}
    assert "12 of 12 rows of test (100.0%) have the text of a row of train" in caplog.text


def test_common_headings_do_not_make_a_copy_of_a_corpus(caplog):
    """Prevents a refusal of two parts of an encyclopedia, whose headings are the same."""
    splits = {"train": rows([*["= cat ="] * 200, *OWN]), "validation": rows([*["= cat ="] * 200, *NEW])}
    assert load(splits, "mlm").repeated == {"validation": 200}
    assert load_corpus(DatasetDict(splits), TOKENIZER, max_length=16).evaluation["validation"].num_rows


def test_a_split_that_chooses_the_checkpoint_is_looked_at_too():
    """Prevents early stopping that never stops, because it watches the training rows."""
    splits = DatasetDict(train=rows(OWN), test=rows(NEW), validation=rows(OWN))
    section = DataSection(path="own", task="classification", max_length=16)
    module, task = data_module("classification"), CUSTOM_TASKS["classification"]
    with pytest.raises(UserError, match="rows of validation"):
        module.load(splits, TOKENIZER, task, section, DataLimits(0.1, 42, 42))


def test_a_run_says_it_in_its_message_and_its_results(tmp_path, capsys):
    """Prevents a count that only a log shows."""
    place = Place(tmp_path).prepare()
    file = tmp_path / "reviews.jsonl"
    file.write_text("\n".join(json.dumps({"text": text, "label": ("no", "yes")[i % 2]}) for i, text in enumerate(OWN)))
    assert place.run(f"data.path={file}", "data.evaluation_splits=[train]") == 2
    assert "got       train, the training split" in capsys.readouterr().err
    data = tmp_path / "data"
    for old in data.iterdir():
        old.unlink()
    (data / "train.jsonl").write_text(file.read_text())
    copied = file.read_text().splitlines()
    (data / "test.jsonl").write_text("\n".join([*copied[:2], *(line.replace("cat", "river") for line in copied[:6])]))
    assert place.run("training.max_steps=1") == 0
    assert place.results["rows"]["in_training"] == {"test": 2}
    assert "scored on test (8 rows, 2 training texts among them)" in (place.out / "report" / "report.md").read_text()
