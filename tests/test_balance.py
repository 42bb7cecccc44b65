"""Terms that are balanced while training goes on, against the definitions, step by step."""

import pytest
import torch

from distil_nlp.balance import Balance
from distil_nlp.errors import UserError
from distil_nlp.guard import last_complete_checkpoint
from distil_nlp.objective import Objective
from distil_nlp.terms import TERMS, AttentionKL, HardLabel, HiddenCosine, HiddenMSE, SoftTargetKL
from tests import tiny
from tests.training import StopAt, curve, trainer


def run(folder, balance, terms=None, stop_at=None, **arguments):
    student, teacher = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=32), tiny.mlm_model(4)
    terms = terms or [SoftTargetKL(5.0), HardLabel(2.0), HiddenMSE(1.0)]
    made = trainer(
        folder, student, teacher, terms, balance=balance, callbacks=[StopAt(stop_at)], **{"max_steps": 6, **arguments}
    )
    checkpoint = last_complete_checkpoint(folder)
    made.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return made


def logged(made, name):
    return [entry[f"{name}_weight"] for entry in made.state.log_history if f"{name}_weight" in entry]


def test_uncertainty_divides_by_twice_the_running_mean(tmp_path):
    """Prevents shares of another step, of one micro-batch alone, or that forget the recipe's weights."""
    made = run(
        tmp_path, Balance("uncertainty", decay=0.8), per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    for name, weight in (("soft_target_kl", 5.0), ("hard_label", 2.0), ("hidden_mse", 1.0)):
        mean, expected = None, []
        for value in curve(made, name):
            mean = value if mean is None else 0.8 * mean + 0.2 * value
            expected.append(weight / (2 * mean))
        assert logged(made, name) == pytest.approx(expected, rel=1e-4)
    first = made.state.log_history[0]
    assert first["loss"] == pytest.approx(5 * first["soft_target_kl"] + 2 * first["hard_label"] + first["hidden_mse"])
    second, before = made.state.log_history[1], made.state.log_history[0]
    terms = ("soft_target_kl", "hard_label", "hidden_mse")
    assert second["loss"] == pytest.approx(sum(before[f"{one}_weight"] * second[one] for one in terms), rel=1e-4)


def test_gradient_norm_makes_terms_pull_alike(tmp_path):
    """Prevents shares from gradients that had been balanced already, which would drift away."""
    terms = [SoftTargetKL(1.0), HardLabel(1.0), HiddenCosine(1.0, "last"), AttentionKL(1.0)]
    balance = Balance("gradient_norm", every=2, decay=0.0)
    made = run(tmp_path, balance, terms, learning_rate=0.0, max_steps=5)
    looks = [entry for entry in made.state.log_history if "gradient_norm/hard_label" in entry]
    assert [entry["step"] for entry in looks] == [1, 3, 5]
    names = ["soft_target_kl", "hard_label", "hidden_cosine"]
    lengths = [looks[0][f"gradient_norm/{name}"] for name in names]
    shares = [sum(lengths) / 3 / one for one in lengths]
    assert [looks[0][f"{name}_weight"] for name in names] == pytest.approx(shares, rel=1e-4)
    assert looks[0]["attention_kl_weight"] == 1.0
    later = [looks[1][f"gradient_norm/{name}"] for name in names]
    assert max(lengths) > 10 * min(lengths)
    assert max(later) < 1.5 * min(later), "other rows, but nearly alike"


@pytest.mark.parametrize("kind", ["uncertainty", "gradient_norm"])
def test_resumed_equals_uninterrupted(tmp_path, kind):
    """Prevents shares that begin anew with every preempted machine; and what balances from leaving with the student."""
    whole = run(tmp_path / "whole", Balance(kind, every=2))
    run(tmp_path / "cut", Balance(kind, every=2), stop_at=3)
    resumed = run(tmp_path / "cut", Balance(kind, every=2))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not [name for name in resumed.detach().state_dict() if "balance" in name]


def test_what_cannot_be_balanced_is_refused():
    """Prevents shares of a million where a likelihood passes 0."""
    with pytest.raises(UserError, match=r"balance.kind: expected gradient_norm with variational_information"):
        Objective([TERMS["variational_information"]()], "mlm", Balance("uncertainty"))
