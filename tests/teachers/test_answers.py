"""Answers in the rows as the teacher."""

import json
import math

import pytest
import torch

from distil_nlp.data import TaskCollator
from distil_nlp.data.row_sets import ANSWERS
from distil_nlp.errors import UserError
from distil_nlp.losses.decoupled_kd import DecoupledKD
from distil_nlp.losses.dist import DistIntra
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.logit_mse import LogitMSE
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.teachers.answers import AnswersTeacher
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, trainer
from tests.workers.answers import NO_ANSWER, answered_rows, train


def logits_of(model, rows, double=False):
    """A model's logits of single rows, in float64 if `double`."""
    model = model.double().eval() if double else model.eval()
    with torch.no_grad():
        found = []
        for row in rows:
            batch = TaskCollator(tiny.tokenizer(), "classification")([row])
            batch.pop("labels")
            found.append(model(**batch).logits[0])
    return torch.stack(found)


def run(folder, rows, terms, teacher=None, **arguments):
    """The trainer of a student, after its training on shuffled rows."""
    student = tiny.classifier(2, 3, seed=1)
    source = AnswersTeacher(student.config) if teacher is None else teacher
    made = trainer(folder, student, source, terms, kind="classification", rows=rows, **arguments)
    made.train()
    return made


def test_losses_are_those_of_the_formula(tmp_path):
    """Prevents a row without an answer in a mean over those that have one, and an answer that is another row's: the
    losses of a step in float64, row by row, over the rows that each term is defined for."""
    rows, t = answered_rows(), 3.0
    made = run(tmp_path, rows, [SoftTargetKL(1.0, t), HardLabel(0.5)], max_steps=1, per_device_train_batch_size=11)
    student = logits_of(tiny.classifier(2, 3, seed=1), rows, double=True)
    kl, nll = [], []
    for row, logits in zip(rows, student, strict=True):
        answer = torch.tensor(row[ANSWERS], dtype=torch.float64)
        if not answer.isnan().any():
            p, q = (answer / t).softmax(0), (logits / t).softmax(0)
            kl.append(t * t * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p.tolist(), q.tolist(), strict=True)))
        if row["labels"] >= 0:
            nll.append(-math.log(logits.softmax(0)[row["labels"]].item()))
    assert (len(kl), len(nll)) == (8, 9)
    assert curve(made, "soft_target_kl") == pytest.approx([sum(kl) / 8], rel=1e-5)
    assert curve(made, "hard_label") == pytest.approx([sum(nll) / 9], rel=1e-5)
    assert curve(made) == pytest.approx([sum(kl) / 8 + 0.5 * sum(nll) / 9], rel=1e-5)


def test_losses_equal_those_of_the_model_that_answered(tmp_path):
    """Prevents answers that teach something else than the model which gave them: the same logits, the same losses."""
    model, rows = tiny.classifier(4, 3, seed=5), task_rows(24, 3)
    model.classifier.weight.data *= 20  # answers that differ from row to row
    answers = logits_of(model, rows).tolist()
    answered = [{**row, ANSWERS: answer} for row, answer in zip(rows, answers, strict=True)]
    terms = [SoftTargetKL(1.0, 2.0), LogitMSE(0.3), DecoupledKD(0.2), HardLabel(0.5)]
    asked, read = run(tmp_path, rows, terms, model), run(tmp_path, answered, terms)
    for name in ("loss", *(term.name for term in terms)):
        assert curve(read, name) == pytest.approx(curve(asked, name), rel=1e-4), name


