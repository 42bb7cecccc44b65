"""Several teachers as one: how much each counts in a row, what is averaged, and that each is asked for itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.data.row_sets import ANSWERS, RowCollator
from distil_nlp.errors import UserError
from distil_nlp.losses.decoupled_kd import DecoupledKD
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from distil_nlp.signals.types import LazyLogits
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.ensemble_teacher import EnsembleTeacher, validate_mixing
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.mixing import MixedVocabulary, Mixing
from distil_nlp.teachers.sources import teacher_source
from distil_nlp.training.teacher_student import TeacherStudent
from tests.helpers import tiny
from tests.helpers.training import StopAt, all_terms, curve, task_rows, text_rows, trainer
from tests.teachers.test_cache import EVERY_WORD, caches, mute

WAYS = list(
    itertools.product(("logits", "probabilities"), ("fixed", "confidence", "correctness", "student_uncertainty"))
)
ROWS, CLASSES = 7, 4


def logits(seed, scale=3.0):
    return scale * torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels():
    return torch.tensor([0, 1, 2, 3, -100, 1, -100])


# The formulas -------------------------------------------------------------------------------------------------


def naive_weights(teachers, label, student, own, weighting):
    """Return the weights of a row in float64, from the papers' words: no code of the package."""
    count, probabilities = len(teachers), [softmax(one) for one in teachers]
    entropies = [-sum(p * math.log(p) for p in row) for row in probabilities]
    if weighting == "correctness" and label >= 0:
        losses = np.array([-math.log(row[label]) for row in probabilities])
        method = [(1 - np.exp(loss) / np.exp(losses).sum()) / (count - 1) for loss in losses]
    elif weighting in ("confidence", "correctness"):
        method = [(1 - entropy / sum(entropies)) / (count - 1) for entropy in entropies]
    elif weighting == "student_uncertainty":
        q = softmax(student)
        place = -sum(p * math.log(p) for p in q) / math.log(len(q)) * (count - 1)
        below = min(int(place), count - 2)
        method = [0.0] * count
        method[below], method[below + 1] = below + 1 - place, place - below
    else:
        method = [1 / count] * count
    product = np.array(method) * np.array(own)
    return product / product.sum()


