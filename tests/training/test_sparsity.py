"""Sparsity: which weights are dropped and when, the gradients of weights and scores, the same zeros however it runs."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.losses.weight_matrices import WeightsMSE
from distil_nlp.models import build_student
from distil_nlp.models.architecture import layer_stack
from distil_nlp.models.linear_layers import count_zeros, encoder_linear_layers
from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.ema import EMA
from distil_nlp.training.netaug import NetAug
from distil_nlp.training.sparsity import (
    MASKS,
    PRUNING_SCORES,
    SPARSITY,
    Pruner,
    Sparsity,
    mask_of,
    validate_sparsity,
)
from tests.helpers import naive, tiny
from tests.helpers.families import FAMILIES, model_of
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, text_rows, trainer
from tests.training.test_trainer import CHECKPOINTING, KeepGradients, assert_close

pytestmark = pytest.mark.integration

HALF = Sparsity(0.5, start=0.0, end=0.6, every=2)
MOVING = Sparsity(0.5, by="movement", start=0.0, end=0.6, every=2)
AT_ONCE = {"start": 0.0, "end": 0.01}  # in the first step already


def new(folder, sparsity=HALF, **arguments):
    """A trainer of a student with dropout, a projection and a checkpoint of every step."""
    student = tiny.classifier(2, 3, seed=1, hidden_size=16, intermediate_size=32, hidden_dropout_prob=0.1)
    often = {"save_strategy": "steps", "save_steps": 1, "max_steps": 8, "learning_rate": 0.01, "kind": "classification"}
    terms = [SoftTargetKL(1.0), HardLabel(1.0), HiddenMSE(1.0, "last")]
    changes = {"extensions": [sparsity, *arguments.pop("further", ())]}
    return trainer(folder, student, tiny.classifier(4, 3), terms, **often | changes | arguments)


def run(*args, **arguments):
    made = new(*args, **arguments)
    made.train()
    return made


def pruned(student):
    return {name: layer.weight.detach() for name, layer in encoder_linear_layers(student, SPARSITY).items()}


def zeros(student):
    return {name: float((weight == 0).float().mean()) for name, weight in pruned(student).items()}


def naive_mask(values, share, pattern=None):
    """Which weights are kept, by sorting: the lowest are dropped first, of equal ones the first."""
    rows, width = values.shape
    safe = set()
    if pattern:
        kept, among = pattern
        for start in range(0, rows * width, among):
            group = range(start, start + among)
            safe |= set(sorted(group, key=lambda at: (-values[at // width, at % width], at))[:kept])
    order = [at for at in range(rows * width) if at not in safe]
    order.sort(key=lambda at: (values[at // width, at % width], at))
    dropped = set(order[: round(share * rows * width)])
    return torch.tensor([at not in dropped for at in range(rows * width)]).view(rows, width)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.26, 0.5])
@pytest.mark.parametrize("pattern", [None, (2, 4), (1, 2)])
@pytest.mark.parametrize("values", ["normal", "ties", "zeros"])
def test_the_lowest_weights_are_dropped(share, pattern, values):
    """Prevents a share that equal weights exceed or miss, and a pattern that loses a weight it must keep."""
    drawn = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = {"normal": drawn, "ties": drawn.round(), "zeros": torch.zeros_like(drawn)}[values]
    assert torch.equal(mask_of(drawn, share, pattern), naive_mask(drawn, share, pattern))


def test_a_pattern_is_whole_in_the_end():
    """Prevents three of four neighbours that are kept, which no sparse kernel takes; and groups along the outputs."""
    mask = mask_of(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).abs(), 0.5, (2, 4))
    assert mask.view(6, 2, 4).sum(-1).eq(2).all()


def test_the_schedule_is_cubic_and_ends_at_the_whole_share():
    """Prevents a schedule that starts late, ends below its share, or is of other steps than those of the training."""
    sparsity = Sparsity(0.8, start=0.25, end=0.75, every=3)
    for step in range(41):
        part = min(max((step - 10) / 20, 0.0), 1.0)
        assert sparsity.share_at(step, 41) == pytest.approx(0.8 * (1 - (1 - part) ** 3))
    assert [step for step in range(41) if sparsity.is_due(step, 41)] == [13, 16, 19, 22, 25, 28, 30]
    assert [step for step in range(2) if Sparsity(0.5).is_due(step, 2)] == [1]
    assert Sparsity(pattern="2:4").target == 0.5
    assert Sparsity(pattern="1:4").target == 0.75


@pytest.mark.parametrize("by", ["magnitude", "movement"])
@pytest.mark.parametrize("cut", [(8, 1), (4, 2)])
def test_gradients_are_those_of_the_pruned_model(tmp_path, by, cut):
    """Prevents gradients of the dense model, dropped weights that learn, scores without a gradient, and micro-batches
    that count apart: against a plain model of the pruned weights, in float64."""
    student, teacher, keep = tiny.classifier(2, seed=1), tiny.classifier(4), KeepGradients()
    weighted = {"soft_target_kl": 1.0, "hard_label": 0.5, "hidden_cosine": 2.0}
    dense = copy.deepcopy(student)
    made = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0, 2.0), HardLabel(0.5), HiddenCosine(2.0, "last")],
        kind="classification", callbacks=[keep], max_steps=1, learning_rate=0.0, max_grad_norm=0,
        extensions=[Sparsity(0.3, by=by, **AT_ONCE)], per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
    )  # fmt: skip
    batches = [batch for batch, _ in zip(made.get_train_dataloader(), range(cut[1]), strict=False)]
    made.train()
    masks = {}
    with torch.no_grad():
        for name, layer in encoder_linear_layers(dense, SPARSITY).items():
            values = layer.weight.abs() if by == "magnitude" else torch.zeros_like(layer.weight)
            masks[name] = naive_mask(values, 0.3)
    sparse = copy.deepcopy(dense)
    with torch.no_grad():
        for name, layer in encoder_linear_layers(sparse, SPARSITY).items():
            layer.weight.mul_(masks[name])
    found = naive.gradient(sparse, teacher, batches, naive.Step("classification", weighted))
    expected = dict(found)
    for number, (name, mask) in enumerate(masks.items()):
        expected[f"{name}.weight"] = found[f"{name}.weight"] * mask
        if by == "movement":
            score = found[f"{name}.weight"] * dense.get_submodule(name).weight.double()
            expected[f"distillation_projections.{PRUNING_SCORES}.{number}"] = score
    assert_close({name: value.double() for name, value in keep.gradients.items()}, expected, 1e-6)


def test_scores_sum_what_moves_weights_away_from_zero(tmp_path):
    """Prevents scores that decay or are of another sign: by plain descent, S = −Σ α · ∂L/∂W' ⊙ W."""
    sums = {}

    class Sum(KeepGradients):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, layer in encoder_linear_layers(model, SPARSITY).items():
                step = -0.1 * layer.weight.grad * layer.weight.detach()
                sums[name] = sums.get(name, 0.0) + step

    made = new(
        tmp_path, MOVING, callbacks=[Sum()], optim="sgd", lr_scheduler_type="constant", weight_decay=0.5, max_steps=5,
        learning_rate=0.1, max_grad_norm=0, save_strategy="no",
    )  # fmt: skip
    student, pruner = made.model, made.extensions.of(Pruner)
    pruner.update = lambda share: None  # gradients of weights show those of the masks alone
    made.train()
    scores = student.distillation_projections[PRUNING_SCORES]
    for (name, total), score in zip(sums.items(), scores, strict=True):
        torch.testing.assert_close(score.detach(), total, atol=1e-5 * float(total.abs().max()), rtol=1e-4, msg=name)
        assert total.abs().max() > 0
    decaying = made.get_decay_parameter_names(student)
    assert not [name for name in decaying if PRUNING_SCORES in name]
    assert f"{next(iter(sums))}.weight" in decaying


