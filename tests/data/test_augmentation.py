"""Augmentation of training rows: mixtures, cut tokens and replaced words, labelled by the teacher."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from transformers import DataCollatorWithPadding

from distil_nlp.data import TaskCollator, load_task
from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import PARTNER, SHARE, EmbeddingMixer, Mixup, MixupCollator
from distil_nlp.data.augmentation.word_replacement import WordReplacement, augment_with_replacements, mask_groups
from distil_nlp.data.row_sets import FILLER, RowCollator, RowSets
from distil_nlp.data.sampling import EpochRows, encode_index
from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.losses.weight_matrices import WeightsMSE
from distil_nlp.pipeline import kept_outputs, publication, teacher
from distil_nlp.pipeline import students as variants
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.tasks import Task
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.helpers.training import StopAt, curve, task_rows, trainer

CLS, SEP, MASK = 2, 3, 4
KEPT = (CLS, SEP)
SETS = RowSets("classification", frozenset({"all", "sequences", "labelled"}), frozenset({"sequences"}))
COLUMNS = frozenset({"input_ids", "token_type_ids", "attention_mask", "labels", PARTNER, SHARE})


def classifier(num_layers, **changes):
    """Return a classifier whose outputs differ between rows."""
    return tiny.classifier(num_layers, initializer_range=0.3, **changes)


def batch_of(rows, numbers, epoch=0, cutoff=None, mixup=None):
    """Return some rows as a batch of a trainer's loader."""
    collate = TaskCollator(tiny.tokenizer(), "classification")
    collator = RowCollator(MixupCollator(collate) if mixup else collate, SETS, COLUMNS)
    return collator(EpochRows(rows, cutoff=cutoff, mixup=mixup).__getitems__([encode_index(epoch, i) for i in numbers]))


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask") if name in batch}


# Mixup ----------------------------------------------------------------------------------------------------------


def by_hand(model, rows, epoch, mixup):
    """Return logits of rows one by one: embeddings mixed outside the model, token by token."""
    embed, logits = model.get_input_embeddings(), []
    for number, row in enumerate(rows):
        partner, share = mixup.draw(epoch, number, len(rows)) or (number, 1.0)
        other = rows[partner]
        length, other_length = len(row["input_ids"]), len(other["input_ids"])
        states, segments = [], []
        for place in range(max(length, other_length)):
            both = [
                embed(torch.tensor(each["input_ids"][place])) for each in (row, other) if place < len(each["input_ids"])
            ]
            states.append(share * both[0] + (1 - share) * both[1] if len(both) == 2 else both[0])
            segments.append((row if place < length else other)["token_type_ids"][place])
        logits.append(model(inputs_embeds=torch.stack(states)[None], token_type_ids=torch.tensor([segments])).logits[0])
    return torch.stack(logits)


@pytest.mark.parametrize("ensemble", [False, True], ids=["student", "ensemble"])
def test_a_mixture_is_that_of_the_definition(ensemble):
    """Prevents embeddings of another model, padding mixed in, tokens of the longer row without attention, and an
    ensemble of which a single member reads the mixture.
    """
    rows, mixup = task_rows(12), Mixup(0.7, 1.0, seed=5)
    members = [classifier(2, seed=1), classifier(3, seed=2, hidden_size=16)]
    model = Ensemble(members) if ensemble else members[0]
    recorder = Recorder(model, SignalRequest(logits=True))
    mixer = EmbeddingMixer(model)
    batch = batch_of(rows, range(12), epoch=3, mixup=mixup)
    logits = forward_with_signals(model, inputs_of(batch), batch["rows"]).logits
    mixer.remove()
    recorder.remove()
    expected = [by_hand(member, rows, 3, mixup) for member in (members if ensemble else members[:1])]
    torch.testing.assert_close(logits, torch.stack(expected).mean(0), atol=2e-6, rtol=1e-5)
    plain = model(**inputs_of(batch_of(rows, range(12)))).logits
    assert (logits - plain).abs().max() > 1e-3


