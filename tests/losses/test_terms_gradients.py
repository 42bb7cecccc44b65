"""The term on input gradients: against finite differences and naive arithmetic, in training, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from distil_nlp.errors import UserError
from distil_nlp.losses.input_gradients import InputGradient, input_gradient
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import SignalRequest
from distil_nlp.training.checks import validate_cache_support, validate_sharding
from distil_nlp.training.sharding import Sharding
from tests.helpers import tiny
from tests.helpers.relations import assert_learns, assert_same, assert_zero_and_still, normal
from tests.helpers.training import curve, task_rows, trainer

LIVELY = {"initializer_range": 0.3}


def naive(student, teacher):
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        maps = []
        for one in (ours, theirs):
            lengths = [sum(x * x for x in token) for token in one]
            whole = sum(lengths)
            maps.append([(x / whole).sqrt() if x > 0 else x * 0 for x in lengths])
        total = total + sum((a - b) ** 2 for a, b in zip(*maps, strict=True))
    return total


def test_the_formula():
    """Prevents another norm, a mean over tokens, or a normalisation over the batch; widths differ."""
    student, teacher = normal(3, 5, 2, seed=0), normal(3, 5, 4, seed=1)
    assert_same(lambda one: input_gradient(one, teacher.float()), lambda one: naive(one, teacher), student)
    assert_zero_and_still(lambda one: input_gradient(one, 3 * student.detach()), student.detach())
    assert torch.autograd.gradcheck(lambda one: input_gradient(one, teacher), student.requires_grad_())


def test_small_gradients_count_as_much_and_none_is_no_nan():
    """Prevents a floor under which a confident model's gradients vanish, and 0 / 0 at padding."""
    student, teacher = normal(2, 5, 2, seed=0), normal(2, 5, 2, seed=1)
    student[:, 3:] = 0
    small = (1e-12 * student).requires_grad_()
    torch.testing.assert_close(input_gradient(small, 1e-9 * teacher), input_gradient(student, teacher))
    nothing = torch.zeros(1, 5, 2, requires_grad=True)
    value = input_gradient(nothing, teacher[:1].float())
    value.backward()
    assert value.item() == pytest.approx(1.0)
    assert torch.isfinite(nothing.grad).all()
    with pytest.raises(ValueError, match="alike"):
        input_gradient(student, teacher[:, :4])


def gradient_at(model, row, step=1e-3):
    """∂ loss / ∂ embeddings of one row without padding, by central differences in float64."""
    model = model.double().eval()
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        first = model.bert.embeddings(ids, token_type_ids=torch.tensor([row["token_type_ids"]]))

    def loss(states):
        with torch.no_grad():
            hidden = model.bert.encoder(states)[0]
            logits = model.classifier(model.bert.pooler(hidden))
        label = torch.tensor([row["labels"]])
        if model.config.num_labels == 1:
            return (logits.flatten() - label).square().sum().item()
        return F.cross_entropy(logits, label).item()

    found = torch.zeros_like(first)
    for i in range(first.numel()):
        there = torch.zeros_like(first)
        there.view(-1)[i] = step
        found.view(-1)[i] = (loss(first + there) - loss(first - there)) / (2 * step)
    return found[0]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_it_is_the_gradient_at_the_embeddings(tmp_path, kind):
    """Prevents the gradient of another loss, at another place, or of another row: by differences, on ragged rows of
    which one has no label."""
    labels = 1 if kind == "regression" else 3
    student, teacher = tiny.classifier(1, labels, seed=1, **LIVELY), tiny.classifier(2, labels, **LIVELY)
    rows = [row for row in task_rows(9, 3) if len(row["input_ids"]) < 12][:3]
    for row in rows:
        row["labels"] = 0.3 + row["labels"] if kind == "regression" else row["labels"]
    run = trainer(tmp_path, student, teacher, [InputGradient()], kind=kind)
    student.eval()
    unlabelled = rows[0] | {"labels": float("nan") if kind == "regression" else -100}
    value = run.compute_loss(run.model, run.data_collator([unlabelled, *rows])).item()
    run.detach()
    expected = sum(
        input_gradient(*(gradient_at(model, row)[None] for model in (student, teacher))).item() for row in rows
    )
    assert value == pytest.approx(expected / len(rows), rel=1e-3)