@pytest.mark.parametrize("sparsity", [HALF, MOVING, Sparsity(pattern="2:4", by="movement", start=0, end=0.6, every=2)])
def test_the_student_that_leaves_is_plain_and_has_the_zeros(tmp_path, sparsity):
    """Prevents masks that stay behind, zeros elsewhere than in the blocks' linear layers, a share that is missed, and a
    student that was never evaluated with the weights that it has."""
    made = run(tmp_path, sparsity, eval_rows=task_rows(7, 3))
    before = made.evaluate()
    student = made.detach()
    assert all(value == pytest.approx(0.5, abs=1e-9) for value in zeros(student).values())
    if sparsity.pattern:
        assert all((w.view(-1, 4) == 0).sum(-1).eq(2).all() for w in pruned(student).values())
    others = {n: p for n, p in student.named_parameters() if n.removesuffix(".weight") not in pruned(student)}
    assert all((value != 0).any() for value in others.values())
    assert (student.bert.embeddings.word_embeddings.weight[1:] != 0).all()
    assert not [module for module in student.modules() if "forward" in vars(module)]
    assert not [name for name in student.state_dict() if "distillation" in name or "mask" in name]
    student.save_pretrained(tmp_path / "student")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert zeros(again) == zeros(student)
    counted = count_zeros(again, SPARSITY)
    assert counted["zeros"] == 0.5
    assert counted["of_all"] == pytest.approx(0.5 * counted["weights"] / again.num_parameters())
    plain = new(tmp_path / "plain", None, eval_rows=task_rows(7, 3))
    plain.teacher_student.student.load_state_dict(again.state_dict(), strict=False)
    assert plain.evaluate()["eval_soft_target_kl"] == pytest.approx(before["eval_soft_target_kl"], rel=1e-5)


