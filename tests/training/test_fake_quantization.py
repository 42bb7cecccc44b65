"""Quantisation-aware training: the values that int8 has, gradients that pass, and the same student however it runs."""

import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.linear_layers import encoder_linear_layers
from distil_nlp.training.fake_quantization import (
    QUANTIZATION,
    QuantizationAware,
    fake_int8_weight,
    fake_uint8_rows,
    fake_uint8_states,
    validate_quantization,
)
from distil_nlp.training.netaug import NetAug
from distil_nlp.training.sparsity import Sparsity
from tests.helpers import tiny
from tests.helpers.training import StopAt, curve, task_rows, trainer, weights
from tests.training.test_trainer import CHECKPOINTING, KeepGradients

ON = QuantizationAware(0.0)


def new(folder, quantization=ON, dropout=0.1, **arguments):
    """A trainer of a student with a checkpoint of every step."""
    student = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=dropout, initializer_range=0.3)
    often = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "learning_rate": 0.01, "kind": "classification"}
    changes = {"extensions": [*arguments.pop("further", ()), quantization]}
    terms = [SoftTargetKL(1.0), HardLabel(1.0)]
    return trainer(folder, student, tiny.classifier(4, 3), terms, **often | changes | arguments)


def run(*args, **arguments):
    made = new(*args, **arguments)
    made.train()
    return made


def naive_weight(weight, highest):
    """Each row on a grid of its own, from −highest to highest times a scale, in float64."""
    rows = []
    for row in weight.double().tolist():
        scale = max(abs(value) for value in row) / highest or 1.0
        rows.append([round(value / scale) * scale for value in row])
    return torch.tensor(rows, dtype=torch.float64)


def naive_states(states):
    """All values on one grid of 256 that has 0 on it, in float64."""
    values = states.double().flatten().tolist()
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    levels = [min(max(round(value / scale) + zero, 0), 255) - zero for value in values]
    return torch.tensor(levels, dtype=torch.float64).view_as(states) * scale


@pytest.mark.parametrize(("reduce_range", "highest"), [(False, 127), (True, 64)])
def test_weights_are_rounded_to_a_grid_for_each_output(reduce_range, highest):
    """Prevents one scale for all outputs, a grid that clips the largest weight, and a NaN for a row of zeros."""
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [9], [0.1], [0], [2]])
    found = fake_int8_weight(weight, reduce_range)
    torch.testing.assert_close(found.double(), naive_weight(weight, highest), atol=1e-6, rtol=1e-6)
    assert torch.equal(found[3], weight[3])
    torch.testing.assert_close(fake_int8_weight(found, reduce_range), found)  # rounded weights stay


@pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
def test_states_are_rounded_to_a_grid_for_each_text(shift):
    """Prevents ranges without 0, of the whole batch, or of padding."""
    states = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1)) + shift
    states[1] *= 10
    for found, row in zip(fake_uint8_states(states), states, strict=True):
        torch.testing.assert_close(found.double(), naive_states(row), atol=1e-5, rtol=1e-6)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    padded = states.masked_fill(~mask[..., None], 1e3)
    for found, row, seen in zip(fake_uint8_states(padded, mask), states, mask, strict=True):
        torch.testing.assert_close(found[seen].double(), naive_states(row[seen]), atol=1e-5, rtol=1e-6)
    flat = states.view(-1, 6)
    torch.testing.assert_close(fake_uint8_states(flat).double(), naive_states(flat), atol=1e-4, rtol=1e-6)
    assert fake_uint8_states(torch.zeros(1, 2, 2)).eq(0).all()


def test_gradients_pass_as_if_nothing_were_rounded():
    """Prevents the gradient of a step function, which is 0."""
    weight, states = torch.randn(5, 8, requires_grad=True), torch.randn(2, 3, 8, requires_grad=True)
    coefficients = torch.randn(5, 8), torch.randn(2, 3, 8)
    (fake_int8_weight(weight) * coefficients[0]).sum().backward()
    (fake_uint8_states(states) * coefficients[1]).sum().backward()
    assert torch.equal(weight.grad, coefficients[0])
    assert torch.equal(states.grad, coefficients[1])


def test_the_forward_is_that_of_rounded_layers(tmp_path):
    """Prevents layers that are left out or rounded twice: against a model whose linear layers round by themselves."""
    made = new(tmp_path, dropout=0.0)
    student = made.teacher_student.student.eval()
    other = copy.deepcopy(student)
    for module in other.modules():
        module.__dict__.pop("forward", None)
        module._forward_hooks.clear()
        if isinstance(module, torch.nn.Embedding):
            with torch.no_grad():
                module.weight.copy_(naive_states(module.weight))
    for layer in encoder_linear_layers(other, QUANTIZATION).values():
        with torch.no_grad():
            layer.weight.copy_(naive_weight(layer.weight, 127))
        layer.register_forward_pre_hook(lambda _, args: (torch.stack([naive_states(row) for row in args[0]]).float(),))
    batch = {"input_ids": torch.randint(5, len(tiny.VOCABULARY), (2, 9), generator=torch.Generator().manual_seed(0))}
    found, expected = student(**batch).logits, other(**batch).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    made.detach()
    plain = student(**batch).logits
    assert (plain - found).abs().max() > 1e-2


