"""The fraction of masked tokens is the one that was asked for, whatever a word is; and it may be 0."""

import logging
import math

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from distil_nlp.data import MaskingCollator, data_module, load_corpus, token_frequencies
from distil_nlp.data.transfer_set import DataLimits
from distil_nlp.recipe.sections import DataSection
from distil_nlp.tasks import CUSTOM_TASKS
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

TOKENIZER = tiny.tokenizer()
LANGUAGES = {
    "Chinese": "研究问题方法明天天气训练老师时间使用学生测试学习可以机器模型我们需要系统不好工作数据",
    "Japanese": "私たちは東京で新しい言語モデルを学ぶことができますデータと機械の研究は明日の天気",
    "Thai": "ภาษาไทยไม่มีช่องว่างระหว่างคำและประโยคยาวมากในข้อความนี้",
}


def corpus(letters: str, spaces: float, seed: int = 0) -> list[str]:
    """Return paragraphs of random letters with few spaces."""
    draw = np.random.default_rng(seed)
    return [
        "".join(letter + " " * int(draw.random() < spaces) for letter in draw.choice(list(letters), 150))
        for _ in range(40)
    ]


def sentencepiece(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer whose words are what stands between spaces, as XLM-R's."""
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    unigram.train_from_iterator(texts, trainer)
    unigram.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=unigram, **names)


def rate(tokenizer, rows, **options) -> tuple[float, float]:
    """Return the mean fraction of masked tokens, and the largest of a row."""
    labels = [MaskingCollator(tokenizer, whole_words=True, **options)([row])["labels"].numpy()[0, 1:-1] for row in rows]
    shares = [float((row != -100).mean()) for row in labels]
    return float(np.mean(shares)), max(shares)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("spaces", [0, 0.02, 0.1], ids=["without spaces", "few spaces", "phrases"])
def test_text_without_spaces_is_masked_at_the_rate_asked_for(language, spaces):
    """Prevents nine masked tokens of ten: a paragraph is one word to such a tokenizer."""
    texts = corpus(LANGUAGES[language], spaces)
    tokenizer = sentencepiece(texts)
    rows = load_corpus(
        DatasetDict(train=Dataset.from_dict({"text": texts})), tokenizer, max_length=64, held_out_share=0.2
    ).train
    weights = -0.7 * np.log(token_frequencies(rows, len(tokenizer)))
    for options in ({}, {"log_weights": weights}):
        mean, most = rate(tokenizer, rows, **options)
        assert 0.12 < mean < 0.155
        assert most < 0.16
    assert 0.27 < rate(tokenizer, rows, probability=0.3)[0] < 0.31


def rows_of_words(length: int, draw_word, count: int = 60) -> list[dict]:
    """Return rows of random tokens in words whose lengths are drawn."""
    draw, rows = np.random.default_rng(1), []
    for _ in range(count):
        words = [i for i in range(length) for _ in range(draw_word(draw))][: length - 2]
        ids = draw.integers(5, len(TOKENIZER), length - 2).tolist()
        rows.append({"input_ids": [TOKENIZER.cls_token_id, *ids, TOKENIZER.sep_token_id], "word_ids": [-1, *words, -1]})
    return rows


