"""Unusual data, tokenizers and models: either they work correctly, or a UserError explains the problem."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch._utils import ExceptionWrapper
from transformers import PreTrainedTokenizerFast

from distil_nlp.data import MaskingCollator, load_splits, load_task
from distil_nlp.data.corpus import pack
from distil_nlp.data.tokenization import trim_long_pairs
from distil_nlp.errors import UserError
from distil_nlp.tasks import CUSTOM_TASKS
from distil_nlp.utils.failures import readable_data
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

TOKENIZER = tiny.tokenizer()
SEP = TOKENIZER.sep_token_id
CLASSES = CUSTOM_TASKS["classification"]
TEXTS = [f"{text} {word}" for text in tiny.SENTENCES for word in ("the", "a", "cat")]
ROWS = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]
MLM = ("data.task=mlm", "data.text_columns=null", "data.max_length=16", "training.train_sampling_strategy=random")
STREAM = (*MLM, "data.streaming=true", "training.max_steps=2", "data.held_out_share=0.3")
REGRESSION = ("data.task=regression",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Make a teacher of two classes, a teacher for language modelling, and rows, once for all tests."""
    place = Place(tmp_path_factory.mktemp("prepared")).prepare()
    tiny.mlm_model(2).save_pretrained(place.folder / "mlm")
    TOKENIZER.save_pretrained(place.folder / "mlm")
    return place.folder


@pytest.fixture
def place(prepared, tmp_path) -> Place:
    place = Place(tmp_path / "place")
    place.folder.mkdir()
    for name in ("teacher", "mlm", "data"):
        (place.folder / name).mkdir()
        for file in (prepared / name).iterdir():
            (place.folder / name / file.name).write_bytes(file.read_bytes())
    return place


def refused(place: Place, capsys, message: str, *overrides: str) -> None:
    """Assert that a run ends with exit code 2 and one message of four parts (or three), without a traceback."""
    assert place.run(*overrides) == 2
    err = one_line(capsys.readouterr().err)
    assert "Traceback" not in err
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert error.count(" / ") >= 2
    assert re.search(message, error), error


def lines(rows: list) -> str:
    return "\n".join(json.dumps(row) for row in rows)


def table(*labels: object) -> str:
    return "text,label\n" + "\n".join(f'"{text}",{label}' for text, label in zip(TEXTS, labels, strict=False))


