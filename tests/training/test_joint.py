"""Modules that train together with a student: gradients of the definitions, however a step is cut up, and resume."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.tails import join_tail
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.joint.base import Judge
from distil_nlp.pipeline.joint.branches import Branches, Gate
from distil_nlp.pipeline.joint.candidates import best_of
from distil_nlp.pipeline.joint.exits import Exits
from distil_nlp.pipeline.joint.peers import Peers
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.signals.recorder import PROJECTIONS
from distil_nlp.training.checks import validate_joint
from tests.helpers import tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve
from tests.workers.joint import models, scheme_of, train

pytestmark = pytest.mark.integration

SCHEMES = ("exits", "peers", "branches")


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


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_processes_equal_one(tmp_path, scheme):
    """Prevents modules that each process trains by its own rows."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.joint", str(out), scheme)
    found = json.loads(out.read_text())
    one, _ = train(tmp_path / "one", scheme, per_device_train_batch_size=8)
    assert (found["world_size"], found["wrapper"]) == (2, "DistributedDataParallel")
    for name in ("loss", "grad_norm", *one.objective.names):
        assert found["curves"][name] == pytest.approx(curve(one, name), rel=2e-4, abs=1e-6), name
    norm = sum(float(value.square().sum()) for value in one.model.state_dict().values())
    assert found["norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize(
    "changes", [{"torch_compile": True}, {"deepspeed_plugin": SimpleNamespace(zero_stage=2)}, {"fsdp": True}]
)
def test_what_would_leave_the_modules_out_is_refused(changes):
    """Prevents modules that are sharded apart from their hooks, or of which half is compiled."""
    plain = {"torch_compile": False, "deepspeed_plugin": None, "fsdp": None, "device": torch.device("cuda")}
    args = SimpleNamespace(**plain | changes)
    with pytest.raises(UserError, match=r"student\.exits"):
        validate_joint(True, args, "student.exits")
    validate_joint(False, args, "student.exits")
    validate_joint(True, SimpleNamespace(**plain), "student.exits")


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
    finished = scheme.finish(plain, None)
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
        Exits(StudentSection(exits=after)).extend(Objective([HardLabel()], "classification"), student, student, 0)


def test_the_students_own_depth_is_an_exit_anyway():
    """Prevents a refusal of [1, 3], which names the student itself too."""
    student, scheme = tiny.classifier(3), Exits(StudentSection(exits=[3, 1]))
    objective = scheme.extend(Objective([SoftTargetKL(), HardLabel()], "classification"), student, student, 0)
    assert list(scheme.tails) == [1]
    own = ["soft_target_kl", "hard_label"]
    assert objective.names == [*own, "exit_1_soft_target_kl", "exit_1_hard_label", "exit_1_from_student"]


# Peers ----------------------------------------------------------------------------------------------------------


def soft(logits, temperature):
    return (logits / temperature).softmax(-1)


def kl(learner, source, temperature):
    """T² · KL(source ‖ learner), mean over rows."""
    log_probs = (learner / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_probs, soft(source, temperature), reduction="none").sum(-1).mean()


def definitions(batch):
    """The models in float64, the inputs, and what labels and teacher say of logits."""
    student, teacher = (model.double() for model in models(3))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    labels, known = batch["labels"], batch["labels"] != -100
    with torch.no_grad():
        taught = teacher(**inputs).logits
    return student, teacher, inputs, lambda z: 5 * kl(z, taught, 2) + 2 * F.cross_entropy(z[known], labels[known])


def gradients_of(student, **modules):
    """The gradients of a student and of modules in its projections, by their names in training."""
    named = [*student.named_parameters()]
    named += [
        (f"{PROJECTIONS}.{key}.{name}", p) for key, module in modules.items() for name, p in module.named_parameters()
    ]
    return {name: weight.grad for name, weight in named if weight.grad is not None}


