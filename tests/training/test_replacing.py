"""Module replacing: the hybrid's outputs, the draws, and the same weights however a training is cut up or stopped."""

import copy
import json

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student
from distil_nlp.models.trial import trial_batch
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.replacing import ModuleReplacement, Replacing
from tests.helpers import tiny
from tests.helpers.families import classifier_of
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, text_rows, trainer, weights
from tests.training.test_trainer import CHECKPOINTING, KeepGradients, assert_close

pytestmark = pytest.mark.integration

HALF = Replacing([1, 3], 0.3, 0.6)


def terms():
    return [SoftTargetKL(1.0), HardLabel(0.5), HiddenMSE(1.0)]


def run(folder, replacing=HALF, kind="classification", teacher=None, **arguments):
    """Return a trained trainer of a student of layers 1 and 3 of a teacher of four."""
    teacher = teacher or (tiny.classifier(4) if kind == "classification" else tiny.mlm_model(4))
    student, _ = build_student(teacher, [1, 3])
    arguments = {"max_steps": 8, "terms": terms(), "rows": None, **arguments}
    made = trainer(folder, student, teacher, arguments.pop("terms"), kind=kind, extensions=[replacing], **arguments)
    made.train()
    return made


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_the_hybrid_is_the_teacher_where_no_block_is_replaced():
    """Prevents groups that begin or end a layer off, and a student's blocks that run all the same."""
    teacher = classifier_of("Bert")
    student, _ = build_student(teacher, [0, 3])
    replacement = ModuleReplacement(student.train(), teacher, Replacing([0, 3], 0.0), 7)
    batch = trial_batch(teacher)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    own = student(**batch).logits
    replacement.begin_forward(0, 0.0)
    assert replacement.running == [False, False]
    hybrid = student(**batch).logits
    torch.testing.assert_close(hybrid, teacher(**batch).logits, atol=1e-6, rtol=1e-5)
    hybrid.sum().backward()
    assert student.bert.embeddings.word_embeddings.weight.grad.any()  # through the frozen blocks
    assert all(weight.grad is None for weight in student.bert.encoder.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())
    torch.testing.assert_close(student.eval()(**batch).logits, own)  # alone in eval mode, whatever was drawn
    replacement.remove()
    assert "forward" not in vars(student.bert.encoder.layer[0])
    assert all(weight.requires_grad for weight in teacher.parameters())


def test_mixed_draws_run_the_right_blocks():
    """Prevents a draw that decides over another module than its own: teacher's 0 and 1, then the student's second."""
    teacher = tiny.classifier(4)
    student, _ = build_student(teacher, [1, 3])
    torch.nn.init.normal_(student.bert.encoder.layer[1].output.dense.weight)
    hybrid = copy.deepcopy(teacher)
    hybrid.bert.encoder.layer = torch.nn.ModuleList(
        [*copy.deepcopy(teacher).bert.encoder.layer[:2], copy.deepcopy(student.bert.encoder.layer[1])]
    )
    replacement = ModuleReplacement(student, teacher, HALF, 7)
    replacement.running = [False, True]
    batch = trial_batch(teacher)
    torch.testing.assert_close(student(**batch).logits, hybrid(**batch).logits)
    assert set(student.state_dict()) == set(build_student(teacher, [1, 3])[0].state_dict())  # no blocks of the teacher
    replacement.remove()


def test_draws_are_those_of_their_probability_and_a_function_of_seed_and_step():
    """Prevents modules drawn together, steps that repeat, and a rate that is off."""
    replacing = Replacing(range(5), 0.3, 0.6)
    assert [replacing.rate(progress) for progress in (0, 0.3, 0.6, 1.0)] == pytest.approx([0.3, 0.65, 1.0, 1.0])
    drawn = torch.tensor([replacing.draws(42, step, 0.3) for step in range(4000)]).double()
    assert drawn.mean(0).tolist() == pytest.approx([0.65] * 5, abs=0.03)
    apart = torch.corrcoef(drawn.T) - torch.eye(5)
    assert apart.abs().max() < 0.06
    assert torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1].abs() < 0.03
    assert replacing.draws(42, 17, 0.3) == replacing.draws(42, 17, 0.3)
    assert [replacing.draws(43, s, 0.3) for s in range(9)] != [replacing.draws(42, s, 0.3) for s in range(9)]
    assert all(all(Replacing(range(5), 1.0).draws(seed, 3, 0.0)) for seed in range(50))


