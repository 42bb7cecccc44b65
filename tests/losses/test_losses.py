"""The losses: each against naive float64 arithmetic, one row at a time."""

import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import attention_kl, attention_mse
from distil_nlp.losses.hard_labels import hard_binary_cross_entropy, hard_cross_entropy, hard_mse
from distil_nlp.losses.hidden_states import hidden_cosine, hidden_mse
from distil_nlp.losses.soft_targets import (
    SoftTargetKL,
    confidence,
    soft_target_bernoulli_kl,
    soft_target_kl,
    soft_target_mse,
)
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.attention import attention_log_probabilities, average_heads

SEQ, HEADS, WIDTH = 6, 3, 8


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        p, q = (one.div(temperature).exp() / one.div(temperature).exp().sum() for one in (t, s))
        total = total + sum(p[c] * (p[c].log() - q[c].log()) for c in range(len(p)))
    return total * temperature**2


def naive_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    return -sum((row.exp() / row.exp().sum())[label].log() for row, label in zip(student, labels, strict=True))


def naive_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return sum(1 - (s @ t) / (s @ s).sqrt() / (t @ t).sqrt() for s, t in zip(student, teacher, strict=True))


def naive_mse(student: Tensor, teacher: Tensor) -> Tensor:
    return sum(((s - t) ** 2).sum() for s, t in zip(student, teacher, strict=True))


def naive_bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student.flatten() / temperature, teacher.flatten() / temperature, strict=True):
        p, q = 1 / (1 + (-t).exp()), 1 / (1 + (-s).exp())
        total = total + p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return total * temperature**2


def naive_binary_cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    chances = 1 / (1 + (-student).exp())
    return -(labels * chances.log() + (1 - labels) * (1 - chances).log()).sum()


LABELS = torch.tensor([0, 6, 3, 3, 1])
SETS = (normal(5, 7, seed=9) > 0).float()
ROWS = [  # (loss, naive, argument beside the student)
    pytest.param(lambda s, t: soft_target_kl(s, t), lambda s, t: naive_kl(s, t, 1.0), None, id="kl T=1"),
    pytest.param(lambda s, t: soft_target_kl(s, t, 3.0), lambda s, t: naive_kl(s, t, 3.0), None, id="kl T=3"),
    pytest.param(soft_target_mse, naive_mse, None, id="soft mse"),
    pytest.param(soft_target_bernoulli_kl, lambda s, t: naive_bernoulli_kl(s, t, 1.0), None, id="kl of labels T=1"),
    pytest.param(
        lambda s, t: soft_target_bernoulli_kl(s, t, 3.0),
        lambda s, t: naive_bernoulli_kl(s, t, 3.0),
        None,
        id="kl of labels T=3",
    ),
    pytest.param(hidden_cosine, naive_cosine, None, id="cosine"),
    pytest.param(hidden_mse, lambda s, t: naive_mse(s, t) / s.shape[1], None, id="hidden mse"),
    pytest.param(hard_cross_entropy, naive_cross_entropy, LABELS, id="cross-entropy"),
    pytest.param(hard_binary_cross_entropy, naive_binary_cross_entropy, SETS, id="binary cross-entropy"),
]
TEACHERS = [case.values[0] for case in ROWS[:-2]] + [
    lambda s, t: attention_kl(s.log_softmax(-1)[None, None], t.log_softmax(-1)[None, None], torch.ones(1, 5)),
    lambda s, t: attention_mse(s.log_softmax(-1)[None, None], t.log_softmax(-1)[None, None], torch.ones(1, 5)),
]
TEACHER_IDS = [case.id for case in ROWS[:-2]] + ["attention kl", "attention mse"]


def assert_same_value_and_gradient(loss, naive, student: Tensor, other: Tensor) -> None:
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    value = loss(ours, other)
    expected = naive(exact, other.double() if other.is_floating_point() else other)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("loss", "naive", "other"), ROWS)
def test_loss_is_the_sum_over_rows_of_its_definition(loss, naive, other):
    """A mean over rows, classes or both (`batchmean`, `mean`) would look like a loss and be another."""
    other = normal(5, 7, seed=2) if other is None else other
    assert_same_value_and_gradient(loss, naive, 2 * normal(5, 7, seed=1), other)


def test_hard_mse_is_the_sum_of_squared_errors():
    """(rows, 1) − (rows,) would broadcast to (rows, rows) and learn the mean of the labels."""
    labels = torch.tensor([0.5, 4.0, -1.0])
    assert_same_value_and_gradient(hard_mse, lambda s, t: ((s[:, 0] - t) ** 2).sum(), normal(3, 1, seed=1), labels)