def test_a_partner_is_another_row_and_shares_are_those_of_beta():
    """Prevents rows mixed with themselves, partners from one end of the data, and a share that is another number."""
    drawn = [Mixup(0.3, 0.4, seed=1).draw(2, row, 50) for row in range(4000)]
    mixed = [(row % 50, *one) for row, one in enumerate(drawn) if one]
    assert abs(len(mixed) / 4000 - 0.3) < 0.03
    assert {partner for _, partner, _ in mixed} == set(range(50))
    drawn = [Mixup(1.0, 0.4, seed=1).draw(2, row, 5) for row in range(5)]
    assert all(partner != row for row, (partner, _) in enumerate(drawn))
    shares = np.array([share for *_, share in mixed])
    assert abs(shares.mean() - 0.5) < 0.04
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.015
    assert Mixup(1.0).draw(0, 0, 1) is None  # one row has no other


def test_draws_are_those_of_seed_epoch_and_row():
    """Prevents the same mixtures and cuts in every epoch or for every student, and other ones in another batch."""
    rows = task_rows(10)

    def read(seed, epoch, numbers):
        changes = {"cutoff": Cutoff(1.0, 0.3, KEPT, seed), "mixup": Mixup(0.9, 0.4, seed)}
        return EpochRows(rows, **changes).__getitems__([encode_index(epoch, i) for i in numbers])

    assert read(0, 1, [3, 7]) == [read(0, 1, [3])[0], read(0, 1, [5, 7])[1]]
    for other in (read(1, 1, range(10)), read(0, 2, range(10))):
        assert [row.get(PARTNER) for row in other] != [row.get(PARTNER) for row in read(0, 1, range(10))]
        assert [row["attention_mask"] for row in other] != [row["attention_mask"] for row in read(0, 1, range(10))]


def test_a_mixture_has_no_label_and_a_filler_no_partner():
    """Prevents a mixture with the label of one of its rows, and fillers that are mixed."""
    rows = EpochRows(task_rows(6), mixup=Mixup(1.0, seed=2)).__getitems__([encode_index(0, i) for i in range(8)])
    assert [PARTNER in row for row in rows] == [not row[FILLER] for row in rows] == [True] * 6 + [False] * 2
    batch = batch_of(task_rows(6), range(6), mixup=Mixup(0.5, seed=2))
    mixed = [Mixup(0.5, seed=2).draw(0, row, 6) is not None for row in range(6)]
    assert 0 < sum(mixed) < 6
    assert (batch["labels"] == -100).tolist() == mixed
    assert batch["rows"]["labelled"].tolist() == [i for i, is_mixed in enumerate(mixed) if not is_mixed]
    for share in (0.2, 1 - 1e-9):  # which float32 rounds to 1
        other = {"input_ids": [2, 8, 7, 3], "labels": 1.0}
        features = [{"input_ids": [2, 9, 3], "labels": 0.5, PARTNER: other, SHARE: share}]
        assert MixupCollator(TaskCollator(tiny.tokenizer(), "regression"))(features)["labels"].isnan().all()


def test_a_model_that_looks_words_up_elsewhere_is_refused():
    """Prevents a teacher that reads the unmixed row while the student reads the mixture."""
    model = classifier(2)
    Recorder(model, SignalRequest(logits=True))
    EmbeddingMixer(model)
    elsewhere = copy.deepcopy(model.get_input_embeddings())
    model.bert.embeddings.word_embeddings.forward = elsewhere.forward
    batch = batch_of(task_rows(4), range(4), mixup=Mixup(1.0))
    assert forward_with_signals(model, inputs_of(batch), batch["rows"]).logits is not None
    model.bert.embeddings.word_embeddings = elsewhere
    with pytest.raises(UserError, match=r"BertForSequenceClassification to look words up once .* got 0 look-ups"):
        forward_with_signals(model, inputs_of(batch), batch["rows"])


# Cut-off ----------------------------------------------------------------------------------------------------------


