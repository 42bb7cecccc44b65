"""Token classification with two tokenizers: the same words, cut alike, each first sub-word beside the other's."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from distil_nlp.data import DataLimits, tokens
from distil_nlp.data.common_text import cut_words_alike
from distil_nlp.data.encodings import rows_of
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.evaluation.fidelity.other_tokens import OtherTokens
from distil_nlp.losses.divergences import JensenShannon
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL, soft_target_kl
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import TASKS
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import byte_pairs, tiny
from tests.helpers.training import curve

SENTENCES = [
    ["the", "cat", "🙂🙂", "walked", "."],
    ["a", "naïve", "bird", "sees"],
    ["\u200b", "dogs", "playing", "slowly", "under", "houses", "and", "trees"],
    ["the", "fish"],
]
TAGS = [
    ["O", "B-x", "I-x", "O", "O"],
    ["O", "B-y", "B-x", "O"],
    ["O", "B-x", "O", "O", "O", "B-y", "O", "B-y"],
    ["O"] * 2,
]
OPTIONS = {
    "streaming": False,
    "train_split": "train",
    "evaluation_splits": ["test"],
    "test_share": 0.1,
    "max_train_rows": None,
    "share": 1.0,
    "labelled_share": 1.0,
    "max_evaluation_rows": None,
    "num_proc": 1,
    "label_names": None,
    "pad_to_multiple_of": None,
}


def loaded(*further, own=None, max_length=40):
    rows = Dataset.from_dict({"tokens": SENTENCES, "tags": TAGS})
    test = Dataset.from_dict({"tokens": [["dogs", "walked"]], "tags": [["B-x", "O"]]})
    encodings = {f"teacher{number + 1 if number else ''}_": one for number, one in enumerate(further)}
    limits = DataLimits(None, 42, 1, encodings=encodings)
    task = replace(TASKS["tokens"], text_columns=("tokens",), label_column="tags")
    options = SimpleNamespace(**OPTIONS, max_length=max_length)
    return tokens.load(DatasetDict({"train": rows, "test": test}), own or tiny.tokenizer(), task, options, limits)


def student(dtype=torch.float32):
    return tiny.tagger(2, 5, seed=1).to(dtype)


def made(folder, source, data, terms, **arguments):
    fields = {"per_device_train_batch_size": 2, "num_train_epochs": 2, "learning_rate": 1e-3, "seed": 7, **arguments}
    fixed = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return DistillationTrainer(
        model=student(),
        teacher=source,
        objective=Objective(terms, "tokens"),
        args=TrainingArguments(str(folder), **fixed, **fields, dataloader_pin_memory=False),
        train_dataset=data.split.train,
        data_collator=data.collator,
    )


@pytest.mark.parametrize("max_length", [6, 40])
@pytest.mark.parametrize("is_cached", [False, True])
def test_one_tokenizer_twice_is_the_plain_path_bit_for_bit(tmp_path, max_length, is_cached):
    """Prevents outputs, states and labels of another word, and sentences that are cut elsewhere."""
    terms = [SoftTargetKL(1.0), HardLabel(1.0), JensenShannon(1.0, rows="all"), HiddenCosine(1.0, "last", "labelled")]

    def trained(name, data, *encoding):
        teacher, cache = tiny.tagger(4, 5), CacheConfig(tmp_path / name / "caches", dtype="float32")
        source = CachedTeacher(teacher, cache, *encoding) if is_cached else FrozenTeacher(teacher, *encoding)
        trainer = made(tmp_path / name, source, data, terms)
        trainer.train()
        return curve(trainer)

    both = loaded(tiny.tokenizer(), max_length=max_length)
    assert trained("plain", loaded(max_length=max_length)) == trained("both", both, "teacher_")
    for name in ("labels", "is_word", "is_read", "word_labels"):
        assert rows_of(both.split.train, "teacher_")[name][:] == both.split.train[name][:]


def test_outputs_are_those_of_the_same_word(tmp_path):
    """Prevents a tag of a neighbour; computed in float64, word by word and token by token."""
    data, teacher = loaded(byte_pairs.tokenizer()), byte_pairs.tagger(3, 5).double()
    trainer = made(tmp_path, FrozenTeacher(teacher, "teacher_"), data, [SoftTargetKL(1.0, 1.0)])
    own = trainer.teacher_student.student.double()
    total, count = 0.0, 0
    for words in SENTENCES:
        first, second = tiny.tokenizer(), data.collator.encodings["teacher_"]
        encoded = [one([words], is_split_into_words=True) for one in (first, second)]
        logits = [
            model(torch.tensor(one["input_ids"])).logits[0] for model, one in zip((own, teacher), encoded, strict=True)
        ]
        for number in range(len(words)):
            places = [[i for i, word in enumerate(one.word_ids(0)) if word == number] for one in encoded]
            if all(places):
                total += soft_target_kl(logits[0][places[0][:1]], logits[1][places[1][:1]])
                count += 1
    batch = trainer.data_collator(list(data.split.train))
    sums = trainer.teacher_student.compute(own, batch, 0.0, torch.ones(1, dtype=torch.float64))[1]
    assert trainer.objective.counts(batch["rows"]) == [count]
    assert float(sums) == pytest.approx(float(total), rel=1e-6)


def test_words_that_one_model_does_not_read_are_counted():
    """Prevents the outputs of a word that one of the tokenizers drops from being those of the next one."""
    data = loaded(byte_pairs.tokenizer())
    assert data.split.train["is_read"][2][:2] == [False, True]
    assert data.split.train["teacher_is_read"][2][:2] == [True, True]
    assert data.split.partners["test"]["words"] == data.split.partners["test"]["matched"] == 2
    assert data.split.partners["train"]["words"] == data.split.partners["train"]["matched"] == 18


WORDS = st.lists(st.sampled_from(["the", "houses", "walked", "🙂", "naïve", "abcdefghij", "\u200b"]), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(4, 16))
def test_no_tokenizer_reads_words_that_another_does_not(sentences, max_length):
    """Prevents a teacher that answers on more words than its student reads."""
    tokenizers = [tiny.tokenizer(), byte_pairs.tokenizer()]
    tokens.read_words_with_spaces(tokenizers[1])
    kept, cut = cut_words_alike(sentences, tokenizers, max_length)

    def lengths(words):
        return [len(one([words], is_split_into_words=True)["input_ids"][0]) for one in tokenizers]

    for before, after, is_cut in zip(sentences, kept, cut, strict=True):
        assert max(lengths(after)) <= max_length
        assert is_cut == (max(lengths(before)) > max_length)
        assert after[:-1] == before[: max(len(after) - 1, 0)]
        assert not after or before[len(after) - 1].startswith(after[-1])


def compared(data, teacher, own, encoding="teacher_"):
    other = OtherTokens(data.kind, encoding) if encoding else None
    return compare_models(
        teacher, own, data.kind, data.split.train, data.scored_by, batch_size=2, no_cka="not asked", other_tokens=other
    )


def test_fidelity_is_that_of_the_words():
    """Prevents an agreement of tokens that are not the same words, and none where tokens are others."""
    own, again, other = loaded(), loaded(tiny.tokenizer()), loaded(byte_pairs.tokenizer())
    teacher, small = tiny.tagger(4, 4, seed=2, initializer_range=0.3), tiny.tagger(2, 4, seed=1)
    plain, told = compared(own, teacher, small, ""), compared(again, teacher, small)
    assert told.keys() == plain.keys()
    for name in ("rows", "tokens", "agreement", "kl", "entity_f1"):
        assert told[name] == pytest.approx(plain[name], rel=1e-5), name
    reader = byte_pairs.tagger(2, 4, seed=3).eval()
    rows, found = other.split.train, compared(other, reader, small)
    logits = {"": [], "teacher_": []}
    for row in rows:  # by hand: the first sub-words of the words that both tokenizers have one for
        for place, partner in enumerate(row["partners"]):
            if row["labels"][place] != -100 and partner >= 0:
                for prefix, model, at in (("", small, place), ("teacher_", reader, partner)):
                    ids = torch.tensor([row[f"{prefix}input_ids"]])
                    logits[prefix].append(model.eval()(input_ids=ids).logits[0, at])
    ours, theirs = (torch.stack(one) for one in logits.values())
    assert found["tokens"] == len(ours) < sum(map(len, SENTENCES))
    assert found["agreement"] == pytest.approx(float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()))
    assert found["kl"] == pytest.approx(float(soft_target_kl(ours, theirs)) / len(ours), rel=1e-4)
