"""Structured pruning: axes, cutting, importance and repair against independent computations."""

import importlib
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
)

from distil_nlp.errors import UserError
from distil_nlp.models import build_student
from distil_nlp.models.pruning import (
    Kept,
    ParameterAxis,
    check_axes,
    cut_model,
    everything,
    measure_importance,
    parameter_axes,
    repair,
    shares_heads,
)
from distil_nlp.models.trial import logit_difference, trial_batch
from tests.helpers import tiny
from tests.helpers.sentences import sentence_encoder

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
SIZES |= {"intermediate_size": 48, "hidden_dim": 48, "max_position_embeddings": 64, "embedding_size": 32}


def family(name):
    config = AutoConfig.for_model(name)
    for field, value in SIZES.items():
        if hasattr(config, field):
            setattr(config, field, value)
    if name == "modernbert":
        config.layer_types, config.pad_token_id = config.layer_types[:2], 0
        config.bos_token_id = config.eos_token_id = config.cls_token_id = config.sep_token_id = 1
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():  # biases and norms are constant at the start
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert", "nomic_bert", "roformer", "xlm-roberta"]
)
def test_features_heads_and_units_are_found_in_each_family(name):
    """Prevents parts that are cut here and not there: a model whose parts change places gives the same outputs."""
    model = family(name)
    axes = parameter_axes(model)
    check_axes(model, axes)
    assert shares_heads(model, axes) == (name == "mpnet")
    smaller = cut_model(model, axes, Kept(torch.arange(16), [torch.tensor([1, 3])] * 2, [torch.arange(24)] * 2))
    assert smaller.config.hidden_size == 16
    assert smaller(**trial_batch(smaller)).logits.shape == (3, 2)


@pytest.mark.parametrize("name", ["squeezebert", "convbert"])
def test_families_of_other_parts_are_refused(name):
    """Prevents a convolution's channels from being taken for heads."""
    with pytest.raises(UserError, match=r"student\.pruning"):
        check_axes(family(name), parameter_axes(family(name)))


def test_shared_layers_are_refused():
    """Prevents parts of a block that stands for all layers from being cut."""
    sizes = {name: value for name, value in SIZES.items() if name != "hidden_dim"}
    with pytest.raises(UserError, match="share their weights"):
        parameter_axes(AlbertForMaskedLM(AlbertConfig(**sizes)))


def test_axes_that_are_wrong_are_found():
    """Prevents a check that passes whatever it is given."""
    model = tiny.classifier(2)
    axes = parameter_axes(model)
    axes["bert.encoder.layer.0.intermediate.dense.weight"] = (None, ParameterAxis("width"))
    with pytest.raises(UserError, match="only change places"):
        check_axes(model, axes)


def test_what_is_whole_is_the_teacher_exactly():
    """Prevents weights that change where nothing is cut: width 1.0 gives the teacher, bit for bit."""
    model = tiny.mlm_model(3)
    same = cut_model(model, parameter_axes(model), everything(model))
    assert logit_difference(model.eval(), same.eval())[0] == 0
    assert same.get_output_embeddings().weight is same.get_input_embeddings().weight


def test_cutting_what_gives_nothing_changes_nothing():
    """Prevents the wrong units and heads from being cut: those of no weight can go."""
    model = tiny.classifier(2).eval()
    dead_units, dead_head = torch.tensor([3, 17, 40]), 2
    for layer in model.bert.encoder.layer:
        layer.output.dense.weight.data[:, dead_units] = 0
        layer.attention.output.dense.weight.data[:, 8 * dead_head : 8 * (dead_head + 1)] = 0
    whole = everything(model)
    units = [one[~torch.isin(one, dead_units)] for one in whole.units]
    smaller = cut_model(model, parameter_axes(model), Kept(whole.width, whole.heads, units))
    assert smaller.config.intermediate_size == 61
    assert logit_difference(model, smaller)[0] < 1e-6
    importance = measured(model, "fisher")
    assert importance.heads[:, dead_head].max() == 0
    assert importance.units[:, dead_units].max() == 0


def batches(count=3):
    """Return batches of ragged rows."""
    torch.manual_seed(1)
    mask = (torch.arange(9) < torch.tensor([9, 5, 7, 3])[:, None]).long()
    return [{"input_ids": torch.randint(5, 50, (4, 9)), "attention_mask": mask} for _ in range(count)]


