"""Training on questions: resumed as uninterrupted, evaluated by F1 over questions, taught by several teachers."""

import pytest
import torch
from transformers import EvalPrediction

from distil_nlp.data.row_sets import RowCollator
from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import predict
from distil_nlp.evaluation.qa import EVALUATOR
from distil_nlp.losses.decoupled_kd import DecoupledKD
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL, soft_target_kl
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.spans import span_rows
from distil_nlp.teachers.ensemble import Ensemble
from tests.helpers import squad, tiny
from tests.helpers.training import StopAt, trainer
from tests.helpers.training import span_rows as rows_of_spans

LIVELY = {"initializer_range": 0.3}


def models(**changes):
    return tiny.reader(2, seed=1, **LIVELY, **changes), tiny.reader(4, **LIVELY)


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """Prevents a resume that draws other dropout or other windows."""
    terms = [SoftTargetKL(1.0), HardLabel(1.0)]
    arguments = {"kind": "qa", "rows": rows_of_spans(40), "max_steps": 6, "save_steps": 3, "save_strategy": "steps"}
    dropout = {"hidden_dropout_prob": 0.2}
    whole = trainer(tmp_path / "whole", *models(**dropout), terms, **arguments)
    whole.train()
    trainer(tmp_path / "cut", *models(**dropout), terms, callbacks=[StopAt(3)], **arguments).train()
    resumed = trainer(tmp_path / "cut", *models(**dropout), terms, **arguments)
    resumed.train(resume_from_checkpoint=True)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def test_evaluation_gives_the_f1_of_all_questions(tmp_path):
    """Prevents a mean of batches, and windows of a question that count by themselves."""
    held_out = squad.windows(23, 3, 4, scoring=True)
    student, teacher = models()
    run = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0, 2.0)], kind="qa", eval_rows=held_out,
        compute_metrics=EVALUATOR.trainer_metrics("qa_v2"), per_device_eval_batch_size=4,
    )  # fmt: skip
    found = run.evaluate()
    outputs = predict(run.detach(), "qa", {"": held_out}, squad.collator())[""]
    wanted = EVALUATOR.metrics("qa_v2")(EvalPrediction(outputs.predictions, outputs.labels))
    assert 0 < wanted["f1"] < 1
    assert {name: found[f"eval_{name}"] for name in wanted} == pytest.approx(wanted)


def test_evaluation_without_metrics_gives_the_loss(tmp_path):
    """Prevents logits of unequal lengths from being gathered."""
    run = trainer(tmp_path, *models(), [SoftTargetKL(1.0, 2.0)], kind="qa", eval_rows=rows_of_spans(9))
    assert run.evaluate()["eval_soft_target_kl"] > 0


def test_the_mean_of_several_teachers_is_that_of_their_logits(tmp_path):
    """Prevents a mixture of outputs that have no `logits`; by itself, and in training."""
    student, *members = (tiny.reader(2, seed=n, **LIVELY) for n in (1, 2, 3))
    ensemble = Ensemble(members)
    run = trainer(tmp_path, student, ensemble, [SoftTargetKL(1.0, 2.0)], kind="qa")
    assert isinstance(run.data_collator, RowCollator)
    batch = run.data_collator(rows_of_spans(6))
    loss = run.compute_loss(run.model.eval(), batch)
    run.detach()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        outputs = [model(**inputs) for model in (student, *members)]
        own, *others = (torch.stack([one.start_logits, one.end_logits], -1) for one in outputs)
        assert torch.allclose(ensemble(**inputs).logits, sum(others) / 2, atol=1e-6)
    rows = (span_rows(one, batch["is_allowed"]) for one in (own, sum(others) / 2))
    assert loss.item() == pytest.approx((soft_target_kl(*rows, 2.0) / 2 / 6).item(), rel=1e-5)


def test_terms_on_classes_are_refused():
    """Prevents a split of positions into the right class and others, which are not the same in two rows."""
    with pytest.raises(
        UserError, match=r"objective.decoupled_kd: .* outputs here are two distributions over the posit"
    ):
        Objective([DecoupledKD(1.0)], "qa")
