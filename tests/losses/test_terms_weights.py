"""The term on weights: against naive arithmetic, on models of other widths and families, and what it refuses."""

import pytest
import torch
import transformers

from distil_nlp.errors import UserError
from distil_nlp.losses.weight_matrices import WeightsMSE, Widening, weights_mse
from distil_nlp.models import build_student
from distil_nlp.models.architecture import layer_stack
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.training.checks import validate_cache_support, validate_sharding
from distil_nlp.training.sharding import Sharding
from tests.helpers import tiny
from tests.helpers.families import ROWS, batch, model_of
from tests.helpers.relations import assert_same, assert_zero_and_still, normal, trained
from tests.helpers.training import curve, task_rows, trainer

NAMES = [
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "intermediate.dense", "output.dense",
]  # fmt: skip


def naive(student, teacher):
    squares = [(a - b) ** 2 for s, t in zip(student, teacher, strict=True) for r, q in zip(s, t, strict=True)
               for a, b in zip(r, q, strict=True)]  # fmt: skip
    return sum(squares) / len(squares)


def test_it_is_the_mean_over_entries():
    """Prevents a mean of means, in which small matrices count more."""
    teacher = [normal(2, 3, seed=1), normal(4, 2, seed=2)]
    student = [normal(2, 3, seed=3), normal(4, 2, seed=4)]
    assert_same(lambda *ours: weights_mse(ours, [one.float() for one in teacher]), lambda *ours: naive(ours, teacher),
                *student)  # fmt: skip
    assert_zero_and_still(lambda first: weights_mse([first, teacher[1]], teacher), teacher[0])


def test_shapes_that_differ_are_told():
    """Prevents broadcasting."""
    with pytest.raises(ValueError, match="as many matrices"):
        weights_mse([torch.zeros(2, 2)], [])
    with pytest.raises(ValueError, match="matrices alike"):
        weights_mse([torch.zeros(2, 2)], [torch.zeros(1, 2)])


def test_it_compares_the_blocks_own_matrices(tmp_path):
    """Prevents pairs of the wrong layers or matrices: value and gradient of a step, from the weights by name."""
    student, teacher = tiny.classifier(2, seed=1), tiny.classifier(4)
    run = trainer(tmp_path, student, teacher, [WeightsMSE()], kind="classification", max_steps=1)
    expected, entries = 0.0, 0
    for theirs, ours in ((1, 0), (3, 1)):
        for name in NAMES:
            one = student.get_submodule(f"bert.encoder.layer.{ours}.{name}").weight.double()
            other = teacher.get_submodule(f"bert.encoder.layer.{theirs}.{name}").weight.double()
            expected, entries = expected + (one - other).square().sum(), entries + one.numel()
    loss = run.compute_loss(run.model, run.data_collator(task_rows(3)))
    loss.backward()
    assert loss.item() == pytest.approx((expected / entries).item(), rel=1e-5)
    moved = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {f"bert.encoder.layer.{i}.{name}.weight" for i in range(2) for name in NAMES}


@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_a_narrower_student_is_widened(tmp_path, kind):
    """Prevents maps that no optimiser sees."""
    run = trained(tmp_path, [WeightsMSE(layers="last")], kind, width=16)
    bank = run.objective.projections()
    learned = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert list(bank) == ["weights_mse_1"]
    assert {id(p) for p in bank.parameters()} <= learned
    values = curve(run, "weights_mse")
    assert values[1] < values[0]


def test_widening_is_by_output_and_input():
    """Prevents a map on one side only, or of the other width."""
    matrix, widening = normal(3, 2, seed=0).float(), Widening({2: 4, 3: 5})
    hidden, units = widening.maps["2"], widening.maps["3"]
    torch.testing.assert_close(widening([matrix])[0], units @ matrix @ hidden.T)
    same = Widening({2: 2, 3: 5})([matrix])[0]
    assert same.shape == (5, 2)
    assert list(Widening({2: 2, 3: 5}).maps) == ["3"]
    with pytest.raises(UserError, match=r"widths 2 and 3 .* got 7"):
        widening([torch.zeros(7, 2)])