@pytest.mark.parametrize("kind", ["classification", "mlm"])
def test_a_rate_of_one_is_plain_training(tmp_path, kind):
    """Prevents draws that disturb dropout or rows: bit for bit, with dropout."""
    make = tiny.classifier if kind == "classification" else tiny.mlm_model
    teacher = make(4, hidden_dropout_prob=0.1)
    plain = weights(run(tmp_path / "plain", None, kind, teacher))
    assert_same(weights(run(tmp_path / "one", Replacing([1, 3], 1.0), kind, teacher)), plain)
    found = weights(run(tmp_path / "half", HALF, kind, teacher))
    assert any(not torch.equal(found[name], plain[name]) for name in plain)


def test_states_are_those_after_the_module_whichever_ran(tmp_path):
    """Prevents terms that compare the student's own states where the teacher's blocks ran: those are the teacher's."""
    trained = run(tmp_path, Replacing([1, 3], 0.0), terms=[SoftTargetKL(1.0), HiddenMSE(1.0)], learning_rate=0.0)
    assert curve(trained, "hidden_mse")[0] == pytest.approx(0, abs=1e-9)
    assert curve(trained, "soft_target_kl")[0] == pytest.approx(0, abs=1e-6)
    assert curve(trained, "hidden_mse")[-1] > 1e-4  # from 0.6 on the student runs alone
    rates = curve(trained, "replacing_rate")
    assert (rates[0], rates[-1]) == (0.0, 1.0)
    assert rates == sorted(rates)


def test_evaluation_runs_the_student_alone(tmp_path):
    """Prevents scores of a hybrid that nobody will have."""
    rows = task_rows(9, seed=3)
    trained = run(tmp_path / "a", Replacing([1, 3], 0.0), eval_rows=rows, max_steps=2, learning_rate=0.0)
    alone = run(tmp_path / "b", None, eval_rows=rows, max_steps=2, learning_rate=0.0)
    for name in ("eval_soft_target_kl", "eval_hidden_mse", "eval_hard_label"):
        assert trained.evaluate()[name] == pytest.approx(alone.evaluate()[name], rel=1e-6)


@pytest.mark.parametrize("kind", ["classification", "mlm"])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, kind):
    """Prevents micro-batches of a step that run different hybrids."""
    found = []
    for number, (batch, accumulation) in enumerate([(8, 1), (4, 2), (1, 8)]):
        keep = KeepGradients()
        run(
            tmp_path / str(number), Replacing([1, 3], 0.8), kind, callbacks=[keep], max_steps=1, max_grad_norm=0,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        found.append(keep.gradients)
    blocks = [any(f"layer.{i}." in name for name in found[0]) for i in range(2)]
    assert blocks == Replacing([1, 3], 0.8).draws(7, 0, 0.0)
    assert sorted(blocks) == [False, True]  # or the test would see no hybrid
    assert_close(found[1], found[0])
    assert_close(found[2], found[0])


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    """Prevents draws that depend on what ran before: bit for bit."""
    whole = weights(run(tmp_path / "whole", rows=task_rows(40)))
    stopped = run(tmp_path / "cut", rows=task_rows(40), callbacks=[StopAt(3)])
    assert stopped.state.global_step == 3
    stopped.detach()
    teacher = tiny.classifier(4)
    student, _ = build_student(teacher, [1, 3])
    resumed = trainer(
        tmp_path / "cut", student, teacher, terms(), kind="classification", rows=task_rows(40), max_steps=8,
        extensions=[HALF],
    )  # fmt: skip
    resumed.train(resume_from_checkpoint=str(last_complete_checkpoint(tmp_path / "cut")))
    assert_same(weights(resumed), whole)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_of_activations_changes_nothing(tmp_path, reentrant):
    """Prevents a forward that is computed again with other draws."""
    plain = weights(run(tmp_path / "plain"))
    options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
    again = weights(run(tmp_path / "again", **options))
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=1e-5)


def test_compiled_blocks_give_the_same(tmp_path):
    """Prevents a graph that keeps one step's draws; and blocks that stay patched or compiled."""
    plain = weights(run(tmp_path / "plain"))
    compiled = run(tmp_path / "compiled", torch_compile=True, torch_compile_backend="eager")
    student = compiled.detach()
    for name, weight in student.named_parameters():
        torch.testing.assert_close(weight, plain[name], atol=1e-6, rtol=1e-5)
    assert not any("forward" in vars(module) for module in student.modules())


@pytest.mark.parametrize(("teacher", "bf16"), [("bfloat16", True), ("float32", True), ("bfloat16", False)])
def test_the_teachers_blocks_run_in_its_precision(tmp_path, teacher, bf16):
    """Prevents states in a precision that the teacher's blocks cannot take: bf16 rounds at 8 bits."""
    exact = run(tmp_path / "exact", max_steps=4, learning_rate=0.0)
    rounded = run(
        tmp_path / "b",
        teacher=tiny.classifier(4).to(getattr(torch, teacher)),
        bf16=bf16,
        max_steps=4,
        learning_rate=0.0,
    )
    assert curve(rounded, "hard_label") == pytest.approx(curve(exact, "hard_label"), rel=0.02)