def test_peers_have_the_gradient_of_their_formula(tmp_path):
    """Prevents a peer that moves towards those who learn from it, and a sum over peers for their mean."""
    steps = Steps()
    train(tmp_path, "peers", callbacks=[steps], max_steps=2, max_grad_norm=0, learning_rate=0.0)
    student, teacher, inputs, own = definitions(steps.batches[1][0])
    scheme = scheme_of("peers")
    joint = scheme.extend(Objective([HardLabel()], "classification"), student, teacher, 3).joint
    peers = {name: module.double() for name, (_, module) in joint.items()}
    outputs = [student(**inputs).logits, *(peer(inputs) for peer in peers.values())]
    for i, logits in enumerate(outputs):
        others = [kl(logits, other.detach(), 2) for j, other in enumerate(outputs) if j != i]
        (own(logits) + 0.7 * sum(others) / 2).backward()  # the last of two steps, at which the ramp ends
    expected, found = gradients_of(student, **peers), steps.gradients[1]
    assert found.keys() == expected.keys()
    assert distance(found, expected) < 1e-5


def test_peers_start_from_other_layers_or_shapes():
    """Prevents peers that are equal, and stay so."""
    student, teacher = models(3)
    scheme = scheme_of("peers")
    scheme.extend(Objective([HardLabel()], "classification"), student, teacher, 3)
    second, third = scheme.peers
    taken = [dict(enumerate(m.bert.encoder.layer)) for m in (teacher, second, third)]
    assert [len(blocks) for blocks in taken[1:]] == [3, 2]
    for blocks, layers in ((taken[1], [0, 0, 2]), (taken[2], [1, 3])):
        for own, layer in enumerate(layers):
            weight, source = (one.attention.self.query.weight for one in (blocks[own], taken[0][layer]))
            assert torch.equal(weight, source)


def test_copies_of_a_checkpoint_need_dropout():
    """Prevents two copies that stay equal for a whole training."""
    student, section = tiny.classifier(2), StudentSection(name="x", peers=2)
    with pytest.raises(UserError, match=r"peers: expected a checkpoint with dropout"):
        Peers(section).extend(Objective([HardLabel()], "classification"), student, student, 0)
    student = tiny.classifier(2, hidden_dropout_prob=0.1)
    scheme = Peers(section)
    scheme.extend(Objective([HardLabel()], "classification"), student, student, 0)
    assert len(scheme.peers) == 1


def outputs_of(*probabilities):
    return {"test": Outputs(np.log(np.array(probabilities)), np.array([0, 1, 1]))}


ANSWERS: dict[str, dict[str, Outputs]] = {
    "first": outputs_of([0.9, 0.1], [0.6, 0.4], [0.6, 0.4]),
    "second": outputs_of([0.4, 0.6], [0.1, 0.9], [0.8, 0.2]),
    "third": outputs_of([0.9, 0.1], [0.1, 0.9], [0.1, 0.9]),
}


@pytest.mark.parametrize(("chosen", "exported"), [((0.1, 0.2, 0.2), 2), ((0.3, 0.2, 0.2), 1), (None, 1)])
def test_the_best_on_other_rows_is_kept(chosen, exported, capsys):
    """Prevents a choice by the rows that scores are of, and a choice that nobody hears of."""
    facts = [{"layers": 2}] * 3

    def choose(name, role):
        correct = {} if chosen is None else dict(zip(ANSWERS, chosen, strict=True))
        rows = np.arange(10)
        picked = np.where(rows < round(10 * correct.get(name, 0)), 0, 1)
        return None if chosen is None else {"selection": Outputs(np.eye(2)[picked], np.zeros(10, dtype=int))}

    finished = best_of("peers", list(ANSWERS), Judge("classification", lambda name, role: ANSWERS[name], choose), facts)
    found = finished.record["joint"]["peers"]
    assert (found["exported"], finished.student) == (exported, list(ANSWERS)[exported - 1])
    accuracies = [member["metrics"]["accuracy"] for member in found["members"]]
    assert accuracies == pytest.approx([1 / 3, 1 / 3, 1])
    assert found["mean"]["accuracy"] == pytest.approx(5 / 9)
    assert found["ensemble"]["accuracy"] == pytest.approx(2 / 3)  # means of probabilities: 0.73, 0.27, 0.5
    assert ("no rows to choose by" in capsys.readouterr().out) == (chosen is None)


