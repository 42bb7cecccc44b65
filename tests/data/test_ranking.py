"""Rows of ranking: pairs by query, grades, whole queries on each side of every cut, and bad data in words."""

import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict

from distil_nlp.data.ranking import RankingCollator, load
from distil_nlp.data.row_sets import FILLER
from distil_nlp.data.transfer_set import DataLimits
from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import DataSection
from distil_nlp.tasks import CUSTOM_TASKS, Task
from tests.helpers import tiny
from tests.helpers.ranking import queries

LIMITS = DataLimits(None, 42, 42)


def loaded(splits, limits=LIMITS, columns=("query", "document"), **options):
    kind = CUSTOM_TASKS["ranking"].kind
    task = Task("ranking", columns, (), "ndcg_at_10", kind, kind.evaluation_splits, "label")
    section = DataSection(path="unused", task="ranking", max_length=24, **options)
    return load(DatasetDict(splits), tiny.tokenizer(), task, section, limits)


def changed(rows: Dataset, **columns) -> Dataset:
    return Dataset.from_dict({**rows.to_dict(), **columns})


def numbers(rows) -> list[int]:
    return [int(query) for _, query in rows["labels"]]


def test_rows_have_grades_and_the_number_of_their_query():
    """Prevents labels of another row, and grades above 1 that no cross-entropy can take."""
    rows = queries(6, offset=20)
    graded = changed(rows, label=[2 * label for label in rows["label"]])
    data = loaded({"train": graded, "validation": queries(3)})
    labels = np.array(data.split.train["labels"])
    assert labels[:, 0].tolist() == [label / 1 for label in rows["label"]]
    assert numbers(data.split.train) == [i // 4 for i in range(24)]
    texts = tiny.tokenizer()(rows["query"][:], rows["document"][:], truncation=True, max_length=24)
    assert data.split.train["input_ids"][:] == texts["input_ids"]
    assert (data.task, data.head.num_labels, data.num_labelled, data.group_size) == ("ranking", 1, 24, 8)
    assert data.split.evaluation["validation"]["labels"][0][0] == rows["label"][0] / 2


def test_a_column_of_groups_tells_queries_apart():
    """Prevents equal words of two searches from being one query, and rows of a query that are not neighbours."""
    rows = queries(4, offset=20)
    groups = [f"search {i % 3}" for i in range(16)]
    data = loaded({"train": changed(rows, search=groups), "validation": changed(queries(2), search=["x", "y"] * 4)},
                  group_column="search")  # fmt: skip
    assert numbers(data.split.train) == [i % 3 for i in range(16)]


def test_every_cut_keeps_queries_whole():
    """Prevents limits, choice of a checkpoint, and rows for scoring that tear a query apart or share it."""
    rows = queries(30)
    data = loaded({"train": rows}, DataLimits(0.2, 42, 42), test_share=0.2, max_train_rows=70, max_evaluation_rows=15)
    assert data.split.held_out == "test"
    parts = (data.split.train, data.split.selection, data.split.evaluation["test"])
    assert [len(part) for part in parts] == [56, 12, 12]
    tokens = [{tuple(ids[: ids.index(3)]) for ids in part["input_ids"]} for part in parts]
    assert [len(one) for one in tokens] == [14, 3, 3]
    assert len(tokens[0] | tokens[1] | tokens[2]) == 20
    again = loaded({"train": rows}, DataLimits(0.2, 42, 42), test_share=0.2, max_train_rows=70, max_evaluation_rows=15)
    assert again.split.train["input_ids"][:] == data.split.train["input_ids"][:]


def test_a_validation_split_chooses_where_scores_are_of_another():
    """Prevents training rows that are spent on what a split of the data is for."""
    splits = {"train": queries(6, offset=20), "validation": queries(2, offset=10), "test": queries(3)}
    data = loaded(splits, DataLimits(0.2, 42, 42))
    assert [*data.split.evaluation] == ["test"]
    assert (len(data.split.train), len(data.split.selection)) == (24, 8)


def test_rows_without_a_label_are_learned_from():
    """Prevents documents that nobody judged from being taken for irrelevant ones."""
    rows = queries(6, offset=20)
    partly = changed(rows, label=[None if i < 8 else label for i, label in enumerate(rows["label"])])
    data = loaded({"train": partly, "validation": queries(3)})
    assert len(data.split.train) == 24
    assert data.num_labelled == 16
    assert np.isnan(np.array(data.split.train["labels"])[:8, 0]).all()
    unlabelled = loaded({"train": rows.remove_columns("label"), "validation": queries(3)})
    assert unlabelled.num_labelled == 0


def test_queries_that_cannot_be_scored_are_counted(caplog):
    """Prevents a mean over queries that have nothing to find."""
    rows = changed(queries(3), label=[0, 0, 0, 0, *queries(3)["label"][4:]])
    loaded({"train": queries(6, offset=20), "validation": rows})
    assert "validation: 1 of 3 queries are left out of scores: 1 have no relevant document" in caplog.text


def test_the_baseline_is_the_words_that_both_texts_share():
    """Prevents a baseline that reads the labels, or only the order of the file."""
    rows = loaded({"train": queries(6, offset=20), "validation": queries(3)}).split.evaluation["validation"]
    for place, (query, document) in enumerate(zip(queries(3)["query"], queries(3)["document"], strict=True)):
        shares = bool(set(query.split()) & set(document.split()))
        assert (rows["overlap"][place] > 0) == shares


def test_batches_have_no_labels_of_fillers():
    """Prevents what fills up a batch from being in a query."""
    row = {"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "labels": [1.0, 4.0]}
    batch = RankingCollator(tiny.tokenizer())([row, row | {FILLER: True}])
    assert batch["labels"].dtype == torch.float64
    assert batch["labels"][0].tolist() == [1.0, 4.0]
    assert batch["labels"][1].isnan().all()


GOOD = {"train": queries(6, offset=20), "validation": queries(3)}
BAD = {
    "hidden labels": ({"validation": changed(queries(3), label=[-1] * 12)}, {}, "its labels are hidden"),
    "negative grades": (
        {"train": changed(queries(6), label=[-2] * 24)}, {}, "expected relevance as numbers from 0 on"
    ),
    "words": ({"train": changed(queries(6), label=["yes"] * 24)}, {}, "got 'yes'"),
    "infinite": ({"train": changed(queries(6), label=[math.inf] * 24)}, {}, "expected relevance as numbers"),
    "half judged": (
        {"validation": changed(queries(3), label=[None] + [1] * 11)}, {}, "every row of validation labelled"
    ),
    "nothing to find": (
        {"validation": changed(queries(3), label=[0] * 12)}, {}, "one of them relevant (above 0) / got none of 3"
    ),
    "single documents": (
        {"validation": changed(queries(3), query=[f"cat {word}" for word in tiny.VOCABULARY[5:17]])}, {},
        "with two documents or more",
    ),
    "no such group": ({}, {"group_column": "search"}, "expected a column 'search'"),
    "a row of no query": (
        {"train": changed(queries(6), search=[None] + ["a"] * 23)}, {"group_column": "search"}, "null in 1 rows"
    ),
    "one column": ({}, {"columns": ("query",)}, "two columns, of queries and of documents"),
    "no labels": ({"validation": queries(3).remove_columns("label")}, {}, "expected a column 'label' in"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_in_words(case):
    """Prevents rows that are ranked wrongly, or scores of nothing."""
    splits, options, words = BAD[case]
    with pytest.raises(UserError) as caught:
        loaded(GOOD | splits, **options)
    assert words in " ".join(str(caught.value).split())


def test_one_query_cannot_be_divided():
    """Prevents an empty split from a single query."""
    with pytest.raises(UserError, match="two queries or more with labels"):
        loaded({"train": queries(1)})


def test_named_classes_are_their_numbers():
    """Prevents a ClassLabel column from being refused."""
    rows = queries(6, offset=20).cast_column("label", ClassLabel(names=["other", "relevant"]))
    assert loaded({"train": rows, "validation": queries(3)}).num_labelled == 24