def test_labels_alone_go_with_replacing(tmp_path):
    """The paper's own loss: no term reads the teacher, whose blocks run all the same."""
    teacher = tiny.classifier(4)
    trained = run(tmp_path, Replacing([1, 3], 0.0), teacher=teacher, terms=[HardLabel(1.0)], max_steps=1)
    trained.detach()
    assert not any(weight.grad is not None for weight in teacher.parameters())
    own, _ = build_student(teacher, [1, 3])
    for name, weight in trained.model.bert.encoder.named_parameters():
        assert torch.equal(weight, own.bert.encoder.get_parameter(name))  # no block ran, and none changed
    assert not torch.equal(trained.model.classifier.weight, own.classifier.weight)


def test_a_cache_of_teacher_outputs_changes_nothing(tmp_path):
    """Prevents blocks that are gone once the teacher has been asked for all rows."""
    cache = CacheConfig(str(tmp_path / "caches"), dtype="float32")
    still = {"learning_rate": 0.0}  # Adam's steps would enlarge the rounding of rows in other batches
    read, computed = run(tmp_path / "read", cache=cache, **still), run(tmp_path / "computed", **still)
    for name in ("loss", "hidden_mse", "soft_target_kl"):
        assert curve(read, name) == pytest.approx(curve(computed, name), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([1, 2], r"end at the teacher's last layer, 3 / got \[1, 2\]"),
        ([3, 1], r"that increase .* got \[3, 1\]"),
        ([], r"got \[\]"),
        ([0, 0, 3], r"got \[0, 0, 3\]"),
    ],
)
def test_groups_that_cannot_be_are_said(layers, message):
    """Prevents teacher's layers that run twice, or never."""
    with pytest.raises(UserError, match=message):
        Replacing(layers).groups(4)
    assert Replacing([0, 3]).groups(4) == [range(0, 1), range(1, 4)]


def test_what_does_not_go_together_is_said(tmp_path):
    """Prevents an error of shapes in the first step, and terms on what did not run."""
    four, two = tiny.classifier(4), tiny.classifier(2)

    def build(student=two, teacher=four, replacing=HALF, terms=None, **arguments):
        trainer(
            tmp_path, student, teacher, terms or [HardLabel(1.0)], kind="classification", rows=task_rows(),
            extensions=[replacing], **arguments,
        )  # fmt: skip

    with pytest.raises(UserError, match=r"2 layers for 2 groups, of BertLayer, widths 32 and 16"):
        build(tiny.classifier(2, hidden_size=16))
    with pytest.raises(UserError, match=r"2 layers for 1 groups"):
        build(replacing=Replacing([3]))
    with pytest.raises(UserError, match=r"expected terms on outputs, hidden states or weights"):
        build(terms=[AttentionKL(1.0)])
    with pytest.raises(UserError, match=r"a teacher that is a model"):
        build(teacher=None)
    with pytest.raises(UserError, match=r"ddp_find_unused_parameters: expected true"):
        build(ddp_find_unused_parameters=False)
    modern = classifier_of("ModernBert")
    with pytest.raises(UserError, match=r"one type of attention / got full_attention, sliding_attention"):
        build(build_student(modern, [1, 3])[0], modern)
    assert not [block for block in two.bert.encoder.layer if "forward" in vars(block)]


def test_the_sentence_says_what_was_done():
    """Prevents a card that does not tell the scheme."""
    assert "rises from 0.3 to 1 over the first 60 % (module replacing, BERT-of-Theseus" in HALF.sentence


def test_two_processes_give_the_same_weights(tmp_path):
    """Prevents processes that draw apart, and gradients of blocks that one of them did not run."""
    whole = run(tmp_path / "one", kind="mlm", rows=text_rows(21), per_device_train_batch_size=6)
    forked_pair("-m", "tests.workers.replacing", str(tmp_path / "two"))
    found = json.loads((tmp_path / "two" / "found.json").read_text())
    assert (found["world_size"], found["wrapper"]) == (2, "DistributedDataParallel")
    for name in ("loss", "soft_target_kl", "hidden_mse", "replacing_rate"):
        assert found["curves"][name] == pytest.approx(curve(whole, name), rel=2e-4), name
    for name, weight in weights(whole).items():
        assert found["sums"][name] == pytest.approx(float(weight.double().abs().sum()), rel=1e-4, abs=1e-4), name
