"""Two dropout passes in one batch of twice the rows are two passes, and all else is as it was."""

import copy
import math
import re

import pytest
import torch

from distil_nlp.cli import check
from distil_nlp.data.augmentation.mixup import Mixup
from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training import trainer as trainer_module
from distil_nlp.training.passes import doubled_batch, twice
from tests.helpers import tiny
from tests.helpers.dropout import fix_dropout, read_pass
from tests.helpers.gradients import Steps, distance
from tests.helpers.runs import Place
from tests.helpers.training import StopAt, curve, task_rows, text_rows, token_rows, trainer

pytestmark = pytest.mark.integration

KINDS = ("mlm", "classification", "regression", "tokens")
WEIGHTS = {"soft_target_kl": 5.0, "hard_label": 2.0, "hidden_cosine": 1.0, "attention_kl": 3.0, "r_drop": 4.0}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


def terms(rows="all"):
    """R-Drop with a term of each kind of signal."""
    others = [SoftTargetKL(5.0, 2.0, rows), HardLabel(2.0), HiddenCosine(1.0, "last"), AttentionKL(3.0, "last")]
    return [*others, RDrop(4.0, rows)]


def models(kind, **changes):
    """(student, teacher)."""
    changes = {"initializer_range": 0.2, **changes}
    if kind == "mlm":
        return tiny.mlm_model(2, seed=1, **changes), tiny.mlm_model(4, initializer_range=0.2)
    if kind == "tokens":
        return tiny.tagger(2, seed=1, **changes), tiny.tagger(4, initializer_range=0.2)
    labels = 1 if kind == "regression" else 3
    return tiny.classifier(2, labels, seed=1, **changes), tiny.classifier(4, labels, initializer_range=0.2)


def data(kind, count=8):
    if kind == "tokens":
        return token_rows(count)
    rows = text_rows(count) if kind == "mlm" else task_rows(count, 3)
    return [row | {"labels": 0.7 * row["labels"]} for row in rows] if kind == "regression" else rows


def step(folder, kind, batch, accumulation, **further):
    """The gradient, values and batches of one step with known dropout masks."""
    student, teacher = models(kind)
    fix_dropout(student)
    steps = Steps()
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    arguments |= {"learning_rate": 0.0, "max_grad_norm": 0, "rows": data(kind), **further}
    run = trainer(folder, student, teacher, terms(), kind=kind, callbacks=[steps], **arguments)
    steps.watch(run)
    run.train()
    return steps.gradients[0], run.last_terms, steps.batches[0]


def expected(kind, batches):
    """The gradient and values of the definitions: float64, a forward for each pass, and rows one by one."""
    student, teacher = (copy.deepcopy(model).double() for model in models(kind))
    fix_dropout(student)
    for model in (student.train(), teacher.eval()):
        model.set_attn_implementation("eager")
    sums, counts = dict.fromkeys(WEIGHTS, 0.0), dict.fromkeys(WEIGHTS, 0)
    for batch in batches:
        known = ("input_ids", "token_type_ids", "attention_mask")
        inputs = {name: batch[name] for name in known if name in batch}
        shown = {"output_hidden_states": True, "output_attentions": True}
        target, passes = teacher(**inputs, **shown), []
        for number in (0, 1):
            read_pass(student, number)
            passes.append(student(**inputs, **shown))
        attended = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).nonzero().tolist()
        tokens = [tuple(at) for at in attended]
        outputs = tokens if kind == "mlm" else list(range(len(batch["input_ids"])))
        if kind == "tokens":
            outputs = [at for at in tokens if batch["is_word"][at]]
        labelled = [at for at in outputs if kind == "regression" or batch["labels"][at] != -100]
        for one in passes:
            for at in outputs:
                add(sums, counts, "soft_target_kl", soft(one.logits[at], target.logits[at], kind))
            for at in labelled:
                add(sums, counts, "hard_label", hard(one.logits[at], batch["labels"][at], kind))
            for at in tokens:
                s, t = one.hidden_states[-1][at], target.hidden_states[-1][at]
                add(sums, counts, "hidden_cosine", 1 - torch.dot(s, t) / s.norm() / t.norm())
            for row, query in tokens:
                maps, wanted = one.attentions[-1][row, :, query], target.attentions[-1][row, :, query]
                add(sums, counts, "attention_kl", kl(wanted, maps) / len(maps))
        for at in outputs:
            first, second = (one.logits[at] for one in passes)
            if kind == "regression":
                add(sums, counts, "r_drop", (first - second).square().sum())
            else:
                p, q = first.softmax(-1), second.softmax(-1)
                add(sums, counts, "r_drop", (kl(p, q) + kl(q, p)) / 2)
    means = {name: sums[name] / counts[name] for name in WEIGHTS}
    sum(weight * means[name] for name, weight in WEIGHTS.items()).backward()
    gradient = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return gradient, {name: value.item() for name, value in means.items()}


