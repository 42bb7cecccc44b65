"""Training of taggers: resumed as uninterrupted, evaluated by entity F1, and taught by several teachers."""

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import predict
from distil_nlp.evaluation.tokens import EVALUATOR
from distil_nlp.losses.dist import DistIntra
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.rkd import RKDDistance
from distil_nlp.losses.soft_targets import SoftTargetKL, soft_target_kl
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.mixing import Mixing
from tests.helpers import tiny
from tests.helpers.training import StopAt, collator_of, token_rows, trainer

LIVELY = {"initializer_range": 0.3}


def models(**changes):
    return tiny.tagger(2, seed=1, **LIVELY, **changes), tiny.tagger(4, **LIVELY)


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """Prevents a resume that draws other dropout or other rows; a sampled fraction of tokens among the terms."""
    terms, kept = [SoftTargetKL(1.0), HardLabel(1.0), HiddenMSE(1.0, "last", 0.5)], {"save_strategy": "steps"}
    arguments = {"kind": "tokens", "rows": token_rows(40), "max_steps": 6, "save_steps": 3, **kept}
    dropout = {"hidden_dropout_prob": 0.2}
    whole = trainer(tmp_path / "whole", *models(**dropout), terms, **arguments)
    whole.train()
    trainer(tmp_path / "cut", *models(**dropout), terms, callbacks=[StopAt(3)], **arguments).train()
    resumed = trainer(tmp_path / "cut", *models(**dropout), terms, **arguments)
    resumed.train(resume_from_checkpoint=True)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


@pytest.mark.parametrize("rows", [None, "all", 0.3])
def test_evaluation_gives_the_entity_f1_of_all_sentences(tmp_path, rows):
    """Prevents a mean of batches, a score of the tokens that a term draws, and one that only the end of a run knows."""
    held_out = token_rows(23, seed=3)
    metrics = EVALUATOR.trainer_metrics("tokens")
    student, teacher = models()
    run = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0, 2.0, rows)], kind="tokens", eval_rows=held_out,
        compute_metrics=metrics, per_device_eval_batch_size=4,
    )  # fmt: skip
    found = run.evaluate()
    student = run.detach()
    outputs = predict(student, "tokens", {"": held_out}, collator_of("tokens"))[""]
    wanted = EVALUATOR.metrics("tokens")(EvalPrediction(outputs.predictions, outputs.labels))
    assert wanted["f1"] > 0
    assert {name: found[f"eval_{name}"] for name in wanted} == pytest.approx(wanted)


def test_scores_do_not_depend_on_the_batches():
    """Prevents sums that go to another sentence where rows are run in order of their length."""
    rows = token_rows(17)
    both = [predict(models()[0], "tokens", {"": rows}, collator_of("tokens"), batch_size=n)[""] for n in (1, 6)]
    counts, reals = zip(*(np.split(one.predictions, [-17], axis=1) for one in both), strict=True)
    assert np.array_equal(*counts)
    np.testing.assert_allclose(*reals, rtol=1e-5, atol=1e-5)  # of calibration
    assert np.array_equal(both[0].labels, both[1].labels)


@pytest.mark.parametrize("mixing", [Mixing((1.0, 3.0)), Mixing((1.0, 3.0), "probabilities", "correctness")])
def test_several_teachers_are_mixed_word_by_word(tmp_path, mixing):
    """Prevents labels of other tokens in the weights, and a mean of logits that were never there."""
    student, *members = (tiny.tagger(2, seed=n, **LIVELY) for n in (1, 2, 3))
    run = trainer(tmp_path, student, Ensemble(members, mixing), [SoftTargetKL(1.0, 2.0)], kind="tokens")
    batch = run.data_collator(token_rows(6))
    loss = run.compute_loss(run.model.eval(), batch)
    places = batch["rows"]["labelled"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    run.detach()
    own, *others = (model(**inputs).logits.flatten(0, 1)[places].detach() for model in (student, *members))
    labels = batch["labels"].flatten()[places]
    mixed = mixing.mixed(others, labels, own, 2.0)
    assert loss.item() == pytest.approx((soft_target_kl(own, mixed, 2.0) / len(places)).item(), rel=1e-5)


def test_rows_that_a_kind_does_not_have_are_refused(tmp_path):
    """Prevents `masked` tokens of a task that masks none, and `labelled` ones of a task whose rows have the labels."""
    for term in (SoftTargetKL(1.0, 2.0, "masked"), HiddenMSE(1.0, "last", "masked")):
        with pytest.raises(UserError, match=rf"objective.{term.name}.rows: expected labelled, all or a fraction / got"):
            trainer(tmp_path, *models(), [term], kind="tokens")
    pair = tiny.classifier(1), tiny.classifier(2)
    with pytest.raises(UserError, match="rows: expected masked, all or a fraction / got labelled"):
        trainer(tmp_path, tiny.mlm_model(1), tiny.mlm_model(2), [SoftTargetKL(1.0, 2.0, "labelled")])
    with pytest.raises(UserError, match="rows: expected all or a fraction / got labelled"):
        trainer(tmp_path, *pair, [HiddenMSE(1.0, "last", "labelled")], kind="classification")


def test_terms_on_whole_rows_of_outputs_are_refused():
    """Prevents relations between sentences of outputs that belong to words; those of states are not concerned."""
    Objective([RKDDistance(1.0)], "tokens")
    with pytest.raises(UserError, match=r"objective.dist_intra: expected classification / got tokens"):
        Objective([DistIntra(1.0)], "tokens")


def test_two_of_the_same_model_differ_in_nothing(tmp_path):
    """Prevents a distance that is not one: 0 where the student is its teacher."""
    teacher = tiny.tagger(2)
    run = trainer(tmp_path, tiny.tagger(2), teacher, [SoftTargetKL(1.0, 2.0, "all")], kind="tokens")
    assert run.compute_loss(run.model.eval(), run.data_collator(token_rows(5))).item() == pytest.approx(0, abs=1e-6)