CORPUS = "\n".join(TEXTS * 20)
UNREADABLE = {
    "Latin-1 in a stream": ("x.txt", (CORPUS + "\ncafé").encode("latin-1"), STREAM, "UnicodeDecodeError: .* UTF-8"),
    "Latin-1 in JSON, which Arrow lets through": ("x.jsonl", b'{"text":"caf\xe9"}', MLM, "UnicodeDecodeError"),
    "UTF-16 in a stream of JSON": ("x.jsonl", lines(ROWS).encode("utf-16"), STREAM, "ArrowInvalid: JSON parse error"),
    "a cut line in a stream of JSON": ("x.jsonl", lines(ROWS) + '\n{"text": "a', STREAM, "ArrowInvalid: .* in row 12"),
    "a longer line in a stream of CSV": ("x.csv", table(*range(9)) + "\na,b,c,d", STREAM, "got 4 in line 11"),
    "UTF-16 that looks like UTF-8": ("x.txt", CORPUS.encode("utf-16-le"), MLM, r"expected text in UTF-8 .*\\x00"),
    "a number after texts": ("x.jsonl", lines([*ROWS * 20, {"text": 5}]), MLM, r"in 'text' / got int \(5\)"),
    "no word that the tokenizer knows": (
        "x.txt",
        "\n".join(f"😀 {i}" for i in range(200)),
        (*MLM, "data.held_out_share=0.3"),
        "got none in .* blocks",
    ),
    "one text alone": ("x.txt", TEXTS[0], MLM, "give more texts"),
    "an empty file": ("x.txt", "", MLM, "got no rows"),
    "an empty file of JSON": ("x.jsonl", "", MLM, "got no rows"),
    "a column twice": ("x.csv", "text,text\na,b\n", MLM, r"each column once in x\.csv / got 'text'"),
    "a column twice, after a byte-order mark": ("x.tsv", "\ufefftext\tn\ttext\na\tb\tc\n", MLM, "got 'text'"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_text_is_refused(place, capsys, name):
    """Prevents a traceback of a parser, in the middle of training where data are streamed, and noise that is learnt."""
    file, content, overrides, message = UNREADABLE[name]
    path = place.folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(place, capsys, message, *overrides, f"data.path={path}", f"teacher.name={place.folder / 'mlm'}")


def test_what_a_loader_s_worker_raises_is_reported_like_the_rest():
    """Prevents the worker's traceback in a message: torch hands it on as text."""

    def from_worker(error: Exception) -> None:
        try:
            raise error
        except Exception:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()

    with (
        pytest.raises(UserError, match=r"^data.path: expected .* / got UnicodeDecodeError: .*invalid / "),
        readable_data(),
    ):
        from_worker(UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"))
    with pytest.raises(UserError, match=r"^data: expected rows / got none$"), readable_data():
        from_worker(UserError("data: expected rows / got none"))
    with pytest.raises(ZeroDivisionError), readable_data():
        from_worker(ZeroDivisionError("a mistake of ours"))


BAD_TASKS = {
    "a text that is a number": (
        "jsonl",
        lines([*ROWS * 10, {"text": 5, "label": 1}]),
        (),
        r"in 'text' / got int \(5\)",
    ),
    "blank texts only": ("jsonl", lines([{"text": " ", "label": i % 2} for i in range(9)]), (), "got blank rows only"),
    "null texts only": ("jsonl", lines([{"text": None, "label": i % 2} for i in range(9)]), (), "got blank rows only"),
    "Latin-1 labels": ("jsonl", b'{"text":"a","label":"\xe9"}\n{"text":"a","label":"b"}', (), "UnicodeDecodeError"),
    "one class": ("csv", table(*["yes"] * 6), (), "expected two classes or more in train / got one"),
    "one row of class 0": ("csv", table(0), (), "expected two classes or more"),
    "classes with a gap": ("csv", table(0, 1, 10**9), (), r"got 3 of them up to 1000000000"),
    "a class of 64 bits": ("csv", table(0, 1, 2**63 - 1), (), "numbered from 0 on"),  # once overran numpy.bincount
    "a class beyond 64 bits": ("csv", table(0, 1, 2**64 - 1), (), "numbered from 0 on"),
    "a blank class": (
        "jsonl",
        lines([{"text": "a", "label": label} for label in ("", "a", "b")]),
        (),
        "got '', 'a', 'b'",
    ),
    "classes that differ by a space": ("csv", table("no", "no ", "yes"), (), "got 'no', 'no ', 'yes'"),
    "numbers whose square is infinite": ("csv", table(1.5, 1e30, 2.5), REGRESSION, r"below 1e\+18 / got 1e\+30"),
    "a column twice": ("csv", "text,label,label\na,0,1\nb,1,0\n", (), "got 'label' more than once"),
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_rows_that_cannot_be_learnt_are_refused(place, capsys, name):
    """Prevents tracebacks, gigabytes of classifier, and scores that mean nothing."""
    kind, content, overrides, message = BAD_TASKS[name]
    place.save({})
    for split in ("train", "test"):
        path = place.folder / "data" / f"{split}.{kind}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(place, capsys, message, *overrides)


def test_classes_in_another_order_in_another_file_are_refused(place, capsys):
    """Prevents swapped classes: `datasets` reads the second file's ids by the first one's names."""
    rows = Dataset.from_dict({"text": TEXTS, "label": [i % 2 for i in range(12)]})
    both = {"train": ("no", "yes"), "test": ("yes", "no")}
    place.save({split: rows.cast_column("label", ClassLabel(names=list(names))) for split, names in both.items()})
    refused(place, capsys, r"classes of 'label' as in train.* \(no, yes\) / got yes, no in test")


def without_unknown(folder: Path) -> None:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(tiny.VOCABULARY)}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)


def more_words(folder: Path) -> None:
    larger = tiny.tokenizer()
    larger.add_tokens(["foo", "bar"])
    larger.save_pretrained(folder)


def weights(change) -> object:
    """Return a function that writes a teacher after a change of its weights."""

    def write(folder: Path) -> None:
        model = tiny.classifier(2)
        with torch.no_grad():
            change(model)
        model.save_pretrained(folder)

    return write


def configured(**fields) -> object:
    def write(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return write


def written(name: str, text: str) -> object:
    return lambda folder: (folder / name).write_text(text)


NOT_A_NUMBER = weights(lambda model: model.bert.encoder.layer[1].output.dense.weight[0].fill_(math.nan))
BAD_TEACHERS = {
    "a tokenizer without a word for the unknown": (without_unknown, r"can read all texts .*Missing \[UNK\]"),
    "more words than embeddings": (more_words, r"expected embeddings for all \d+ tokens / got"),
    "a NaN among the weights": (
        NOT_A_NUMBER,
        r"finite weights in .*NaN or infinity in bert\.encoder\.layer\.1\.output",
    ),
    "an infinite bias": (weights(lambda model: model.classifier.bias.fill_(math.inf)), r"in classifier\.bias / its"),
    "finite weights, outputs that are not": (
        weights(lambda model: model.bert.encoder.layer[0].output.dense.weight.mul_(1e38)),
        r"finite outputs of the teacher on test / got NaN or infinity in \d of 9 rows",
    ),
    "a tokenizer.json that is a list": (written("tokenizer.json", "[]"), "got TypeError: "),
    "a tokenizer.json without its parts": (written("tokenizer.json", "{}"), "got KeyError: 'added_tokens'"),
    "a config.json that is null": (written("config.json", "null"), "got TypeError: "),
    "a width that is a word": (configured(hidden_size="wide"), "'hidden_size'.* expected int"),
    "an unknown activation": (configured(hidden_act="nope"), "KeyError: 'nope'"),
    "a padding id beyond the words": (configured(pad_token_id=999), "AssertionError: Padding_idx"),
    "labels that are numbers": (configured(id2label={"0": 5, "1": 7}), r"with \(5, 7\) / each class"),
}


@pytest.mark.parametrize("name", BAD_TEACHERS)
def test_broken_teachers_are_refused(place, capsys, name):
    """Prevents advice about the learning rate for a teacher that was broken all along, and tracebacks for its files."""
    change, message = BAD_TEACHERS[name]
    change(place.folder / "teacher")
    refused(place, capsys, message)


def test_a_broken_student_is_refused(place, capsys):
    """Prevents the same of a student that starts from a checkpoint."""
    TOKENIZER.save_pretrained(place.folder / "student")
    NOT_A_NUMBER(place.folder / "student")
    refused(place, capsys, "finite weights in .*student / got NaN", f"student.name={place.folder / 'student'}")


# What works, and is right --------------------------------------------------------------------------------------


def test_one_row_of_everything_is_a_run(place):
    """Prevents a division by rows − 1: one row to train on, one to score."""
    row = Dataset.from_dict({"text": ["the cat"], "label": [1]})
    place.save({"train": row, "test": row})
    assert place.run() == 0
    assert place.results["rows"] == {
        "train": 1, "labelled": 1, "evaluation": {"test": 1}, "in_training": {"test": 0}, "held_out": None,
    }  # fmt: skip


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_words_of_a_csv_are_words_and_empty_cells_are_missing(tmp_path, folder):
    """Prevents a class `None` that becomes unlabelled rows, and an unlabelled row that becomes a class of its own."""
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "train.csv"
    file.write_text("text,label,score\nNA,None,1\nnull,low,\n,,3\n")
    rows = load_splits(str(file.parent if folder else file))["train"]
    assert rows["text"][:] == ["NA", "null", None]
    assert rows["label"][:] == ["None", "low", None]
    assert rows["score"][:] == [1.0, None, 3.0]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings_and_byte_order_marks_are_no_text(tmp_path, ending):
    """Prevents one line of everything, and a mark that hides the first column."""
    (tmp_path / "x.txt").write_bytes(("\ufeff" + ending.join(TEXTS)).encode())
    (tmp_path / "x.csv").write_bytes(("\ufeff" + table(*range(12)).replace("\n", ending)).encode())
    assert load_splits(str(tmp_path / "x.csv"))["train"].column_names == ["text", "label"]
    ids = [TOKENIZER(text)["input_ids"] for text in load_splits(str(tmp_path / "x.txt"))["train"]["text"]]
    assert ids == [TOKENIZER(text)["input_ids"] for text in TEXTS]


def test_classes_written_as_numbers_keep_their_order():
    """Prevents class 10 from being the teacher's output 2."""
    rows = Dataset.from_dict({"text": TEXTS, "label": [str(i) for i in range(12)]})
    data = load_task(DatasetDict(train=rows, test=rows), TOKENIZER, CLASSES)
    assert data.labels == tuple(str(i) for i in range(12))
    assert data.split.train["labels"][:] == list(range(12))


def test_a_message_does_not_list_ten_thousand_classes(place, capsys):
    """Prevents a page of names if the text column was used as the label column."""
    names = [f"{i} cat" for i in range(400)] * 2
    rows = Dataset.from_dict({"text": names, "title": names, "label": [0] * 800})
    place.save({"train": rows, "test": rows})
    expected = r"expected 400 labels as in the data \((\d+ cat, ){9}\d+ cat and 390 more\)"
    refused(place, capsys, expected, "data.label_column=title")


# Any text ------------------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.just("a\0cat sees the dog"),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(
        [
            *tiny.SENTENCES,
            *tiny.SPECIALS,
            "👩‍👩‍👧‍👦",
            "\u202e",
            "\u200b",
            "e" + "\u0301" * 50,
            "\x1b[31m",
            "\ufffe",
            "漢字",
        ]
    ),
    st.sampled_from(["a" * 5000, "the cat " * 300]),
)
ANY_TEXTS = st.lists(st.one_of(st.none(), PIECES, st.lists(PIECES, max_size=4).map(" ".join)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(ANY_TEXTS, st.integers(8, 40), st.booleans())
def test_any_text_is_packed_and_masked_without_loss(texts, length, whole_words):
    """Prevents a text that breaks a block, is lost, or is masked where it must not be."""
    blocks = pack({"text": texts}, TOKENIZER, "text", length)
    kept = [text for text in texts if text and not text.isspace()]
    tokens = [token for text in kept for token in (*TOKENIZER(text, add_special_tokens=False)["input_ids"], SEP)]
    whole = len(tokens) // (length - 2) * (length - 2)
    assert [token for block in blocks["input_ids"] for token in block[1:-1]] == tokens[:whole]
    rows = [dict(zip(blocks, block, strict=True)) for block in zip(*blocks.values(), strict=True)]
    if not rows:
        return
    batch = MaskingCollator(TOKENIZER, whole_words=whole_words)(rows)
    ids, labels = np.stack(blocks["input_ids"]), batch["labels"].numpy()
    chosen = labels != -100
    assert (labels[chosen] == ids[chosen]).all()
    assert (batch["input_ids"].numpy()[~chosen] == ids[~chosen]).all()
    assert not np.isin(labels[chosen], TOKENIZER.all_special_ids).any()
    assert (chosen.any(1) == ~np.isin(ids, TOKENIZER.all_special_ids).all(1)).all()


@settings(max_examples=20, deadline=None)
@given(ANY_TEXTS, st.booleans())
def test_any_text_becomes_a_row_of_a_task(texts, pairs):
    """Prevents a text that breaks tokenising, or a row that is lost or meets another's label."""
    texts = ["the cat", *texts]
    rows = Dataset.from_dict(
        {"text": texts, "second": texts[::-1], "label": list(range(len(texts)))},
        features=Features({"text": Value("string"), "second": Value("string"), "label": Value("int64")}),
    )
    columns = ("text", "second") if pairs else ("text",)
    task = dataclasses.replace(CLASSES, text_columns=columns)
    train = load_task(DatasetDict(train=rows, test=rows), TOKENIZER, task, max_length=24).split.train
    assert train["labels"][:] == list(range(len(texts)))
    for row, text, second in zip(train, texts, texts[::-1], strict=True):
        inputs = ([text or ""], [second or ""]) if pairs else ([text or ""],)
        assert row["input_ids"] == TOKENIZER(*inputs, truncation=True, max_length=24)["input_ids"][0]
        assert row["length"] == len(row["input_ids"]) <= 24


@pytest.mark.parametrize(("first", "second"), [(9, 8), (8, 9), (8, 8), (1, 9), (9, 1)])
@pytest.mark.parametrize("length", [31, 32])
def test_a_pair_of_long_texts_is_cut_in_no_time(first, second, length):
    """Prevents hours for a pair: `tokenizers` puts all cut-off parts of one with all of the other."""
    rows = Dataset.from_dict({"a": ["the cats " * 300 * first], "b": ["a dog sees " * 300 * second], "label": [1]})
    task = dataclasses.replace(CLASSES, text_columns=("a", "b"))
    row = load_task(DatasetDict(train=rows, test=rows), TOKENIZER, task, max_length=length).split.train[0]
    short = TOKENIZER("the cats " * 20 * first, "a dog sees " * 20 * second, truncation=True, max_length=length)
    assert row["input_ids"] == short["input_ids"]
    assert row["token_type_ids"] == short["token_type_ids"]


def test_a_line_of_a_megabyte_is_packed_whole():
    """Prevents a long document from being cut, or from taking time that grows with its square."""
    blocks = pack({"text": ["the cat sees " * 80_000]}, TOKENIZER, "text", 128)
    assert len(blocks["input_ids"]) == (240_000 + 1) // 126


def test_long_pairs_are_left_to_a_tokenizer_that_cuts_beginnings():
    """Prevents the tails from being cut where truncation keeps them, and a call of len() on a number."""
    tokenizer = tiny.tokenizer(truncation_side="left")
    texts = ["the cat " * 300], ["a dog sees " * 300]
    assert trim_long_pairs(tokenizer, *texts, 16) == (list(texts[0]), list(texts[1]))
    assert trim_long_pairs(TOKENIZER, [5], ["a dog"], 16) == ([5], ["a dog"])
