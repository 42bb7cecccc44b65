"""Tokens that go forward and backward through all models, in every way in which rows are read more than once."""

import json

import pytest

from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.teachers.averaged import EMATeacher
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.curriculum import TeacherCurriculum
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.last_epoch import LastEpochTeacher
from distil_nlp.training.checkpoints import SPENT, read_spent
from distil_nlp.training.fit import fit
from tests.helpers import tiny
from tests.helpers.training import StopAt, task_rows, trainer
from tests.workers.joint import train

CASES = {
    "labels alone": ([HardLabel()], None, 1, 1),
    "a teacher": ([SoftTargetKL()], lambda student: tiny.classifier(4, 3), 2, 1),
    "two teachers": ([SoftTargetKL()], lambda student: Ensemble([tiny.classifier(n, 3) for n in (4, 3)]), 3, 1),
    "a route": ([SoftTargetKL()], lambda student: TeacherCurriculum([tiny.classifier(4, 3, n) for n in (1, 2)]), 2, 1),
    "its own average": ([SoftTargetKL()], EMATeacher, 2, 1),
    "its last epoch": ([SoftTargetCrossEntropy()], lambda student: LastEpochTeacher(student.config), 1, 1),
    "two passes": ([SoftTargetKL(), RDrop()], lambda student: tiny.classifier(4, 3), 3, 2),
    "input gradients": ([SoftTargetKL(), InputGradient()], lambda student: tiny.classifier(4, 3), 2, 2),
}
"""Case → terms, teacher, and how often each token goes forward and backward."""


def made(folder, case="a teacher", **arguments):
    terms, teacher, *_ = CASES[case]
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=0.1 if case == "two passes" else 0.0)
    rows = task_rows(16, 3)
    return trainer(folder, student, teacher and teacher(student), terms, kind="classification", rows=rows, **arguments)


def counts(run):
    spent = run.spent()
    return spent["tokens"], spent["tokens_forward"], spent["tokens_backward"]


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (2, 4)])
@pytest.mark.parametrize("case", CASES)
def test_a_token_counts_each_time_that_a_model_reads_it(tmp_path, case, batch, accumulation):
    """Prevents a scheme that looks as cheap as plain distillation since a row is counted once."""
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    run = made(tmp_path, case, eval_rows=task_rows(5, 3), eval_strategy="steps", eval_steps=1, **arguments)
    run.train()
    tokens, forward, backward = counts(run)
    assert tokens > 0
    assert (forward, backward) == tuple(tokens * times for times in CASES[case][2:])


@pytest.mark.parametrize(("scheme", "forward", "backward"), [("exits", 2, 1), ("peers", 4, 3), ("branches", 8, 5)])
def test_models_that_train_together_count_too(tmp_path, scheme, forward, backward):
    """Prevents peers and branches that take nothing; two further branches of a block each, of three, are two thirds."""
    run, _ = train(tmp_path, scheme)
    tokens, *found = counts(run)
    parts = 3 if scheme == "branches" else 1
    assert found == [round(tokens * forward / parts), round(tokens * backward / parts)]


def test_a_teacher_that_is_read_from_a_cache_does_not_count(tmp_path):
    """Prevents passes that were not run in this training, and those that fill the cache."""
    run = made(tmp_path / "run", cache=CacheConfig(folder=str(tmp_path / "cache"), dtype="float32"))
    run.train()
    tokens, forward, backward = counts(run)
    assert forward == backward == tokens > 0


def test_measured_gradients_do_not_count(tmp_path):
    """Prevents a cost that depends on how often terms are looked at."""
    plain, probed = made(tmp_path / "plain"), made(tmp_path / "probed", gradients_every=1)
    for run in (plain, probed):
        run.train()
    assert counts(plain) == counts(probed)


def test_a_resumed_run_adds_to_what_was_counted(tmp_path):
    """Prevents counts of the last leg alone, and 0 for what a checkpoint of an older version does not say."""
    often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = made(tmp_path / "whole", **often)
    whole.train()
    made(tmp_path / "run", callbacks=[StopAt(2)], **often).train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    resumed = made(tmp_path / "run", **often)
    record = fit(resumed, tmp_path / "run" / "student", tiny.tokenizer())
    assert (record["tokens"], record["tokens_forward"], record["tokens_backward"]) == counts(whole)
    spent = {name: value for name, value in read_spent(checkpoint).items() if name in ("seconds", "tokens")}
    (checkpoint / SPENT).write_text(json.dumps(spent))
    older = made(tmp_path / "run", **often)
    older.spent_before = read_spent(checkpoint)
    older.train(resume_from_checkpoint=str(checkpoint))
    assert older.spent().keys() == {"seconds", "tokens", "flops_per_token"}
