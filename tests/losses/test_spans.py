"""Terms on start and end of answers: against float64 over the allowed positions alone, whatever the padding."""

import math

import pytest
import torch

from distil_nlp.losses.divergences import JensenShannon, ReverseKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.logit_mse import LogitMSE, span_logit_mse
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.signals.spans import NOT_ALLOWED, span_rows
from distil_nlp.signals.types import Signals
from distil_nlp.tasks import KINDS

T = 2.0


def kl(p, q):
    return (p * (p / q).log()).sum()


def soft_kl(student, teacher):
    return T**2 * kl((teacher / T).softmax(-1), (student / T).softmax(-1))


def reverse(student, teacher):
    return soft_kl(teacher, student)


def cross_entropy(student, teacher):
    return -(T**2) * ((teacher / T).softmax(-1) * (student / T).softmax(-1).log()).sum()


def jensen_shannon(student, teacher):
    p, q = (teacher / T).softmax(-1), (student / T).softmax(-1)
    middle = (p + q) / 2
    return T**2 * (kl(p, middle) + kl(q, middle)) / 2


SOFT = [
    (SoftTargetKL(1.0, T), soft_kl),
    (SoftTargetCrossEntropy(1.0, T), cross_entropy),
    (ReverseKL(1.0, T), reverse),
    (JensenShannon(1.0, T), jensen_shannon),
    (LogitMSE(1.0), lambda student, teacher: (student - teacher).square().mean()),
]


def case(padding=0, seed=0):
    """Logits of three windows, (3, 9 + padding, 2), the allowed positions, and a batch; the third has no label."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(3, 9, 2, generator=generator) for _ in range(2))
    allowed = torch.rand(3, 9, generator=generator) > 0.4
    allowed[:, [2, 5]] = True
    labels = torch.tensor([[2, 5], [5, 5], [-100, -100]])
    wide = [torch.nn.functional.pad(one, (0, 0, 0, padding), value=50.0) for one in (student, teacher)]
    batch = {
        "is_allowed": torch.nn.functional.pad(allowed, (0, padding)),
        "labels": labels,
        "rows": {"sequences": torch.arange(3), "labelled": torch.arange(2)},
    }
    batch["rows"] |= {f"logits/{name}": places for name, places in batch["rows"].items()}
    return wide[0].requires_grad_(), wide[1], batch


def value(term, student, teacher, batch):
    term.kind = KINDS["qa"]
    return term.sum(Signals(logits=student), Signals(logits=teacher), batch, 0.0)


@pytest.mark.parametrize(("term", "formula"), SOFT, ids=[term.name for term, _ in SOFT])
def test_a_soft_term_is_the_mean_of_start_and_end_over_allowed_positions(term, formula):
    """Prevents probability of the question, of special tokens and of padding, and a sum of two divergences."""
    student, teacher, batch = case()
    wanted = sum(
        formula(student[row, places, side].double(), teacher[row, places, side].double()) / 2
        for row, places in enumerate(batch["is_allowed"])
        for side in (0, 1)
    )
    assert value(term, student, teacher, batch).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("term", [term for term, _ in SOFT] + [HardLabel(1.0)], ids=lambda term: term.name)
def test_padding_changes_neither_loss_nor_gradient(term):
    """Prevents a mean over padded positions, and a gradient at those that are not allowed."""
    student, teacher, batch = case()
    loss = value(term, student, teacher, batch)
    loss.backward()
    wide, wide_teacher, wide_batch = case(padding=7)
    other = value(term, wide, wide_teacher, wide_batch)
    other.backward()
    assert other.item() == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(wide.grad[:, :9], student.grad, rtol=1e-5, atol=1e-6)
    assert not wide.grad[~wide_batch["is_allowed"]].any()


def test_the_hard_label_is_the_mean_of_two_cross_entropies():
    """Prevents windows without a label from being learned, and twice the size of other kinds' loss."""
    student, teacher, batch = case()
    wanted = 0.0
    for row, label in enumerate(batch["labels"][:2].tolist()):
        for side, place in enumerate(label):
            own = student[row, :, side].double().masked_fill(~batch["is_allowed"][row], -math.inf)
            wanted -= own.log_softmax(-1)[place].item() / 2
    assert value(HardLabel(1.0), student, teacher, batch).item() == pytest.approx(wanted, rel=1e-5)


def test_a_window_without_any_position_teaches_nothing():
    """Prevents NaN from a softmax over nothing."""
    student, teacher, batch = case()
    batch["is_allowed"][1] = False
    for term, _ in SOFT:
        loss = value(term, student, teacher, batch)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert not gradient[1].any()


@pytest.mark.parametrize("temperature", [0.01, 1.0, 1e4])
def test_what_is_not_allowed_has_no_probability_at_any_temperature(temperature):
    """Prevents infinities at a low temperature, and probability of padding at a high one."""
    student, _, batch = case()
    rows = span_rows(student, batch["is_allowed"]) / temperature
    assert rows.isfinite().all()
    assert rows.softmax(-1)[(~batch["is_allowed"]).repeat_interleave(2, 0)].max() == 0


def test_logits_at_half_precision_are_masked_too():
    """Prevents an overflow of the mask in float16, and 0 ÷ 0 in a mean over no position."""
    student, _, batch = case()
    rows = span_rows(student.half(), batch["is_allowed"])
    assert rows.min() == NOT_ALLOWED
    nothing = torch.full((2, 4), NOT_ALLOWED)
    assert span_logit_mse(nothing, nothing) == 0
