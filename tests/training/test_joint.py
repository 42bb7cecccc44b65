"""Modules that train together with a student: gradients of the definitions, however a step is cut up, and resume."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.tails import join_tail
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.joint.exits import Exits
from distil_nlp.recipe.sections import ExitsSection
from distil_nlp.signals.recorder import PROJECTIONS
from distil_nlp.training.checks import validate_joint
from tests.helpers import tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import torchrun
from tests.helpers.training import StopAt, curve
from tests.workers.joint import models, scheme_of, train

SCHEMES = ("exits",)


def one_step(folder, scheme, batch=8, accumulation=1, kind="classification"):
    """The gradients of one step over eight rows, some without a label, and its first micro-batch."""
    steps = Steps()
    train(folder, scheme, callbacks=[steps], kind=kind, per_device_train_batch_size=batch, max_steps=1,
                   gradient_accumulation_steps=accumulation, max_grad_norm=0, learning_rate=0.0)  # fmt: skip
    return steps.gradients[0], steps.batches[0][0]


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, scheme, kind):
    """Prevents heads that are divided by the rows of a micro-batch: 4×2 and 1×8 give the gradient of 8×1."""
    whole, _ = one_step(tmp_path / "whole", scheme, kind=kind)
    assert any(name.startswith(PROJECTIONS) for name in whole)
    for batch, accumulation in ((4, 2), (1, 8)):
        found, _ = one_step(tmp_path / f"{batch}", scheme, batch, accumulation, kind)
        assert distance(found, {name: value.double() for name, value in whole.items()}) < 1e-5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, scheme):
    """Prevents modules that start anew on resume, or are not in the checkpoint."""
    often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "dropout": 0.1}
    whole, _ = train(tmp_path / "whole", scheme, **often)
    train(tmp_path / "stopped", scheme, callbacks=[StopAt(2)], **often)
    resumed, _ = train(tmp_path / "stopped", scheme, resume=True, **often)
    assert resumed.state.global_step == 5
    state = resumed.model.state_dict()
    assert any(name.startswith(PROJECTIONS) for name in state)
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    assert curve(whole) == curve(resumed)


@pytest.mark.integration
@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_processes_equal_one(tmp_path, scheme):
    """Prevents modules that each process trains by its own rows."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    torchrun("-m", "tests.workers.joint", str(out), scheme)
    found = json.loads(out.read_text())
    one, _ = train(tmp_path / "one", scheme, per_device_train_batch_size=8)
    assert (found["world_size"], found["wrapper"]) == (2, "DistributedDataParallel")
    for name in ("loss", "grad_norm", *one.objective.names):
        assert found["curves"][name] == pytest.approx(curve(one, name), rel=2e-4, abs=1e-6), name
    norm = sum(float(value.square().sum()) for value in one.model.state_dict().values())
    assert found["norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("changes", [{"torch_compile": True}, {"deepspeed": True}, {"fsdp": True}])
def test_what_would_leave_the_modules_out_is_refused(changes):
    """Prevents modules that are sharded apart from their hooks, or of which half is compiled."""
    args = SimpleNamespace(torch_compile=changes.get("torch_compile", False))
    with pytest.raises(UserError, match=r"student\.exits"):
        validate_joint(True, args, changes.get("fsdp", False), changes.get("deepspeed"), "student.exits")
    validate_joint(False, args, changes.get("fsdp", False), changes.get("deepspeed"), "student.exits")


# Exits ----------------------------------------------------------------------------------------------------------


def test_exits_have_the_gradient_of_their_formula(tmp_path):
    """Prevents another share, a temperature without its square, or a deepest head that learns from the exits."""
    found, batch = one_step(tmp_path, "exits")
    student, teacher = (model.double() for model in models(3))
    tails = scheme_tails(student)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    labels, known = batch["labels"], batch["labels"] != -100
    with torch.no_grad():
        taught = teacher(**inputs).logits
    out = student(**inputs, output_hidden_states=True)

    def own(logits):
        kl = 4 * F.kl_div((logits / 2).log_softmax(-1), (taught / 2).softmax(-1), reduction="none").sum(-1).mean()
        return 5 * kl + 2 * F.cross_entropy(logits[known], labels[known])

    loss = own(out.logits)
    for blocks, tail in tails.items():
        logits = tail(out.hidden_states[blocks], inputs)
        deepest = (out.logits.detach() / 3).softmax(-1)
        kl = 9 * F.kl_div((logits / 3).log_softmax(-1), deepest, reduction="none").sum(-1).mean()
        hint = (out.hidden_states[blocks][:, 0] - out.hidden_states[-1][:, 0].detach()).square().sum(-1).mean()
        loss = loss + 0.7 * own(logits) + 0.3 * kl + 0.01 * hint
    loss.backward()
    expected = {name: weight.grad for name, weight in student.named_parameters() if weight.grad is not None}
    for blocks, tail in tails.items():
        named = {f"{PROJECTIONS}.exit_{blocks}.{name}": weight.grad for name, weight in tail.named_parameters()}
        expected |= {name: gradient for name, gradient in named.items() if gradient is not None}
    assert found.keys() == expected.keys()
    assert distance(found, expected) < 1e-5


def scheme_tails(student):
    scheme = scheme_of("exits")
    scheme.extend(Objective([HardLabel()], "classification"), student, student, 0)
    return scheme.tails


def test_an_exit_leaves_as_a_plain_model(tmp_path):
    """Prevents a folder that needs this tool, a copy of another depth, and weights from before the training."""
    run, scheme = train(tmp_path / "run", "exits", max_steps=3, learning_rate=1e-2)
    batch = run.data_collator([run.train_dataset[i] for i in range(8)])
    student = run.model.eval()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        states = student(**inputs, output_hidden_states=True).hidden_states
        expected = {blocks: tail.eval()(states[blocks], inputs) for blocks, tail in scheme.tails.items()}
    plain = run.detach()
    finished = scheme.finish(plain, None, None)
    assert finished.student is plain
    assert list(finished.further) == ["exits/1-layers", "exits/2-layers"]
    for (blocks, logits), (name, model) in zip(expected.items(), finished.further.items(), strict=True):
        model.save_pretrained(tmp_path / name)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        assert loaded.config.num_hidden_layers == blocks
        torch.testing.assert_close(loaded.eval()(**inputs).logits, logits, rtol=0, atol=1e-5)
        assert not torch.allclose(join_tail(plain, blocks, scheme_tails(plain)[blocks]).eval()(**inputs).logits, logits)


@pytest.mark.parametrize("after", [[3], [4], [1, 5]])
def test_exits_lie_within_the_student(after):
    """Prevents an exit that is the student itself, or none."""
    student = tiny.classifier(3)
    with pytest.raises(UserError, match=r"exits.after: expected numbers of blocks from 1 to 2"):
        Exits(ExitsSection(after=after)).extend(Objective([HardLabel()], "classification"), student, student, 0)


def test_the_students_own_depth_is_an_exit_anyway():
    """Prevents a refusal of [1, 3], which names the student itself too."""
    student, scheme = tiny.classifier(3), Exits(ExitsSection(after=[3, 1]))
    objective = scheme.extend(Objective([SoftTargetKL(), HardLabel()], "classification"), student, student, 0)
    assert list(scheme.tails) == [1]
    own = ["soft_target_kl", "hard_label"]
    assert objective.names == [*own, "exit_1_soft_target_kl", "exit_1_hard_label", "exit_1_from_student"]