@pytest.mark.parametrize("loss", TEACHERS, ids=TEACHER_IDS)
def test_loss_is_zero_at_equality(loss):
    """A soft cross-entropy named KL would be above 0 for a perfect student."""
    student = normal(5, 5, seed=1).requires_grad_()
    value = loss(student, student.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(0, abs=2e-6)
    assert student.grad.abs().max().item() < 1e-5


@pytest.mark.parametrize("loss", TEACHERS, ids=TEACHER_IDS)
def test_no_gradient_reaches_the_teacher(loss):
    """A teacher that learns from its student moves the target."""
    student, teacher = normal(5, 5, seed=1).requires_grad_(), normal(5, 5, seed=2).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("loss", TEACHERS[:-2], ids=TEACHER_IDS[:-2])
def test_unequal_shapes_are_an_error(loss):
    """(5, 7) against (5, 1) would broadcast in silence."""
    with pytest.raises(ValueError, match=r"\(5, 7\).*\(5, 1\)"):
        loss(torch.zeros(5, 7), torch.zeros(5, 1))


def test_unequal_numbers_of_outputs_and_labels_are_an_error():
    """Labels of another batch would broadcast in silence."""
    with pytest.raises(ValueError, match=r"outputs \(5,\), labels \(1,\)"):
        hard_mse(torch.zeros(5, 1), torch.zeros(1))


@pytest.mark.parametrize("loss", [attention_kl, attention_mse])
def test_unequal_numbers_of_heads_are_an_error(loss):
    """12 against 16 heads is the commonest complaint; the message must say what to do."""
    with pytest.raises(ValueError, match=r"student \(1, 12, 2, 2\), teacher \(1, 16, 2, 2\).*average the heads"):
        loss(torch.zeros(1, 12, 2, 2), torch.zeros(1, 16, 2, 2), torch.ones(1, 2))


@pytest.mark.parametrize("loss", TEACHERS[:-2], ids=TEACHER_IDS[:-2])
def test_half_precision_is_summed_in_fp32(loss):
    """A sum over thousands of rows in bfloat16 stops growing at 256."""
    student, teacher = normal(5, 5, seed=1).bfloat16(), normal(5, 5, seed=2).bfloat16()
    torch.testing.assert_close(loss(student, teacher), loss(student.float(), teacher.float()))


def test_hard_and_soft_losses_of_labels_are_of_one_size():
    """Prevents a sum over classes against a mean: a teacher that is certain of the labels teaches what they do."""
    student, certain = normal(5, 7, seed=1).requires_grad_(), (SETS * 2 - 1) * 60
    soft, hard = soft_target_bernoulli_kl(student, certain), hard_binary_cross_entropy(student, SETS)
    assert soft.item() == pytest.approx(hard.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (soft, hard)]
    torch.testing.assert_close(*gradients)


def test_the_kl_of_labels_stays_finite_where_both_are_certain():
    """Prevents log 0 of a sigmoid that was rounded to 0 or 1."""
    student = torch.tensor([[90.0, -90.0]], requires_grad=True)
    loss = soft_target_bernoulli_kl(student, torch.tensor([[-90.0, -90.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(90)
    assert student.grad.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("temperature", [0, -1.5])
def test_a_temperature_that_is_not_positive_is_an_error(temperature):
    """T = 0 divides by zero, and T < 0 teaches the opposite."""
    with pytest.raises(ValueError, match=f"temperature above 0 / got {temperature}"):
        soft_target_kl(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


def test_temperature_squared_keeps_the_size_of_the_gradient():
    """Without T² the soft targets fade as 1/T²: 3,600 times weaker at T = 60."""
    student, teacher = normal(1, 10, seed=1).double(), normal(1, 10, seed=2)
    centred = [logits - logits.mean() for logits in (student, teacher.double())]
    limit = (centred[0] - centred[1]).norm() / 10
    norms = {}
    for temperature in (1.0, 60.0):
        ours = student.float().requires_grad_()
        soft_target_kl(ours, teacher, temperature).backward()
        norms[temperature] = ours.grad.norm()
    assert norms[60.0].item() == pytest.approx(limit.item(), rel=0.03)
    assert norms[1.0].item() == pytest.approx(limit.item(), rel=0.5)


# Attention -------------------------------------------------------------------------------------------------


def naive_attention(query: Tensor, key: Tensor, scaling: float, visible: Tensor) -> Tensor:
    """Eager softmax over the visible keys alone, (batch, heads, seq, seq), in float64."""
    found = torch.zeros(*query.shape[:3], key.shape[2], dtype=torch.float64)
    for b, h, q in [(b, h, q) for b in range(len(query)) for h in range(query.shape[1]) for q in range(query.shape[2])]:
        places = visible[b].nonzero().flatten()
        scores = (key[b, h, places].double() @ query[b, h, q].double() * scaling).exp()
        found[b, h, q, places] = scores / scores.sum()
    return found


VISIBLE = torch.tensor([[True] * SEQ, [True] * 4 + [False] * 2])
MASKS = {
    "bool": VISIBLE[:, None, None],
    "finfo.min": torch.zeros(2, 1, 1, SEQ).masked_fill(~VISIBLE[:, None, None], torch.finfo(torch.float32).min),
    "half finfo.min": torch.zeros(2, 1, 1, SEQ, dtype=torch.half).masked_fill(
        ~VISIBLE[:, None, None], torch.finfo(torch.half).min
    ),
    "-10000": torch.zeros(2, 1, 1, SEQ).masked_fill(~VISIBLE[:, None, None], -10000.0),
    "-inf": torch.zeros(2, 1, 1, SEQ).masked_fill(~VISIBLE[:, None, None], -math.inf),
    "full": VISIBLE[:, None, None].expand(2, 1, SEQ, SEQ),
}


def maps(seed: int, mask: Tensor | None = None, heads: int = HEADS) -> tuple[Tensor, Tensor]:
    """Log-probabilities of random queries and keys, and the queries, which take gradients."""
    query = normal(2, heads, SEQ, WIDTH, seed=seed).requires_grad_()
    key = normal(2, heads, SEQ, WIDTH, seed=seed + 100)
    return attention_log_probabilities(query, key, WIDTH**-0.5, mask), query


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_is_the_softmax_over_visible_keys(mask):
    """A padded key with probability above 0 leaks padding; a score threshold would erase real keys."""
    found, query = maps(1, mask)
    key = normal(2, HEADS, SEQ, WIDTH, seed=101)
    expected = naive_attention(query.detach(), key, WIDTH**-0.5, VISIBLE)
    torch.testing.assert_close(found.exp().double(), expected, rtol=1e-5, atol=1e-7)
    assert (found.exp()[1, ..., 4:] == 0).all()


def test_attention_without_a_mask_sees_every_key():
    """Models pass no mask where nothing is padded."""
    everything = torch.ones(2, SEQ, dtype=torch.bool)
    torch.testing.assert_close(maps(1)[0], maps(1, everything[:, None, None])[0])


def test_attention_adds_a_finite_bias_to_the_scores():
    """Relative position biases come in the mask; only its lowest values mean invisible."""
    bias = torch.tensor([0.0, -100.0, 0.5, -2.0, 3.0, 0.0])
    query, key = normal(1, 1, 2, WIDTH, seed=1), 10 * normal(1, 1, SEQ, WIDTH, seed=2)
    scores = (query @ key.transpose(-1, -2) * 0.5).double() + bias.double()
    found = attention_log_probabilities(query, key, 0.5, bias.expand(1, 1, 2, SEQ))
    torch.testing.assert_close(found.double(), scores.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_attention_is_computed_in_fp32():
    """Half-precision scores round the small probabilities away."""
    query, key = (normal(1, 1, SEQ, WIDTH, seed=i).bfloat16() for i in (1, 2))
    found = attention_log_probabilities(query, key, 1.0)
    torch.testing.assert_close(found, attention_log_probabilities(query.float(), key.float(), 1.0))


def chosen(rows: Iterable[int]) -> Tensor:
    """1 at the given flat positions of two sequences."""
    return torch.zeros(2 * SEQ).index_fill_(0, torch.tensor([*rows]), 1).view(2, SEQ)


def naive_attention_loss(student: Tensor, teacher: Tensor, rows: list[int], squared: bool) -> float:
    total = 0.0
    for row in rows:
        for head in range(student.shape[1]):
            s, t = (one[row // SEQ, head, row % SEQ].tolist() for one in (student, teacher))
            pairs = [(x, y) for x, y in zip(s, t, strict=True) if y > 0]
            kl = sum(y * math.log(y / x) for x, y in pairs)
            total += (sum((x - y) ** 2 for x, y in zip(s, t, strict=True)) if squared else kl) / student.shape[1]
    return total


@pytest.mark.parametrize(("loss", "squared"), [(attention_kl, False), (attention_mse, True)])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_loss_is_its_definition_over_the_given_rows(loss, squared, mask):
    """A mean over batch · heads · seq² would shrink with padding, and swapped sides would be another KL."""
    rows = [0, 3, 5, 6, 9]
    student, teacher = maps(1, mask)[0], maps(2, mask)[0]
    expected = naive_attention_loss(student.detach().exp().double(), teacher.exp().double(), rows, squared)
    assert loss(student, teacher, chosen(rows)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [attention_kl, attention_mse])
@pytest.mark.parametrize("student_mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("teacher_mask", MASKS.values(), ids=MASKS)
def test_masked_keys_never_become_nan(loss, student_mask, teacher_mask):
    """−inf × 0 is NaN in the loss or, worse, in the gradient alone; the two models may mask differently."""
    (student, query), (teacher, _) = maps(1, student_mask), maps(2, teacher_mask)
    value = loss(student, teacher, torch.ones(2, SEQ))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(query.grad).all()
    assert query.grad.abs().max() > 0
    same = loss(maps(1, student_mask)[0], maps(1, MASKS["bool"])[0], torch.ones(2, SEQ))
    assert same.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("loss", [attention_kl, attention_mse])
def test_padded_queries_and_keys_do_not_count(loss):
    """A batch padded to a longer length must give the same loss."""
    values = []
    for extra in (0, 3):
        query, key = (
            torch.cat([normal(2, 1, 4, WIDTH, seed=i), torch.full((2, 1, extra, WIDTH), 7.0)], 2) for i in (1, 2)
        )
        visible = (torch.arange(4 + extra) < 4)[None, None, None]
        both = [attention_log_probabilities(query, key * factor, 0.3, visible) for factor in (1.0, 0.5)]
        queries = torch.tensor([[1, 1, 1, 1, *[0] * extra], [1, 0, 1, 0, *[0] * extra]])
        values.append(loss(*both, queries).item())
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[0] > 0


def test_heads_are_averaged_as_probabilities():
    """The mean of log-probabilities is no distribution."""
    student, teacher = maps(1, MASKS["bool"], heads=12)[0], maps(2, MASKS["bool"], heads=16)[0]
    averaged = [average_heads(one) for one in (student, teacher)]
    for one, mean in zip((student, teacher), averaged, strict=True):
        torch.testing.assert_close(mean.exp(), one.exp().mean(1, keepdim=True))
    assert (averaged[0].exp()[1, ..., 4:] == 0).all()
    value = attention_kl(*averaged, torch.ones(2, SEQ))
    expected = naive_attention_loss(*(one.detach().exp().double() for one in averaged), range(2 * SEQ), False)
    assert value.item() == pytest.approx(expected, rel=1e-4)


# Sums ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=st.integers(1, 12), cut=st.integers(0, 12), seed=st.integers(0, 2**31), temperature=st.floats(0.5, 8))
def test_sums_over_a_split_of_rows_add_up(rows, cut, seed, temperature):
    """Anything but a sum over rows changes the gradient with the micro-batch size."""
    student, teacher = normal(rows, 6, seed=seed), normal(rows, 6, seed=seed + 1)
    labels = torch.arange(rows) % 6
    attention = [one.log_softmax(-1).expand(2, 2, rows, 6) for one in (student, teacher)]
    cases = [
        lambda at: soft_target_kl(student[at], teacher[at], temperature),
        lambda at: soft_target_mse(student[at], teacher[at]),
        lambda at: hard_cross_entropy(student[at], labels[at]),
        lambda at: hard_mse(student[at, :1], labels[at]),
        lambda at: hidden_cosine(student[at], teacher[at]),
        lambda at: hidden_mse(student[at], teacher[at]),
        lambda at: attention_kl(*attention, torch.zeros(2, rows).index_fill_(1, at, 1)),
        lambda at: attention_mse(*attention, torch.zeros(2, rows).index_fill_(1, at, 1)),
    ]
    everything = torch.arange(rows)
    for loss in cases:
        parts = loss(everything[:cut]) + loss(everything[cut:])
        torch.testing.assert_close(parts, loss(everything), rtol=1e-4, atol=1e-5)


def test_a_row_counts_by_the_teachers_confidence():
    """Prevents weights by the student's own certainty, or a share that is no share: entropies by hand in float64."""
    student, teacher = normal(4, 3, seed=1), normal(4, 3, seed=2) * 3
    expected = 0.0
    for z, t in zip(student.double(), teacher.double(), strict=True):
        p, q, sure = (t / 2).softmax(0), (z / 2).softmax(0), t.softmax(0)
        entropy = -sum(one * math.log(one) for one in sure.tolist())
        expected += (1 - entropy / math.log(3)) * 4 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert soft_target_kl(student, teacher, 2.0, by_confidence=True).item() == pytest.approx(float(expected), rel=1e-5)
    ends = confidence(torch.tensor([[50.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    assert ends.tolist() == pytest.approx([1, 0], abs=1e-6)
    with pytest.raises(UserError, match="by_confidence: expected false for regression"):
        Objective([SoftTargetKL(by_confidence=True)], "regression").bind(ModelShape(1, 8, 1), ModelShape(1, 8, 1))