def test_cut_tokens_are_unseen():
    """Prevents a cut token with an effect: outputs are the same whatever its id, and no term uses it."""
    rows, cutoff, model = task_rows(8), Cutoff(1.0, 0.4, KEPT, seed=1), classifier(3)
    cut = [EpochRows(rows, cutoff=cutoff)[encode_index(0, i)]["attention_mask"] for i in range(8)]
    assert sum(mask.count(0) for mask in cut) > 0
    others = copy.deepcopy(rows)
    for row, mask in zip(others, cut, strict=True):
        row["input_ids"] = [id if kept else 7 + id % 5 for id, kept in zip(row["input_ids"], mask, strict=True)]
    assert others != rows
    batch, other = (batch_of(some, range(8), cutoff=cutoff) for some in (rows, others))
    torch.testing.assert_close(model(**inputs_of(batch)).logits, model(**inputs_of(other)).logits)
    assert len(batch["rows"]["all"]) == batch["tokens"] == sum(map(sum, cut))
    assert batch["rows"]["labelled"].tolist() == list(range(8))
    whole = batch_of(rows, range(8))
    assert batch["input_ids"].equal(whole["input_ids"])
    assert (model(**inputs_of(batch)).logits - model(**inputs_of(whole)).logits).abs().max() > 1e-3


def test_the_first_token_and_separators_are_never_cut():
    """Prevents a row without [CLS], which the head reads, or a pair whose texts run together."""
    row, attended = {"input_ids": [9, 7, SEP, *[8] * 400, SEP]}, []
    for epoch in range(20):
        attended.append(Cutoff(1.0, 0.5, KEPT)(row, epoch, 0)["attention_mask"])
    assert all(mask[0] and mask[2] and mask[-1] for mask in attended)
    assert abs(np.mean([mask[3:-1] for mask in attended]) - 0.5) < 0.03
    shares = [all(Cutoff(0.25, 0.5, KEPT)(row, 0, number)["attention_mask"]) for number in range(800)]
    assert abs(np.mean(shares) - 0.75) < 0.05


# Training ---------------------------------------------------------------------------------------------------------

TERMS = (SoftTargetKL(2.0), HardLabel(1.0), HiddenCosine(1.0), AttentionKL(1.0))
BOTH = {"changes": {"cutoff": Cutoff(0.8, 0.3, KEPT, seed=7), "mixup": Mixup(0.5, 0.4, seed=7)}}


def run(folder, student=None, callbacks=(), resume=None, **arguments):
    trained = trainer(
        folder,
        student or classifier(2, seed=1),
        arguments.pop("teacher", None) or classifier(4),
        copy.deepcopy(arguments.pop("terms", TERMS)),
        kind=arguments.pop("kind", "classification"),
        callbacks=list(callbacks),
        **arguments,
    )
    trained.train(resume_from_checkpoint=resume)
    return trained


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (1, 8)])
def test_any_cut_of_a_step_gives_the_same_gradient(tmp_path, batch, accumulation):
    """Prevents partners, shares or cuts that depend on the micro-batch."""

    def gradient(batch, accumulation, **changes):
        arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, **changes}
        student = classifier(2, seed=1)
        before = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
        run(tmp_path, student, max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0, **arguments)
        return torch.cat([(before[name] - p.detach()).flatten() for name, p in student.named_parameters()])

    whole, cut, plain = gradient(8, 1, **BOTH), gradient(batch, accumulation, **BOTH), gradient(8, 1)
    assert (whole - cut).norm() < 1e-5 * whole.norm()
    assert (whole - plain).norm() > 0.1 * whole.norm()


@pytest.mark.integration
def test_a_resumed_run_sees_the_rows_of_an_uninterrupted_one(tmp_path):
    """Prevents draws from a generator that a resume starts anew."""
    arguments = {"max_steps": 7, "per_device_train_batch_size": 6, **BOTH}
    whole = run(tmp_path / "whole", **arguments)
    plain = run(tmp_path / "plain", max_steps=7, per_device_train_batch_size=6)
    run(tmp_path / "cut", callbacks=[StopAt(3)], **arguments)
    again = run(tmp_path / "cut", resume=str(last_complete_checkpoint(tmp_path / "cut")), **arguments)
    assert curve(again) == curve(whole) != curve(plain)


