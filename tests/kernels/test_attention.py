"""The kernels of attention maps, interpreted on the CPU, against the definition in float64."""

import math

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.kernels import attention
from distil_nlp.kernels.attention import AttentionKernel, using
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.signals.attention import Probabilities, QueriesKeys

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
EXACT = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2}
"""Of gradients relative to their largest entry: rounding of sums; of probabilities to 8 bits before a product."""


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Let several tiles make up a small map."""
    monkeypatch.setattr(attention, "_TILE", 16)


def drawn(batch=2, heads=2, length=21, widths=(8, 24), dtype=torch.float32, mask="keys"):
    """Attention of student and teacher, (batch, seq) of chosen queries; the second sequence has padding."""
    generator = torch.Generator().manual_seed(length + widths[0])
    lengths = torch.tensor([length, max(length - 6, 1)] * batch)[:batch]
    is_token = torch.arange(length) < lengths[:, None]
    masks = {"none": None, "keys": is_token[:, None, None, :]}
    masks["window"] = masks["keys"] & ((torch.arange(length)[:, None] - torch.arange(length)).abs() < 4)
    masks["expanded"] = masks["keys"].expand(batch, 1, length, length)
    tensors = [
        (torch.randn(batch, length, heads, width, generator=generator) * 2).to(dtype).transpose(1, 2)
        for width in (widths[0], widths[0], widths[1], widths[1])
    ]
    student, teacher = (
        QueriesKeys(query, key, 1 / math.sqrt(width), masks[mask])
        for query, key, width in zip(tensors[::2], tensors[1::2], widths, strict=True)
    )
    for tensor in (student.query, student.key):
        tensor.requires_grad_()
    chosen = is_token.long() * (torch.arange(length) % 5 != 2)
    return student, teacher, chosen


def reference(student, teacher, chosen):
    """The value and the gradients, in float64 from the definition."""
    query, key = (tensor.detach().double().requires_grad_() for tensor in (student.query, student.key))
    maps = []
    for one, (q, k) in ((student, (query, key)), (teacher, (teacher.query.double(), teacher.key.double()))):
        scores = q @ k.transpose(-1, -2) * one.scaling
        scores = scores if one.mask is None else scores.masked_fill(~one.mask, -1e300)
        maps.append(scores.log_softmax(-1))
    own, target = maps
    terms = torch.where(target.exp() > 0, target.exp() * (target - own), 0.0)
    value = (terms.sum(-1).mean(1) * chosen).sum()
    value.backward()
    return value.detach(), query.grad, key.grad


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("mask", ["none", "keys", "window", "expanded"])
@pytest.mark.parametrize(("length", "widths"), [(1, (8, 8)), (21, (8, 24)), (48, (16, 16))])
def test_value_and_gradients_are_those_of_the_definition(dtype, mask, length, widths):
    """Prevents attention that is imitated otherwise for the sake of speed, and padding that weighs."""
    student, teacher, chosen = drawn(length=length, widths=widths, dtype=dtype, mask=mask)
    value, *gradients = reference(student, teacher, chosen)
    found = AttentionKernel(is_required=True).divergence(student, teacher, chosen)
    (2 * found).backward()
    torch.testing.assert_close(found.double(), value, rtol=2e-5, atol=2e-5)
    for tensor, exact in zip((student.query, student.key), gradients, strict=True):
        assert tensor.grad.dtype == dtype
        largest = max(exact.abs().max().item(), 1e-6)
        torch.testing.assert_close(tensor.grad.double() / largest, 2 * exact / largest, rtol=0, atol=2 * EXACT[dtype])


def test_the_term_takes_the_kernel_where_it_can(count_calls):
    """Prevents a kernel that is not asked, one outside of its context, and one for what it does not know."""
    calls = count_calls(AttentionKernel, "divergence")
    student, teacher, chosen = drawn(length=9, widths=(8, 8))
    term, kernel = AttentionKL(1.0), AttentionKernel(is_required=True)
    plain = term.loss(student, teacher, chosen)
    assert calls == []
    with using(kernel):
        assert term.loss(student, teacher, chosen).item() == pytest.approx(plain.item(), rel=1e-5)
        assert calls == [True]
        averaged = AttentionKL(1.0, heads="average")
        averaged.loss(student, teacher, chosen)
        maps = Probabilities(teacher.log_probabilities().exp())
        term.loss(student, maps, chosen)
        assert calls == [True], "neither means over heads nor given maps"
        biased = QueriesKeys(teacher.query, teacher.key, teacher.scaling, torch.zeros(1, 1, 9, 9))
        term.loss(student, biased, chosen)
        assert calls == [True, False], "a mask that is added to the scores"
    with torch.no_grad(), using(kernel):
        assert not term.loss(student, teacher, chosen).requires_grad


def test_a_kernel_that_fails_is_given_up(caplog, monkeypatch):
    """Prevents a run that ends where a kernel cannot be compiled."""

    def broken(*_):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(attention, "_Launch", broken)
    student, teacher, chosen = drawn(length=9, widths=(8, 8))
    plain = AttentionKL(1.0).loss(student, teacher, chosen)
    with using(AttentionKernel()):
        values = [AttentionKL(1.0).loss(student, teacher, chosen) for _ in range(2)]
    assert [value.item() for value in values] == [plain.item()] * 2
    assert sum("kernel of the attention maps failed, torch goes on" in record.message for record in caplog.records) == 1
    with pytest.raises(UserError, match="no such instruction"):
        AttentionKernel(is_required=True).divergence(student, teacher, chosen)
