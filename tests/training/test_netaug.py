"""Network augmentation: the sum of both losses, where extra units start and end, the same weights however it runs."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student
from distil_nlp.models.architecture import feed_forward_layers, layer_stack
from distil_nlp.models.trial import trial_batch
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import ProjectionInput
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.netaug import NETAUG, NetAug, WiderStudent, extra_units, sort_of, validate_netaug
from tests.helpers import naive, tiny
from tests.helpers.families import classifier_of
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, text_rows, trainer, weights
from tests.training.test_trainer import CHECKPOINTING, KeepGradients, assert_close

pytestmark = pytest.mark.integration

TWICE = NetAug([2.0], 1.0, 0.5)
MIXED = NetAug([1, 2, 1.5], 0.6)


def terms():
    return [SoftTargetKL(1.0), HardLabel(0.5), HiddenMSE(1.0, "last")]


def new(folder, augment=MIXED, kind="classification", teacher=None, **arguments):
    """Return a trainer of a student of layers 1 and 3 of a teacher of four, with a projection."""
    teacher = teacher or (tiny.classifier(4) if kind == "classification" else tiny.mlm_model(4))
    with torch.random.fork_rng():
        torch.manual_seed(3)  # of the units, which are new
        student, _ = build_student(teacher, [1, 3], config_changes={"intermediate_size": 40})
    arguments = {"max_steps": 8, "terms": terms(), "extensions": [augment], **arguments}
    return trainer(folder, student, teacher, arguments.pop("terms"), kind=kind, **arguments)


def run(*args, **arguments):
    """Train such a student."""
    made = new(*args, **arguments)
    made.train()
    return made


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def widened_copy(model, units):
    """Return a plain model of the class with more units, whose weights are the model's and the extra ones."""
    config = copy.deepcopy(model.config)
    for name in vars(config).keys() & {"hidden_dim", "intermediate_size"}:
        setattr(config, name, getattr(config, name) + units[0].first.out_features)
    wide = type(model)(config)
    for block, own in zip(layer_stack(wide), layer_stack(model), strict=True):
        missing = block.load_state_dict({k: v for k, v in own.state_dict().items() if fits(block, k, v)}, strict=False)
        assert not missing.unexpected_keys
    state = {k: v for k, v in model.state_dict().items() if k in wide.state_dict() and fits(wide, k, v)}
    wide.load_state_dict(state, strict=False)
    unique = list({id(block): block for block in layer_stack(wide)}.values())
    for block, own, extra in zip(unique, {id(b): b for b in layer_stack(model)}.values(), units, strict=True):
        first, last = feed_forward_layers(wide, block, NETAUG)
        own_first, own_last = feed_forward_layers(model, own, NETAUG)
        first.weight.data = torch.cat([own_first.weight, extra.first.weight]).detach()
        first.bias.data = torch.cat([own_first.bias, extra.first.bias]).detach()
        last.weight.data = torch.cat([own_last.weight, extra.last.weight], 1).detach()
        last.bias.data = own_last.bias.detach().clone()
    return wide.train(model.training)


def fits(model, name, value):
    return model.state_dict()[name].shape == value.shape


@pytest.mark.parametrize("family", ["Albert", "Bert", "DebertaV2", "DistilBert", "Electra", "Esm", "MPNet", "Roberta"])
def test_the_wider_net_is_a_plain_model_with_more_units(tmp_path, family):
    """Prevents units that are left out of a part, counted twice, or read by something else; and patches that stay."""
    config = vars(classifier_of(family).config).items()
    without_dropout = {name: 0.0 for name, rate in config if "drop" in name and isinstance(rate, float)}
    model = classifier_of(family, **without_dropout).train()
    units = extra_units(model, None, NetAug([2.0]), 7)
    wide, batch = widened_copy(model, units), trial_batch(model)
    args = trainer(tmp_path, tiny.classifier(1), None, [HardLabel(1.0)], kind="classification").args
    patch, own = WiderStudent(model, units, NetAug([2.0]), args), model(**batch).logits
    with patch.widened(2.0):
        torch.testing.assert_close(model(**batch).logits, wide(**batch).logits, atol=1e-6, rtol=1e-5)
        assert torch.equal(model.eval()(**batch).logits, own)  # the student alone in eval mode
    assert not torch.allclose(wide(**batch).logits, own, atol=1e-6)  # or the test would see nothing
    patch.remove()
    assert not [module for module in model.modules() if "forward" in vars(module) or module._forward_hooks]