def test_the_teacher_labels_what_the_student_sees(tmp_path):
    """Prevents a teacher that reads another row (equal models would then differ), and changed evaluation rows."""
    model = classifier(2)
    arguments = {"terms": [SoftTargetKL()], "learning_rate": 0.0, "eval_rows": task_rows(8, seed=3)}
    trained = run(tmp_path, copy.deepcopy(model), teacher=model, **arguments, **BOTH)
    assert trained.last_terms["soft_target_kl"] < 1e-10
    augmented = run(tmp_path, **arguments, **BOTH).evaluate()
    plain = run(tmp_path, **arguments).evaluate()
    assert augmented["eval_soft_target_kl"] == plain["eval_soft_target_kl"]
    student = trained.detach()
    assert not student._forward_pre_hooks
    assert not student.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("seed", range(4))
def test_rows_without_a_mask_are_cut_too(seed):
    """Prevents cuts that are lost, or an error, depending on which row of a batch comes first."""
    cutoff = Cutoff(0.5, 0.5, seed=seed)
    plain = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in task_rows(6)]
    rows = EpochRows(plain, cutoff=cutoff).__getitems__([encode_index(0, i) for i in range(6)])
    attended = [sum(row["attention_mask"]) for row in rows]
    batch = DataCollatorWithPadding(tiny.tokenizer())(
        [{name: row[name] for name in ("input_ids", "attention_mask", "labels")} for row in rows]
    )
    assert batch["attention_mask"].sum(1).tolist() == attended
    assert sum(attended) < sum(len(row["input_ids"]) for row in plain)


def test_it_works_with_a_stock_collator(tmp_path):
    """Prevents a notebook that gets an error for a column it never wrote."""
    trained = run(tmp_path, max_steps=1, **BOTH)
    rows = [{name: row[name] for name in ("input_ids", "token_type_ids", "labels")} for row in task_rows()]
    trained.data_collator.collate = MixupCollator(DataCollatorWithPadding(tiny.tokenizer()))
    trained.train_dataset = rows
    trained.train()


# What is refused ------------------------------------------------------------------------------------------------


