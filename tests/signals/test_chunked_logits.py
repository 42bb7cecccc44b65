"""Losses that go by chunks or blocks are those of whole tensors, in value and gradient, and hold no whole tensor."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distil_nlp.losses.attention_maps import attention_kl, attention_mse
from distil_nlp.losses.hard_labels import hard_cross_entropy
from distil_nlp.losses.soft_targets import soft_target_kl
from distil_nlp.objective.chunked_logits import chunked_loss
from distil_nlp.signals import attention
from distil_nlp.signals.attention import Probabilities, QueriesKeys, attention_sum, average_heads

WIDTH, WORDS = 8, 40
EXACT = {"atol": 1e-5, "rtol": 1e-5}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Largest(TorchDispatchMode):
    """The largest number of elements that an operator handed on."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, Tensor):
                self.elements = max(self.elements, one.numel())
        return out


# Vocabulary --------------------------------------------------------------------------------------------------


def head(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Hidden states, weights and bias of a student's projection, as leaves; the teacher's logits; labels."""
    leaves = [normal(rows, WIDTH, seed=seed), normal(WORDS, WIDTH, seed=seed + 1), normal(WORDS, seed=seed + 2)]
    leaves = [one.to(dtype).requires_grad_() for one in leaves]
    return [*leaves, 2 * normal(rows, WORDS, seed=seed + 3), torch.arange(rows) * 7 % WORDS]


def both_terms(teacher: Tensor, labels: Tensor, masked: Tensor, chunk: int):
    """KL over all rows and cross-entropy over some of them."""

    def look(logits: Tensor, number: int) -> Tensor:
        start, stop = number * chunk, number * chunk + len(logits)
        here = masked[(masked >= start) & (masked < stop)]
        kl = soft_target_kl(logits, teacher[start:stop], 2.0)
        return torch.stack([kl, hard_cross_entropy(logits[here - start], labels[here])])

    return look


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.integers(0, 13), chunk=st.integers(1, 15), seed=st.integers(0, 2**30), every=st.integers(1, 20))
def test_chunked_losses_are_the_plain_ones(rows, chunk, seed, every):
    """A chunk lost, counted twice or weighed otherwise would change the gradient in silence."""
    states, weight, bias, teacher, labels = head(rows, seed)
    masked, factors = torch.arange(0, rows, every), torch.tensor([0.3, 1.7])
    look = both_terms(teacher, labels, masked, chunk)
    loss, sums = chunked_loss(states, weight, bias, look, factors, chunk)
    (3 * loss).backward()
    found = [one.grad.clone() for one in (states, weight, bias)]
    exact = [one.detach().double().requires_grad_() for one in (states, weight, bias)]
    logits = F.linear(*exact)
    kl = F.kl_div((logits / 2).log_softmax(-1), (teacher.double() / 2).softmax(-1), reduction="sum") * 4
    plain = torch.stack([kl, F.cross_entropy(logits[masked], labels[masked], reduction="sum")])
    expected = 3 * (plain * factors).sum()
    expected.backward()
    torch.testing.assert_close(sums.double(), plain.detach(), **EXACT)
    torch.testing.assert_close(3 * loss.double(), expected, **EXACT)
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs.grad, **EXACT)
    assert not sums.requires_grad


def test_no_tensor_holds_all_rows_of_the_vocabulary():
    """The point of it: neither forward nor backward may hold (rows × vocabulary)."""
    states, weight, bias, teacher, _ = head(64)
    chunks = list(teacher.split(4))

    def look(logits: Tensor, number: int) -> Tensor:
        return soft_target_kl(logits, chunks[number], 2.0)[None]

    with Largest() as seen:
        chunked_loss(states, weight, bias, look, torch.ones(1), 4)[0].backward()
    assert seen.elements == max(64 * WIDTH, WORDS * WIDTH) < 64 * WORDS


def test_given_logits_are_cut_like_projected_ones():
    """Some heads project in their own way (MobileBERT), and hand over logits."""
    states, weight, bias, teacher, labels = head(9)
    look, factors = both_terms(teacher, labels, torch.arange(9), 4), torch.tensor([1.0, 2.0])
    given_logits = F.linear(states, weight, bias)
    loss, sums = chunked_loss(given_logits, None, None, look, factors, 4)
    loss.backward()
    grads = [one.grad.clone() for one in (states, weight, bias)]
    for one in (states, weight, bias):
        one.grad = None
    other, same = chunked_loss(states, weight, bias, look, factors, 4)
    other.backward()
    torch.testing.assert_close(sums, same)
    for ours, theirs in zip(grads, (states, weight, bias), strict=True):
        torch.testing.assert_close(ours, theirs.grad)


def test_without_gradients_only_the_sums_are_taken():
    """Evaluation would pay for gradients that nobody asks for, and a frozen head for its own."""
    states, weight, bias, teacher, labels = head(6)

    def look(logits: Tensor, number: int) -> Tensor:
        assert not logits.requires_grad
        return both_terms(teacher, labels, torch.arange(6), 4)(logits, number)

    with torch.no_grad():
        loss, sums = chunked_loss(states, weight, bias, look, torch.ones(2), 4)
    assert not loss.requires_grad
    assert sums.sum().item() == pytest.approx(loss.item())
    frozen = both_terms(teacher, labels, torch.arange(6), 4)
    chunked_loss(states, weight.detach(), None, frozen, torch.ones(2), 4)[0].backward()
    assert states.grad.abs().max() > 0
    assert weight.grad is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_in_autocast_the_gradient_is_near_that_of_fp32(dtype, tolerance):
    """Rounded sums of weight gradients, or gradients below the least number of half precision."""
    found = []
    for enabled in (False, True):
        states, weight, bias, teacher, labels = head(32)
        look = both_terms(teacher, labels, torch.arange(0, 32, 7), 5)
        with torch.autocast("cpu", dtype, enabled=enabled):
            loss, _ = chunked_loss(states, weight, bias, look, torch.tensor([1e-5, 3e-5]), 5)
        loss.backward()
        found.append([one.grad for one in (states, weight, bias)])
        assert all(one.grad.dtype == torch.float32 for one in (states, weight, bias))
    for exact, rounded in zip(*found, strict=True):
        assert (rounded - exact).norm() < tolerance * exact.norm()


def test_a_second_backward_is_refused():
    """The gradients are spent after the first; wrong ones must not come instead."""
    states, weight, bias, teacher, labels = head(6)
    look = both_terms(teacher, labels, torch.arange(6), 4)
    loss, _ = chunked_loss(states, weight, bias, look, torch.ones(2), 4)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward through chunked_loss / got a second"):
        loss.backward()


def test_a_chunk_of_no_rows_is_an_error():
    """It would never end."""
    states, weight, bias, *_ = head(3)
    with pytest.raises(ValueError, match="at least 1 row / got 0"):
        chunked_loss(states, weight, bias, lambda *_: torch.zeros(1), torch.ones(1), 0)


# Attention ---------------------------------------------------------------------------------------------------

LOSSES = [attention_kl, attention_mse]


def layer(heads: int, length: int, seed: int, mask: Tensor | None, batch: int = 3) -> QueriesKeys:
    query, key = (normal(batch, heads, length, WIDTH, seed=seed + i).requires_grad_() for i in (0, 1))
    return QueriesKeys(query, key, WIDTH**-0.5, mask)


def padding(length: int, batch: int = 3) -> Tensor:
    return (torch.arange(length) < torch.tensor([length, max(length - 2, 1), 1])[:batch, None])[:, None, None]


def plain(loss, student, teacher, chosen, average):
    maps = [one.log_probabilities() for one in (student, teacher)]
    return loss(*(average_heads(one) if average else one for one in maps), chosen)


@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 9),
    block=st.integers(1, 2000),
    heads=st.sampled_from([(2, 2, False), (2, 3, True)]),
    masked=st.sampled_from(["none", "keys", "full"]),
    seed=st.integers(0, 2**30),
)
def test_blockwise_attention_is_the_plain_one(loss, length, block, heads, masked, seed):
    """Blocks cut through sequences or queries: a key's gradient is a sum over all of them."""
    mask = {"none": None, "keys": padding(length), "full": padding(length).expand(3, 1, length, length)}[masked]
    ours, theirs, average = heads
    chosen = torch.randint(0, 2, (3, length), generator=torch.Generator().manual_seed(seed))
    student, teacher = layer(ours, length, seed, mask), layer(theirs, length, seed + 9, padding(length))
    expected = plain(loss, student, teacher, chosen, average)
    wanted = torch.autograd.grad(2 * expected, (student.query, student.key))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK_BYTES", {"cpu": block})
        value = attention_sum(loss, student, teacher, chosen, average)
        found = torch.autograd.grad(2 * value, (student.query, student.key))
    torch.testing.assert_close(value, expected, **EXACT)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_tensor_holds_all_distributions(loss, monkeypatch):
    """The point of it: no (batch, heads, seq, seq) tensor, forward or backward."""
    monkeypatch.setattr(attention, "_BLOCK_BYTES", {"cpu": 4 * 2 * 32 * 8})  # eight queries of one sequence
    student, teacher = layer(2, 32, 0, None), layer(2, 32, 9, None)
    with Largest() as seen:
        attention_sum(loss, student, teacher, torch.ones(3, 32)).backward()
    assert seen.elements == student.query.numel() < 3 * 2 * 32 * 32


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_queries_get_gradients_of_their_own_kind(loss):
    """Under bf16 the queries are bf16, and their distributions fp32 all the same."""
    student, teacher = layer(2, 5, 0, None), layer(2, 5, 9, None)
    half = QueriesKeys(*(one.detach().bfloat16().requires_grad_() for one in (student.query, student.key)), 0.3)
    exact = QueriesKeys(*(one.detach().float().requires_grad_() for one in (half.query, half.key)), 0.3)
    values = []
    for one in (half, exact):
        with torch.autocast("cpu", torch.bfloat16):
            values.append(attention_sum(loss, one, teacher, torch.ones(3, 5)))
        values[-1].backward()
    torch.testing.assert_close(*values)
    assert half.query.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.query.grad.float(), exact.query.grad, atol=1e-3, rtol=0.01)


def test_maps_that_are_whole_are_compared_whole():
    """Where a model shows only its maps (DeBERTa), the other side's are made whole too."""
    student, teacher = layer(2, 5, 0, padding(5)), layer(2, 5, 9, padding(5))
    maps = Probabilities(student.log_probabilities().exp())
    expected = plain(attention_kl, student, teacher, torch.ones(3, 5), False)
    found = attention_sum(attention_kl, maps, teacher, torch.ones(3, 5))
    torch.testing.assert_close(found, expected, **EXACT)


def test_unequal_heads_are_an_error_before_any_block():
    """12 against 16 heads is the commonest complaint."""
    with pytest.raises(ValueError, match=r"student \(3, 2, 5, 5\), teacher \(3, 4, 5, 5\).*average the heads"):
        attention_sum(attention_kl, layer(2, 5, 0, None), layer(4, 5, 9, None), torch.ones(3, 5))


def test_a_second_backward_through_attention_is_refused():
    """As for the vocabulary."""
    value = attention_sum(attention_kl, layer(2, 5, 0, None), layer(2, 5, 9, None), torch.ones(3, 5))
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="expected one backward through attention_sum / got a second"):
        value.backward()
