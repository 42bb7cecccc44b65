"""Cached teacher outputs are the teacher's own, belong to the same rows, and are complete."""

import dataclasses
import json
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    DataCollatorForLanguageModeling,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
)
from transformers import ModernBertForSequenceClassification as ModernBert

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.data.fingerprint import hash_rows
from distil_nlp.errors import UserError
from distil_nlp.losses import soft_targets
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.schedule import Schedule
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cache import builder as build
from distil_nlp.teachers.cache import shards as store
from distil_nlp.teachers.cache.key import cache_key
from distil_nlp.teachers.ensemble import Ensemble
from tests.helpers import tiny
from tests.helpers.training import curve, label_set, span_rows, task_rows, text_rows, token_rows, trainer

WORDS = len(tiny.VOCABULARY)
EVERY_WORD = {"dtype": "float32", "top_k": WORDS}


def terms(kind="classification"):
    common = [
        SoftTargetKL(5.0, 2.0, "all"),
        HardLabel(2.0),
        HiddenCosine(1.0),
        AttentionKL(3.0),
        AttentionMSE(1.0, "last"),
    ]
    return [*common, HiddenMSE(1.0, "all", "masked")] if kind == "mlm" else [*common, HiddenMSE(1.0, "all")]


def models(kind):
    if kind == "mlm":
        return tiny.mlm_model(2, seed=1), tiny.mlm_model(4)
    if kind == "tokens":
        return tiny.tagger(2, seed=1), tiny.tagger(4)
    if kind == "qa":
        return tiny.reader(2, seed=1), tiny.reader(4)
    labels = 1 if kind == "regression" else 3
    return tiny.classifier(2, labels, seed=1), tiny.classifier(4, labels)


def run(folder, kind="classification", cache=None, teacher=None, **changes):
    """Return the trainer of a finished run; ragged rows, the last batch uneven."""
    student, own = models(kind)
    drawn = {"mlm": text_rows, "tokens": token_rows, "qa": span_rows}
    rows = drawn[kind](21) if kind in drawn else task_rows(21, 3)
    if kind == "regression":
        rows = [{**row, "labels": float(row["labels"])} for row in rows]
    if kind == "multilabel":
        rows = [{**row, "labels": label_set(i)} for i, row in enumerate(rows)]
    options = {"terms": terms(kind), "rows": rows, "max_steps": -1, "num_train_epochs": 2, **changes}
    trained = trainer(folder, student, teacher or own, kind=kind, cache=cache, **options)
    trained.train()
    return trained


def caches(folder):
    return sorted(path.parent for path in Path(folder).glob(f"*/{store.MANIFEST}"))


def mute(teacher):
    """Return a teacher that must not run; its head may be tried out on two tokens."""

    def check(module, args, kwargs):
        assert kwargs["input_ids"].numel() == 2, "the teacher ran"

    teacher.register_forward_pre_hook(check, with_kwargs=True)
    return teacher


# The same outputs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "mlm", "tokens", "qa"])
def test_a_cached_teacher_teaches_the_same(tmp_path, kind):
    """Prevents outputs of other rows, layers or tokens: all terms, ragged and uneven, in float32."""
    how = {"num_train_epochs": 1} if kind == "mlm" else {}  # its second epoch would have other masks
    plain = curve(run(tmp_path / "plain", kind, **how))
    cached = curve(run(tmp_path / "cached", kind, CacheConfig(tmp_path / "caches", **EVERY_WORD), **how))
    assert cached == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "mlm", "tokens"])
