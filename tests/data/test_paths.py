"""One path, several files, or files of each split."""

import pytest
from datasets import Dataset

from distil_nlp.data import load_splits
from distil_nlp.data.paths import dataset_name, files_of_splits
from distil_nlp.errors import UserError


def write(folder, **files):
    for name, texts in files.items():
        Dataset.from_dict({"text": texts}).to_csv(folder / f"{name}.csv")
    return [str(folder / f"{name}.csv") for name in files]


def test_files_are_divided_by_their_names(tmp_path):
    """Prevents test files that are trained on."""
    files = write(tmp_path, tickets_train=["a"], tickets_test=["b", "c"], more=["d"], contest=["e"])
    splits = load_splits(files)
    assert {name: rows["text"] for name, rows in splits.items()} == {"train": ["a", "d", "e"], "test": ["b", "c"]}


def test_splits_may_be_named(tmp_path):
    """Prevents the need to rename files."""
    one, other = write(tmp_path, january=["a"], february=["b"])
    splits = load_splits({"train": one, "test": [other]})
    assert {name: rows["text"] for name, rows in splits.items()} == {"train": ["a"], "test": ["b"]}


def test_the_same_files_may_be_other_splits(tmp_path):
    """Prevents the rows of another arrangement, from the cache of `datasets`."""
    one, other = write(tmp_path, january=["a"], february=["b"])
    for train, test in ((one, other), (other, one)):
        splits = load_splits({"train": train, "test": test})
        expected = ["a", "b"] if train == one else ["b", "a"]
        assert [*splits["train"]["text"], *splits["test"]["text"]] == expected
    assert load_splits([one, other])["train"]["text"][:] == ["a", "b"]


def test_a_missing_file_is_named(tmp_path):
    """Prevents a pattern that silently matches less."""
    (one,) = write(tmp_path, january=["a"])
    with pytest.raises(UserError, match=r"a dataset at .*february.csv / got no such file"):
        load_splits([one, str(tmp_path / "february.csv")])


def test_files_of_two_kinds_are_refused(tmp_path):
    """Prevents a parser's traceback."""
    (one,) = write(tmp_path, january=["a"])
    (tmp_path / "test.jsonl").write_text('{"text": "b"}\n')
    with pytest.raises(UserError, match=r"files of one kind / got .csv, .jsonl"):
        load_splits([one, str(tmp_path / "test.jsonl")])


def test_an_edited_file_is_read_anew(tmp_path):
    """Prevents rows of before an edit, from the cache of `datasets`."""
    files = write(tmp_path, train=["a"], test=["b"])
    load_splits(files)
    write(tmp_path, test=["b", "new"])
    assert load_splits(files)["test"]["text"] == ["b", "new"]


@pytest.mark.parametrize(
    ("path", "name"),
    [("tickets.csv", "tickets"), ("x/tickets.jsonl.gz", "tickets"), ("x/tickets", "tickets"), ("me/data.v2", "data.v2"),
     (["a/train.csv", "b.csv"], "train"), ({"train": ["q1.csv", "q2.csv"], "test": "q3.csv"}, "q1")],
)  # fmt: skip
def test_data_has_a_short_name(path, name):
    """Prevents folders of runs that collide for all data of one's own."""
    assert dataset_name(path) == name


def test_words_in_names_are_whole_words():
    """Prevents `contest.csv` as a test split."""
    assert files_of_splits(["contest.csv", "dev-1.csv", "my_val.csv"]) == {
        "train": ["contest.csv"], "validation": ["dev-1.csv", "my_val.csv"],
    }  # fmt: skip


def test_the_folder_of_a_configuration_is_read_as_that_of_the_dataset(tmp_path):
    """Prevents `glue/mrpc` from being refused where `glue` is read."""
    folder = tmp_path / "glue" / "mrpc"
    folder.mkdir(parents=True)
    Dataset.from_dict({"sentence1": ["a", "b"]}).to_parquet(folder / "train-00000-of-00001.parquet")
    card = "---\nconfigs:\n- config_name: mrpc\n  data_files: mrpc/*.parquet\n---\n"
    (tmp_path / "glue" / "README.md").write_text(card)
    for path in (folder.parent, folder):
        assert load_splits(str(path), "mrpc")["train"]["sentence1"][:] == ["a", "b"]
    with pytest.raises(UserError, match="for a GLUE task a configuration of its name"):
        load_splits(str(folder), "rte")
