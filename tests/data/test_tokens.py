"""Sentences of words with tags: which sub-word has a label, what is repaired, what is refused."""

import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distil_nlp.data import DataLimits, data_module
from distil_nlp.data.tokens import read_words_with_spaces
from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import DataSection
from distil_nlp.tasks import TASKS, Task
from tests.helpers import tiny

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCES = [["the", "walked", "cat"], ["dogs", "playing"]]
LONG = [["the", "walked", "cat", "sees", "the", "big", "dog"], ["cat"] * 8]


def rows(words, tags, names=None):
    inner = Value("string") if any(isinstance(t, str) for row in tags for t in row or ()) else Value("int64")
    inner = ClassLabel(names=names) if names else inner
    return Dataset.from_dict(
        {"tokens": words, "tags": tags}, features=Features({"tokens": List(Value("string")), "tags": List(inner)})
    )


def loaded(train, test=None, task="tokens", **options):
    section = DataSection(path="unused", task=task, text_columns=["tokens"], label_column="tags", **options)
    splits = DatasetDict({"train": train, "test": train.select(range(len(train))) if test is None else test})
    if test is None:
        changed = [[*words, "."] for words in train["tokens"]]
        tags = [[*own, 0 if not isinstance((own or [0])[0], str) else own[0]] for own in train["tags"]]
        splits["test"] = Dataset.from_dict({"tokens": changed, "tags": tags}, features=train.features)
    own = Task(task, ("tokens",), kind="tokens", label_column="tags", evaluation_splits=("test",))
    limits = DataLimits(selection_share=None, data_seed=0, mask_seed=0)
    return data_module("tokens").load(splits, tiny.tokenizer(), own, section, limits)


def test_the_first_sub_word_has_the_tag_and_the_others_none():
    """Prevents words that count as often as they have pieces, and labels on special tokens."""
    data = loaded(rows(SENTENCES, [[0, 1, 2], [3, 0]], NAMES))
    first = data.split.train[0]
    pieces = tiny.tokenizer().convert_ids_to_tokens(first["input_ids"])
    assert pieces == ["[CLS]", "the", "walk", "##ed", "cat", "[SEP]"]
    assert first["labels"] == [-100, 0, 1, -100, 2, -100]
    assert first["is_word"] == [False, True, True, True, True, False]
    assert (first["word_labels"], first["is_read"]) == ([0, 1, 2], [True] * 3)
    assert (data.head.labels, data.task) == (tuple(NAMES), "tokens")
    batch = data.collator([data.split.train[i] for i in (0, 1)])
    assert batch["labels"].shape == batch["input_ids"].shape
    assert batch["labels"][1].tolist() == [-100, 3, -100, 0, -100, -100]


def test_words_that_are_cut_off_are_kept_for_the_scores_and_said(capsys):
    """Prevents recall that looks better the shorter the inputs are."""
    data = loaded(rows(LONG, [[0, 1, 2, 0, 0, 0, 3], [0] * 8], NAMES), max_length=8)
    row = data.split.evaluation["test"][0]
    assert row["word_labels"] == [0, 1, 2, 0, 0, 0, 3, 0]
    assert row["is_read"] == [True] * 5 + [False] * 3
    out = " ".join(capsys.readouterr().out.split())
    assert "test: 6 of 17 words, in 2 of 2 rows, are beyond data.max_length=8 and cut off; scores count them as" in out
    assert "training: 4 of 15 words, in 2 of 2 rows, are beyond data.max_length=8 and cut off; they teach" in out


def test_a_word_without_a_sub_word_has_no_label_and_does_not_shift_the_others(capsys):
    """Prevents tags of the next word from there on, in texts with characters that a tokenizer drops."""
    data = loaded(rows([["cat", "\u200b", "dog"]], [[1, 0, 3]], NAMES))
    row = data.split.train[0]
    assert row["labels"] == [-100, 1, 3, -100]
    assert row["is_read"] == [True, False, True]
    assert "training: 1 of 3 words have no sub-word in this tokenizer" in capsys.readouterr().out


def test_inside_tags_that_begin_nothing_are_repaired_aloud(capsys):
    """Prevents IOB1 that strict scoring cannot find, and a repair that nobody hears of."""
    data = loaded(rows(SENTENCES, [[2, 2, 0], [0, 4]], NAMES))
    assert [row["word_labels"] for row in data.split.train] == [[1, 2, 0], [0, 3]]
    out = " ".join(capsys.readouterr().out.split())
    assert "train: 2 tags I- in 2 of 2 rows continue no entity of their type (IOB1, or slips)" in out
    assert "each is read as the B- of its type" in out


def test_names_from_strings_are_ordered_by_type_and_get_the_beginnings_that_they_lack(capsys):
    """Prevents IOB1 without B- from being a type that can never begin."""
    data = loaded(rows(SENTENCES, [["I-PER", "O", "B-LOC"], ["O", "O"]]))
    assert data.head.labels == ("O", "B-LOC", "I-PER", "B-PER")
    assert data.split.train[0]["word_labels"] == [3, 0, 1]
    assert "tags without a B- (IOB1): B-PER added" in capsys.readouterr().out