@pytest.mark.parametrize("own", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)], ids=["equal", "weighted"])
@pytest.mark.parametrize(("mix", "weighting"), WAYS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_mixtures_are_those_of_the_papers(mix, weighting, own, temperature):
    """Prevents weights of another teacher or row, a sum other than 1, and a mean of what is softened otherwise."""
    teachers, student = [logits(seed) for seed in (1, 2, 3)], logits(9)
    mixing = Mixing(own, mix, weighting, sizes=(30, 20, 10))
    weights = mixing.row_weights(teachers, labels(), student)
    mixed = mixing.mixed(teachers, labels(), student, temperature)
    torch.testing.assert_close(weights.sum(0), torch.ones(ROWS, dtype=weights.dtype))
    for row in range(ROWS):
        values = [one[row].numpy() for one in teachers]
        expected = naive_weights(values, labels()[row], student[row].numpy(), own, weighting)
        np.testing.assert_allclose(weights[:, row], expected, rtol=1e-5, atol=1e-6)
        if mix == "logits":
            target = softmax(sum(w * z for w, z in zip(expected, values, strict=True)) / temperature)
        else:
            target = sum(w * softmax(z / temperature) for w, z in zip(expected, values, strict=True))
        np.testing.assert_allclose((mixed[row] / temperature).softmax(0), target, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighting", ["confidence", "correctness", "student_uncertainty"])
def test_certain_teachers_have_weights_too(weighting):
    """Prevents 0 ÷ 0 where no teacher has any entropy left, and a row that belongs to nobody."""
    certain = torch.tensor([[400.0, 0, 0], [400.0, 0, 0]])
    mixing = Mixing((1.0, 3.0), "probabilities", weighting)
    weights = mixing.row_weights([certain, certain], torch.tensor([0, 1]), certain)
    torch.testing.assert_close(weights.sum(0), torch.ones(2))
    assert mixing.mixed([certain, certain], torch.tensor([0, 1]), certain, 2.0).isfinite().all()


@pytest.mark.parametrize("weighting", ["confidence", "correctness", "student_uncertainty"])
def test_the_mean_of_probabilities_has_the_gradient_of_the_authors_losses(weighting):
    """Prevents a mixture that is not what CA-MKD, EBKD and DynamicKD train with: Σ_k w_k · KL(teacher k ‖ student)."""
    teachers, temperature = [logits(seed).float() for seed in (1, 2)], 4.0
    mixing = Mixing((1.0, 1.0), "probabilities", weighting)
    gradients = []
    for apart in (True, False):
        student = logits(9).float().requires_grad_()
        weights = mixing.row_weights(teachers, labels(), student)
        assert not weights.requires_grad
        targets = teachers if apart else [mixing.mixed(teachers, labels(), student, temperature)]
        own = weights if apart else torch.ones(1, ROWS)
        log_probs = (student / temperature).log_softmax(-1)
        loss = sum(
            (w * torch.nn.functional.kl_div(log_probs, (z / temperature).softmax(-1), reduction="none").sum(-1)).sum()
            for w, z in zip(own, targets, strict=True)
        )
        gradients.append(torch.autograd.grad(loss, student)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_certain_student_is_taught_by_the_largest():
    """Prevents the sizes the wrong way round, or those of the recipe's order."""
    certain, unsure = torch.tensor([[50.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    mixing = Mixing((1.0, 1.0, 1.0), weighting="student_uncertainty", sizes=(10, 30, 20))
    teachers = [torch.zeros(1, 2)] * 3
    assert mixing.row_weights(teachers, None, certain)[:, 0].tolist() == pytest.approx([0, 1, 0])
    assert mixing.row_weights(teachers, None, unsure)[:, 0].tolist() == pytest.approx([1, 0, 0])


def test_without_labels_or_student_the_weights_are_those_that_are_documented():
    """Prevents a score of the ensemble that has seen the labels."""
    teachers = [logits(1), logits(2)]
    with_labels, without = Mixing((1.0, 2.0), weighting="correctness"), Mixing((1.0, 2.0), weighting="confidence")
    torch.testing.assert_close(with_labels.row_weights(teachers), without.row_weights(teachers))
    alone = Mixing((1.0, 3.0), weighting="student_uncertainty").row_weights(teachers)
    torch.testing.assert_close(alone, torch.tensor([[0.25], [0.75]]).expand(2, ROWS))


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0)])
def test_weights_without_a_mean_are_refused(weights):
    """Prevents a division by 0, and a teacher to be unlike."""
    with pytest.raises(UserError, match=r"weights of at least 0, one of them above / got [01], -?[01] "):
        Mixing(weights)


def test_each_teacher_has_a_weight():
    """Prevents teachers that fall out of the mean unseen."""
    with pytest.raises(UserError, match="2 weights, one a teacher / got 3"):
        Ensemble([tiny.classifier(2), tiny.classifier(2)], Mixing((1.0, 1.0, 1.0)))


# One step -----------------------------------------------------------------------------------------------------


def model(kind, seed, layers=4):
    if kind == "mlm":
        return tiny.mlm_model(layers, seed)
    return tiny.classifier(layers, 1 if kind == "regression" else 3, seed)


def rows_of(kind):
    rows = text_rows(21) if kind == "mlm" else task_rows(21, 3)
    if kind == "regression":
        return [{**row, "labels": float(row["labels"])} for row in rows]
    if kind == "classification":
        rows[4]["labels"] = rows[11]["labels"] = -100
    return rows


def step(kind, teacher, terms):
    """Return (the terms per row, the student's gradients) of a batch of twelve, some of them without a label."""
    objective, student = Objective(terms, kind), model(kind, 1, 2)
    source = teacher_source(teacher)
    objective.bind(source.shape, ModelShape.of(student.config))
    pair = TeacherStudent(student, source, objective)
    collate = MaskingCollator(tiny.tokenizer(), seed=7) if kind == "mlm" else TaskCollator(tiny.tokenizer(), kind)
    collator = RowCollator(collate, objective.row_sets(5 if kind == "mlm" else None), pair.inputs | {"labels"})
    batch = collator(rows_of(kind)[:12])
    loss, sums, _ = pair.compute(student, batch, 0.5, torch.full((len(terms),), 1 / 12))
    loss.backward()
    pair.remove_hooks()
    return sums / 12, [parameter.grad for parameter in student.parameters() if parameter.grad is not None]


def made(folder, kind, teacher, terms=None, **options):
    options = {"rows": rows_of(kind), "max_steps": 4, **options}
    return trainer(folder, model(kind, 1, 2), teacher, terms or all_terms(), kind=kind, **options)


def trained(folder, kind, teacher, terms=None, **options):
    one = made(folder, kind, teacher, terms, **options)
    one.train()
    return one


def weights_of(trained):
    return [parameter.detach().clone() for parameter in trained.detach().parameters()]


def mixed(*seeds, kind="classification", weights=None, mix="logits", weighting="fixed"):
    members = [model(kind, seed, 4 if number == 0 else 2) for number, seed in enumerate(seeds)]
    return Ensemble(members, Mixing(weights or (1.0,) * len(seeds), mix, weighting))


def terms_of(kind):
    """Return terms of three kinds, at other temperatures."""
    terms = [SoftTargetKL(5.0, 2.0, "all"), HardLabel(2.0), HiddenCosine(1.0)]
    return [*terms, DecoupledKD(1.0, Schedule(2.0, 4.0, "linear"))] if kind == "classification" else terms


@pytest.mark.parametrize("kind", ["classification", "mlm"])
@pytest.mark.parametrize(("mix", "weighting"), WAYS)
def test_copies_of_a_teacher_teach_as_one(kind, mix, weighting):
    """Prevents a mixture of equals that is something else: losses and gradients."""
    copies = Ensemble([model(kind, 0) for _ in range(3)], Mixing((1.0, 2.0, 0.5), mix, weighting))
    alone, both = step(kind, model(kind, 0), terms_of(kind)), step(kind, copies, terms_of(kind))
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["classification", "mlm"])
@pytest.mark.parametrize(("mix", "weighting"), WAYS)
def test_weight_on_one_teacher_is_that_teacher(kind, mix, weighting):
    """Prevents a teacher of weight 0 that still teaches, or still runs: bit for bit."""
    ensemble = mixed(0, 5, kind=kind, weights=(1.0, 0.0), mix=mix, weighting=weighting)
    mute(ensemble.members[1])
    alone, one = step(kind, model(kind, 0), terms_of(kind)), step(kind, ensemble, terms_of(kind))
    torch.testing.assert_close(one, alone, rtol=0, atol=0)


def test_a_first_teacher_of_weight_0_still_shows_its_layers():
    """Prevents layers of the second teacher, and the outputs of the first."""
    both = step("classification", mixed(0, 5, weights=(0.0, 1.0)), terms_of("classification"))[0]
    first = step("classification", model("classification", 0), terms_of("classification"))[0]
    second = step("classification", model("classification", 5, 2), [SoftTargetKL(5.0, 2.0)])[0]
    assert both[0] == second[0] != first[0]
    assert both[2] == first[2]


@pytest.mark.parametrize(("mix", "weighting"), WAYS)
def test_each_row_of_a_vocabulary_is_mixed_for_itself(mix, weighting):
    """Prevents labels, or the student's logits, of another chunk of tokens: five rows of logits at a time, or all."""
    teachers, student = [logits(1).float(), logits(2).float()], logits(9).float()
    mixing = Mixing((1.0, 2.0), mix, weighting)
    lazy = MixedVocabulary(mixing, tuple(LazyLogits(one) for one in teachers), labels())
    parts = [lazy.logits(start, min(start + 3, ROWS)) for start in range(0, ROWS, 3)]
    if not mixing.is_constant:
        parts = [part.logits_for(student[i * 3 : i * 3 + 3], 2.0) for i, part in enumerate(parts)]
    torch.testing.assert_close(torch.cat(parts), mixing.mixed(teachers, labels(), student, 2.0))


# Training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "regression", "mlm"])
def test_plain_ensembles_teach_as_they_did_when_they_ran_as_one(tmp_path, kind):
    """Prevents other numbers for recipes with a list of names: the members as one model, as before they were apart."""
    as_one = trained(tmp_path / "one", kind, FrozenTeacher(mixed(0, 5, 6, kind=kind)))
    apart = trained(tmp_path / "apart", kind, mixed(0, 5, 6, kind=kind))
    assert curve(apart) == curve(as_one)
    assert all(map(torch.equal, weights_of(apart), weights_of(as_one)))


@pytest.mark.parametrize(
    ("kind", "mix", "weighting"),
    [("classification", "probabilities", "student_uncertainty"), ("mlm", "probabilities", "correctness")],
)
def test_accumulation_changes_nothing(tmp_path, kind, mix, weighting):
    """Prevents weights of a micro-batch in place of those of a row."""
    found = [
        curve(trained(tmp_path / str(size), kind, mixed(0, 5, kind=kind, mix=mix, weighting=weighting), max_steps=2,
                      per_device_train_batch_size=size, gradient_accumulation_steps=8 // size))
        for size in (8, 2)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_cached_members_teach_as_those_that_are_asked_and_ask_nobody_again(tmp_path):
    """Prevents the outputs of one teacher for another's, and hours of forwards for a comparison of weightings."""
    cache, terms = CacheConfig(tmp_path / "caches", dtype="float32"), [SoftTargetKL(1.0), HardLabel(1.0)]
    trained(tmp_path / "first", "classification", mixed(0, 5, 6), terms, cache=cache, max_steps=1)
    for mix, weighting in (("probabilities", "correctness"), ("logits", "student_uncertainty")):
        asked, cached = (mixed(0, 5, 6, mix=mix, weighting=weighting) for _ in range(2))
        for member in cached.members:
            mute(member)
        curves = [
            curve(trained(tmp_path / f"{weighting}-{kind}", "classification", teacher, terms, cache=kept, max_steps=3))
            for kind, teacher, kept in (("asked", asked, None), ("cached", cached, cache))
        ]  # three steps: the last batch of an epoch has fillers
        assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    pair = Ensemble([mute(model("classification", 6, 2)), mute(model("classification", 0))])
    trained(tmp_path / "pair", "classification", pair, terms, cache=cache, max_steps=1)
    trained(tmp_path / "one", "classification", mute(model("classification", 0)), terms, cache=cache, max_steps=1)
    assert len(caches(tmp_path / "caches")) == 3


def test_a_vocabulary_is_cached_as_the_mean_of_all(tmp_path):
    """Prevents likeliest words of one teacher that are averaged with those of another, and weights without effect."""
    cache, how = CacheConfig(tmp_path / "caches", **EVERY_WORD), {"max_steps": 2}
    for weights in ((1.0, 1.0), (3.0, 1.0)):
        name = f"{weights[0]:g}"
        plain = trained(tmp_path / f"{name}-plain", "mlm", mixed(0, 5, kind="mlm", weights=weights), **how)
        cached = trained(
            tmp_path / f"{name}-cached", "mlm", mixed(0, 5, kind="mlm", weights=weights), cache=cache, **how
        )
        assert curve(cached) == pytest.approx(curve(plain), rel=1e-5)
    assert len(caches(tmp_path / "caches")) == 2


@pytest.mark.parametrize(("weighting", "cached"), [("correctness", True), ("student_uncertainty", False)])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, weighting, cached):
    """Prevents weights that depend on what was before the stop."""

    def run(folder, **options):
        cache = CacheConfig(tmp_path / "caches") if cached else None
        ensemble = mixed(0, 5, mix="probabilities", weighting=weighting)
        return made(folder, "classification", ensemble, cache=cache, max_steps=4, **options)

    whole = run(tmp_path / "whole")
    whole.train()
    run(tmp_path / "stopped", callbacks=[StopAt(2)]).train()
    resumed = run(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    assert all(map(torch.equal, weights_of(resumed), weights_of(whole)))


def test_the_gradient_of_an_ensembles_own_loss_is_that_of_the_mean():
    """Prevents the first teacher's loss in place of the ensemble's; one model, as before they were apart."""
    terms = [InputGradient(1.0), SoftTargetKL(1.0)]
    as_one = step("classification", FrozenTeacher(mixed(0, 5)), terms)
    torch.testing.assert_close(step("classification", mixed(0, 5), terms), as_one, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "options", "how", "message"),
    [
        ("regression", {"mix": "probabilities"}, {}, "teacher.mix: expected mix=logits and weighting=fixed for reg"),
        ("regression", {"weighting": "confidence"}, {}, "for regression / got confidence / both are of one dist"),
        ("multilabel", {"weighting": "confidence"}, {}, "for multi-label classification / got confidence / "),
        ("mlm", {"weighting": "correctness"}, {"cached": True}, "teacher.weighting: .*vocabulary is cached / got corr"),
        ("classification", {"mix": "probabilities"}, {"terms": [InputGradient(1.0)]}, "with objective.input_gradient"),
        (
            "classification",
            {"mix": "probabilities"},
            {"terms": [SoftTargetKL(1.0, by_confidence=True)]},
            "soft_target_kl.by_confidence: expected false with teacher.mix=probabilities / got true",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_refused(tmp_path, kind, options, how, message):
    """Prevents a number taken for a distribution, and likeliest words that are averaged with others."""
    cache = CacheConfig(tmp_path / "caches") if how.get("cached") else None
    ensemble = mixed(0, 5, kind=kind, **options)
    with pytest.raises(UserError, match=message):
        made(tmp_path / "run", kind, ensemble, how.get("terms"), cache=cache)
    assert all(not member._forward_pre_hooks for member in ensemble.members)


# Answers in the data's columns beside models ----------------------------------------------------------------------

NONE = [float("nan")] * 3


def answers_to(rows, gaps=()):
    """Return rows with answers, which are NaN where there is none."""
    return [
        row | {ANSWERS: NONE if i in gaps else [0.3 * (i % 7) - 1, 0.5 * (i % 3), 2 - 0.4 * (i % 5)]}
        for i, row in enumerate(rows)
    ]


def with_answers(weights=(1.0, 0.5, 2.0), mix="logits"):
    """Return two models and answers as one teacher."""
    members = [tiny.classifier(4, 3, seed=5), tiny.classifier(2, 3, seed=6)]
    for member in members:
        member.classifier.weight.data *= 20
    return Ensemble(members, Mixing(tuple(weights), mix, has_answers=True))


@pytest.mark.parametrize("mix", ["logits", "probabilities"])
def test_a_row_without_an_answer_has_the_mean_of_the_models(mix):
    """Prevents NaN, or a mean with weights that do not sum to 1: against the formula in float64, row by row."""
    first, second, third = logits(1), logits(2), logits(3)
    third[[1, 4]] = float("nan")
    found = Mixing((1.0, 0.5, 2.0), mix, has_answers=True).mixed([first, second, third], temperature=2.0)
    for row in range(ROWS):
        known = [0, 1] if row in (1, 4) else [0, 1, 2]
        weights = np.array([(1.0, 0.5, 2.0)[k] for k in known]) / sum((1.0, 0.5, 2.0)[k] for k in known)
        own = np.array([(first, second, third)[k][row].numpy() for k in known])
        if mix == "logits":
            expected = softmax((weights[:, None] * own).sum(0) / 2.0)
        else:
            expected = (weights[:, None] * softmax(own / 2.0, axis=-1)).sum(0)
        np.testing.assert_allclose(softmax(found[row].double().numpy() / 2.0), expected, rtol=1e-5)
    alone = Mixing((1.0, 0.5)).mixed([first, second])
    torch.testing.assert_close(
        Mixing((1.0, 0.5, 2.0), has_answers=True).mixed([first, second, third])[[1, 4]], alone[[1, 4]]
    )


@pytest.mark.parametrize("mix", ["logits", "probabilities"])
def test_answers_of_a_model_beside_models_teach_as_that_model_in_the_ensemble(tmp_path, mix):
    """Prevents answers that do not follow their rows, or count otherwise than a model that gives the same."""
    ensemble, rows = with_answers(mix=mix), task_rows(24, 3)
    third = tiny.classifier(3, 3, seed=8)
    third.classifier.weight.data *= 20
    collate = TaskCollator(tiny.tokenizer(), "classification")
    with torch.no_grad():
        given = [{k: v for k, v in collate([row]).items() if k != "labels"} for row in rows]
        found = [third(**one).logits[0].tolist() for one in given]
    answered = [row | {ANSWERS: answer} for row, answer in zip(rows, found, strict=True)]
    models = Ensemble([*ensemble.members, third], Mixing((1.0, 0.5, 2.0), mix))
    terms = [SoftTargetKL(1.0, 2.0), HiddenCosine(1.0), HardLabel(0.5)]
    curves = []
    for name, teacher, own in (("models", models, rows), ("answers", with_answers(mix=mix), answered)):
        student = tiny.classifier(2, 3, seed=1)
        made = trainer(tmp_path / name, student, teacher_source(teacher), terms, kind="classification", rows=own)
        made.train()
        curves.append({key: curve(made, key) for key in ("loss", "soft_target_kl", "hidden_cosine")})
    for key, values in curves[0].items():
        assert curves[1][key] == pytest.approx(values, rel=1e-4), key


def test_gaps_neither_change_with_micro_batches_nor_with_a_cache(tmp_path):
    """Prevents answers that are mixed with another row's outputs where batches are cut anew, or models are cached."""
    rows = answers_to(task_rows(22, 3), gaps=(0, 3, 4, 9, 20))
    cached = EnsembleTeacher(with_answers(), [CacheConfig(str(tmp_path / "cache"), "float32")] * 2)
    found = []
    for name, batch, steps, teacher in (
        ("whole", 8, 1, EnsembleTeacher(with_answers())),
        ("parts", 2, 4, EnsembleTeacher(with_answers())),
        ("cached", 4, 2, cached),
    ):
        student = tiny.classifier(2, 3, seed=1)
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "max_steps": 6}
        made = trainer(
            tmp_path / name, student, teacher, [SoftTargetKL(1.0, 2.0)], kind="classification", rows=rows, **cut
        )
        made.train()
        found.append(curve(made))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize(
    ("mixing", "terms", "kind", "message"),
    [
        (Mixing((0.0, 0.0, 1.0), has_answers=True), [SoftTargetKL()], "classification", "a model with a weight above"),
        (Mixing((1.0, 1.0, 1.0), "logits", "confidence", has_answers=True), [SoftTargetKL()], "classification",
         "fixed with answers in teacher.ensemble / got confidence"),
        (Mixing((1.0, 1.0, 1.0), has_answers=True), [SoftTargetKL(), InputGradient()], "classification",
         "answers do not depend on the embeddings"),
        (Mixing((1.0, 1.0, 1.0), has_answers=True), [SoftTargetKL()], "mlm", "classification, regression or multi"),
    ],
)  # fmt: skip
def test_answers_that_cannot_be_one_of_several_are_refused(mixing, terms, kind, message):
    """Prevents a row without any teacher, or weights of another meaning, instead of a message before the run."""
    with pytest.raises(UserError, match=message):
        validate_mixing(mixing, Objective(terms, kind), is_cached=False)


def test_rows_without_the_column_are_refused(tmp_path):
    """Prevents a run that was to learn from answers, and learns from models alone."""
    student = tiny.classifier(2, 3, seed=1)
    made = trainer(tmp_path, student, teacher_source(with_answers()), [SoftTargetKL()], kind="classification",
                   rows=task_rows(8, 3))  # fmt: skip
    with pytest.raises(UserError, match=f"a column {ANSWERS}"):
        made.train()