REFUSED = {
    "mlm": (
        {"kind": "mlm", "terms": [SoftTargetKL()], "student": tiny.mlm_model(2), "teacher": tiny.mlm_model(4)},
        "mixup: expected a task .* got masked language modelling",
    ),
    "cache": ({"cache": object()}, "teacher.cache: expected rows that stay as they are / got data.augmentation.cutoff"),
    "labelled rows": (
        {"terms": [HardLabel(), InputGradient(), WeightsMSE()]},
        "without labels / got hard_label, input_gradient, weights_mse",
    ),
    "labels": (
        {"terms": [HardLabel()]},
        "mixup: expected a term that learns from the teacher without labels / got hard_label",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(tmp_path, name):
    """Prevents teacher outputs for other rows, rows that nobody labels, and keys without effect."""
    arguments, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        run(tmp_path, **arguments, **BOTH)


def test_a_stream_is_refused(tmp_path):
    """Prevents rows of a stream that silently stay as they are."""
    stream = Dataset.from_list(task_rows()).to_iterable_dataset()
    with pytest.raises(UserError, match=r"data.augmentation: expected training rows with a length / got a stream"):
        run(tmp_path, rows=stream, **BOTH)


# Replacement ------------------------------------------------------------------------------------------------------

PAIR = Task("classification", ("one", "two"), ("no", "yes"))
TEXTS = [f"{text} {word}" for text in tiny.SENTENCES for word in ("cat", "playing", "river")]


@pytest.fixture
def rows():
    """Pairs of texts, tokenised, with `word_ids`."""
    columns = {"one": TEXTS, "two": TEXTS[::-1], "label": [i % 2 for i in range(len(TEXTS))]}
    splits = {"train": Dataset.from_dict(columns), "test": Dataset.from_dict(columns)}
    return load_task(splits, tiny.tokenizer(), PAIR, evaluation_splits=["test"], words=True).split.train


def replaced(rows, folder, model=None, **changes):
    config = WordReplacement(**{"copies": 6, "candidates": 5, "folder": folder, **changes})
    return augment_with_replacements(rows, config, model or tiny.mlm_model(2), tiny.tokenizer(), batch_size=7)


def words_of(row):
    """Return the token ids of each word; special tokens are words of their own."""
    words = []
    for id in row["input_ids"]:
        if words and tiny.VOCABULARY[id].startswith("##"):
            words[-1].append(id)
        else:
            words.append([id])
    return words


def test_each_row_is_followed_by_unlabelled_copies(rows, tmp_path):
    """Prevents copies with a label that the teacher did not give, originals that are lost, and one half of a pair that
    is never changed.
    """
    made = replaced(rows, tmp_path, probability=0.4, copies=20)
    assert len(made) == 21 * len(rows)
    assert made.column_names == [name for name in rows.column_names if name != "word_ids"]
    originals = made.select(range(0, len(made), 21))
    assert originals.to_dict() == rows.remove_columns("word_ids").to_dict()
    copies = made.select([i for i in range(len(made)) if i % 21])
    assert set(copies["labels"]) == {-100}
    changed = {0: [], 1: []}
    for i, copied in enumerate(copies):
        assert copied["length"] == len(copied["input_ids"]) == len(copied["token_type_ids"])
        old, new = words_of(rows[i // 20]), words_of(copied)
        assert len(old) == len(new)
        segment = 0
        for word, replacement in zip(old, new, strict=True):
            if word[0] in KEPT:
                assert word == replacement
                segment += word[0] == SEP
            else:
                changed[segment].append(word != replacement)
    for shares in changed.values():
        assert 0.3 < np.mean(shares) < 0.45  # some are replaced by themselves


def test_unlabelled_is_nan_for_regression(rows, tmp_path):
    """Prevents −100 as a number to be learnt."""
    features = Features({**rows.features, "labels": Value("float32")})
    made = replaced(rows.cast(features), tmp_path, copies=1)
    assert np.isnan(made["labels"]).tolist() == [False, True] * len(rows)


def test_words_come_from_the_models_likeliest_at_that_place(rows, tmp_path):
    """Prevents proposals of another place or another row, pieces of words, and special tokens."""
    model, row = tiny.mlm_model(2, seed=3), rows.select([1])
    made = replaced(row, tmp_path, model, probability=1.0, copies=40, candidates=5)
    units = [place for place, word in enumerate(words_of(row[0])) if word[0] not in KEPT]
    words = [tuple(word) for word in words_of(row[0])]
    barred = [i for i, token in enumerate(tiny.VOCABULARY) if token.startswith(("##", "["))]
    for group in mask_groups(len(units)):
        masked = [[MASK] if place in [units[i] for i in group] else words[place] for place in range(len(words))]
        ids = [id for word in masked for id in word]
        segments = [0] * (ids.index(SEP) + 1)
        segments += [1] * (len(ids) - len(segments))
        logits = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([segments])).logits[0]
        logits[:, barred] = -torch.inf
        places = [place for place, id in enumerate(ids) if id == MASK]
        for i, place in zip(group, places, strict=True):
            expected = set(logits[place].topk(5).indices.tolist())
            assert {words_of(copied)[units[i]][0] for copied in made.select(range(1, 41))} == expected


def test_at_most_a_seventh_of_a_row_is_masked_at_once():
    """Prevents a row of masks, from which no model can predict anything, and words that are never masked."""
    for count in range(60):
        groups = mask_groups(count)
        assert sorted(i for group in groups for i in group) == list(range(count))
        assert all(len(group) <= max(1, 0.15 * count) for group in groups)


def test_rows_are_made_once_and_alike(rows, tmp_path, capsys):
    """Prevents an hour of proposals before each start, other rows each time, and rows of another setting or model."""
    model, forwards = tiny.mlm_model(2), []
    model.register_forward_pre_hook(lambda *args: forwards.append(1))
    first = replaced(rows, tmp_path / "one", model)
    count = len(forwards)
    assert count > 0
    assert "12 training rows became 84, kept in" in capsys.readouterr().out
    assert replaced(rows, tmp_path / "one", model).to_dict() == first.to_dict()
    assert len(forwards) == count
    assert replaced(rows, tmp_path / "two", model).to_dict() == first.to_dict()
    assert len(forwards) == 2 * count
    for changes in ({"seed": 1}, {"probability": 0.5}, {"model": tiny.mlm_model(2, seed=9)}):
        assert replaced(rows, tmp_path / "one", **{"model": model, **changes}).to_dict() != first.to_dict()
    fewer = replaced(rows.select(range(5)), tmp_path / "one", model)
    assert fewer.to_dict() == first.select(range(35)).to_dict()  # a row's copies are the same among other rows


def test_a_vocabulary_that_marks_spaces_keeps_them(tmp_path):
    """Prevents words that run together with the one before, in RoBERTa's kind of vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    vocabulary = {token: i for i, token in enumerate([*specials, "Ġcat", "Ġdog", "Ġsees", "Ġa", "cat", "ing", "the"])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(replacement="Ġ", prepend_scheme="never")
    plain.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    names = dict(pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>", mask_token="<mask>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_input_names=["input_ids", "attention_mask"], **names
    )
    columns = {"text": ["the cat sees a dog"] * 2, "label": [0, 1]}
    splits = {name: Dataset.from_dict(columns) for name in ("train", "test")}
    task = Task("classification", ("text",), ("no", "yes"))
    rows = load_task(splits, tokenizer, task, evaluation_splits=["test"], words=True).split.train
    assert rows[0]["input_ids"] == [2, 11, 5, 7, 8, 6, 3]
    config = WordReplacement(copies=20, probability=1.0, candidates=15, folder=tmp_path)
    made = augment_with_replacements(rows, config, tiny.mlm_model(2, vocab_size=12), tokenizer)
    ids = np.array(made["input_ids"])
    assert set(ids[:, 1].tolist()) <= {9, 10, 11}
    assert set(ids[:, 2:6].flatten().tolist()) <= {5, 6, 7, 8}
    assert (ids[:, [0, -1]] == [2, 3]).all()


def test_copies_that_were_interrupted_go_on(rows, tmp_path, monkeypatch):
    """Prevents an hour's forwards that are lost, and files that together are other rows than one."""
    whole = replaced(rows, tmp_path / "whole").to_list()
    monkeypatch.setattr("distil_nlp.data.augmentation.word_replacement._ROWS_OF_A_FILE", 2)
    monkeypatch.setattr("distil_nlp.data.augmentation.word_replacement._ROWS_AT_ONCE", 2)
    model, forwards = tiny.mlm_model(2), []
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    stopped = model.register_forward_pre_hook(lambda *_: stop_at(len(forwards), 9))
    with pytest.raises(KeyboardInterrupt):
        replaced(rows, tmp_path / "parts", model)
    stopped.remove()
    assert replaced(rows, tmp_path / "parts", model).to_list() == whole
    again = len(forwards)
    assert replaced(rows, tmp_path / "parts", model).to_list() == whole
    assert len(forwards) == again
    forwards.clear()
    replaced(rows, tmp_path / "anew", model)
    assert again < 9 + len(forwards)


def stop_at(count, limit):
    if count == limit:
        raise KeyboardInterrupt


def test_without_a_mask_token_nothing_is_proposed(rows, tmp_path):
    """Prevents a traceback deep in the tokenizer."""
    tokenizer = tiny.tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="replacement: expected a tokenizer with a mask token / got BertTokenizer"):
        augment_with_replacements(rows, WordReplacement(folder=tmp_path), tiny.mlm_model(2), tokenizer)


# Whole runs -------------------------------------------------------------------------------------------------------

ALL = ("data.augmentation.cutoff={}", "data.augmentation.mixup={}", "data.augmentation.replacement.copies=2")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Write a teacher, data, and a masked language model that proposes words."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    place = Place(tmp_path).prepare()
    tiny.mlm_model(2).save_pretrained(tmp_path / "words")
    tiny.tokenizer().save_pretrained(tmp_path / "words")
    return place


def proposing(place):
    section = "data.augmentation.replacement"
    return (f"{section}.model={place.folder / 'words'}", f"{section}.folder={place.folder / 'augmented'}")


@pytest.mark.integration
def test_a_run_with_all_of_it(place, monkeypatch, capsys):
    """Prevents an augmented teacher or baseline, scores of augmented rows, and a card that does not mention them."""
    trained_on = {}

    class Watched(DistillationTrainer):
        def __init__(self, objective, train_dataset, mixup=None, **parts):
            kind = "teacher" if "cutoff" not in parts else "distilled" if objective.needs_teacher else "labels only"
            trained_on[kind] = len(train_dataset), mixup is not None
            super().__init__(objective=objective, train_dataset=train_dataset, mixup=mixup, **parts)

    for module in (variants, teacher):
        monkeypatch.setattr(module, "DistillationTrainer", Watched)
    overrides = ["teacher.finetune.max_steps=1", "evaluation.baselines=[no_distillation]", "training.max_steps=2"]
    assert place.run(*ALL, *proposing(place), *overrides) == 0
    assert trained_on == {"teacher": (24, False), "distilled": (72, True), "labels only": (24, False)}
    assert "replacement: 24 training rows became 72, kept in" in capsys.readouterr().out
    assert place.results["rows"]["train"] == 72
    assert place.results["rows"]["labelled"] == 24
    outputs = kept_outputs.load_outputs(place.variants[0] / "outputs.npz")
    assert [len(split.labels) for split in outputs.values()] == [9]
    card = (place.out / "student" / "README.md").read_text()
    assert re.search("2 more rows were made of each, with 40.% of the words replaced", card)
    assert place.run(*ALL, *proposing(place), *overrides) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert place.run(*overrides) == 2
    assert "data.augmentation.cutoff" in capsys.readouterr().err
    place.out = place.folder / "plain"
    assert place.run(*overrides[:1], "training.max_steps=1") == 0
    assert len(list((place.folder / "teachers").iterdir())) == 1  # augmentation makes no other teacher


@pytest.mark.integration
def test_cached_outputs_are_those_of_the_copies_too(place, capsys):
    """Prevents a cache of the original rows alone, or one that is read for other copies."""
    cache = f"teacher.cache.folder={place.folder / 'caches'}"
    for copies in (1, 2):
        place.out = place.folder / f"run-{copies}"
        overrides = (*proposing(place), f"data.augmentation.replacement.copies={copies}", cache)
        assert place.run(*overrides, "training.max_steps=1") == 0
    manifests = [json.loads(path.read_text()) for path in (place.folder / "caches").glob("*/cache.json")]
    assert sorted(manifest["layout"]["rows"] for manifest in manifests) == [48, 72]


WORDS = "data.augmentation.replacement"
LABELS_ONLY = [f"objective.{name}.weight=0" for name in ("soft_target_kl", "hidden_cosine", "attention_kl")]
MISTAKES = {
    "mlm": (
        ["data.task=mlm", "data.augmentation.cutoff={}"],
        "got masked language modelling",
    ),
    "cache": ([ALL[1], "teacher.cache={}"], "teacher.cache: expected rows that stay as they are"),
    "no teacher": ([ALL[2], *LABELS_ONLY], f"{WORDS}: expected a term that learns from the teacher without labels"),
    "no head": ([ALL[2]], f"{WORDS}: expected a trained masked-LM head in .* got none .* missing"),
    "other words": ([f"{WORDS}.model=OTHER"], f"{WORDS}.model: expected the vocabulary of"),
    "share": (["data.augmentation.mixup.share=1.5"], "mixup.share: expected less than or equal to 1 / got 1.5"),
    "key": (["data.augmentation.cutof={}"], "data.augmentation.cutof: unknown key; did you mean cutoff"),
    "folder": ([f"{WORDS}.folder=OUT/kept"], "training.output_dir: expected a folder apart from what the run reads"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_reported(place, capsys, name):
    """Prevents a run that fails after the teacher was trained, or without an explanation."""
    overrides, message = MISTAKES[name]
    other = place.folder / "other"
    tiny.mlm_model(2).save_pretrained(other)
    words = {token: i for i, token in enumerate(reversed(tiny.VOCABULARY))}
    tiny.tokenizer().__class__(vocab=words).save_pretrained(other)
    if name == "folder":
        (place.out / "kept").mkdir(parents=True)
    overrides = [text.replace("OTHER", str(other)).replace("OUT", str(place.out)) for text in overrides]
    assert place.run(*overrides) == 2
    assert re.search(message, one_line(capsys.readouterr().err))