def forward(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def measured(model, by, rows=None):
    def loss(batch):
        logits = forward(model, batch)
        return F.cross_entropy(logits, batch["input_ids"][:, 0] % 2, reduction="sum")

    return measure_importance(model, parameter_axes(model), rows or batches(), loss, by)


def row_losses(model):
    """Give (loss of a row, its batch), one row at a time."""
    for batch in batches():
        for i in range(4):
            row = {name: value[i : i + 1] for name, value in batch.items()}
            yield F.cross_entropy(forward(model, row), row["input_ids"][:, 0] % 2), row


@pytest.mark.parametrize(("by", "power"), [("fisher", torch.square), ("taylor", torch.abs)])
def test_importance_is_that_of_masks(by, power):
    """Prevents a gradient of something else: masks are multiplied in and differentiated, row by row, in float64."""
    model = tiny.classifier(2).double().eval()
    masks = {
        "heads": torch.ones(2, 4, dtype=torch.double, requires_grad=True),
        "units": torch.ones(2, 64, dtype=torch.double, requires_grad=True),
        "layers": torch.ones(2, dtype=torch.double, requires_grad=True),
        "width": torch.ones(32, dtype=torch.double, requires_grad=True),
    }
    found = measured(model, by)
    for i, layer in enumerate(model.bert.encoder.layer):
        layer.attention.output.dense.register_forward_pre_hook(
            lambda _, args, i=i: (args[0] * masks["heads"][i].repeat_interleave(8), *args[1:])
        )
        layer.output.dense.register_forward_pre_hook(lambda _, args, i=i: (args[0] * masks["units"][i], *args[1:]))
        layer.register_forward_hook(
            lambda _, args, out, i=i: (args[0] + masks["layers"][i] * (out - args[0])) * masks["width"]
        )
    expected = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for value, _ in row_losses(model):
        for name, gradient in zip(masks, torch.autograd.grad(value, [*masks.values()]), strict=True):
            expected[name] += power(gradient)
    for name, value in found.tensors().items():
        torch.testing.assert_close(value, expected[name].detach(), rtol=1e-5, atol=1e-12)


def test_brain_damage_is_that_of_weights():
    """Prevents gradients of a batch in place of those of its rows."""
    model = tiny.classifier(2).eval()
    found = measured(model, "obd")
    units, heads = torch.zeros(64), torch.zeros(4)
    layer = model.bert.encoder.layer[1]
    both = [layer.intermediate.dense.weight, layer.output.dense.weight]
    attention = [layer.attention.self.query.weight, layer.attention.self.key.weight, layer.attention.self.value.weight]
    attention += [layer.attention.output.dense.weight]
    for value, _ in row_losses(model):
        gradients = torch.autograd.grad(value, [*both, *attention])
        damage = [0.5 * (w.detach() * g).square() for w, g in zip([*both, *attention], gradients, strict=True)]
        units += damage[0].sum(1) + damage[1].sum(0)
        heads += sum(one.sum(1).view(4, 8).sum(1) for one in damage[2:5]) + damage[5].sum(0).view(4, 8).sum(1)
    torch.testing.assert_close(found.units[1].float(), units, rtol=1e-3, atol=1e-10)
    torch.testing.assert_close(found.heads[1].float(), heads, rtol=1e-3, atol=1e-10)


def test_activations_of_padding_do_not_count():
    """Prevents importance that depends on what rows are padded to."""
    model = tiny.classifier(2).eval()
    padded = [
        {"input_ids": F.pad(one["input_ids"], (0, 4)), "attention_mask": F.pad(one["attention_mask"], (0, 4))}
        for one in batches()
    ]
    for by in ("activation", "fisher", "taylor", "obd"):
        one, other = measured(model, by).tensors(), measured(model, by, padded).tensors()
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-9)