# Branches -------------------------------------------------------------------------------------------------------


def test_branches_have_the_gradient_of_their_formula(tmp_path):
    """Prevents a gate without a gradient, and a sum of branches that moves towards those who learn from it."""
    found, batch = one_step(tmp_path, "branches")
    student, teacher, inputs, own = definitions(batch)
    joint = scheme_of("branches").extend(Objective([HardLabel()], "classification"), student, teacher, 3).joint
    modules = {name: module.double() for name, (_, module) in joint.items()}
    assert list(modules) == ["branch_2", "branch_3", "gate"]
    out = student(**inputs, output_hidden_states=True)
    trunk = out.hidden_states[2]
    outputs = [out.logits, *(modules[name](trunk, inputs) for name in ("branch_2", "branch_3"))]
    gate = (trunk[:, 0] @ modules["gate"].map.weight.T + modules["gate"].map.bias).softmax(-1)
    together = sum(gate[:, i : i + 1] * logits for i, logits in enumerate(outputs))
    loss = own(together) + sum(own(logits) + 0.7 * kl(logits, together.detach(), 2) for logits in outputs)
    loss.backward()
    expected = gradients_of(student, **modules)
    assert found.keys() == expected.keys()
    assert distance(found, expected) < 1e-5


def test_the_gate_moves_from_uniform(tmp_path):
    """Prevents a gate that is frozen where it begins, so that the sum is a plain mean for good."""
    run, _ = train(tmp_path, "branches", max_steps=20, learning_rate=1e-2)
    batch = run.data_collator([run.train_dataset[i] for i in range(8)])
    gate, states = getattr(run.model, PROJECTIONS)["gate"], torch.randn(8, 9, 32)
    assert torch.allclose(Gate(32, 3)(states, batch), torch.full((8, 3), 1 / 3))
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        weights = gate(run.model(**inputs, output_hidden_states=True).hidden_states[2], inputs)
    assert torch.allclose(weights.sum(-1), torch.ones(8))
    assert float((weights - 1 / 3).abs().max()) > 0.05


def test_the_gate_reads_the_first_token():
    """Prevents a gate that reads padding on the left."""
    gate, states = Gate(4, 2), torch.randn(2, 3, 4)
    torch.nn.init.normal_(gate.map.weight)
    found = gate(states, {"attention_mask": torch.tensor([[1, 1, 0], [0, 1, 1]])})
    expected = gate(torch.stack([states[0, 0], states[1, 1]])[:, None], {})
    assert torch.equal(found, expected)


def test_a_branch_leaves_as_a_plain_student(tmp_path):
    """Prevents a student with the trunk of one branch and the blocks of another, or from before the training."""
    run, scheme = train(tmp_path, "branches", learning_rate=1e-2)
    batch = run.data_collator([run.train_dataset[i] for i in range(8)])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    student = run.model.eval()
    with torch.no_grad():
        out = student(**inputs, output_hidden_states=True)
        expected = [out.logits, *(tail.eval()(out.hidden_states[2], inputs) for tail in scheme.tails)]
    scored = []

    def score(model, role):
        with torch.no_grad():
            scored.append(model(**inputs).logits)
        return {"test": Outputs(scored[-1].numpy(), np.arange(8) % 3)}

    finished = scheme.finish(run.detach(), Judge("classification", score, lambda *_: None))
    assert len(scored) == 3
    for logits, wanted in zip(scored, expected, strict=True):
        torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
    members = finished.record["joint"]["branches"]["members"]
    assert [member.get("initialisation", {}).get("teacher_layers") for member in members] == [
        None,
        [0, 1, 2],
        [0, 1, 1],
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": 2, "blocks": 3}, r"branches.blocks: expected fewer than the student's 3"),
        ({"models": 5}, r"branches.models: expected at most 4"),
    ],
)
def test_branches_need_a_trunk_and_layers_to_start_from(settings, message):
    """Prevents branches that start alike, and stay so."""
    student, teacher = models(3)
    section = StudentSection(num_layers=3, branches=settings)
    with pytest.raises(UserError, match=message):
        Branches(section).extend(Objective([HardLabel()], "classification"), student, teacher, 0)