def add(sums, counts, name, value):
    sums[name] = sums[name] + value
    counts[name] += 1


def kl(p, q):
    known = p > 0
    return (p[known] * (p[known].log() - q[known].log())).sum()


def soft(student, teacher, kind):
    if kind == "regression":
        return (student - teacher).square().sum()
    return 4 * kl((teacher / 2).softmax(-1), (student / 2).softmax(-1))


def hard(logits, label, kind):
    return (logits.squeeze() - label.double()).square() if kind == "regression" else -logits.log_softmax(-1)[int(label)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4)])
def test_a_doubled_batch_has_the_gradient_of_two_passes(tmp_path, monkeypatch, kind, batch, accumulation):
    """Prevents rows that are paired with another row's, a mean over one pass, and micro-batches counted in halves; of a
    vocabulary in chunks of five rows, so that pairs would be cut apart."""
    monkeypatch.setattr(trainer_module, "_CHUNK_BYTES", {"cpu": 5 * 2 * 4 * len(tiny.VOCABULARY)})
    found, values, batches = step(tmp_path, kind, batch, accumulation)
    wanted, means = expected(kind, batches)
    assert means["r_drop"] > 1e-4
    assert values == pytest.approx(means, rel=1e-4)
    assert distance(found, wanted) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_and_row_set_is_that_of_both_copies(tmp_path, kind):
    """Prevents positions that miss the copies: what a row set chooses of the doubled batch is its choice, twice."""
    student, teacher = models(kind, **DROPOUT)
    changes = {} if kind in ("mlm", "tokens") else {"changes": {"mixup": Mixup(1.0, 0.4)}}
    sampled = [*terms(), HiddenMSE(1.0, "last", 0.5)]
    run = trainer(tmp_path, student, teacher, sampled, kind=kind, rows=data(kind), **changes)
    batch, _ = run.get_batch_samples(iter(run.get_train_dataloader()), 1, torch.device("cpu"))
    batch = batch[0]
    doubled = doubled_batch(batch, run.objective.kind)
    assert torch.equal(doubled["input_ids"], twice(batch["input_ids"]))
    assert torch.equal(doubled["labels"].nan_to_num(9), twice(batch["labels"]).nan_to_num(9))
    places = {name: rows for name, rows in batch["rows"].items() if not name.startswith("mixup/")}
    assert len(places) >= 4
    assert any(len(rows) for rows in places.values())
    names = ["sequences", *(["labelled"] if run.objective.kind.level == "sequence" else [])]
    of = dict.fromkeys(names, len(batch["input_ids"]))
    for name, rows in places.items():
        size = of.get(name, batch["input_ids"].numel())
        length = size if name in of or name.startswith("logits/") else batch["input_ids"].shape[1]
        values = torch.arange(size).view(-1, length) if length != size else torch.arange(size).view(-1, 1)
        assert torch.equal(twice(values).flatten()[doubled["rows"][name]], twice(values.flatten()[rows])), name
    for name in batch["rows"].keys() - places.keys():
        assert torch.equal(doubled["rows"][name], twice(batch["rows"][name]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_reads_a_row_once_and_its_cache_serves_both_passes(tmp_path, kind):
    """Prevents a second forward of the teacher, and a cache that is built of doubled rows: same weights either way."""
    trained, objective = {}, [*terms()[:-1], RDrop(4.0)]
    for cache in (None, CacheConfig(folder=str(tmp_path / "cache"), dtype="float32", top_k=len(tiny.VOCABULARY))):
        student, teacher = models(kind, **DROPOUT)
        arguments = {"kind": kind, "rows": data(kind, 16), "cache": cache, "max_steps": 2, "optim": "sgd"}
        run = trainer(tmp_path / "run", student, teacher, objective, **arguments)
        run.get_train_dataloader()  # which builds the cache
        seen = []
        teacher.register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        run.train()
        assert sum(seen) == (16 if cache is None else 0)
        trained[cache is None] = {name: value.clone() for name, value in student.state_dict().items()}
    for name, value in trained[True].items():
        assert torch.allclose(value, trained[False][name], atol=1e-5), name


def test_resumed_equals_uninterrupted_bit_for_bit_with_two_passes(tmp_path):
    """Prevents a resume in which the passes draw other dropout."""

    def new(folder, **arguments):
        often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "gradient_accumulation_steps": 2}
        often |= {"per_device_train_batch_size": 2, "kind": "classification", **arguments}
        return trainer(folder, *models("classification", **DROPOUT), terms(), **often)

    whole = new(tmp_path / "whole")
    whole.train()
    new(tmp_path / "stopped", callbacks=[StopAt(2)]).train()
    resumed = new(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert curve(whole, "r_drop") == curve(resumed, "r_drop")
    assert min(curve(whole, "r_drop")) > 1e-4


def test_both_copies_of_a_row_draw_their_own_dropout_under_checkpointing_too(tmp_path):
    """Prevents two passes that are one, and recomputed layers that draw other masks than the forward did."""
    found = []
    for checkpointing in (False, True):
        student, teacher = models("classification", **DROPOUT)
        run = trainer(
            tmp_path, student, teacher, terms(), kind="classification", activation_checkpointing=checkpointing
        )
        run.train()  # whose step switches checkpointing on
        batch = run.data_collator(data("classification"))
        student.train().zero_grad()
        torch.manual_seed(5)
        factors = torch.tensor(list(WEIGHTS.values())) / 16
        loss, _, signals = run.teacher_student.compute(student, batch, 0.0, factors, passes=2)
        loss.backward()
        gap = (signals.logits[0::2] - signals.logits[1::2]).abs()
        assert gap.amax(-1).min() > 1e-4
        found.append({name: p.grad.double() for name, p in student.named_parameters() if p.grad is not None})
    assert distance(found[1], found[0]) < 1e-5


@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_evaluation_has_one_pass_and_no_value_of_the_term(tmp_path, kind):
    """Prevents a 0 that looks measured, and values of other terms that change because this one is there."""
    found = []
    for objective in (terms(), terms()[:-1]):
        run = trainer(tmp_path, *models(kind, **DROPOUT), objective, kind=kind, eval_rows=data(kind, 5))
        found.append({name: one for name, one in run.evaluate().items() if "second" not in name and "time" not in name})
    with_it, without = found
    assert "eval_r_drop" not in with_it
    assert with_it == pytest.approx(without)
    assert math.isfinite(with_it["eval_loss"])


def test_a_student_without_dropout_is_refused(tmp_path, capsys):
    """Prevents a term that is exactly 0 for a whole run: of a trainer, and of a recipe before anything is trained."""
    with pytest.raises(UserError, match=r"objective.r_drop: expected a student with dropout / got dropout 0"):
        trainer(tmp_path, *models("classification"), terms(), kind="classification")
    place = Place(tmp_path / "place").prepare()  # whose teacher has no dropout
    assert check(place.command("objective.r_drop.weight=1.0")) == 2
    assert re.search(r"objective\.r_drop\s+expected  a student with dropout", capsys.readouterr().err)
    assert check(place.command("objective.r_drop.weight=1.0", "student.config={hidden_dropout_prob: 0.1}")) == 0


def test_what_compares_the_rows_of_a_batch_is_refused():
    """Prevents distances between a row and its own copy, which are 0 for the teacher."""
    comparing = [name for name, term in TERMS.items() if term.compares_samples]
    assert len(comparing) >= 7
    for name in comparing:
        with pytest.raises(UserError, match=rf"r_drop without terms that compare the rows of a batch / got {name}"):
            Objective([TERMS[name](), RDrop()])
    assert Objective([TERMS[comparing[0]](), RDrop(0.0)]).passes == 1