def test_measuring_leaves_the_model_as_it_was():
    """Prevents frozen parameters, hooks that stay, and gradients."""
    model = tiny.classifier(2).train()
    model.classifier.bias.requires_grad_(False)
    before = torch.random.get_rng_state()
    measured(model, "fisher")
    assert torch.equal(before, torch.random.get_rng_state())
    assert model.training
    assert [p.requires_grad for p in model.classifier.parameters()] == [True, False]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_importance_that_is_no_number_is_told():
    """Prevents parts that are chosen by NaN."""
    model = tiny.classifier(2)
    model.bert.encoder.layer[0].output.dense.bias.data[0] = float("nan")
    with pytest.raises(UserError, match="finite importance"):
        measured(model, "fisher")


def run(model, batch):
    model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])


def states(model, rows):
    with torch.no_grad():
        found = [model.base_model(**batch).last_hidden_state[batch["attention_mask"].bool()] for batch in rows]
    return torch.cat(found)


@pytest.mark.parametrize("name", ["bert", "distilbert", "modernbert", "mpnet"])
def test_repair_brings_states_nearer(name):
    """Prevents a fit to the wrong sums: of half the units, and of one layer of two, on rows that it has not seen."""
    model, rows = family(name), batches(30)
    whole = everything(model)
    kept = Kept(whole.width, whole.heads, [one[::2] for one in whole.units])
    student, _ = build_student(cut_model(model, parameter_axes(model), kept), [1])
    student.eval()
    unseen = batches(34)[30:]
    wanted, before = states(model, unseen), states(student, unseen)
    assert repair(student, model, [1], kept.width, rows, run) == 30 * 24
    after = states(student, unseen)
    assert F.mse_loss(after, wanted) < 0.7 * F.mse_loss(before, wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_a_projection_gets_the_weights_of_least_squares(bias, monkeypatch):
    """Prevents, where there is no bias, the weights of a fit that has one, which are not those of least squares."""
    torch.manual_seed(0)
    place, read, missing = torch.nn.Linear(3, 2, bias=bias), torch.randn(500, 3) + 2, torch.randn(500, 2) + 1
    columns = torch.cat([read, torch.ones(500, 1)], 1) if bias else read
    best = torch.linalg.lstsq(columns, missing).solution
    expected = place.weight.detach() + best[:3].T

    watch = SimpleNamespace(run=lambda batch, run: None, read={0: read}, sums={0: torch.zeros(500, 2)})
    fitting = importlib.import_module("distil_nlp.models.pruning.repair")
    monkeypatch.setattr(fitting, "_RIDGE", 1e-9)
    with torch.no_grad():
        fitting._fit(place, 0, watch, [{0: missing}], [{}], run)
    torch.testing.assert_close(place.weight.detach(), expected, atol=1e-4, rtol=1e-4)


def test_repair_of_a_whole_student_changes_nothing():
    """Prevents a repair that does harm: the teacher's own layers fit already."""
    model, rows = family("bert"), batches(10)
    student, _ = build_student(model, [0, 1])
    repair(student, model, [0, 1], torch.arange(32), rows, run)
    assert logit_difference(model, student.eval())[0] < 1e-4


def test_a_head_on_words_is_cut_too():
    """Prevents a masked-LM head of the old width."""
    model = BertForMaskedLM(tiny.bert_config(2)).eval()
    axes = parameter_axes(model)
    check_axes(model, axes)
    smaller = cut_model(model, axes, Kept(torch.arange(8), [torch.tensor([0])] * 2, [torch.arange(64)] * 2))
    assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight
    assert smaller(**trial_batch(smaller)).logits.shape[-1] == model.config.vocab_size


def test_a_narrower_vector_has_its_features_where_the_teacher_has_them():
    """Prevents a narrower sentence encoder whose vectors start at random beside its teacher's."""
    model = sentence_encoder(2).eval()
    axes = parameter_axes(model)
    check_axes(model, axes)
    width = torch.arange(1, 32, 2)
    smaller = cut_model(model, axes, Kept(width, [torch.tensor([0, 3])] * 2, [torch.arange(64)] * 2))
    vectors = smaller(**trial_batch(smaller)).logits
    assert vectors.shape == (3, 32)
    assert vectors[:, ::2].abs().max() == 0
    assert vectors[:, 1::2].abs().min() > 0
    student, report = build_student(smaller, [0, 1])
    assert not report.new
    assert torch.equal(student.dense.weight, smaller.dense.weight)