@pytest.mark.parametrize("sparsity", [HALF, MOVING])
@pytest.mark.parametrize("stop", [2, 3, 6])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, sparsity, stop):
    """Prevents masks that start anew, are chosen at other steps, or move after the end of their schedule."""
    whole = run(tmp_path / "whole", sparsity)
    run(tmp_path / "stopped", sparsity, callbacks=[StopAt(stop)])
    resumed = new(tmp_path / "stopped", sparsity)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / f"checkpoint-{stop}"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for file in ("model.safetensors", MASKS):
        ours, theirs = (load_file(tmp_path / place / "checkpoint-8" / file) for place in ("whole", "stopped"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_masks_grow_and_then_stay(tmp_path):
    """Prevents zeros all at once, and masks that change where nothing could learn to do without a weight any more."""
    made = run(tmp_path, Sparsity(0.5, by="movement", start=0.0, end=0.6, every=1))
    masks = [load_file(tmp_path / f"checkpoint-{step}" / MASKS) for step in range(1, 9)]
    shares = [1 - sum(m.sum() for m in one.values()) / sum(m.numel() for m in one.values()) for one in masks]
    assert [float(share) for share in shares] == pytest.approx(
        [0.5 * (1 - (1 - min(step / 4, 1)) ** 3) for step in range(8)], abs=2e-3
    )
    assert all(torch.equal(masks[4][name], one[name]) for one in masks[5:] for name in one)
    assert curve(made, "pruned_share") == pytest.approx([float(share) for share in shares], abs=1e-6)


def test_micro_batches_drop_the_same_weights(tmp_path):
    """Prevents masks that follow micro-batches, in place of steps."""
    students = [_still(tmp_path / str(cut[0]), cut) for cut in ((8, 1), (2, 4))]
    for ours, theirs in zip(pruned(students[0]).values(), pruned(students[1]).values(), strict=True):
        assert torch.equal(ours == 0, theirs == 0)
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def _still(folder, cut):
    """Train a student without dropout, whose draws differ between micro-batches."""
    made = trainer(
        folder, tiny.classifier(2, seed=1), tiny.classifier(4), [SoftTargetKL(1.0), HardLabel(1.0)],
        kind="classification", max_steps=6, extensions=[HALF], per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
    )  # fmt: skip
    made.train()
    return made.detach()


def test_a_forward_that_is_computed_again_has_the_same_masks(tmp_path):
    """Prevents checkpointed activations of other weights."""
    plain = pruned(run(tmp_path / "plain", MOVING).detach())
    again = run(tmp_path / "again", MOVING, **{CHECKPOINTING: True})
    for name, weight in pruned(again.detach()).items():
        torch.testing.assert_close(weight, plain[name], atol=1e-6, rtol=1e-5)


def test_compiled_blocks_drop_the_same_weights(tmp_path):
    """Prevents a graph that keeps the masks of its first step."""
    plain = pruned(run(tmp_path / "plain", MOVING, save_strategy="no").detach())
    compiled = run(tmp_path / "c", MOVING, save_strategy="no", torch_compile=True, torch_compile_backend="eager")
    student = compiled.detach()
    for name, weight in pruned(student).items():
        torch.testing.assert_close(weight, plain[name], atol=1e-6, rtol=1e-5)
    assert not [module for module in student.modules() if "forward" in vars(module)]


def test_an_average_of_weights_has_the_zeros(tmp_path):
    """Prevents an average that brings back what was dropped on the way."""
    made = run(tmp_path, HALF, further=[EMA(0.5)])
    average = load_file(tmp_path / "checkpoint-8" / "ema.safetensors")
    masks = load_file(tmp_path / "checkpoint-8" / MASKS)
    for name, weight in pruned(made.detach()).items():
        assert torch.equal(weight, average[f"{name}.weight"] * masks[name]), name


def test_the_best_checkpoint_has_all_zeros(tmp_path):
    """Prevents an early checkpoint that is best because it is not yet pruned, or its weights with other masks."""
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.2}
    made = run(tmp_path, HALF, eval_rows=task_rows(5, 3), **arguments)
    losses = {e["step"]: e["eval_loss"] for e in made.state.log_history if "eval_loss" in e}
    complete = {step: loss for step, loss in losses.items() if step > HALF.bounds(8)[1]}
    assert min(complete) == 5
    best = min(complete, key=complete.get)
    assert Path(made.state.best_model_checkpoint).name == f"checkpoint-{best}"
    masks, kept = (load_file(tmp_path / f"checkpoint-{best}" / file) for file in (MASKS, "model.safetensors"))
    for name, weight in pruned(made.detach()).items():
        assert torch.equal(weight, kept[f"{name}.weight"] * masks[name]), name


def test_a_checkpoint_without_masks_is_refused(tmp_path):
    """Prevents a resumed training that begins with all weights in the middle."""
    run(tmp_path, None, max_steps=1)
    with pytest.raises(UserError, match=r"student\.sparsity: expected the masks .* got none"):
        new(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of share .* got neither"),
        ({"share": 0.5, "pattern": "2:4"}, "one of share .* got both"),
        ({"share": 0.0}, r"sparsity\.share: expected a fraction above 0 and below 1 / got 0"),
        ({"share": 1.0}, "got 1 "),
        ({"pattern": "4:4"}, "N below M.* got 4:4"),
        ({"pattern": "0:4"}, "got 0:4"),
        ({"pattern": "two of four"}, "got two of four"),
        ({"share": 0.5, "by": "luck"}, "magnitude or movement / got luck"),
        ({"share": 0.5, "start": 0.7, "end": 0.7}, "a start below the end.* got 0.7 and 0.7"),
        ({"share": 0.5, "end": 1.5}, "both from 0 to 1 / got 0.1 and 1.5"),
        ({"share": 0.5, "every": 0}, "1 step or more / got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    """Prevents a training that ends dense, or without any weight."""
    with pytest.raises(UserError, match=message):
        Sparsity(**settings)


def test_what_does_not_go_together_is_refused(tmp_path):
    """Prevents masks of a part of a matrix, groups that are not whole, and terms that fill the zeros again."""
    with pytest.raises(UserError, match=r"student\.sparsity: expected .* got FSDP or DeepSpeed"):
        validate_sparsity(SignalRequest(), is_sharded=True, is_widened=False)
    with pytest.raises(UserError, match=r"got student\.augment"):
        new(tmp_path, further=[NetAug([2.0], 1.0)])
    with pytest.raises(UserError, match=r"multiples of 5 / got 16 in bert\.encoder\.layer\.0"):
        new(tmp_path, Sparsity(pattern="2:5"))
    student, _ = build_student(tiny.classifier(4), [1, 3])
    with pytest.raises(UserError, match=r"got objective\.weights_mse"):
        trainer(tmp_path, student, tiny.classifier(4), [WeightsMSE(1.0)], kind="classification",
                extensions=[HALF])  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_linear_layers_in_its_blocks_alone(family):
    """Prevents embeddings, heads or poolers that are pruned, and a shared layer that is pruned for each of its uses."""
    model = model_of(family)
    layers = encoder_linear_layers(model, SPARSITY)
    weights = [layer.weight for layer in layers.values()]
    assert len({id(weight) for weight in weights}) == len(weights)
    inside = {id(p) for block in layer_stack(model) for p in block.parameters()}
    assert all(id(weight) in inside for weight in weights)
    matrices = {id(p) for block in layer_stack(model) for p in block.parameters() if p.dim() == 2}
    assert {id(weight) for weight in weights} == matrices


def test_shared_layers_are_pruned_once(tmp_path):
    """Prevents a share that ALBERT's one block counts for each layer."""
    student, teacher = model_of("Albert").train(), model_of("Albert")
    made = trainer(tmp_path, student, teacher, [SoftTargetKL(1.0)], max_steps=4, extensions=[MOVING])
    made.train()
    assert all(value == pytest.approx(0.5, abs=1e-3) for value in zeros(made.detach()).values())


def test_two_processes_drop_the_same_weights(tmp_path):
    """Prevents processes whose masks part, and scores whose gradients are not exchanged."""
    whole = sparse_mlm(tmp_path / "one", 6)
    forked_pair("-m", "tests.workers.sparsity", str(tmp_path / "two"))
    found = [json.loads((tmp_path / "two" / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert [one["wrapper"] for one in found] == ["DistributedDataParallel"] * 2
    assert found[0]["masks"] == found[1]["masks"]
    assert found[0]["sums"] == found[1]["sums"]
    assert found[0]["curve"] == pytest.approx(curve(whole), rel=2e-4)
    student = whole.detach()
    assert all(value == pytest.approx(0.5, abs=1e-3) for value in zeros(student).values())
    for name, weight in pruned(student).items():
        assert found[0]["sums"][name] == pytest.approx(float(weight.double().abs().sum()), rel=1e-3), name


def sparse_mlm(folder, batch):
    """Train a student by movement pruning on 21 texts."""
    made = trainer(
        folder, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), [SoftTargetKL(1.0)], rows=text_rows(21), max_steps=6,
        per_device_train_batch_size=batch, extensions=[MOVING], optim="sgd", learning_rate=0.1,
    )  # fmt: skip
    made.train()
    return made