def test_families_without_plain_units_are_refused():
    """Prevents gated units that get no gate, and an error of shapes in the first step."""
    for family in ("ModernBert", "XLM"):
        with pytest.raises(UserError, match=r"student\.augment: expected a feed-forward layer .* got none, or gated"):
            extra_units(classifier_of(family), None, TWICE, 7)


@pytest.mark.parametrize("cut", [(8, 1), (4, 2), (1, 8)])
def test_loss_and_gradients_are_those_of_both_nets_in_float64(tmp_path, cut):
    """Prevents a loss of one net alone, a weight on the other, extra units without a gradient, and micro-batches that
    count apart: against plain models in float64, one token at a time, whose weights are those of either net."""
    student, teacher, keep = tiny.classifier(2, seed=1), tiny.classifier(4), KeepGradients()
    weighted = {"soft_target_kl": 1.0, "hard_label": 0.5, "hidden_cosine": 2.0}
    made = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0, 2.0), HardLabel(0.5), HiddenCosine(2.0, "last")],
        kind="classification", callbacks=[keep], max_steps=1, learning_rate=0.0, max_grad_norm=0,
        extensions=[TWICE], per_device_train_batch_size=cut[0], gradient_accumulation_steps=cut[1],
    )  # fmt: skip
    units = student.distillation_projections.extra_units
    wide = widened_copy(student, units)
    batches = [batch for batch, _ in zip(made.get_train_dataloader(), range(cut[1]), strict=False)]
    made.train()
    step = naive.Step("classification", weighted)
    alone, other = (naive.gradient(model, teacher, batches, step) for model in (student, wide))
    expected = {name: alone[name] + 0.5 * _own(value, alone[name].shape) for name, value in other.items()}
    for number, extra in enumerate(units):
        own = extra.first.out_features
        for part, name in (("first", "intermediate.dense"), ("last", "output.dense")):
            value = other[f"bert.encoder.layer.{number}.{name}.weight"]
            key = f"distillation_projections.extra_units.{number}.{part}"
            expected[f"{key}.weight"] = 0.5 * (value[own:] if part == "first" else value[:, own:])
            if part == "first":
                expected[f"{key}.bias"] = 0.5 * other[f"bert.encoder.layer.{number}.{name}.bias"][own:]
    assert any(value.abs().max() > 1e-3 for name, value in expected.items() if "extra_units" in name)
    assert_close({name: value.double() for name, value in keep.gradients.items()}, expected, 1e-6)
    assert curve(made, "wider_loss")[0] == pytest.approx(_loss(wide, teacher, batches, weighted), rel=1e-5)
    assert curve(made)[0] == pytest.approx(_loss(student, teacher, batches, weighted), rel=1e-5)


def _own(value, shape):
    """The part of a gradient that belongs to the student's own weights."""
    return value[tuple(slice(size) for size in shape)]


def _loss(model, teacher, batches, weighted):
    """The objective in float64: means over all rows, and over all tokens."""
    sums, counts = dict.fromkeys(weighted, 0.0), dict.fromkeys(weighted, 0)
    for batch in batches:
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        inputs = {"input_ids": batch["input_ids"], "token_type_ids": batch["token_type_ids"], "attention_mask": mask}
        ours, theirs = (
            copy.deepcopy(one).double().eval()(**inputs, output_hidden_states=True) for one in (model, teacher)
        )
        p, log_q = (theirs.logits / 2).softmax(-1), (ours.logits / 2).log_softmax(-1)
        rows = range(len(p))
        cosine = 1 - torch.cosine_similarity(ours.hidden_states[-1], theirs.hidden_states[-1], dim=-1)
        values = {
            "soft_target_kl": 4 * (p * (p.log() - log_q)).sum(-1),
            "hard_label": -ours.logits.log_softmax(-1)[rows, batch["labels"]],
            "hidden_cosine": cosine[mask.bool()],
        }
        sums = {name: total + float(values[name].sum().detach()) for name, total in sums.items()}
        counts = {name: count + len(values[name]) for name, count in counts.items()}
    return sum(weight * sums[name] / counts[name] for name, weight in weighted.items())


@pytest.mark.parametrize("augment", [NetAug([1.0], 1.0), NetAug([1, 2], 0.0)])
@pytest.mark.parametrize("kind", ["classification", "mlm"])
def test_no_wider_net_is_plain_training(tmp_path, kind, augment):
    """Prevents draws or units that disturb dropout, rows or projections: bit for bit, with dropout."""
    make = tiny.classifier if kind == "classification" else tiny.mlm_model
    teacher = make(4, hidden_dropout_prob=0.1)
    plain = run(tmp_path / "plain", None, kind, teacher)
    same = run(tmp_path / "same", augment, kind, teacher)
    assert "wider_loss" not in same.state.log_history[0]
    assert same.spent()["flops_per_token"] == plain.spent()["flops_per_token"]
    assert_same(weights(same), weights(plain))


