"""R-Drop's formula against plain float64 loops."""

import math

import pytest
import torch

from distil_nlp.losses.r_drop import r_drop, r_drop_mse


def naive(first, second):
    """The mean over rows of ½ · (KL₁₂ + KL₂₁), number by number."""
    total = 0.0
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        p, q = ([math.exp(value) / sum(map(math.exp, row)) for value in row] for row in (one, other))
        forth = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        back = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        total += (forth + back) / 2
    return total / len(first)


def passes(classes=4, dtype=torch.float64):
    return torch.randn(2, 5, classes, dtype=dtype, generator=torch.Generator().manual_seed(3)).unbind()


def test_it_is_the_mean_of_both_kls_over_the_rows_of_both_passes():
    """Prevents a KL in one direction only, and a value that is twice or half the paper's."""
    first, second = passes()
    assert r_drop(first, second).item() / 10 == pytest.approx(naive(first, second), rel=1e-6)
    assert r_drop_mse(first, second).item() / 10 == pytest.approx((first - second).square().sum().item() / 5, rel=1e-6)


@pytest.mark.parametrize("loss", [r_drop, r_drop_mse])
def test_it_is_0_where_the_passes_agree_and_pulls_both(loss):
    """Prevents a pass that is taken for a target, which would learn nothing itself."""
    first, second = (one.requires_grad_() for one in passes())
    assert loss(first, first.detach().clone()).item() == pytest.approx(0.0, abs=1e-12)
    for one, other in zip(
        torch.autograd.grad(loss(first, second), (first, second)),
        torch.autograd.grad(loss(second, first), (first, second)),
        strict=True,
    ):
        assert one.abs().max() > 0.01
        assert torch.allclose(one, other)


def test_its_gradient_is_that_of_its_formula():
    """Prevents a detached part of the formula: finite differences in float64, of a version that keeps it."""

    def exact(first, second):
        log_p, log_q = first.log_softmax(-1), second.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum() + (log_q.exp() * (log_q - log_p)).sum()

    first, second = (one.requires_grad_() for one in passes())
    assert torch.autograd.gradcheck(exact, (first, second))
    for one, other in zip(
        torch.autograd.grad(r_drop(first, second), (first, second)),
        torch.autograd.grad(exact(first, second), (first, second)),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("loss", [r_drop, r_drop_mse])
def test_other_shapes_are_an_error(loss):
    """Prevents passes of different rows that are broadcast to each other."""
    with pytest.raises(ValueError, match=r"first \(4, 3\), second \(1, 3\)"):
        loss(torch.zeros(4, 3), torch.zeros(1, 3))
