"""Loss balancing against its definitions, step by step."""

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.objective.objective import Objective
from distil_nlp.training.checkpoints import last_complete_checkpoint
from tests.helpers import tiny
from tests.helpers.training import StopAt, curve, task_rows, trainer


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
    """Prevents shares of another step, of a single micro-batch, or that ignore the recipe's weights."""
    made = run(
        tmp_path, LossBalancer("uncertainty", decay=0.8), per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    weights = {"soft_target_kl": 5.0, "hard_label": 2.0, "hidden_mse": 1.0}
    for name, weight in weights.items():
        mean, expected = None, [weight]
        for value in curve(made, name)[:-1]:
            mean = value if mean is None else 0.8 * mean + 0.2 * value
            expected.append(weight / (2 * mean))
        assert logged(made, name) == pytest.approx(expected, rel=1e-4)
    for entry in made.state.log_history[:-1]:
        assert entry["loss"] == pytest.approx(sum(entry[f"{name}_weight"] * entry[name] for name in weights), rel=1e-4)


def test_gradient_norm_makes_gradient_norms_equal(tmp_path):
    """Prevents shares from gradients that were balanced already, which would drift away."""
    terms = [SoftTargetKL(50.0), HardLabel(1.0), HiddenCosine(2.0, "last"), AttentionKL(1.0)]
    balance = LossBalancer("gradient_norm", every=2, decay=0.0)
    made = run(tmp_path, balance, terms, learning_rate=0.0, max_steps=5)
    measured = [entry for entry in made.state.log_history if "gradient_norm/hard_label" in entry]
    assert [entry["step"] for entry in measured] == [1, 3, 5]
    weights = {"soft_target_kl": 50.0, "hard_label": 1.0, "hidden_cosine": 2.0}
    norms = {name: measured[0][f"gradient_norm/{name}"] / weight for name, weight in weights.items()}
    second, inverse = made.state.log_history[1], sum(1 / norm for norm in norms.values())
    for name, weight in weights.items():
        assert second[f"{name}_weight"] == pytest.approx(weight * 3 / norms[name] / inverse, rel=1e-4)
    assert second["attention_kl_weight"] == 1.0
    later = [measured[1][f"gradient_norm/{name}"] / weight for name, weight in weights.items()]
    assert max(norms.values()) > 10 * min(norms.values())
    assert max(later) < 1.5 * min(later), "other rows, but gradient norms are in the ratio of the weights"


@pytest.mark.parametrize(
    "norms",
    [(31.5, 5.6, 1.7), (70.9, 5.6, 0.069), (1.0, 1.0, 1.0), (1e-9, 3.0, 1e9), (5.0, 0.0, 2.0), (0.0, 0.0, 7.0)],
)
def test_shares_of_gradient_norm_add_up_to_the_number_of_terms(norms):
    """Prevents a loss that grows a hundredfold because one term's gradient is small, as GradNorm does not. A gradient
    of 0 is that of a term that does not reach the last state."""
    balance = LossBalancer("gradient_norm", decay=0.0)
    balance.start(3)
    assert balance.shares().tolist() == [1.0, 1.0, 1.0]
    for _ in range(2):
        balance.learn(torch.tensor(norms), torch.tensor([True] * 3))
        shares = balance.shares()
        assert shares.sum().item() == pytest.approx(3.0)
        reached = [i for i, norm in enumerate(norms) if norm > 0]
        assert [shares[i].item() for i in range(3) if i not in reached] == [1.0] * (3 - len(reached))
        pulls = [shares[i].item() * norms[i] for i in reached]
        assert max(pulls) == pytest.approx(min(pulls))


def test_a_step_without_a_row_does_not_change_a_share(tmp_path):
    """Prevents a term whose rows are rare from being taken for one that is nearly 0, and a loss of thousands."""
    rows = task_rows(16)
    for row in rows[:15]:
        row["labels"] = -100
    balance = LossBalancer("uncertainty", decay=0.5)
    student, teacher = tiny.classifier(2, seed=1), tiny.classifier(4)
    made = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0), HardLabel(1.0)], kind="classification", rows=rows,
        balance=balance, per_device_train_batch_size=2, max_steps=8,
    )  # fmt: skip
    made.train()
    (value,) = curve(made, "hard_label")
    assert balance.shares()[1].item() == pytest.approx(0.5 / value)


def test_shares_have_a_limit():
    """Prevents a term that approaches 0 from dominating the loss."""
    balance = LossBalancer("uncertainty", decay=0.0)
    balance.start(2)
    both = torch.tensor([True, True])
    balance.learn(torch.tensor([2.0, 1.0]), both)
    balance.learn(torch.tensor([1e-9, 0.0]), both)
    assert balance.shares().tolist() == pytest.approx([0.5 / 2e-3, 0.5])


@pytest.mark.parametrize("kind", ["uncertainty", "gradient_norm"])
def test_resumed_equals_uninterrupted(tmp_path, kind):
    """Prevents shares that start over after every preemption, and a balancer that is saved with the student."""
    whole = run(tmp_path / "whole", LossBalancer(kind, every=2))
    run(tmp_path / "cut", LossBalancer(kind, every=2), stop_at=3)
    resumed = run(tmp_path / "cut", LossBalancer(kind, every=2))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert not [name for name in resumed.detach().state_dict() if "balance" in name]


def test_what_cannot_be_balanced_is_refused():
    """Prevents shares of a million where a likelihood passes 0."""
    with pytest.raises(UserError, match=r"balance.kind: expected gradient_norm with variational_information"):
        Objective([TERMS["variational_information"]()], "mlm", LossBalancer("uncertainty"))