@pytest.mark.parametrize("kind", ["classification", "mlm"])
def test_the_student_alone_leaves(tmp_path, kind):
    """Prevents extra units in the student's folder, hooks that stay, and an augmentation that does nothing."""
    made = run(tmp_path / "wider", kind=kind, max_steps=2, augment=TWICE)
    plain = run(tmp_path / "plain", None, kind, max_steps=2)
    made.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() <= made.student_state().keys()
    assert not [name for name in [*saved, *made.student_state()] if "extra" in name or "projection" in name]
    student = made.detach()
    assert student.config.intermediate_size == 40
    ours, theirs = weights(made), weights(plain)
    assert ours.keys() == theirs.keys() == dict(type(student)(student.config).named_parameters()).keys()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert not [module for module in student.modules() if "forward" in vars(module) or module._forward_hooks]


def test_evaluation_runs_the_student_alone(tmp_path):
    """Prevents scores of a net that nobody will have."""
    rows, still = task_rows(9, seed=3), {"max_steps": 2, "learning_rate": 0.0}
    wider = run(tmp_path / "a", eval_rows=rows, augment=TWICE, **still)
    alone = run(tmp_path / "b", None, eval_rows=rows, **still)
    for name in ("eval_soft_target_kl", "eval_hidden_mse", "eval_hard_label"):
        assert wider.evaluate()[name] == pytest.approx(alone.evaluate()[name], rel=1e-6)


def test_factors_are_a_function_of_seed_and_step():
    """Prevents steps that repeat, a factor that is never drawn, and a wider net after its end."""
    drawn = [MIXED.factor(42, step, 1000) for step in range(1000)]
    assert drawn == [MIXED.factor(42, step, 1000) for step in range(1000)]
    assert drawn != [MIXED.factor(43, step, 1000) for step in range(1000)]
    assert set(drawn[600:]) == {1.0}
    for factor in MIXED.ffn:
        assert drawn[:600].count(factor) == pytest.approx(200, abs=45)
    assert not NetAug([1, 1], 1.0).is_on
    assert not NetAug([1, 2], 0.0).is_on


def test_units_start_from_the_teachers_most_important_others(tmp_path):
    """Prevents units that the student has already, those of another block, and an order by something else."""
    teacher = tiny.classifier(2, intermediate_size=6)
    student, _ = build_student(teacher, [1], config_changes={"intermediate_size": 3})
    origin, own = teacher.bert.encoder.layer[1], student.bert.encoder.layer[0]
    has = [4, 0, 2]
    with torch.no_grad():
        own.intermediate.dense.weight.copy_(origin.intermediate.dense.weight[has])
        for unit, size in ((1, 0.1), (3, 3.0), (5, 1.0), (4, 9.0)):
            origin.output.dense.weight[:, unit] = size
    (extra,) = extra_units(student, teacher, NetAug([3.0], layers=[1]), 7)
    chosen = [3, 5, 1]  # by importance; three more are drawn, since the teacher has none left
    assert torch.equal(extra.first.weight[:3], origin.intermediate.dense.weight[chosen])
    assert torch.equal(extra.first.bias[:3], origin.intermediate.dense.bias[chosen])
    assert torch.equal(extra.last.weight[:, :3], origin.output.dense.weight[:, chosen])
    assert extra.first.out_features == 6
    drawn = torch.cat([extra.first.weight[3:].flatten(), extra.last.weight[:, 3:].flatten()])
    assert float(drawn.detach().std()) == pytest.approx(student.config.initializer_range, rel=0.2)
    again = extra_units(student, teacher, NetAug([3.0], layers=[1]), 7)
    assert_same(dict(again.named_parameters()), {f"0.{name}": value for name, value in extra.named_parameters()})
    narrow, _ = build_student(teacher, [1], config_changes={"hidden_size": 16})
    (alone,) = extra_units(narrow, teacher, NetAug([2.0], layers=[1]), 7)
    assert float(alone.first.weight.detach().std()) == pytest.approx(narrow.config.initializer_range, rel=0.2)
    with pytest.raises(UserError, match=r"a block of the teacher's 2 for each of the student's 1 / got \[2\]"):
        extra_units(student, teacher, NetAug([2.0], layers=[2]), 7)


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    """Prevents extra units that a checkpoint lacks, and draws that depend on what ran before: bit for bit, with
    dropout, stopped while the wider net trains."""
    teacher, rows = tiny.classifier(4, hidden_dropout_prob=0.1), task_rows(40)
    whole = run(tmp_path / "whole", teacher=teacher, rows=rows)
    stopped = run(tmp_path / "cut", teacher=teacher, rows=rows, callbacks=[StopAt(3)])
    assert any(MIXED.factor(7, step, 8) > 1 for step in range(3))  # some of it before the stop,
    assert any(MIXED.factor(7, step, 8) > 1 for step in range(3, 8))  # and some behind
    saved = load_file(tmp_path / "cut" / "checkpoint-3" / "model.safetensors")
    assert any("extra_units" in name for name in saved)
    stopped.detach()
    resumed = new(tmp_path / "cut", teacher=teacher, rows=rows)
    resumed.train(resume_from_checkpoint=str(last_complete_checkpoint(tmp_path / "cut")))
    ours, theirs = (dict(made.model.named_parameters()) for made in (resumed, whole))
    assert any("extra_units" in name for name in ours)
    assert_same(ours, theirs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_of_activations_changes_nothing(tmp_path, reentrant):
    """Prevents a forward that is computed again with another number of units."""
    plain = weights(run(tmp_path / "plain"))
    options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
    again = weights(run(tmp_path / "again", **options))
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=1e-5)