WORDS = {
    "English": lambda draw: draw.choice([1, 2, 3, 4], p=[0.7, 0.2, 0.06, 0.04]),
    "one word": lambda draw: 600,
    "phrases": lambda draw: draw.integers(5, 9),
    "long phrases": lambda draw: draw.integers(10, 31),
    "a paragraph or a sign": lambda draw: draw.choice([1, 60]),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("length", [8, 16, 34, 66, 130, 514])
def test_the_rate_is_near_for_any_words_and_rows(name, length):
    """Prevents half of the tokens from being masked where words and rows are of about one size, or a third of 15 %."""
    rows = rows_of_words(length, WORDS[name])
    wanted = max(1, math.floor(0.15 * (length - 2) + 0.5)) / (length - 2)
    mean, most = rate(TOKENIZER, rows)
    assert 0.85 * wanted < mean <= wanted + 1e-9
    assert most <= wanted + 1e-9


def test_words_that_fit_are_whole():
    """Prevents halves of ordinary words: only what is longer than the number of tokens to mask is cut."""
    for row in rows_of_words(130, WORDS["English"]):
        chosen = MaskingCollator(TOKENIZER, whole_words=True)([row])["labels"].numpy()[0] != -100
        words = np.asarray(row["word_ids"])
        assert all(
            chosen[words == word].all() or not chosen[words == word].any() for word in set(words.tolist()) - {-1}
        )


def load(tokenizer, texts, **masking):
    section = DataSection(path="own", task="mlm", max_length=32, held_out_share=0.3, masking=masking)
    splits = DatasetDict(train=Dataset.from_dict({"text": texts}))
    return data_module("mlm").load(splits, tokenizer, CUSTOM_TASKS["mlm"], section, DataLimits(None, 42, 42))


def test_a_tokenizer_that_finds_no_words_is_told_once(caplog):
    """Prevents whole words that are none, without a word; and a warning about ordinary text."""
    caplog.set_level(logging.INFO, logger="distil_nlp")
    texts = corpus(LANGUAGES["Chinese"], 0)
    load(sentencepiece(texts), texts, whole_words=True)
    assert caplog.text.count("data.masking.whole_words: 9") == 1
    caplog.clear()
    load(TOKENIZER, [f"{text} {i}" for text in tiny.SENTENCES * 20 for i in range(3)], whole_words=True)
    assert "whole_words" not in caplog.text


def test_nothing_is_masked_at_a_probability_of_zero_but_scores_are():
    """Prevents a masked token a row where the published recipe masks none, and perplexities of nothing."""
    data = load(TOKENIZER, [f"{text} {i}" for text in tiny.SENTENCES * 20 for i in range(3)], probability=0)
    rows = [data.split.train[i] for i in range(4)]
    batch = data.collator(rows)
    assert (batch["labels"] == -100).all()
    assert batch["input_ids"].tolist() == [row["input_ids"] for row in rows]
    assert ((data.scored_by(rows)["labels"] != -100).sum(1) == 5).all()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    place = Place(tmp_path_factory.mktemp("place")).prepare()
    place.teacher(tiny.mlm_model(4))
    (place.folder / "own.txt").write_text("\n".join(f"{text} {i}" for text in tiny.SENTENCES * 20 for i in range(3)))
    return place


UNMASKED = (
    *("data.task=mlm", "data.text_columns=null", "data.max_length=16", "data.held_out_share=0.3"),
    *("data.masking.probability=0", "training.train_sampling_strategy=random", "training.max_steps=2"),
)
WITHOUT_LABELS = ("objective.hard_label=null", "objective.soft_target_kl=null")
MASKED_TERMS = {
    "hard_label": ("objective.soft_target_kl=null",),
    "soft_target_kl": ("objective.hard_label=null",),
    "hidden_cosine": (*WITHOUT_LABELS, "objective.hidden_cosine.rows=masked"),
    "replaced_tokens": (*WITHOUT_LABELS, "objective.replaced_tokens={}"),
    "teacher.finetune": (*WITHOUT_LABELS, "teacher.finetune={max_steps: 1}"),
    "no_distillation": (*WITHOUT_LABELS, "evaluation.baselines=[no_distillation]"),
}


@pytest.mark.parametrize("name", MASKED_TERMS)
def test_what_learns_from_masked_tokens_is_refused_where_none_is(place, capsys, name):
    """Prevents a term that is silently 0 throughout."""
    assert place.run(*UNMASKED, f"data.path={place.folder / 'own.txt'}", *MASKED_TERMS[name]) == 2
    assert name in one_line(capsys.readouterr().err).split("more than 0 for ")[1].split(" / ")[0]


@pytest.mark.parametrize("other", ["whole_words=true", "rare_token_power=0.7", "probability=0"])
def test_what_spans_have_no_use_for_is_refused(place, capsys, other):
    """Prevents a key that is accepted and has no effect beside data.masking.spans."""
    assert place.run("data.task=mlm", "data.text_columns=null", "data.masking.spans=true", f"data.masking.{other}") == 2
    message = one_line(capsys.readouterr().err)
    assert f"data.masking.{other.partition('=')[0]}: expected its default with data.masking.spans=true" in message


@pytest.mark.with_pictures
def test_a_run_without_masks(place):
    """Prevents a key that is accepted and fails later: layers and outputs of all tokens, scores of masked ones."""
    rows = ("objective.hard_label=null", "objective.soft_target_kl.rows=all", f"data.path={place.folder / 'own.txt'}")
    evaluated = ("training.eval_strategy=steps", "training.eval_steps=2")
    assert place.run(*UNMASKED, *rows, *evaluated) == 0
    assert math.isfinite(place.results["student"]["metrics"]["perplexity"])
    assert "No token was masked in training" in (place.out / "student" / "README.md").read_text()
