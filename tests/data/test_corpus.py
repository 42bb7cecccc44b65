"""Packing of text into blocks, and loading of datasets."""

import json

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from distil_nlp.data import load_corpus, load_splits
from distil_nlp.data.corpus import pack
from distil_nlp.data.splits import is_held_out
from distil_nlp.errors import UserError
from tests.helpers import tiny

TOKENIZER = tiny.tokenizer()
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id


def documents(count: int, seed: int = 0) -> list[str]:
    """Documents of 1 to 20 known words, nearly all different."""
    generator = np.random.default_rng(seed)
    words = tiny.WORDS.split()
    return [" ".join(generator.choice(words, size=generator.integers(1, 21))) for _ in range(count)]


def corpus(**splits: list) -> DatasetDict:
    return DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in splits.items()})


def streamed(splits: DatasetDict) -> IterableDatasetDict:
    return IterableDatasetDict({name: rows.to_iterable_dataset() for name, rows in splits.items()})


def tokens(texts: list[str]) -> list[int]:
    """Return the tokens of all documents, each followed by its separator."""
    return [token for text in texts for token in (*TOKENIZER(text, add_special_tokens=False)["input_ids"], SEP)]


def test_blocks_are_full_and_lose_nothing_but_the_tail():
    """Padding wastes compute; a dropped document is data that silently never trains."""
    texts = documents(50)
    split = load_corpus(corpus(train=texts, validation=texts[:10]), TOKENIZER, max_length=16)
    for rows, documents_in in ((split.train, texts), (split.evaluation["validation"], texts[:10])):
        blocks, everything = rows["input_ids"], tokens(documents_in)
        assert {len(block) for block in blocks} == {16}
        assert {(block[0], block[-1]) for block in blocks} == {(CLS, SEP)}
        assert [token for block in blocks for token in block[1:-1]] == everything[: len(everything) // 14 * 14]


def test_word_ids_say_which_tokens_are_one_word():
    """Whole-word masking would mask pieces, or run across documents."""
    block = pack({"text": ["the dogs walked .", None, " \n", "a cats"]}, TOKENIZER, "text", 12)
    assert TOKENIZER.convert_ids_to_tokens(block["input_ids"][0]) == (
        ["[CLS]", "the", "dog", "##s", "walk", "##ed", ".", "[SEP]", "a", "cat", "##s", "[SEP]"]
    )
    assert block["word_ids"][0].tolist() == [-1, 0, 1, 1, 2, 2, 3, -1, 0, 1, 1, -1]


def test_a_tokenizer_without_words_takes_tokens_for_words():
    """Slow tokenizers have no offsets."""

    class Encoded(dict):
        is_fast = False

    class Slow:
        cls_token_id, sep_token_id = 2, 3

        def __call__(self, texts, **options):
            return Encoded(input_ids=[[5, 6, 7]] * len(texts))

    assert pack({"text": ["x"]}, Slow(), "text", 6)["word_ids"][0].tolist() == [-1, 0, 1, 2, -1, -1]


def test_held_out_documents_are_chosen_by_content():
    """The same document in training and evaluation makes perplexity a memory test; an order-dependent choice
    leaks after the data grow.
    """
    texts = documents(2000)
    inside = {text for text in texts if is_held_out(text, 0.1)}
    assert 0.06 < len(inside) / len(set(texts)) < 0.14
    assert inside == {text for text in reversed(texts) if is_held_out(text, 0.1)}
    assert inside < {text for text in texts if is_held_out(text, 0.2)}
    split = load_corpus(corpus(train=texts * 2), TOKENIZER, max_length=32, held_out_share=0.1)
    kept, held = [t for t in texts * 2 if t not in inside], [t for t in texts * 2 if t in inside]
    assert split.train[0]["input_ids"][1:-1] == tokens(kept)[:30]
    assert split.evaluation["held_out"][0]["input_ids"][1:-1] == tokens(held)[:30]
    assert set(split.evaluation) == {"held_out"}


def test_a_stream_gives_the_same_blocks():
    """Streaming must change memory, not data; 2,500 documents span several batches."""
    splits = corpus(train=[*documents(2500), None, " "])
    options = {"max_length": 32, "held_out_share": 0.1}
    whole, flowing = (load_corpus(s, TOKENIZER, **options) for s in (splits, streamed(splits)))
    assert isinstance(flowing.train, IterableDataset)
    for name in ("input_ids", "word_ids"):
        flown = sorted(tuple(map(int, row[name])) for row in flowing.train)  # a stream is shuffled as it flows
        assert flown == sorted(map(tuple, whole.train[name]))
        assert list(flowing.evaluation["held_out"][name]) == list(whole.evaluation["held_out"][name])


def test_a_stream_sets_its_first_blocks_aside_for_selection():
    """Blocks that choose the checkpoint must not be trained on."""
    splits = corpus(train=documents(2500), validation=documents(50, seed=1))
    everything = [list(block) for block in load_corpus(splits, TOKENIZER, max_length=16).train["input_ids"]]
    split = load_corpus(streamed(splits), TOKENIZER, max_length=16, selection_share=0.1, max_train_rows=20)
    assert list(split.selection["input_ids"]) == everything[:512]
    kept = sorted(list(map(int, row["input_ids"])) for row in split.train)
    assert kept == sorted(everything[512:532])


def test_evaluation_is_validation_or_what_is_named():
    """Without it, held-out documents would be taken away from training for nothing."""
    splits = corpus(train=documents(50), validation=documents(50, 1), test=documents(50, 2))
    default = load_corpus(splits, TOKENIZER, max_length=16)
    named = load_corpus(splits, TOKENIZER, max_length=16, evaluation_splits=["test"], train_split="validation")
    assert list(default.evaluation) == ["validation"]
    assert list(named.evaluation) == ["test"]
    assert named.train["input_ids"][:] == default.evaluation["validation"]["input_ids"][:]


def test_selection_is_a_fraction_of_the_training_blocks():
    """Scores are reported on blocks that chose nothing."""
    splits = corpus(train=documents(400), validation=documents(20, 1))
    whole = load_corpus(splits, TOKENIZER, max_length=16)
    split = load_corpus(splits, TOKENIZER, max_length=16, selection_share=0.2)
    parts = [sorted(map(tuple, rows["input_ids"])) for rows in (split.train, split.selection, whole.train)]
    assert len(parts[1]) == round(0.2 * len(parts[2]))
    assert sorted(parts[0] + parts[1]) == parts[2]
    assert whole.selection is None
    assert split.evaluation["validation"]["input_ids"][:] == whole.evaluation["validation"]["input_ids"][:]


def test_rows_are_limited_by_seed():
    """The head of a sorted file is no sample; another sample each run is no comparison."""
    splits = corpus(train=documents(300), validation=documents(300, 1))
    whole = load_corpus(splits, TOKENIZER, max_length=16).train["input_ids"][:]
    options = {"max_length": 16, "max_train_rows": 20, "max_evaluation_rows": 10}
    first, again, other = (load_corpus(splits, TOKENIZER, seed=seed, **options) for seed in (1, 1, 2))
    assert (len(first.train), len(first.evaluation["validation"])) == (20, 10)
    assert first.train["input_ids"][:] == again.train["input_ids"][:] != other.train["input_ids"][:]
    assert first.train["input_ids"][:] != whole[:20]
    assert len(load_corpus(splits, TOKENIZER, **{**options, "max_train_rows": 10**6}).train) == len(whole)


@pytest.mark.parametrize("options", [{"train_split": "trian"}, {"evaluation_splits": ["trian"]}])
def test_a_missing_split_is_an_error(options):
    """A KeyError names no remedy."""
    with pytest.raises(UserError, match="expected a split 'trian' / got train, validation"):
        load_corpus(corpus(train=["the cat"], validation=["a dog"]), TOKENIZER, **options)


@pytest.mark.parametrize("convert", [lambda splits: splits, streamed])
def test_a_missing_column_is_an_error(convert):
    """The same, for the commonest mistake with a dataset of one's own."""
    with pytest.raises(UserError, match="got 'body', but train has text"):
        load_corpus(convert(corpus(train=["the cat"])), TOKENIZER, text_column="body")


@pytest.mark.parametrize("texts", [["", None, "  "], ["the cat"]])
def test_text_that_fills_no_block_is_an_error(texts):
    """Training on no rows ends at once and looks like success."""
    with pytest.raises(UserError, match="expected text in train / got none that fills a block"):
        load_corpus(corpus(train=texts, validation=documents(20)), TOKENIZER, max_length=16)
    with pytest.raises(UserError, match="expected text in validation / got none that fills a block"):
        load_corpus(corpus(train=documents(20), validation=texts), TOKENIZER, max_length=16)


@pytest.mark.parametrize("texts", [["", None, "  "], ["the cat"]])
def test_a_stream_that_fills_no_held_out_block_is_the_same_error(texts):
    """Prevents an error of another library for a stream."""
    with pytest.raises(UserError, match="expected text in validation / got none that fills a block"):
        load_corpus(streamed(corpus(train=documents(20), validation=texts)), TOKENIZER, max_length=16)


def test_a_stream_without_rows_or_column_names_is_an_error():
    """A StopIteration says nothing."""
    splits = IterableDatasetDict({"train": IterableDataset.from_generator(lambda: iter(()))})
    with pytest.raises(UserError, match="train"):
        load_corpus(splits, TOKENIZER, max_length=16)


def test_a_stream_whose_columns_are_unknown_is_packed():
    """Other columns, one value per document, must not be zipped with blocks."""
    rows = [{"text": text, "id": i} for i, text in enumerate(documents(50))]
    splits = IterableDatasetDict(
        {name: IterableDataset.from_generator(lambda: iter(rows)) for name in ("train", "test")}
    )
    split = load_corpus(splits, TOKENIZER, max_length=16, evaluation_splits=["test"])
    everything = tokens(documents(50))
    assert [set(row) for row in split.train] == [{"input_ids", "word_ids"}] * (len(everything) // 14)
    assert list(split.evaluation["test"]["input_ids"][0])[1:-1] == everything[:14]


def test_a_stream_too_short_to_set_some_aside_is_an_error():
    """All of it would choose checkpoints, and nothing would be trained on."""
    splits = streamed(corpus(train=documents(50), validation=documents(50, 1)))
    with pytest.raises(UserError, match="choosing the best checkpoint"):
        load_corpus(splits, TOKENIZER, max_length=16, selection_share=0.1)


def test_one_block_is_too_few_to_set_some_aside():
    """Nothing would be left to train on."""
    texts = ["the cat sees the dog ."] * 3
    with pytest.raises(UserError, match=r"a fraction of 0\.1 for choosing the best checkpoint / got 1"):
        load_corpus(corpus(train=texts, validation=texts), TOKENIZER, max_length=16, selection_share=0.1)


# Sources ---------------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


WRITTEN = {
    "rows.txt": "the cat\na dog\n",
    "rows.jsonl": '{"text": "the cat"}\n{"text": "a dog"}\n',
    "rows.json": json.dumps([{"text": "the cat"}, {"text": "a dog"}]),
    "rows.csv": "text,label\nthe cat,0\na dog,1\n",
    "rows.tsv": "text\tlabel\nthe cat\t0\na dog\t1\n",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_files_of_each_kind_are_read(name, tmp_path, own_cache):
    """A .tsv read with commas is one column of everything."""
    (tmp_path / name).write_text(WRITTEN[name])
    rows = load_splits(str(tmp_path / name))["train"]
    assert rows["text"][:] == ["the cat", "a dog"]
    flowing = load_splits(str(tmp_path / name), streaming=True)["train"]
    assert [row["text"] for row in flowing] == ["the cat", "a dog"]


def test_a_folder_gives_its_splits(tmp_path, own_cache):
    """A folder in a Hub repository's layout, such as a download, works offline."""
    for name in ("train", "validation"):
        Dataset.from_dict({"text": [name]}).to_parquet(str(tmp_path / f"{name}.parquet"))
    splits = load_splits(str(tmp_path))
    assert {name: rows["text"][:] for name, rows in splits.items()} == {
        "train": ["train"],
        "validation": ["validation"],
    }


@pytest.mark.parametrize("name", ["missing.txt", "./no/folder", "/no/such/place"])
def test_a_missing_path_is_an_error(name):
    """Prevents a search for a mistyped path on the Hub."""
    with pytest.raises(UserError, match=f"expected a dataset at {name} / got no such file or folder"):
        load_splits(name)


def test_an_unknown_format_is_an_error(tmp_path):
    """A .docx read as text is noise."""
    (tmp_path / "rows.docx").write_text("x")
    with pytest.raises(UserError, match=r"expected a file of \.txt, .* / got rows\.docx"):
        load_splits(str(tmp_path / "rows.docx"))


def test_edited_files_of_a_folder_are_read_anew(tmp_path, own_cache):
    """Prevents `datasets`' stale cache where a README.md lists the files: a run on yesterday's rows."""
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card)
    for count in (2, 3):
        (tmp_path / "train.jsonl").write_text('{"text": "a"}\n' * count)
        assert len(load_splits(str(tmp_path))["train"]) == count


def test_an_empty_folder_and_an_unknown_configuration_are_errors(tmp_path, own_cache):
    """Prevents a page of traceback from `datasets`."""
    with pytest.raises(UserError, match=f"expected a dataset at '{tmp_path}'"):
        load_splits(str(tmp_path))
    (tmp_path / "train.txt").write_text("the cat\n")
    with pytest.raises(UserError, match=r"with the configuration 'mprc' / got .*mprc"):
        load_splits(str(tmp_path), "mprc")
