"""Training with the kernel, interpreted on the CPU, beside training without."""

import pytest
import torch

from distil_nlp.kernels import attention, residual_norm
from distil_nlp.kernels.attention import AttentionKernel
from distil_nlp.kernels.vocabulary import VocabularyKernel
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.divergences import ReverseKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.chunked_logits import chunked_loss
from tests.helpers import tiny
from tests.helpers.training import curve, trainer

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
TERMS = {
    "masked": lambda: [SoftTargetKL(5.0), HardLabel(2.0), HiddenCosine(1.0)],
    "all": lambda: [SoftTargetKL(5.0, 2.0, "all"), HardLabel(2.0)],
    "a sample": lambda: [SoftTargetKL(5.0, 1.0, 0.5), HardLabel(0.0)],
    "one with a kernel, one without": lambda: [ReverseKL(1.0, 2.0, "all"), HardLabel(2.0)],
    "none with a kernel": lambda: [ReverseKL(1.0), SoftTargetKL(1.0, by_confidence=True)],
    "soft targets alone": lambda: [SoftTargetKL(1.0, rows="all")],
}


@pytest.fixture(autouse=True)
def without_fused_norms(monkeypatch):
    """Leave the norms of both models to torch, which takes them minutes less than the interpreter."""
    monkeypatch.setattr(residual_norm, "is_residual_norm", lambda module: False)


@pytest.fixture
def calls(count_calls):
    """Count the chunks that the kernel computes."""
    return count_calls(VocabularyKernel, "replace_by_gradient")


def trained(folder, terms, kernels, **arguments):
    run = trainer(
        folder, tiny.mlm_model(2, seed=1), tiny.mlm_model(4, initializer_range=0.2), terms,
        changes={"kernels": kernels}, **{"per_device_train_batch_size": 2, "max_steps": 2, **arguments},
    )  # fmt: skip
    run.train()
    return run


@pytest.mark.parametrize("name", TERMS)
def test_a_training_with_the_kernel_is_the_training_without(tmp_path, calls, name):
    """Prevents another loss, or other rows of it, for the sake of speed."""
    plain = trained(tmp_path / "torch", TERMS[name](), "torch")
    assert not calls
    fused = trained(tmp_path / "kernel", TERMS[name](), "auto")
    assert calls == [] if name == "none with a kernel" else all(calls) and len(calls) >= 2
    for term in plain.objective.names:
        assert curve(fused, term) == pytest.approx(curve(plain, term), rel=2e-5)
    for (key, ours), theirs in zip(fused.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_attention_maps_are_imitated_alike(tmp_path, monkeypatch, count_calls, kind):
    """Prevents another gradient of queries and keys, and masks of real models that the kernel does not know."""
    asked = count_calls(AttentionKernel, "divergence")
    monkeypatch.setattr(attention, "_TILE", 16)
    make = tiny.mlm_model if kind == "mlm" else lambda *args, **fields: tiny.classifier(args[0], 3, **fields)
    runs = {}
    for kernels in ("torch", "auto"):
        run = trainer(
            tmp_path / kernels, make(2, seed=1), make(4, initializer_range=0.2), [AttentionKL(2.0)], kind=kind,
            changes={"kernels": kernels}, per_device_train_batch_size=2, max_steps=2, optim="sgd", learning_rate=1.0,
        )  # fmt: skip
        run.train()
        runs[kernels] = run
    assert asked == [True] * 4, "two layers in two steps"
    assert curve(runs["auto"], "attention_kl") == pytest.approx(curve(runs["torch"], "attention_kl"), rel=1e-5)
    for ours, theirs in zip(runs["auto"].model.parameters(), runs["torch"].model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_accumulation_changes_nothing(tmp_path, calls):
    """Prevents factors of a step that the kernel takes for those of a micro-batch."""
    whole, parts = (
        trained(tmp_path / str(rows), TERMS["all"](), "auto", max_steps=1, per_device_train_batch_size=rows,
                gradient_accumulation_steps=4 // rows)
        for rows in (4, 2)
    )  # fmt: skip
    assert all(calls)
    for ours, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_evaluation_is_without_the_kernel(tmp_path, calls):
    """Prevents logits that are overwritten where no gradient is asked for."""
    run = trained(tmp_path, TERMS["masked"](), "auto", eval_rows=None)
    seen = len(calls)
    run.evaluate(run.train_dataset)
    assert len(calls) == seen


@pytest.mark.parametrize("align", [1, 8, 64])
def test_an_aligned_projection_has_the_same_gradients(align):
    """Prevents columns that are no words from weighing in a softmax, or from leaving training."""
    generator = torch.Generator().manual_seed(align)
    states, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((9, 6), (13, 6), (13,))
    )

    def look(logits, number):
        assert logits.shape[1] == 13
        return logits.logsumexp(1).sum()[None] * (number + 1)

    loss, sums = chunked_loss(states, weight, bias, look, torch.ones(1), 4, align=align)
    loss.backward()
    found = [one.grad for one in (states, weight, bias)]
    again = [one.detach().requires_grad_() for one in (states, weight, bias)]
    logits = torch.nn.functional.linear(*again)
    plain = sum(part.logsumexp(1).sum() * (number + 1) for number, part in enumerate(logits.split(4)))
    plain.backward()
    torch.testing.assert_close(sums.sum().double(), plain.detach())
    for ours, theirs in zip(found, again, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs.grad)
