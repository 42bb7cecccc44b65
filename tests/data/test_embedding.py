"""Rows of sentence embeddings: texts, pairs and their scores, and bad ones in words."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from distil_nlp.data.embedding import load
from distil_nlp.data.transfer_set import DataLimits
from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import DataSection
from distil_nlp.tasks import CUSTOM_TASKS, Task
from tests.helpers import tiny
from tests.helpers.sentences import pairs

LIMITS = DataLimits(None, 42, 42)
COLUMNS = ("sentence1", "sentence2")


def task(columns=COLUMNS) -> Task:
    kind = CUSTOM_TASKS["embedding"].kind
    name = "embedding" if len(columns) > 1 else kind.task_of_texts
    return Task(name, tuple(columns), (), "", kind, kind.evaluation_splits, "score")


def loaded(splits, columns=COLUMNS, limits=LIMITS, **options):
    section = DataSection(path="unused", task="embedding", max_length=16, **options)
    return load(DatasetDict(splits), tiny.tokenizer(), task(columns), section, limits)


def other(count=8):
    """Pairs of other texts than those of `pairs()`."""
    rows = pairs(count).to_dict()
    return Dataset.from_dict({**rows, "sentence1": [f"{text} and not" for text in rows["sentence1"]]})


def test_each_text_of_a_pair_is_a_row_without_its_partner():
    """Prevents pairs that are read as one input, and scores that training could see."""
    data = loaded({"train": pairs(), "validation": other()})
    assert len(data.split.train) == 48
    assert "labels" not in data.split.train.column_names
    texts = [text for row in pairs() for text in (row["sentence1"], row["sentence2"])]
    assert data.split.train["input_ids"][:] == tiny.tokenizer()(texts, truncation=True, max_length=16)["input_ids"]
    assert data.task == "embedding"
    assert (data.head.num_labels, data.num_labelled) == (None, None)


def test_scored_rows_have_their_pair_and_score():
    """Prevents a score of another pair."""
    rows = loaded({"train": pairs(), "validation": other()}).split.evaluation["validation"]
    labels = np.array(rows["labels"])
    assert labels[:, 0].tolist() == [i // 2 for i in range(16)]
    assert labels[:, 1].tolist() == [float(i // 2 % 6) for i in range(16)]


def test_limits_and_selection_are_of_pairs():
    """Prevents pairs that are torn apart by a limit, or by the rows a checkpoint is chosen by."""
    limits = DataLimits(0.25, 42, 42)
    data = loaded({"train": pairs(), "validation": other()}, limits=limits, max_train_rows=12, max_evaluation_rows=5)
    assert (len(data.split.train), len(data.split.selection)) == (18, 6)
    assert len(data.split.evaluation["validation"]) == 10
    numbers = np.array(data.split.selection["labels"])[:, 0]
    assert np.unique(numbers, return_counts=True)[1].tolist() == [2, 2, 2]


def test_single_texts_need_no_scores_and_no_second_split():
    """Prevents a plain text file that is refused: a part of its rows is kept for scoring."""
    texts = Dataset.from_dict({"text": [f"the cat sees {word}" for word in tiny.VOCABULARY[5:45]]})
    data = loaded({"train": texts}, ("text",), test_share=0.25)
    assert data.split.held_out == "test"
    assert (len(data.split.train), len(data.split.evaluation["test"])) == (30, 10)
    labels = np.array(data.split.evaluation["test"]["labels"])
    assert np.isnan(labels[:, 1]).all()
    assert data.task == "embedding_texts"


def test_batches_pad_texts_and_keep_labels_exact():
    """Prevents hashes of texts that are rounded to float32."""
    data = loaded({"train": pairs(), "validation": other()}, pad_to_multiple_of=8)
    batch = data.collator(list(data.split.evaluation["validation"]))
    assert batch["labels"].dtype == torch.float64
    assert batch["input_ids"].shape[1] % 8 == 0
    assert batch["labels"].tolist() == data.split.evaluation["validation"]["labels"][:]


def with_scores(values):
    return {"train": pairs(), "validation": Dataset.from_dict({**other(len(values)).to_dict(), "score": values})}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (with_scores([1.0, None, 2.0, 3.0]), "a number for each pair of validation"),
        (with_scores([1.0, math.inf, 2.0, 3.0]), "'inf' \\(1 rows\\)|inf \\(1 rows\\)"),
        (with_scores([-1.0] * 4), "scores of a test split are hidden"),
        (with_scores([1.0, 2.0]), "3 pairs or more"),
        ({"train": pairs(), "validation": other().remove_columns("score")}, "name the column of scores"),
        ({"train": pairs(), "validation": other().remove_columns("sentence2")}, "sentence2 cannot be read"),
        ({"train": pairs().select([]), "validation": other()}, "expected rows in train"),
        ({"train": pairs(), "dev2": other()}, "a labelled split to report scores on"),
    ],
)
def test_bad_rows_are_told_before_training(splits, message):
    """Prevents NaN in place of a correlation, hours later."""
    with pytest.raises(UserError, match=message):
        loaded(splits)


def test_words_for_scores_are_told():
    """Prevents text that is taken for a number."""
    words = Dataset.from_dict({**other(4).to_dict(), "score": ["high", "low", "high", "low"]})
    with pytest.raises(UserError, match="a number for each pair of validation"):
        loaded({"train": pairs(), "validation": words})


def test_a_stream_is_refused():
    """Prevents rows that cannot be held out."""
    section = SimpleNamespace(**{**DataSection(path="x", task="embedding").model_dump(), "streaming": True})
    with pytest.raises(UserError, match=r"data\.streaming"):
        load({"train": pairs()}, tiny.tokenizer(), task(), section, LIMITS)
