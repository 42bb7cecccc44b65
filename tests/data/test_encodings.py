"""Encodings: several tokenizers read the same text of a row, cut at the same character, and are padded apart."""

from dataclasses import replace

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from distil_nlp.data import TaskCollator, load_task
from distil_nlp.data.common_text import cut_alike
from distil_nlp.data.encodings import batch_of, encoding_name, further_encodings, rows_of
from distil_nlp.data.row_sets import FILLER, RowCollator, RowSets
from distil_nlp.tasks import TASKS
from tests.helpers import byte_pairs, tiny

TEXTS = [*tiny.SENTENCES, "the unknown zebra unbelievably sees 🙂🙂 naïvely", ""]
LABELS = [i % 2 for i in range(len(TEXTS))]


def loaded(tokenizers, max_length=32, **columns):
    rows = Dataset.from_dict({"text": TEXTS, "label": LABELS, **columns})
    task = replace(TASKS["classification"], text_columns=("text", *columns))
    splits = DatasetDict({"train": rows, "test": rows})
    own, further = tokenizers[0], {encoding_name(i): one for i, one in enumerate(tokenizers[1:])}
    return load_task(splits, own, task, max_length=max_length, encodings=further).split


def lengths(tokenizer, texts):
    return [len(ids) for ids in tokenizer(*texts.values())["input_ids"]]


def test_names_tell_encodings_apart():
    """Prevents columns of one teacher that are read as those of another."""
    names = [encoding_name(i) for i in range(11)]
    columns = ["input_ids", *(f"{name}input_ids" for name in names)]
    assert names[:3] == ["teacher_", "teacher2_", "teacher3_"]
    assert sorted(further_encodings(columns)) == sorted(names)
    for name in names:
        assert dict(batch_of({column: column for column in columns}, name)) == {"input_ids": f"{name}input_ids"}


PIECES = [*"abcdefghij ,.'", "🙂", "é", "ß", "the ", "unbelievable ", "İ", "\u0301"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.integers(6, 20), st.booleans())
def test_no_tokenizer_truncates_what_another_reads(pairs, max_length, is_pair):
    """Prevents a teacher that answers on another text than its student reads, for characters of several tokens too."""
    texts = {"a": [first for first, _ in pairs]} | ({"b": [second for _, second in pairs]} if is_pair else {})
    tokenizers = [tiny.tokenizer(), byte_pairs.tokenizer()]
    kept, cut = cut_alike(texts, tokenizers, max_length)
    for tokenizer in tokenizers:
        assert max(lengths(tokenizer, kept)) <= max_length
    fits = [all(lengths(one, texts)[i] <= max_length for one in tokenizers) for i in range(len(pairs))]
    assert cut == [not one for one in fits]
    for name, column in texts.items():
        for whole, part, fit in zip(column, kept[name], fits, strict=True):
            assert whole.startswith(part)
            assert not fit or part == whole


def test_texts_are_cut_where_the_first_tokenizer_ends():
    """Prevents texts that are cut shorter than any of the tokenizers needs."""
    texts, tokenizers = {"text": ["the cat sees the dog and the bird"]}, [tiny.tokenizer(), byte_pairs.tokenizer()]
    (kept,) = cut_alike(texts, tokenizers, 6)[0].values()
    longer = {"text": [texts["text"][0][: len(kept[0]) + 5]]}
    assert any(lengths(one, longer)[0] > 6 for one in tokenizers)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("max_length", [7, 32])
def test_one_tokenizer_twice_reads_as_it_does_alone(pairs, max_length):
    """Prevents rows that are cut elsewhere than plain truncation cuts them, where both sides have one vocabulary."""
    columns = {"other": TEXTS[::-1]} if pairs else {}
    plain = loaded([tiny.tokenizer()], max_length, **columns).train
    split = loaded([tiny.tokenizer(), tiny.tokenizer()], max_length, **columns)
    assert rows_of(split.train, "teacher_").to_dict() == {
        name: values for name, values in plain.to_dict().items() if name != "length"
    } | {"length": plain["length"][:]}
    for name in plain.column_names:
        assert split.train[name][:] == plain[name][:]
    untruncated = lengths(tiny.tokenizer(), {"text": TEXTS, **columns})
    assert split.cut == dict.fromkeys(("train", "test"), sum(length > max_length for length in untruncated))


def test_each_encoding_is_padded_and_counted_for_itself():
    """Prevents a mask, a first token or a number of tokens of the student in the batch of the teacher."""
    train = loaded([tiny.tokenizer(), byte_pairs.tokenizer()]).train
    collate = TaskCollator(tiny.tokenizer(), "classification", 4, {"teacher_": byte_pairs.tokenizer()})
    names = frozenset({"cls", "sequences", "labelled", "all"})
    rows = RowCollator(
        collate, RowSets("classification", names, frozenset({"sequences"})), frozenset(train.column_names)
    )
    features = [dict(train[i]) for i in range(4)] + [{**train[4], FILLER: True}]
    batch = rows(features)
    teacher = batch_of(batch, "teacher_")
    alone = rows.of("teacher_")(
        [dict(row) for row in rows_of(features, "teacher_")[:4]] + [{**rows_of(features, "teacher_")[4], FILLER: True}]
    )
    assert teacher.keys() == alone.keys()
    assert teacher["tokens"] == alone["tokens"] == sum(len(row["teacher_input_ids"]) for row in features[:4])
    assert teacher["input_ids"].equal(alone["input_ids"])
    assert teacher["attention_mask"].equal(alone["attention_mask"])
    for name, places in alone["rows"].items():
        assert teacher["rows"][name].equal(places)
    assert batch["rows"]["sequences"].equal(teacher["rows"]["sequences"])
    length = teacher["input_ids"].shape[1]
    assert length % 4 == 0
    assert length != batch["input_ids"].shape[1]
    assert teacher["rows"]["cls"].tolist() == [i * length for i in range(4)]


def test_a_tokenizer_without_padding_is_refused():
    """Prevents rows of a teacher that cannot share a batch, found in the first step."""
    unpadded = byte_pairs.tokenizer()
    unpadded.pad_token = None
    with pytest.raises(Exception, match="a tokenizer with a padding token"):
        loaded([tiny.tokenizer(), unpadded])