def test_a_distilbert_student_is_paired_with_bert():
    """Prevents pairs by name, which differ between the classes, or in another order: a copied block is 0 away."""
    teacher = tiny.mlm_model(4)
    student, _ = build_student(teacher, [1, 3], num_layers=2, architecture="distilbert")
    tokens = {"input_ids": torch.tensor([[2, 7, 8, 3]])}
    rows = {"head": torch.tensor([0])}
    seen = []
    for model, layers in ((student, {0, 1}), (teacher, {1, 3})):
        Recorder(model, SignalRequest(weights=frozenset(layers)), head_rows=True)
        seen.append(forward_with_signals(model, tokens, rows).weights)
    for theirs, ours in ((1, 0), (3, 1)):
        assert weights_mse(seen[0][ours], seen[1][theirs]).item() == 0


@pytest.mark.parametrize("family", ["Albert", "ModernBert", "DebertaV2", "MPNet", "Electra"])
def test_every_family_shows_its_matrices(family):
    """Prevents blocks without matrices, and gradients that do not arrive."""
    model = model_of(family)
    Recorder(model, SignalRequest(logits=True, weights=frozenset({0, 3})), head_rows=True)
    weights = forward_with_signals(model, batch(), ROWS).weights
    sum(one.sum() for one in weights[3]).backward()
    inside = [m.weight for m in layer_stack(model)[3].modules() if isinstance(m, torch.nn.Linear)]
    assert len(weights[0]) == len(weights[3]) == len(inside) > 3
    assert all(torch.equal(one.grad, torch.ones_like(one)) for one in inside)


def test_blocks_of_other_families_are_refused(tmp_path):
    """Prevents a traceback about shapes."""
    config = transformers.ModernBertConfig(
        vocab_size=len(tiny.VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, pad_token_id=0,
    )  # fmt: skip
    student = transformers.ModernBertForSequenceClassification(config)
    run = trainer(tmp_path, student, tiny.classifier(4), [WeightsMSE()], kind="classification")
    with pytest.raises(UserError, match="blocks of like matrices"):
        run.compute_loss(run.model, run.data_collator(task_rows(3)))


def test_a_cache_and_shards_are_refused():
    """Prevents weights that are not there."""
    wanted = SignalRequest(weights=frozenset({1}))
    with pytest.raises(UserError, match=r"teacher\.cache"):
        validate_cache_support(Objective([WeightsMSE()]), object())
    for sharding in (Sharding(is_fsdp=True), Sharding(zero_stage=3)):
        with pytest.raises(UserError, match=str(sharding)):
            validate_sharding(wanted, sharding)
    for request, sharding in (
        (wanted, Sharding()),
        (wanted, Sharding(zero_stage=2)),
        (SignalRequest(logits=True), Sharding(is_fsdp=True)),
    ):
        validate_sharding(request, sharding)


def test_a_width_that_stays_is_not_turned(tmp_path):
    """Prevents equal matrices that are told apart because another width of the block differs."""
    student, teacher = tiny.classifier(2, intermediate_size=48), tiny.classifier(2)
    for ours, theirs in zip(student.bert.encoder.layer, teacher.bert.encoder.layer, strict=True):
        ours.attention.load_state_dict(theirs.attention.state_dict())
    run = trainer(tmp_path, student, teacher, [WeightsMSE(layers="last")], kind="classification")
    seen = forward_with_signals(run.model, {"input_ids": torch.tensor([[2, 7, 3]])}, {}).projected["weights_mse_1"]
    square = [one for one in seen if one.shape == (32, 32)]
    last = teacher.bert.encoder.layer[1].attention
    expected = [last.self.query, last.self.key, last.self.value, last.output.dense]
    assert [torch.equal(one, other.weight) for one, other in zip(square, expected, strict=True)] == [True] * 4


def test_widths_that_cannot_be_told_apart_are_refused(tmp_path):
    """Prevents a map of the wrong width, and a message about shapes."""
    student = tiny.classifier(2, hidden_size=32, intermediate_size=32)
    with pytest.raises(UserError, match="got 32 for both"):
        trainer(tmp_path, student, tiny.classifier(4, intermediate_size=64), [WeightsMSE()], kind="classification")