def test_a_second_run_does_not_run_the_teacher(tmp_path, kind, capsys):
    """Prevents a cache that is built again by every run; its size and break-even are logged before."""
    cache = CacheConfig(tmp_path / "caches", "bert-mrpc")
    first = curve(run(tmp_path / "first", kind, cache))
    out = capsys.readouterr().out
    (folder,) = caches(tmp_path / "caches")
    assert folder.name.startswith("bert-mrpc-")
    assert f"B in {folder}, pays off after " in out or "will not pay off" in out
    again = curve(run(tmp_path / "again", kind, cache, teacher=mute(models(kind)[1])))
    assert again == first
    assert f"teacher cache: {folder}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_half_precision_is_near(tmp_path, dtype, tolerance):
    """Prevents a dtype that is named and not used, or used where numbers are lost."""
    plain = curve(run(tmp_path / "plain"))
    cached = curve(run(tmp_path / "cached", cache=CacheConfig(tmp_path / "caches", dtype=dtype)))
    assert cached == pytest.approx(plain, rel=tolerance)
    assert cached != pytest.approx(plain, rel=1e-7)


@pytest.mark.parametrize("workers", [0, 2])
def test_several_shards_and_workers_change_nothing(tmp_path, monkeypatch, workers):
    """Prevents rows found in the wrong shard: three or four rows to each."""
    whole = curve(run(tmp_path / "whole", cache=CacheConfig(tmp_path / "whole-caches", dtype="float32")))
    monkeypatch.setattr(build, "_SHARD_BYTES", 2**16)
    parts = run(tmp_path / "parts", cache=CacheConfig(tmp_path / "parts-caches", dtype="float32"),
                dataloader_num_workers=workers)  # fmt: skip
    (folder,) = caches(tmp_path / "parts-caches")
    assert len(list(folder.glob("0/*.safetensors"))) > 3
    assert curve(parts) == pytest.approx(whole, rel=1e-5)


def test_masks_repeat_after_the_epochs_that_are_cached(tmp_path):
    """Prevents outputs for one mask for a student that reads another."""
    cached = run(
        tmp_path / "cached", "mlm", CacheConfig(tmp_path / "caches", mask_epochs=2, **EVERY_WORD), num_train_epochs=5
    )
    rows = cached.get_train_dataloader().dataset
    for epoch in range(5):
        rows_then = rows.__getitems__([build.encode_index(epoch, row) for row in range(4)])
        assert {row["epoch"] for row in rows_then} == {epoch % 2}
    (folder,) = caches(tmp_path / "caches")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["0", "1"]
    plain = curve(run(tmp_path / "plain", "mlm", num_train_epochs=2))
    assert curve(
        run(tmp_path / "two", "mlm", CacheConfig(tmp_path / "caches", mask_epochs=2, **EVERY_WORD))
    ) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "mlm"])
def test_the_outputs_of_an_ensemble_are_cached(tmp_path, kind):
    """Prevents the first teacher's outputs in place of the mean, and one teacher's outputs for another's."""

    def ensemble(*seeds):
        kinds = {
            "classification": lambda seed: tiny.classifier(4, 3, seed),
            "mlm": lambda seed: tiny.mlm_model(4, seed),
        }
        return Ensemble([kinds[kind](seed) for seed in seeds])

    how = {"num_train_epochs": 1}
    alone = curve(run(tmp_path / "alone", kind, **how), "soft_target_kl")
    plain = curve(run(tmp_path / "plain", kind, teacher=ensemble(0, 5), **how), "soft_target_kl")
    cache = CacheConfig(tmp_path / "caches", **EVERY_WORD)
    cached = curve(run(tmp_path / "cached", kind, cache, ensemble(0, 5), **how), "soft_target_kl")
    assert cached == pytest.approx(plain, rel=1e-4, abs=1e-7)  # near 0 the sum of two forwards rounds otherwise
    assert plain != pytest.approx(alone, rel=1e-2)
    run(tmp_path / "other", kind, cache, ensemble(0, 6), **how)
    assert len(caches(tmp_path / "caches")) == {"classification": 3, "mlm": 2}[kind]  # a vocabulary's mean, as one


def test_draws_count_only_where_something_is_drawn(tmp_path):
    """Prevents outputs stored four times over if every epoch has the same inputs."""
    run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches", mask_epochs=4))
    (folder,) = caches(tmp_path / "caches")
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["0"]