def test_tags_without_prefixes_are_another_task():
    """Prevents an entity F1 of parts of speech."""
    data = loaded(rows(SENTENCES, [["DET", "VERB", "NOUN"], ["NOUN", "VERB"]]))
    assert (data.task, data.head.labels) == ("tags", ("DET", "NOUN", "VERB"))
    assert TASKS[data.task].headline == "accuracy"


def test_numbers_are_named_by_the_recipe_and_say_nothing_of_the_teacher():
    """Prevents entities that are not seen as such, and a teacher whose own names are overruled."""
    numbered = rows(SENTENCES, [[0, 1, 2], [3, 0]])
    assert loaded(numbered).head.labels is None
    head = loaded(numbered, label_names=NAMES).head
    assert (head.labels, head.are_named_by_recipe) == (tuple(NAMES), True)
    named = loaded(rows(SENTENCES, [[0, 1, 2], [3, 0]], NAMES), label_names=NAMES[::-1]).head
    assert (named.labels, named.are_named_by_recipe) == (tuple(NAMES), False)


def test_rows_and_words_without_tags_learn_from_the_teacher_alone():
    """Prevents −100 from being taken for a tag; such words in scored rows are refused."""
    tags = [[0, None, 2], None]
    data = loaded(rows(SENTENCES, tags, NAMES), rows([["dogs", "walked"]], [[1, 0]], NAMES))
    assert data.split.train[0]["labels"] == [-100, 0, -100, -100, 2, -100]
    assert data.num_labelled == 1
    with pytest.raises(UserError, match="expected a tag for every word of test / got 1 words without one"):
        loaded(rows(SENTENCES, [[0, 1, 2], [3, 0]], NAMES), rows([["a", "b", "c"]], tags[:1], NAMES))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (lambda: rows(SENTENCES, [[0, 1], [3, 0]], NAMES), "a tag for each of the 3 words in row 0 of train / got 2"),
        (lambda: rows(SENTENCES, [["O", "S-A", "B-A"], ["E-A", "O"]]), "expected BIO tags .* / got E-A, S-A"),
        (lambda: rows(SENTENCES, [["O"] * 3, ["O"] * 2]), "two tags or more in train / got 1"),
        (lambda: rows(SENTENCES, [[0, -1, 2], [3, 0]]), "names of tags, or numbers from 0 on"),
        (lambda: rows([["the", None, "cat"]], [[0, 1, 2]], NAMES), "words in 'tokens' / got null in row 0 of train"),
        (lambda: rows(SENTENCES, [None, None], NAMES), "tags in 'tags' of train / got none"),
        (
            lambda: Dataset.from_dict({"tokens": ["the cat"], "tags": [[0, 1]]}),
            "a list of words in 'tokens' / got .*string.* in train",
        ),
        (
            lambda: Dataset.from_dict({"tokens": SENTENCES, "tags": [0, 1]}),
            "a list of tags in 'tags' / got .*int64.* in train",
        ),
    ],
)
def test_columns_that_are_no_words_and_tags_are_refused(train, message):
    """Prevents tags of other words, and a failure in the middle of tokenising."""
    with pytest.raises(UserError, match=message):
        loaded(train(), rows(SENTENCES, [[0, 1, 2], [3, 0]], NAMES))


def test_unknown_tags_and_too_few_names_are_refused():
    """Prevents tags that no output is for."""
    with pytest.raises(UserError, match=r"a name for each of the 4 tags, .* / got 2 names"):
        loaded(rows(SENTENCES, [[0, 1, 2], [3, 0]]), label_names=["O", "B-PER"])
    with pytest.raises(UserError, match=r"lists of tags from 0 to 2 / got 7 in test"):
        loaded(rows(SENTENCES, [[0, 1, 2], [1, 0]]), rows(SENTENCES, [[0, 1, 7], [1, 0]]))
    with pytest.raises(UserError, match="expected tokens for tags with prefixes"):
        loaded(rows(SENTENCES, [[0, 1, 2], [3, 0]], NAMES), task="tags")


def test_tokenizers_of_bytes_read_words_with_the_space_before_them():
    """Prevents ModernBERT from reading a list of words as parts of one long word, and RoBERTa from refusing it."""
    backend = Tokenizer(
        models.BPE(vocab={"Ġ": 0, "a": 1, "b": 2, "Ġa": 3, "Ġb": 4, "[PAD]": 5}, merges=[("Ġ", "a"), ("Ġ", "b")])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    assert tokenizer(["a", "b"], is_split_into_words=True)["input_ids"] == [1, 2]
    read_words_with_spaces(tokenizer)
    assert tokenizer(["a", "b"], is_split_into_words=True)["input_ids"] == tokenizer("a b")["input_ids"] == [3, 4]
    assert json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]["add_prefix_space"] is True
