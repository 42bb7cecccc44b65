"""The kernel of residual sums and layer norms, interpreted on the CPU: values, gradients, dropout, its place."""

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm
from transformers import DistilBertConfig, DistilBertModel

from distil_nlp.kernels.residual_norm import FusedResidualNorms, ResidualNormKernel, is_residual_norm
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.soft_targets import SoftTargetKL
from tests.helpers import tiny
from tests.helpers.training import curve, trainer

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
TOLERANCE = {torch.float32: 5e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def drawn(width, dtype, rows=(3, 5)):
    generator = torch.Generator().manual_seed(width)
    states, residual, gradient = (torch.randn(*rows, width, generator=generator).to(dtype) for _ in range(3))
    norm = nn.LayerNorm(width, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(width, generator=generator) + 2)
        norm.bias.copy_(torch.randn(width, generator=generator))
    return states.requires_grad_(), residual.requires_grad_(), norm, gradient


def definition(states, residual, norm, is_kept=None, dropout=0.0):
    """The norm in float64, with leaves of its own."""
    leaves = [one.detach().double().requires_grad_() for one in (states, residual, norm.weight, norm.bias)]
    kept = leaves[0] if is_kept is None else torch.where(is_kept, leaves[0] / (1 - dropout), 0)
    return layer_norm(kept + leaves[1], leaves[0].shape[-1:], *leaves[2:], eps=norm.eps), leaves


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [1, 7, 32, 48])
def test_values_and_gradients_are_those_of_the_definition(width, dtype):
    """Prevents a norm over columns that are none, or gradients of another row."""
    states, residual, norm, gradient = drawn(width, dtype)
    out = ResidualNormKernel(is_required=True).normalised(states, residual, norm, 0.0)
    assert (out.dtype, out.shape) == (dtype, states.shape)
    out.backward(gradient)
    expected, leaves = definition(states, residual, norm)
    expected.backward(gradient.double())
    for ours, theirs in zip((out, states.grad, residual.grad, norm.weight.grad, norm.bias.grad),
                            (expected, *(one.grad for one in leaves)), strict=True):  # fmt: skip
        scale = max(float(theirs.detach().abs().max()), 1)
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_what_is_dropped_gets_no_gradient_and_the_rest_is_scaled():
    """Prevents another mask in the backward than in the forward, or one that is the same in each call."""
    states, residual, norm, gradient = drawn(48, torch.float32, (8, 5))
    kernel = ResidualNormKernel(is_required=True)
    torch.manual_seed(1)
    out = kernel.normalised(states, residual, norm, 0.25)
    out.backward(gradient)
    is_kept = states.grad != 0
    assert float(is_kept.double().mean()) == pytest.approx(0.75, abs=0.05)
    expected, leaves = definition(states, residual, norm, is_kept, 0.25)
    expected.backward(gradient.double())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(states.grad.double(), leaves[0].grad, rtol=0, atol=1e-4)
    torch.testing.assert_close(residual.grad.double(), leaves[1].grad, rtol=0, atol=1e-4)
    assert not torch.equal(out, kernel.normalised(states, residual, norm, 0.25))
    torch.manual_seed(1)
    first = ResidualNormKernel(is_required=True).normalised(states, residual, norm, 0.25)
    torch.testing.assert_close(first, out, rtol=0, atol=0)