def test_its_own_gradient_is_that_of_a_gradient(tmp_path):
    """Prevents a constant: by differences along the gradient of all parameters, in float64."""
    student, teacher = tiny.classifier(1, seed=1, **LIVELY), tiny.classifier(2, **LIVELY)
    run = trainer(tmp_path, student.double().eval(), teacher.double(), [InputGradient()], kind="classification")
    batch = run.data_collator(task_rows(2))
    run.compute_loss(run.model, batch).backward()
    moved = [p for p in student.parameters() if p.grad is not None]
    length = sum(p.grad.square().sum() for p in moved).sqrt()
    values, step = [], 1e-5
    for sign in (1, -1):
        with torch.no_grad():
            for p in moved:
                p += sign * step * p.grad / length
        values.append(run.compute_loss(run.model, batch).item())
        with torch.no_grad():
            for p in moved:
                p -= sign * step * p.grad / length
    assert length > 1e-3
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(length.item(), rel=1e-3)


def test_it_learns(tmp_path):
    assert_learns(tmp_path, InputGradient())


def test_other_terms_see_the_same_beside_it(tmp_path):
    """Prevents a graph through the teacher, or signals that attention in plain operations changes."""
    grads = []
    for terms in ([SoftTargetKL()], [SoftTargetKL(), InputGradient(1e-9)]):
        run = trainer(tmp_path, tiny.classifier(2, seed=1), tiny.classifier(4), terms, kind="classification")
        run.model.eval()
        run.compute_loss(run.model, run.data_collator(task_rows(4))).backward()
        grads.append({name: p.grad for name, p in run.model.named_parameters() if p.grad is not None})
        assert all(p.grad is None for p in run.teacher.parameters())
    for name, one in grads[0].items():
        torch.testing.assert_close(grads[1][name], one, rtol=1e-4, atol=1e-7)


def test_it_is_evaluated_too(tmp_path):
    """Prevents an evaluation, which keeps no graph, that stops or gives another value."""
    rows = task_rows(5)
    student, teacher = tiny.classifier(2, seed=1, **LIVELY), tiny.classifier(4, **LIVELY)
    run = trainer(tmp_path, student, teacher, [InputGradient()], kind="classification", eval_rows=rows)
    found = run.evaluate()["eval_input_gradient"]
    run.model.eval()
    assert found == pytest.approx(run.compute_loss(run.model, run.data_collator(rows)).item(), rel=1e-5)
    assert found > 0.01


def test_attention_elsewhere_stays_fast(tmp_path):
    """Prevents plain attention in runs without the term."""
    seen = []
    run = trainer(tmp_path, tiny.classifier(2), tiny.classifier(4), [SoftTargetKL()], kind="classification")
    run.teacher.bert.embeddings.register_forward_hook(lambda *_: seen.append(torch.backends.cuda.flash_sdp_enabled()))
    run.train()
    with sdpa_kernel(SDPBackend.MATH):
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert seen == [True] * 3
    assert curve(run, "soft_target_kl")


@pytest.mark.parametrize("field", ["gradient_checkpointing", "torch_compile", "fp16"])
def test_what_gives_no_second_gradient_is_refused(tmp_path, field):
    """Prevents a traceback from within autograd."""
    with pytest.raises(UserError, match=field):
        trainer(
            tmp_path, tiny.classifier(2), tiny.classifier(4), [InputGradient()], kind="classification", **{field: True}
        )


def test_a_cache_and_shards_are_refused():
    """Prevents a teacher that is not there to be differentiated, and a backward that is not ours."""
    wanted = SignalRequest(logits=True, input_gradient=True)
    with pytest.raises(UserError, match=r"teacher\.cache.*input_gradient"):
        validate_cache_support(Objective([InputGradient()], "classification"), object())
    for sharding in (Sharding(is_fsdp=True), Sharding(zero_stage=2)):
        with pytest.raises(UserError, match=str(sharding)):
            validate_sharding(wanted, sharding)
    validate_sharding(wanted, Sharding())