def test_the_teacher_is_asked_once_for_both(tmp_path):
    """Prevents a second forward of the teacher, and signals of a batch before."""
    made, asked = new(tmp_path, max_steps=4, augment=NetAug([2.0], 1.0)), []
    ask = made.source.signals
    made.source.signals = lambda batch: asked.append(1) or ask(batch)
    made.train()
    assert len(asked) == 4
    assert len(set(curve(made, "wider_loss"))) == 4


def test_operations_of_the_wider_net_are_counted(tmp_path):
    """Prevents a comparison at equal compute in which the second forward and backward are free, or are all taken."""
    plain = run(tmp_path / "plain", None).spent()
    half = run(tmp_path / "half", augment=NetAug([1.0, 2.0], 0.5))
    spent, drawn = half.spent(), [NetAug([1.0, 2.0], 0.5).factor(7, step, 8) for step in range(8)]
    assert spent["flops_per_token"] == plain["flops_per_token"]
    assert spent["tokens"] == plain["tokens"]
    per_token = half.further.flops_per_token[sort_of(2.0)]
    assert spent["further_flops"] == pytest.approx(per_token * spent["tokens"] * drawn.count(2.0) / 8, rel=0.4)
    assert 0 < spent["further_flops"] < spent["flops_per_token"] * spent["tokens"]


def test_what_does_not_go_together_is_said(tmp_path):
    """Prevents an error in the first step, and modules that count twice."""
    args = new(tmp_path).args
    with pytest.raises(UserError, match=r"student.augment: expected one process or DDP"):
        validate_netaug(args, is_sharded=True, is_joint=False)
    with pytest.raises(UserError, match=r"ddp_find_unused_parameters: expected true"):
        new(tmp_path, ddp_find_unused_parameters=False)
    with pytest.raises(UserError, match=r"torch_compile: expected false"):
        new(tmp_path, torch_compile=True)
    joint = {"other": (ProjectionInput(0, "", "inputs"), torch.nn.Identity())}
    teacher, made = tiny.classifier(2), new(tmp_path)
    with pytest.raises(UserError, match=r"student.augment: expected a student that trains alone"):
        type(made)(
            model=tiny.classifier(1), teacher=teacher, args=args, train_dataset=task_rows(), extensions=[TWICE],
            objective=Objective([HardLabel(1.0)], "classification", joint=joint), data_collator=made.data_collator,
        )  # fmt: skip


def test_two_processes_give_the_same_weights(tmp_path):
    """Prevents processes that draw apart, and gradients of which a part is not exchanged."""
    whole = run(tmp_path / "one", kind="mlm", rows=text_rows(21), per_device_train_batch_size=6)
    forked_pair("-m", "tests.workers.netaug", str(tmp_path / "two"))
    found = json.loads((tmp_path / "two" / "found.json").read_text())
    assert (found["world_size"], found["wrapper"]) == (2, "DistributedDataParallel")
    for name in ("loss", "soft_target_kl", "hidden_mse", "wider_loss"):
        assert found["curves"][name] == pytest.approx(curve(whole, name), rel=2e-4, abs=1e-7), name
    ratio = found["flops"] / whole.spent()["further_flops"]  # smaller micro-batches have less padding
    assert 0.7 < ratio < 1.1  # that of one process alone would be half as much
    for name, weight in dict(whole.model.named_parameters()).items():
        assert found["sums"][name] == pytest.approx(float(weight.detach().double().abs().sum()), rel=1e-4, abs=1e-4), (
            name
        )