def test_evaluation_runs_the_teacher_itself(tmp_path):
    """Prevents training rows' outputs from being taken for those of evaluation rows."""
    values = []
    for cache in (None, CacheConfig(tmp_path / "caches", dtype="float32")):
        trained = run(tmp_path / "run", cache=cache, eval_rows=task_rows(5, 3, seed=3))
        values.append(trained.evaluate()["eval_soft_target_kl"])
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_resumed_run_reads_on(tmp_path):
    """Prevents a resume that looks up other rows or masks than the uninterrupted run."""
    cache, often = CacheConfig(tmp_path / "caches"), {"save_strategy": "steps", "save_steps": 2}
    whole = run(tmp_path / "whole", "mlm", cache, **often)
    student, teacher = models("mlm")
    resumed = trainer(tmp_path / "whole", student, mute(teacher), terms("mlm"), rows=text_rows(21), cache=cache,
                      max_steps=-1, num_train_epochs=2)  # fmt: skip
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


# Top words ---------------------------------------------------------------------------------------------------


def logits(rows, seed):
    return 3 * torch.randn(rows, 12, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(k=st.integers(1, 14), rows=st.integers(0, 4), seed=st.integers(0, 2**30), temperature=st.floats(0.5, 8))
def test_merged_words_give_the_kl_of_their_definition(k, rows, seed, temperature):
    """Prevents a renormalised top-k, which teaches that the other words are impossible."""
    student, teacher = logits(rows, seed).requires_grad_(), logits(rows, seed + 1)
    value = soft_targets.soft_target_kl_top(student, TopLogits.of(teacher, k, temperature), temperature)
    expected = torch.zeros((), dtype=torch.float64)
    exact = student.detach().double().requires_grad_()
    for student_row, teacher_row in zip(exact, teacher.double(), strict=True):
        p, q = (F.softmax(row / temperature, 0) for row in (teacher_row, student_row))
        top = teacher_row.topk(min(k, 12)).indices
        rest = torch.ones(12, dtype=torch.bool).index_fill(0, top, False)
        pairs = [(p[i], q[i]) for i in top] + ([(p[rest].sum(), q[rest].sum())] if rest.any() else [])
        expected = expected + temperature**2 * sum(a * (a / b).log() for a, b in pairs)
    torch.testing.assert_close(value.double(), expected, atol=1e-4, rtol=1e-4)
    whole = soft_targets.soft_target_kl(student, teacher, temperature)
    assert value.item() <= whole.item() + 1e-4
    if k >= 12:
        torch.testing.assert_close(value, whole)
    if rows:
        torch.testing.assert_close(
            torch.autograd.grad(value, student)[0].double(),
            torch.autograd.grad(expected, exact)[0],
            atol=1e-4,
            rtol=1e-3,
        )


def test_no_probability_outside_the_top_is_no_nan():
    """A teacher that is certain of its words has a tail probability of exactly 0 in float32."""
    teacher = torch.full((1, 5), -200.0)
    teacher[0, 1] = 200.0
    student = torch.zeros(1, 5, requires_grad=True)
    value = soft_targets.soft_target_kl_top(student, TopLogits.of(teacher, 2, 1.0))
    value.backward()
    assert value.item() == pytest.approx(math.log(5))
    assert torch.isfinite(student.grad).all()


def test_fewer_words_are_a_nearby_objective(tmp_path):
    """Prevents a top-k that leaves out the tail probability."""
    only = [SoftTargetKL(1.0, 2.0, "all")]
    plain = curve(run(tmp_path / "plain", "mlm", terms=only, num_train_epochs=1, learning_rate=0.0))
    curves = {}
    for k in (4, WORDS // 2, WORDS):
        cache = CacheConfig(tmp_path / "caches", dtype="float32", top_k=k)
        curves[k] = curve(run(tmp_path / str(k), "mlm", cache, terms=only, num_train_epochs=1, learning_rate=0.0))
    assert sum(curves[4]) < sum(curves[WORDS // 2]) < sum(curves[WORDS])
    assert curves[WORDS] == pytest.approx(plain, rel=1e-4)


# The same inputs ------------------------------------------------------------------------------------------


def key_of(kind="mlm", rows=None, teacher=None, cache_changes=None, **changes):
    student, own = models(kind)
    rows = rows or (text_rows(6) if kind == "mlm" else task_rows(6, 3))
    run = trainer(Path(tempfile.gettempdir()), student, teacher or own, terms(kind), kind=kind, rows=rows, **changes)
    request = run.objective.request("teacher")
    contents = build.CachedSignals.of(
        request, kind, **{"dtype": "float16", "top_k": 8, "temperature": 2.0} | (cache_changes or {})
    )
    return cache_key(run.teacher, rows, run.data_collator, contents, 1)


def test_a_key_is_the_same_for_the_same_inputs():
    """Prevents a cache that no second run would find."""
    assert key_of() == json.loads(json.dumps(key_of()))
    relabelled = [{**row, "labels": 0} for row in task_rows(6, 3)]
    assert key_of("classification", relabelled) == key_of("classification")
    assert key_of("classification", seed=1) == key_of("classification", seed=2)


def other_weights():
    teacher = tiny.mlm_model(4)
    with torch.no_grad():
        teacher.bert.encoder.layer[3].output.dense.bias[5] += 1e-4
    return {"teacher": teacher}


def other_settings():
    teacher = tiny.mlm_model(4)
    teacher.config.layer_norm_eps = 1e-5
    return {"teacher": teacher}


def other_rows():
    rows = text_rows(6)
    rows[5]["input_ids"][-2] += 1
    return {"rows": rows}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (other_weights, {"teacher"}),
        (other_settings, {"teacher"}),
        (other_rows, {"rows"}),
        (lambda: {"rows": text_rows(5)}, {"rows"}),
        (lambda: {"seed": 8}, {"seed"}),
        (lambda: {"cache_changes": {"dtype": "float32"}}, {"contents"}),
        (lambda: {"cache_changes": {"top_k": 9}}, {"contents"}),
        (lambda: {"cache_changes": {"temperature": 3.0}}, {"contents"}),
    ],
    ids=["weights", "configuration", "a token", "fewer rows", "seed", "dtype", "top_k", "temperature"],
)
def test_whatever_changes_an_output_changes_the_key(changes, named):
    """Prevents outputs of another teacher, of other data or of other masks."""
    key, changed = key_of(), key_of(**changes())
    assert {name for name in key if key[name] != changed[name]} == named


@pytest.mark.parametrize(
    "changes",
    [{"probability": 0.2}, {"whole_words": True}, {"seed": 8}, {"tokenizer": tiny.tokenizer(mask_token="[UNK]")}],
    ids=["probability", "whole words", "seed", "mask token"],
)
def test_masking_is_part_of_the_key(tmp_path, changes):
    """Prevents outputs for other masks of the same rows."""
    run = trainer(tmp_path, *models("mlm"), rows=text_rows(6))
    contents = build.CachedSignals.of(run.objective.request("teacher"), "mlm", "float16", 8, 2.0)
    collator = run.data_collator
    other = dataclasses.replace(collator, collate=dataclasses.replace(collator.collate, **changes))
    keys = [cache_key(run.teacher, run.train_dataset, each, contents, 1) for each in (collator, other)]
    assert keys[0] != keys[1]


def test_rows_are_known_by_all_their_tokens():
    """Prevents a fingerprint of the first rows only; `datasets` and lists are told apart row by row alike."""
    rows = [{"input_ids": [i, i + 1], "labels": 0} for i in range(25_000)]
    changed = [*rows[:-1], {"input_ids": [7, 7], "labels": 0}]
    for kind in (list, Dataset.from_list):
        assert hash_rows(kind(rows), ["input_ids"]) == hash_rows(kind(rows), ["input_ids"])
        assert hash_rows(kind(rows), ["input_ids"]) != hash_rows(kind(changed), ["input_ids"])
    data = Dataset.from_list(rows)
    assert hash_rows(data.select(range(10, 20)), ["input_ids"]) == hash_rows(
        Dataset.from_list(rows[10:20]), ["input_ids"]
    )
    assert hash_rows(data.select([3, 1, 2]), ["input_ids"]) != hash_rows(data.select([1, 2, 3]), ["input_ids"])


def test_a_cache_of_something_else_is_refused(tmp_path):
    """Prevents the use of a folder that was copied, renamed or edited."""
    cache = CacheConfig(tmp_path / "caches")
    run(tmp_path / "run", cache=cache)
    (folder,) = caches(tmp_path / "caches")
    manifest = json.loads((folder / store.MANIFEST).read_text())
    manifest["key"]["teacher"] = "another"
    (folder / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{folder} / got one that differs in teacher"):
        run(tmp_path / "again", cache=cache)
    (folder / store.MANIFEST).write_text("{")
    with pytest.raises(UserError, match=r"expected cache\.json"):
        run(tmp_path / "again", cache=cache)


def test_other_masks_than_the_teacher_read_are_refused(tmp_path):
    """Prevents outputs of one masked token for another, should the draws ever differ from those of the key."""
    cached = run(tmp_path / "run", "mlm", CacheConfig(tmp_path / "caches", **EVERY_WORD))
    cached.data_collator.collate = MaskingCollator(tiny.tokenizer(), seed=99)
    with pytest.raises(UserError, match=r"teacher\.cache: expected row \d+ with the tokens .* / got other tokens"):
        next(iter(cached.get_train_dataloader()))


def test_a_collator_that_masks_as_it_likes_is_refused(tmp_path):
    """Prevents outputs for masks that no batch will have again: transformers' own collator draws anew each time."""
    cached = trainer(tmp_path, *models("mlm"), [SoftTargetKL(1.0, 2.0, "all")], rows=text_rows(6),
                     cache=CacheConfig(tmp_path / "caches"))  # fmt: skip
    cached.data_collator.collate = DataCollatorForLanguageModeling(tiny.tokenizer())
    with pytest.raises(
        UserError, match=r"got two different batches from DataCollatorForLanguageModeling .*MaskingCollator"
    ):
        cached.train()
    assert not caches(tmp_path / "caches")


def test_rows_that_are_transformed_when_read_are_known_by_what_they_become():
    """Prevents one cache for two corpora whose raw columns the teacher never reads."""
    raw = Dataset.from_dict({"text": ["a", "b"]})
    hashes = []
    for shift in (5, 6):
        rows = raw.with_transform(lambda batch, shift=shift: {"input_ids": [[2, shift, 3]] * len(batch["text"])})
        hashes.append(hash_rows(rows, ["input_ids"]))
    assert hashes[0] != hashes[1]
    long = [[{"input_ids": np.arange(5000) + (np.arange(5000) == place)}] for place in (2000, 3000)]
    assert hash_rows(long[0], ["input_ids"]) != hash_rows(long[1], ["input_ids"])


def test_padding_on_the_left_is_refused(tmp_path):
    """Prevents outputs at positions that a row has in the teacher's batch only."""
    cached = trainer(tmp_path, *models("classification"), terms(), kind="classification", rows=task_rows(8, 3),
                     cache=CacheConfig(tmp_path / "caches"))  # fmt: skip
    cached.data_collator.collate = TaskCollator(tiny.tokenizer(padding_side="left"), "classification")
    with pytest.raises(UserError, match=r"teacher\.cache: expected padding on the right / got padding on the left"):
        cached.train()


def test_recipes_that_look_at_other_tokens_have_caches_of_their_own(tmp_path):
    """Prevents two recipes that reject each other's cache."""
    for rows in ("masked", "all", "masked"):
        run(tmp_path / "run", "mlm", CacheConfig(tmp_path / "caches"), terms=[SoftTargetKL(1.0, 2.0, rows)])
    assert len(caches(tmp_path / "caches")) == 2


def test_masked_rows_are_drawn_even_where_no_term_looks_at_the_masks(tmp_path):
    """Prevents one epoch's masks for ever, where several epochs' were requested."""
    trained = run(
        tmp_path, "mlm", CacheConfig(tmp_path / "caches", mask_epochs=3), terms=[HiddenCosine(1.0), HardLabel(1.0)]
    )
    assert trained.source.cache.layout.epochs == 3


def test_the_teacher_does_not_run_before_training(tmp_path):
    """Prevents a failure of the teacher from being reported as a mistake in the training fields."""
    trainer(tmp_path, *models("classification"), terms(), kind="classification", cache=CacheConfig(tmp_path / "caches"))
    assert not (tmp_path / "caches").exists()


# Complete ----------------------------------------------------------------------------------------------------


def in_parts(tmp_path, monkeypatch):
    """Return a cache of many shards, and the curve of the run that built it."""
    monkeypatch.setattr(build, "_SHARD_BYTES", 2**16)
    cache = CacheConfig(tmp_path / "caches")
    first = curve(run(tmp_path / "first", cache=cache))
    (folder,) = caches(tmp_path / "caches")
    return cache, first, folder, sorted(folder.glob("0/*.safetensors"))


def run_rows(monkeypatch):
    """Return a list that grows by the rows that the teacher runs on from now on."""
    rows_run, own = [], build._TeacherPass._outputs

    def outputs(self, rows, epoch):
        rows_run.extend(rows)
        return own(self, rows, epoch)

    monkeypatch.setattr(build._TeacherPass, "_outputs", outputs)
    return rows_run


def break_off(folder, shards):
    """Leave the cache as if the run had been killed while writing the third shard."""
    for shard in shards[2:]:
        shard.unlink()
        shard.with_suffix(".json").unlink()
    shards[2].with_suffix(".partial").write_bytes(b"half")


def kill_before_the_checksum(folder, shards):
    shards[2].with_suffix(".json").unlink()


def flip_a_bit(folder, shards):
    data = bytearray(shards[2].read_bytes())
    data[-5] ^= 1
    shards[2].write_bytes(bytes(data))


def cut_off(folder, shards):
    shards[2].write_bytes(shards[2].read_bytes()[:-100])


@pytest.mark.parametrize("damage", [break_off, kill_before_the_checksum, flip_a_bit, cut_off])
def test_a_damaged_cache_is_repaired_and_no_more(tmp_path, monkeypatch, capsys, damage):
    """Prevents incomplete outputs, or a whole teacher pass for one lost shard."""
    cache, first, folder, shards = in_parts(tmp_path, monkeypatch)
    damage(folder, shards)
    capsys.readouterr()
    rows_run = run_rows(monkeypatch)
    assert curve(run(tmp_path / "again", cache=cache)) == first
    lost = len(shards) - 2 if damage is break_off else 1
    assert f"{folder}: {lost} of {len(shards)} parts missing or damaged" in capsys.readouterr().out
    per_shard = json.loads((folder / store.MANIFEST).read_text())["layout"]["shard_rows"]
    assert min(rows_run) == 2 * per_shard
    assert len(rows_run) <= lost * per_shard


def test_a_shard_that_vanishes_while_it_is_used_is_named(tmp_path, monkeypatch):
    """Prevents a traceback from deep within a library."""
    cached = run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches"))
    (folder,) = caches(tmp_path / "caches")
    shutil.rmtree(folder / "0")
    store._open.cache_clear()
    with pytest.raises(UserError, match=r"teacher\.cache: expected a shard at .*missing shards are rebuilt"):
        next(iter(cached.get_train_dataloader()))


def test_of_two_runs_that_begin_at_once_both_go_by_one_layout(tmp_path):
    """Prevents shards that one run writes with another layout than the other reads them."""
    for text in ("first", "second"):
        store.write_first(tmp_path / "cache.json", text)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]


def test_a_shard_of_another_layout_is_built_anew(tmp_path, monkeypatch):
    """Prevents rows read at offsets that are not theirs."""
    _, _, folder, shards = in_parts(tmp_path, monkeypatch)
    metadata = json.loads(shards[1].with_suffix(".json").read_text())
    shards[1].with_suffix(".json").write_text(json.dumps(metadata | {"rows": metadata["rows"] + 1}))
    manifest = json.loads((folder / store.MANIFEST).read_text())
    contents = build.CachedSignals(**{**manifest["key"]["contents"], "hidden": (), "attention": ()})
    assert store.TeacherCache(folder, manifest["key"], contents).missing() == [(0, 1)]


def test_a_disk_without_room_is_found_before(tmp_path, monkeypatch):
    """Prevents a full disk after hours of running the teacher."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"expected .*kB of disk at .* / got 1\.00kB / .*teacher\.cache\.folder"):
        run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches"))
    assert not caches(tmp_path / "caches")


@pytest.mark.parametrize(("value", "problem"), [(1e6, "outside float16"), (math.nan, "is not finite")])
def test_numbers_that_cannot_be_cached_are_refused(tmp_path, value, problem):
    """Prevents infinities in the cache of a teacher with large activations, and a broken teacher's NaN for ever."""
    teacher = tiny.classifier(4, 3)
    with torch.no_grad():
        teacher.classifier.bias[1] = value
    with pytest.raises(UserError, match=rf"teacher\.cache: expected finite logits .*{problem}"):
        run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches"), teacher=teacher)
    assert not caches(tmp_path / "caches")


# What cannot be cached ---------------------------------------------------------------------------------------

SIZES = {"vocab_size": WORDS, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}


def test_attention_that_shows_only_maps_is_refused(tmp_path):
    """Prevents (seq × seq) maps of every row on disk that nobody requested."""
    teacher = DebertaV2ForSequenceClassification(DebertaV2Config(num_hidden_layers=4, **SIZES)).eval()
    with pytest.raises(UserError, match=r"teacher\.cache: .*got whole attention maps"):
        run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches"), teacher=teacher)


def test_attention_within_a_window_is_refused(tmp_path):
    """Prevents distributions over all tokens in place of a window's."""
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    teacher = ModernBert(ModernBertConfig(num_hidden_layers=4, local_attention=4, **SIZES, **special)).eval()
    with pytest.raises(UserError, match=r"teacher\.cache: .*a layer \d whose queries attend to different keys"):
        run(tmp_path / "run", cache=CacheConfig(tmp_path / "caches"), teacher=teacher, terms=[AttentionKL(1.0)])


def test_a_stream_is_refused(tmp_path):
    """Prevents a search for rows that never come again."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from text_rows(4)

    with pytest.raises(UserError, match=r"teacher\.cache: expected training rows with a length / got a stream"):
        run(tmp_path, "mlm", CacheConfig(tmp_path / "caches"), rows=Stream(), max_steps=2)


def test_a_changing_temperature_is_refused_for_a_vocabulary(tmp_path):
    """Prevents a tail probability at another temperature than the top words'; all classes are cached."""
    changing = [SoftTargetKL(1.0, Schedule(4.0, 1.0, "linear"))]
    with pytest.raises(UserError, match=r"teacher\.cache: expected a constant temperature"):
        run(tmp_path / "mlm", "mlm", CacheConfig(tmp_path / "caches"), terms=changing)
    plain = curve(run(tmp_path / "plain", terms=changing))
    assert curve(run(tmp_path / "cached", cache=CacheConfig(tmp_path / "caches", dtype="float32"), terms=changing)) == (
        pytest.approx(plain, rel=1e-5)
    )