def test_before_the_start_training_is_plain(tmp_path):
    """Prevents rounding that costs time before it is wanted; an evaluation is always that of the int8 student."""
    rows = {"eval_rows": task_rows(7, 3), "eval_strategy": "steps", "eval_steps": 3}
    late, plain = run(tmp_path / "late", QuantizationAware(0.6), **rows), run(tmp_path / "plain", None, **rows)
    assert curve(late)[:3] == curve(plain)[:3]
    assert all(one != other for one, other in zip(curve(late)[3:], curve(plain)[3:], strict=True))
    scores = [[e["eval_loss"] for e in made.state.log_history if "eval_loss" in e] for made in (late, plain)]
    assert scores[0][0] != scores[1][0]


@pytest.mark.parametrize("stop", [2, 4])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop):
    """Prevents a student that forgets from which step on it is rounded."""
    half = QuantizationAware(0.5)
    whole = run(tmp_path / "whole", half)
    run(tmp_path / "stopped", half, callbacks=[StopAt(stop)])
    resumed = new(tmp_path / "stopped", half)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{stop}"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_micro_batches_give_the_same_gradient(tmp_path):
    """Prevents ranges of a whole micro-batch or of its padding, which would change with the number of its rows."""
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        keep = KeepGradients()
        new(
            tmp_path / str(batch), callbacks=[keep], dropout=0.0, max_steps=1, max_grad_norm=0, save_strategy="no",
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        ).train()  # fmt: skip
        found.append(keep.gradients)
    assert found[0].keys() == found[1].keys()
    total = torch.cat([value.flatten() for value in found[0].values()])
    other = torch.cat([value.flatten() for value in found[1].values()])
    assert (total - other).norm() < 0.01 * total.norm()  # a state on the border of two steps may fall on either side


def test_the_student_that_leaves_is_plain_and_rounded(tmp_path):
    """Prevents fake layers in the saved student, and weights that its int8 copy rounds once more."""
    made = run(tmp_path, further=[Sparsity(0.5, start=0.0, end=0.5, every=1)])
    student = made.detach()
    for module in student.modules():
        assert "forward" not in vars(module)
        assert not [*module._forward_pre_hooks, *module._forward_hooks]
    student.save_pretrained(tmp_path / "student")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    for name, layer in encoder_linear_layers(again, QUANTIZATION).items():
        weight = layer.weight.detach()
        torch.testing.assert_close(fake_int8_weight(weight), weight, atol=0, rtol=1e-5, msg=name)
        assert (weight == 0).float().mean() >= 0.5
        assert max(len(row.unique()) for row in weight) <= 255
    for table in (module.weight.detach() for module in again.modules() if isinstance(module, torch.nn.Embedding)):
        torch.testing.assert_close(fake_uint8_rows(table, table), table, atol=1e-6, rtol=1e-5)
        assert len(table.unique()) <= 256


def test_a_table_that_is_the_output_layer_too_stays(tmp_path):
    """Prevents a masked language model whose output layer is rounded at the end, and was not in training."""
    made = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), [SoftTargetKL(1.0)], max_steps=2,
                   extensions=[ON])  # fmt: skip
    made.train()
    embeddings = made.detach().bert.embeddings
    assert len(embeddings.word_embeddings.weight.unique()) > 256
    assert len(embeddings.position_embeddings.weight.unique()) <= 256


def test_a_forward_that_is_computed_again_rounds_alike(tmp_path):
    """Prevents ranges of other tokens where activations are checkpointed."""
    plain = weights(run(tmp_path / "plain", save_strategy="no"))
    again = weights(run(tmp_path / "again", save_strategy="no", **{CHECKPOINTING: True}))
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_bf16_stays_near_fp32(tmp_path):
    """Prevents scales and levels that bf16 rounds away."""
    still = {"save_strategy": "no", "max_steps": 1}
    exact, rounded = (run(tmp_path / str(bf16), bf16=bf16, **still) for bf16 in (False, True))
    assert curve(rounded) == pytest.approx(curve(exact), rel=0.05)


@pytest.mark.integration
def test_compiled_blocks_give_the_same(tmp_path):
    """Prevents a graph that keeps the state before the start."""
    half = QuantizationAware(0.5)
    plain = weights(run(tmp_path / "plain", half, save_strategy="no"))
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    compiled = weights(run(tmp_path / "compiled", half, save_strategy="no", **options))
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_what_does_not_go_together_is_refused(tmp_path):
    """Prevents a training that is never rounded, and one of a part of the layers."""
    with pytest.raises(UserError, match=r"quantization\.start: expected a fraction from 0 and below 1 / got 1"):
        QuantizationAware(1.0)
    with pytest.raises(UserError, match=r"student\.quantization: expected .* got FSDP or DeepSpeed"):
        validate_quantization(is_sharded=True, is_widened=False)
    with pytest.raises(UserError, match=r"got student\.augment"):
        new(tmp_path, further=[NetAug([2.0], 1.0)])