def test_accumulation_changes_nothing(tmp_path):
    """Prevents a divisor of one micro-batch, whose rows with an answer are fewer or more than another's."""
    whole, *parts = [train(tmp_path / str(batch), batch, 8 // batch)["curves"] for batch in (8, 4, 1)]
    for part in parts:
        for name, values in whole.items():
            assert part[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.integration
def test_two_processes_equal_one(tmp_path):
    """Prevents processes that count only their own answers."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.answers", str(out), json.dumps({"batch": 2}))
    found, one = json.loads(out.read_text()), train(tmp_path / "one", 4)
    assert found["world_size"] == 2
    for name, values in one["curves"].items():
        assert found["curves"][name] == pytest.approx(values, rel=2e-4), name


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """Prevents answers that do not follow their rows into the rest of a stopped epoch."""
    often = {"save_strategy": "steps", "save_steps": 4}
    whole = train(tmp_path / "whole", 3, **often)["curves"]
    train(tmp_path / "stopped", 3, callbacks=[StopAt(4)], **often)
    student = tiny.classifier(2, 3, seed=1)
    terms = [SoftTargetKL(1.0, 3.0), DecoupledKD(0.5), HardLabel(0.5)]
    cut = {"per_device_train_batch_size": 3, "max_steps": -1, "num_train_epochs": 3, **often}
    resumed = trainer(tmp_path / "stopped", student, AnswersTeacher(student.config), terms, kind="classification",
                      rows=answered_rows(), **cut)  # fmt: skip
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert {name: curve(resumed, name) for name in whole} == whole
    assert len(whole["loss"]) > 8


def test_two_passes_read_the_answers_twice(tmp_path):
    """Prevents a second pass over the rows that is compared with other rows' answers: without dropout, an equal one."""
    often = {"max_steps": 1, "per_device_train_batch_size": 11}
    once = run(tmp_path, answered_rows(), [SoftTargetKL(1.0, 3.0)], **often)
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=1e-9)  # r_drop asks for some
    terms = [SoftTargetKL(1.0, 3.0), RDrop(1.0)]
    made = trainer(tmp_path, student, AnswersTeacher(student.config), terms, kind="classification",
                   rows=answered_rows(), **often)  # fmt: skip
    made.train()
    assert curve(made, "soft_target_kl") == pytest.approx(curve(once, "soft_target_kl"), rel=1e-5)


def test_evaluation_counts_the_rows_with_answers(tmp_path):
    """Prevents NaN, or a mean over all rows, where rows to choose by have no answer."""
    rows = answered_rows()
    student = tiny.classifier(2, 3, seed=1)
    made = trainer(tmp_path, student, AnswersTeacher(student.config), [SoftTargetKL(1.0, 3.0), HardLabel()],
                   kind="classification", rows=rows)  # fmt: skip
    known = [row for row in rows if row[ANSWERS] == row[ANSWERS] and not math.isnan(row[ANSWERS][0])]
    both, without = made.evaluate(rows), made.evaluate([{**row, ANSWERS: NO_ANSWER} for row in rows])
    assert both["eval_soft_target_kl"] == pytest.approx(made.evaluate(known)["eval_soft_target_kl"], rel=1e-5)
    assert both["eval_hard_label"] == pytest.approx(without["eval_hard_label"], rel=1e-6)
    assert without["eval_loss"] == pytest.approx(without["eval_hard_label"], rel=1e-6)


def test_terms_of_a_model_that_teaches_next_count_all_rows(tmp_path):
    """Prevents an objective that keeps leaving out rows once another trainer has had it with answers."""
    terms, model = [SoftTargetKL(1.0, 3.0)], tiny.classifier(4, 3, seed=5)
    run(tmp_path, answered_rows(), terms, max_steps=1)
    again, anew = (run(tmp_path, task_rows(8, 3), own, model, max_steps=1) for own in (terms, [SoftTargetKL(1.0, 3.0)]))
    assert curve(again) == curve(anew)


@pytest.mark.parametrize(
    ("terms", "rows", "message"),
    [
        ([HiddenMSE()], answered_rows(), "got objective.hidden_mse"),
        ([SoftTargetKL()], task_rows(8, 3), "a column teacher_logits in the training rows / got none"),
        ([SoftTargetKL(), DistIntra()], answered_rows(), "got 3 training rows without one"),
    ],
)
def test_what_answers_cannot_serve_is_refused(tmp_path, terms, rows, message):
    """Prevents states that nobody has, rows without a teacher, and relations with a row that has no answer."""
    with pytest.raises(UserError, match=message):
        run(tmp_path, rows, terms)


def test_language_modelling_is_refused(tmp_path):
    """Prevents one answer for every token of a text."""
    student = tiny.mlm_model(2)
    with pytest.raises(UserError, match="expected classification, regression or multilabel"):
        trainer(tmp_path, student, AnswersTeacher(student.config), [SoftTargetKL()])