def test_autocast_decides_the_dtype():
    """Prevents states in fp32, which each linear layer would cast."""
    states, residual, norm, _ = drawn(32, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert ResidualNormKernel().normalised(states, residual.float(), norm, 0.0).dtype == torch.bfloat16
    assert ResidualNormKernel().normalised(states, residual.float(), norm, 0.0).dtype == torch.float32


def test_modules_of_berts_kind_are_found_and_given_back():
    """Prevents a family whose norm comes elsewhere, and a model that keeps the kernel after its training."""
    model = tiny.mlm_model(3)
    config = DistilBertConfig(vocab_size=20, dim=8, n_heads=2, n_layers=1, hidden_dim=16)
    assert not any(map(is_residual_norm, DistilBertModel(config).modules()))
    before = [module for module in model.modules() if is_residual_norm(module)]
    assert len(before) == 6
    fused = FusedResidualNorms([model], ResidualNormKernel())
    assert fused.modules == before
    assert FusedResidualNorms([model], ResidualNormKernel()).modules == []
    fused.remove()
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_module_with_hooks_goes_torchs_way():
    """Prevents hooks on dropout or norm that see nothing."""
    model, seen = tiny.classifier(1).eval(), []
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    plain = model(**inputs).logits
    fused = FusedResidualNorms([model], ResidualNormKernel(is_required=True))
    torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-5, atol=1e-6)
    hook = fused.modules[0].LayerNorm.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-5, atol=1e-6)
    assert seen == [1]
    hook.remove()


FEW = {"per_device_train_batch_size": 1, "max_steps": 1, "optim": "sgd", "learning_rate": 1.0}


def trained(folder, kernels, terms, **arguments):
    student = tiny.mlm_model(2, seed=1, hidden_dropout_prob=arguments.pop("dropout", 0.0))
    run = trainer(
        folder, student, tiny.mlm_model(4, initializer_range=0.2), terms, changes={"kernels": kernels},
        **{"per_device_train_batch_size": 2, "max_steps": 2, **arguments},
    )  # fmt: skip
    run.train()
    return run


def test_a_training_with_the_kernel_is_the_training_without(tmp_path, count_calls):
    """Prevents other states of student or teacher, and other gradients, for the sake of speed."""
    calls = count_calls(ResidualNormKernel, "normalised")
    runs = [trained(tmp_path / one, one, [SoftTargetKL(2.0), HiddenCosine(1.0)], **FEW) for one in ("torch", "auto")]
    assert len(calls) == 2 * 2 + 2 * 4, "two norms in each layer of both models"
    assert all(calls)
    for name in runs[0].objective.names:
        assert curve(runs[1], name) == pytest.approx(curve(runs[0], name), rel=2e-5)
    for ours, theirs in zip(runs[1].model.parameters(), runs[0].model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    student = runs[1].detach()
    assert not any("forward" in module.__dict__ for model in (student, runs[1].teacher) for module in model.modules())


def test_states_in_half_precision_are_projected(tmp_path, count_calls):
    """Prevents a projection in float32 of the states in bf16 that the kernel gives, which torch refuses."""
    calls = count_calls(ResidualNormKernel, "normalised")
    run = trainer(
        tmp_path, tiny.mlm_model(2, seed=1, hidden_size=16), tiny.mlm_model(4), [HiddenMSE(1.0)],
        changes={"kernels": "auto"}, bf16=True, **FEW,
    )  # fmt: skip
    run.train()
    assert calls
    assert all(calls)


def test_recomputed_states_drop_the_same(tmp_path):
    """Prevents gradients of another dropout than the loss had, with gradient checkpointing."""
    whole, again = (
        trained(tmp_path / str(on), "auto", [SoftTargetKL(2.0)], dropout=0.3, gradient_checkpointing=on, **FEW)
        for on in (False, True)
    )
    for ours, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_first_call_draws_no_more_than_others():
    """Prevents a resumed training that drops what the whole one does not, as its kernel is compiled anew."""
    states, residual, norm, _ = drawn(32, torch.float32)
    kernel, found = ResidualNormKernel(is_required=True), []
    for _ in range(2):
        torch.manual_seed(1)
        found.append((kernel.normalised(states, residual, norm, 0.25), torch.rand(1)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_what_differentiates_twice_goes_torchs_way(tmp_path, count_calls):
    """Prevents a term on input gradients that asks a kernel for the gradient of its gradient."""
    calls = count_calls(ResidualNormKernel, "normalised")
    run = trainer(
        tmp_path, tiny.classifier(2, seed=1, attn_implementation="eager"), tiny.classifier(4), [InputGradient(1.0)],
        kind="classification", changes={"kernels": "auto"}, max_steps=1,
    )  # fmt: skip
    run.train()
    assert calls == []
