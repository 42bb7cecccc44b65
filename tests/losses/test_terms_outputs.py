"""Terms on outputs: each formula against plain float64 loops written from its paper, and each term in a training."""

import math

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.losses.binned_regression import BinnedRegression, binned_regression
from distil_nlp.losses.bounded_regression import BoundedRegression, bounded_regression
from distil_nlp.losses.decoupled_kd import DecoupledKD, decoupled_kd
from distil_nlp.losses.dist import DistInter, DistIntra, dist_inter, dist_intra
from distil_nlp.losses.divergences import JensenShannon, ReverseKL, jensen_shannon, reverse_kl
from distil_nlp.losses.hard_labels import hard_cross_entropy
from distil_nlp.losses.logit_mse import LogitMSE, logit_mse
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy, soft_target_cross_entropy
from distil_nlp.losses.soft_targets import SoftTargetKL, soft_target_kl
from distil_nlp.losses.standardised_logits import StandardisedLogits, standardised_logits
from distil_nlp.losses.teacher_free import LabelSmoothing, VirtualTeacher, label_smoothing, virtual_teacher
from distil_nlp.objective import LossTerm, ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.validate import validate_no_unused_keys
from tests.helpers import tiny
from tests.helpers.no_sync import NoSync
from tests.helpers.training import curve, label_set, ranked_rows, span_rows, task_rows, text_rows, token_rows, trainer

OUTPUTS = (
    SoftTargetCrossEntropy,
    ReverseKL,
    JensenShannon,
    LogitMSE,
    StandardisedLogits,
    DecoupledKD,
    DistInter,
    DistIntra,
    BoundedRegression,
    BinnedRegression,
    LabelSmoothing,
    VirtualTeacher,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


# Plain formulas: lists of scalars in, float64 -------------------------------------------------------------


def softmax(row, temperature=1.0):
    powers = [(one / temperature).exp() for one in row]
    return [one / sum(powers) for one in powers]


def kl(p, q):
    return sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True))


def pearson(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return covariance / spread**0.5


def z_scores(row):
    mean = sum(row) / len(row)
    deviation = (sum((one - mean) ** 2 for one in row) / len(row)) ** 0.5
    return [(one - mean) / deviation for one in row]


def over_rows(of_row):
    """(student, teacher, labels, T) → Σ of a row's formula."""

    def total(student, teacher, labels, temperature):
        rows = zip(student, teacher, labels, strict=True)
        return sum(of_row(list(s), list(t), label, temperature) for s, t, label in rows)

    return total


def naive_soft_cross_entropy(s, t, label, T):
    return -(T**2) * sum(p * q.log() for p, q in zip(softmax(t, T), softmax(s, T), strict=True))


def naive_jensen_shannon(beta):
    def of_row(s, t, label, T):
        p, q = softmax(t, T), softmax(s, T)
        m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
        return T**2 * (beta * kl(p, m) + (1 - beta) * kl(q, m))

    return of_row


def naive_decoupled(s, t, label, T, alpha=0.7, beta=3.0):
    p, q = softmax(t, T), softmax(s, T)
    others = [c for c in range(len(p)) if c != label]
    of_target = kl([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    hats = [[one[c] / sum(one[k] for k in others) for c in others] for one in (p, q)]
    return T**2 * (alpha * of_target + beta * kl(*hats))


def naive_dist_intra(student, teacher, labels, T):
    p, q = ([softmax(row, T) for row in one] for one in (teacher, student))
    classes = range(student.shape[1])
    return sum(1 - pearson([row[c] for row in p], [row[c] for row in q]) for c in classes) / len(classes)


def naive_smoothed(s, t, label, T):
    q, epsilon = softmax(s), 0.2
    share = [epsilon / len(q) + (1 - epsilon) * (c == label) for c in range(len(q))]
    return -sum(a * b.log() for a, b in zip(share, q, strict=True))


def naive_virtual(s, t, label, T):
    made_up = [torch.tensor(0.9 if c == label else 0.1 / (len(s) - 1), dtype=torch.float64) for c in range(len(s))]
    return T**2 * kl(softmax([one.log() for one in made_up], T), softmax(s, T))


def naive_bounded(s, t, label, T):
    mine, theirs = (s[0] - label) ** 2, (t[0] - label) ** 2
    return mine if mine + 0.3 > theirs else 0.0 * mine


def naive_binned(s, t, label, T):
    low, high, bins, width = -1.0, 4.0, 9, 0.8
    centres = [low + (high - low) * j / (bins - 1) for j in range(bins)]
    p, q = (softmax([-((one[0] - c) ** 2) / (2 * width**2) for c in centres], T) for one in (t, s))
    return T**2 * kl(p, q)


FORMULAS = {  # name: (formula of (student, teacher, labels, T), plain formula of the same, columns, labels are classes)
    "soft_target_cross_entropy": (
        lambda s, t, y, T: soft_target_cross_entropy(s, t, T), over_rows(naive_soft_cross_entropy)
    ),
    "reverse_kl": (
        lambda s, t, y, T: reverse_kl(s, t, T),
        over_rows(lambda s, t, y, T: T**2 * kl(softmax(s, T), softmax(t, T))),
    ),
    "jensen_shannon": (lambda s, t, y, T: jensen_shannon(s, t, T), over_rows(naive_jensen_shannon(0.5))),
    "jensen_shannon beta": (
        lambda s, t, y, T: jensen_shannon(s, t, T, 0.8), over_rows(naive_jensen_shannon(0.8))
    ),
    "logit_mse": (
        lambda s, t, y, T: logit_mse(s, t),
        over_rows(lambda s, t, y, T: sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / len(s)),
    ),
    "standardised_logits": (
        lambda s, t, y, T: standardised_logits(s, t, T),
        over_rows(lambda s, t, y, T: T**2 * kl(softmax(z_scores(t), T), softmax(z_scores(s), T))),
    ),
    "decoupled_kd": (lambda s, t, y, T: decoupled_kd(s, t, y, T, 0.7, 3.0), over_rows(naive_decoupled)),
    "dist_inter": (
        lambda s, t, y, T: dist_inter(s, t, T),
        over_rows(lambda s, t, y, T: 1 - pearson(softmax(s, T), softmax(t, T))),
    ),
    "dist_intra": (lambda s, t, y, T: dist_intra(s, t, T), naive_dist_intra),
    "label_smoothing": (lambda s, t, y, T: label_smoothing(s, y, 0.2), over_rows(naive_smoothed)),
    "virtual_teacher": (lambda s, t, y, T: virtual_teacher(s, y, T, 0.9), over_rows(naive_virtual)),
    "bounded_regression": (lambda s, t, y, T: bounded_regression(s, t, y, 0.3), over_rows(naive_bounded)),
    "binned_regression": (
        lambda s, t, y, T: binned_regression(s, t, -1.0, 4.0, 9, 0.8, T), over_rows(naive_binned)
    ),
}  # fmt: skip
SCALAR = ("bounded_regression", "binned_regression")
BETWEEN = [name for name in FORMULAS if name not in ("label_smoothing", "virtual_teacher")]


def example(name: str, rows: int, classes: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and labels of the kind that a formula takes."""
    columns = 1 if name in SCALAR else classes
    student, teacher = 2 * normal(rows, columns, seed=seed), 2 * normal(rows, columns, seed=seed + 100)
    return student, teacher, normal(rows, seed=seed + 200) if name in SCALAR else labels_of(rows, classes, seed)


@pytest.mark.parametrize(("rows", "classes", "temperature"), [(5, 4, 1.0), (3, 7, 2.5), (4, 3, 8.0)])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_is_that_of_its_paper(name, rows, classes, temperature):
    """Prevents swapped sides, means for sums, a lost T², and gradients other than the formula's own."""
    formula, plain = FORMULAS[name]
    student, teacher, labels = example(name, rows, classes)
    ours, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    value = formula(ours, teacher, labels, temperature)
    expected = plain(exact, teacher.double(), labels, temperature)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=2e-4, atol=1e-5)
    assert ours.grad.abs().max() > 0


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_is_that_of_finite_differences(name):
    """Prevents a detached or doubled way back; `bounded_regression` is smooth off its edge."""
    student, teacher, labels = example(name, 4, 5, seed=3)
    formula = FORMULAS[name][0]
    check = {"eps": 1e-2, "atol": 2e-2, "rtol": 2e-2}
    assert torch.autograd.gradcheck(
        lambda s: formula(s, teacher, labels, 1.5), student.double().requires_grad_(), **check
    )


@pytest.mark.parametrize("name", BETWEEN)
def test_least_where_student_is_teacher(name):
    """Prevents a loss that a perfect student could still lower; 0, or the teacher's entropy for a cross-entropy."""
    teacher, _, labels = example(name, 5, 4)
    student = teacher.clone().requires_grad_()
    bound = 0.0
    if name == "soft_target_cross_entropy":
        bound = 4 * torch.distributions.Categorical(logits=teacher / 2).entropy().sum().item()
    if name == "bounded_regression":
        assert bounded_regression(teacher, teacher, labels, 0.0) == 0
        return
    value = FORMULAS[name][0](student, teacher, labels, 2.0)
    value.backward()
    assert value.item() == pytest.approx(bound, abs=1e-5)
    assert student.grad.abs().max() < 1e-5


def test_least_of_the_terms_without_a_teacher():
    """Prevents a stated minimum that is not one: the entropy of smoothed labels, and 0 at the made-up teacher."""
    labels, p = torch.tensor([1, 0]), torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    student = p.log().requires_grad_()
    smoothed = label_smoothing(student, labels, 0.2)
    assert smoothed.item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-6)
    made_up = virtual_teacher(student, labels, 5.0, 0.85)
    (smoothed + made_up).backward()
    assert made_up.item() == pytest.approx(0, abs=1e-5)
    assert student.grad.abs().max() < 1e-5
    assert label_smoothing(student, labels, 0.0) == hard_cross_entropy(student, labels)


@pytest.mark.parametrize("name", BETWEEN)
def test_no_gradient_reaches_the_teacher(name):
    """Prevents a teacher that moves towards its student."""
    student, teacher, labels = example(name, 5, 4)
    student.requires_grad_()
    teacher.requires_grad_()
    FORMULAS[name][0](student, teacher, labels, 2.0).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", BETWEEN)
def test_shapes_that_differ_are_refused(name):
    """Prevents (5, 4) against (5, 1) from broadcasting in silence."""
    student, teacher, labels = example(name, 5, 4)
    with pytest.raises(ValueError, match=r"got student .*teacher "):
        FORMULAS[name][0](student, teacher[:1], labels, 2.0)


def test_other_wrong_arguments_are_refused():
    """Prevents outputs against labels of another batch, a T of 0 and a made-up teacher of one class."""
    with pytest.raises(ValueError, match=r"outputs \(5,\), labels \(1,\)"):
        bounded_regression(torch.zeros(5, 1), torch.zeros(5, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="two classes or more / got 1"):
        virtual_teacher(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64))
    for loss in (reverse_kl, jensen_shannon, soft_target_cross_entropy, standardised_logits, dist_inter, dist_intra):
        with pytest.raises(ValueError, match="temperature above 0 / got 0"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)


@pytest.mark.parametrize("name", FORMULAS)
def test_half_precision_is_summed_in_fp32(name):
    """Prevents a sum over thousands of rows in bfloat16, which stops growing at 256."""
    student, teacher, labels = example(name, 5, 4)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    value = FORMULAS[name][0](student, teacher, labels, 2.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, FORMULAS[name][0](student.float(), teacher.float(), labels, 2.0))


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "dist_intra"])
def test_a_sum_over_rows_is_the_sum_of_its_parts(name):
    """Prevents a gradient that depends on how rows fall into micro-batches and chunks; of no row it is 0."""
    formula, (student, teacher, labels) = FORMULAS[name][0], example(name, 6, 4)
    parts = [formula(student[at], teacher[at], labels[at], 2.0) for at in (slice(2), slice(2, 6), slice(0))]
    assert parts[2] == 0
    torch.testing.assert_close(sum(parts), formula(student, teacher, labels, 2.0))


@pytest.mark.parametrize("name", FORMULAS)
def test_confident_and_equal_outputs_keep_the_gradient_finite(name):
    """Prevents NaN and gradients of a million from probabilities of 0, and from outputs that are all alike."""
    formula = FORMULAS[name][0]
    for factor in (100.0, 1.0, 0.0):
        student, teacher, labels = example(name, 4, 5)
        student = (student.round() * factor + (3.0 if factor == 0 else 0.0)).requires_grad_()
        value = formula(student, teacher * factor, labels, 1.0)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()
        assert student.grad.abs().max() < 1e4


# What the formulas have to do with each other --------------------------------------------------------------


def gradient(loss, student: Tensor, *args) -> Tensor:
    student = student.clone().requires_grad_()
    loss(student, *args).backward()
    return student.grad


def test_soft_cross_entropy_has_the_gradient_of_the_kl():
    """Prevents two terms that claim to be the same but for a constant."""
    both = [gradient(loss, normal(3, 6, seed=1), normal(3, 6, seed=2), 3.0) for loss in
            (soft_target_cross_entropy, soft_target_kl)]  # fmt: skip
    torch.testing.assert_close(*both)


def test_soft_target_kl_tends_to_half_the_mse_of_centred_logits():
    """Prevents a wrong constant in what the docstring of `logit_mse` promises for a high temperature."""
    student, teacher = normal(4, 6, seed=1), normal(4, 6, seed=2)
    centred = [one - one.mean(1, keepdim=True) for one in (student, teacher)]
    limit = logit_mse(*centred) / 2
    assert soft_target_kl(student, teacher, 100.0).item() == pytest.approx(limit.item(), rel=0.02)
    grads = gradient(soft_target_kl, student, teacher, 100.0), gradient(logit_mse, *centred) / 2
    torch.testing.assert_close(*grads, rtol=0.1, atol=2e-3)


def test_jensen_shannon_tends_to_both_kls_and_has_a_bound():
    """Prevents a β on the wrong side."""
    student, teacher = normal(3, 5, seed=1), normal(3, 5, seed=2)
    beta = 1e-3
    assert jensen_shannon(student, teacher, 1.0, beta).item() / beta == pytest.approx(
        soft_target_kl(student, teacher).item(), rel=0.02
    )
    assert jensen_shannon(student, teacher, 1.0, 1 - beta).item() / beta == pytest.approx(
        reverse_kl(student, teacher).item(), rel=0.02
    )
    apart = torch.eye(2) * 50
    assert jensen_shannon(apart, apart.flip(0)).item() == pytest.approx(2 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_kd_is_the_kl_with_the_weights_that_kl_has(temperature):
    """Prevents parts that do not add up to what was taken apart: α = 1, β = 1 − p_target give KL."""
    student, teacher, labels = example("decoupled_kd", 6, 5)
    target = (teacher / temperature).softmax(1).gather(1, labels[:, None]).squeeze(1)
    args = teacher, labels, temperature, 1.0, 1 - target
    torch.testing.assert_close(decoupled_kd(student, *args), soft_target_kl(student, teacher, temperature))
    torch.testing.assert_close(
        gradient(decoupled_kd, student, *args), gradient(soft_target_kl, student, teacher, temperature),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    two = student[:, :2], teacher[:, :2], labels % 2, temperature
    torch.testing.assert_close(decoupled_kd(*two, beta=8.0), decoupled_kd(*two, beta=0.0))


def test_standardised_logits_and_dist_are_blind_to_scale():
    """Prevents a term that still asks the student for the size of the teacher's logits."""
    student = normal(4, 5, seed=1)
    assert standardised_logits(3 * student + 7, student, 2.0).item() == pytest.approx(0, abs=1e-5)
    flat = (0.5 * student.softmax(1) + 0.1).log()
    assert dist_inter(flat, student).item() == pytest.approx(0, abs=1e-5)
    assert dist_intra(flat, student).item() == pytest.approx(0, abs=1e-5)
    opposed = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]).log()
    assert dist_inter(opposed, (0.7 - opposed.exp()).log()).item() > 3.9


def test_two_classes_have_no_gradient_where_it_is_said():
    """Prevents a docstring that refuses two classes for nothing."""
    student, teacher = normal(6, 2, seed=1), normal(6, 2, seed=2)
    assert gradient(standardised_logits, student, teacher).abs().max() < 1e-5
    assert gradient(dist_inter, student, teacher).abs().max() < 1e-5
    assert gradient(dist_intra, student, teacher).abs().max() > 1e-3


def test_the_teacher_bounds_regression():
    """Prevents a student that is pulled on although it is nearer to the label than its teacher."""
    labels = torch.tensor([1.0, 1.0, 1.0])
    student, teacher = torch.tensor([[1.1], [1.5], [0.0]]), torch.tensor([[2.0], [1.4], [0.0]])
    slope = gradient(bounded_regression, student, teacher, labels, 0.0)
    torch.testing.assert_close(slope, torch.tensor([[0.0], [1.0], [0.0]]))
    slope = gradient(bounded_regression, student, teacher, labels, 1.0)
    torch.testing.assert_close(slope, torch.tensor([[0.2], [1.0], [-2.0]]))


def test_binned_regression_is_a_squared_error_within_and_linear_beyond():
    """Prevents a claim about the bins that does not hold."""
    student, teacher = torch.tensor([[2.0], [2.4], [3.0]]), torch.tensor([[2.2], [2.9], [2.5]])
    squared = (student - teacher).square().sum() * 2 / (2 * 0.5**2)
    assert binned_regression(student, teacher, temperature=2.0).item() == pytest.approx(squared.item(), rel=1e-2)
    steps = [gradient(binned_regression, torch.tensor([[x]]), torch.tensor([[2.5]])).item() for x in (2.0, 20.0, 40.0)]
    assert steps[0] == pytest.approx(-0.5 / 0.5**2, rel=1e-3)
    assert steps[1] == pytest.approx(2.5 / 0.5**2, rel=1e-3)
    assert steps[2] == pytest.approx(steps[1], rel=1e-4)


# The terms in a training -----------------------------------------------------------------------------------


def every_term(kind: str) -> list[LossTerm]:
    """One of each that is for the kind; a margin keeps random students beneath their teacher's bound."""
    return [term(margin=10.0) if term is BoundedRegression else term() for term in OUTPUTS if kind in term.kinds()]


def models_and_rows(kind: str) -> tuple[PreTrainedModel, PreTrainedModel, list[dict]]:
    """A student narrower than its teacher, and ragged rows."""
    narrow = {"hidden_size": 16, "intermediate_size": 24}
    if kind == "mlm":
        return tiny.mlm_model(1, seed=1, **narrow), tiny.mlm_model(2), text_rows(22)
    if kind == "tokens":
        return tiny.tagger(1, seed=1, **narrow), tiny.tagger(2), token_rows(22)
    if kind == "qa":
        return tiny.reader(1, seed=1, **narrow), tiny.reader(2), span_rows(22)
    labels, rows = 1 if kind in ("regression", "ranking") else 3, task_rows(22, 3)
    if kind == "multilabel":
        rows = [row | {"labels": label_set(i)} for i, row in enumerate(rows)]
    if kind == "ranking":
        rows = ranked_rows(22)
    return tiny.classifier(1, labels, seed=1, **narrow), tiny.classifier(2, labels), rows


@pytest.mark.parametrize("kind", ["mlm", "classification", "multilabel", "regression", "ranking", "tokens", "qa"])
def test_terms_train_a_narrower_student(tmp_path, kind):
    """Prevents a term that its own trainer cannot run; a last short batch, two micro-batches a step, an evaluation."""
    student, teacher, rows = models_and_rows(kind)
    terms = every_term(kind)
    run = trainer(
        tmp_path, student, teacher, terms, kind=kind, rows=rows, eval_rows=rows[:5],
        per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=3,
    )  # fmt: skip
    before = {name: one.clone() for name, one in student.named_parameters()}
    run.train()
    said = run.evaluate()
    for term in terms:
        values = curve(run, term.name)
        assert len(values) == 3
        assert all(math.isfinite(one) and one > 0 for one in values), term.name
        assert math.isfinite(said[f"eval_{term.name}"]), term.name
    assert any(not torch.equal(one, before[name]) for name, one in student.named_parameters())


@pytest.mark.parametrize("kind", ["mlm", "classification", "multilabel", "regression", "ranking", "tokens", "qa"])
def test_each_term_reaches_the_student_and_waits_for_nothing(tmp_path, kind):
    """Prevents a term that is logged and teaches nothing, and one that reads a value from a GPU."""
    student, teacher, rows = models_and_rows(kind)
    run = trainer(tmp_path, student, teacher, every_term(kind), kind=kind, rows=rows)
    batch, terms = run.data_collator(rows[:7]), run.objective.terms
    counts = torch.tensor(run.objective.counts(batch["rows"]), dtype=torch.float32)
    for term in terms:
        for other in terms:
            other.weight = Schedule(float(other is term))
        student.zero_grad()
        with NoSync():
            run.compute_loss(run.model, batch, num_items_in_batch=counts).backward()
        assert max(one.grad.abs().max() for one in student.parameters() if one.grad is not None) > 0, term.name


@pytest.mark.parametrize("rows", ["all", 0.4])
def test_rows_of_language_modelling_are_the_terms_own(tmp_path, rows):
    """Prevents a term on masked tokens beside one on all of them from seeing the other's."""
    terms = [ReverseKL(1.0, 2.0, rows), JensenShannon(1.0), DecoupledKD(1.0), DistInter(1.0, rows=rows)]
    run = trainer(tmp_path, tiny.mlm_model(1, seed=1), tiny.mlm_model(2), terms)
    batch = run.data_collator(text_rows())
    run.compute_loss(run.model, batch)
    found = run.objective.counts(batch["rows"])
    assert found[0] == found[3] == len(batch["rows"][str(rows)])
    assert found[1] == found[2] == len(batch["rows"]["masked"])
    for name in (str(rows), "masked"):
        student, teacher = (
            model.eval()(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits.flatten(0, 1)
            .index_select(0, batch["rows"][name]).detach() for model in (run.model, run.teacher)
        )  # fmt: skip
        value = reverse_kl(student, teacher, 2.0) if name == str(rows) else jensen_shannon(student, teacher, 2.0)
        mean = value / len(student)
        own = "reverse_kl" if name == str(rows) else "jensen_shannon"
        run.state.global_step = 1
        assert run.read_terms()[own] == pytest.approx(mean.item(), rel=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_dist_intra_is_one_value_a_micro_batch(tmp_path, size):
    """Prevents a term that fails on a micro-batch of one row, or loses the graph there; and counts that are rows."""
    run = trainer(tmp_path, tiny.classifier(1, 3, seed=1), tiny.classifier(2, 3), [DistIntra()], kind="classification")
    batch = run.data_collator(task_rows(size, 3))
    assert run.objective.counts(batch["rows"]) == [int(size > 1)]
    loss = run.compute_loss(run.model, batch)
    loss.backward()
    if size == 1:
        assert loss.item() == 0


def test_labels_alone_make_the_rows_of_labelled_terms(tmp_path):
    """Prevents rows without a label from being taught a label of −100, and a batch of none from failing."""
    rows = task_rows(6, 3)
    for row in rows[:4]:
        row["labels"] = -100
    terms = [DecoupledKD(), LabelSmoothing(), VirtualTeacher()]
    run = trainer(tmp_path, tiny.classifier(1, 3, seed=1), tiny.classifier(2, 3), terms, kind="classification")
    batch = run.data_collator(rows)
    assert run.objective.counts(batch["rows"]) == [2, 2, 2]
    run.compute_loss(run.model, batch).backward()
    none = run.compute_loss(run.model, run.data_collator(rows[:4]))
    none.backward()
    assert none.item() == 0
    for row in rows:
        del row["labels"]
    assert run.compute_loss(run.model, run.data_collator(rows)).item() == 0


def test_terms_without_a_teacher_need_none():
    """Prevents a teacher that is loaded and run for nothing."""
    objective = Objective([LabelSmoothing(), VirtualTeacher()], "mlm")
    objective.bind(None, ModelShape(2, 32, 4))
    assert not objective.needs_teacher


@pytest.mark.parametrize("term", OUTPUTS, ids=lambda one: one.name)
def test_a_term_refuses_the_kinds_that_it_is_not_for(term):
    """Prevents a correlation over chunks of a vocabulary, and classes of a regression."""
    assert TERMS[term.name] is term
    assert isinstance(term.formula, str)
    shape = ModelShape(2, 32, 4, num_labels=3)
    for kind in ("mlm", "classification", "multilabel", "regression", "ranking", "tokens", "qa"):
        if kind in term.kinds():
            Objective([term()], kind).bind(shape, shape)
        else:
            with pytest.raises(UserError, match=f"objective.{term.name}: expected .* / got {kind}"):
                Objective([term()], kind).bind(shape, shape)


@pytest.mark.parametrize("term", [StandardisedLogits, DistInter])
def test_two_classes_are_refused_where_they_teach_nothing(tmp_path, term):
    """Prevents a run that ends with the student it began with; a vocabulary has no such trouble."""
    with pytest.raises(UserError, match=f"objective.{term.name}: expected 3 classes or more / got 2"):
        trainer(tmp_path, tiny.classifier(1), tiny.classifier(2), [term()], kind="classification")
    shape = ModelShape(2, 32, 4, num_labels=2)
    Objective([term()], "mlm").bind(shape, shape)


def test_a_scale_that_cannot_be_cut_into_bins_is_refused():
    """Prevents NaN from a scale without length, and outputs that fall between the bins."""
    with pytest.raises(UserError, match=r"binned_regression: expected low below high / got low=5.0 and high=5.0"):
        BinnedRegression(low=5.0)
    with pytest.raises(UserError, match=r"width: expected at least half the distance of two bins, 0.15625 / got 0.1"):
        BinnedRegression(width=0.1)


def test_schedules_reach_the_temperature(tmp_path):
    """Prevents a temperature that a recipe lets change and the term does not."""
    student, teacher = normal(3, 4, seed=1), normal(3, 4, seed=2)
    terms = (ReverseKL, JensenShannon, SoftTargetCrossEntropy, StandardisedLogits, DistInter, DistIntra)
    for term in terms:
        warm = term(temperature=Schedule(4.0, 1.0, "linear"))
        assert warm.loss(student, teacher, 0.0) == term(temperature=4.0).loss(student, teacher, 0.0)
        assert warm.loss(student, teacher, 1.0) == term(temperature=1.0).loss(student, teacher, 0.0)


def recipe(task: str, objective: dict) -> Recipe:
    data = {"path": "x", "task": task, "text_columns": ["text"]}
    return Recipe.model_validate({"teacher": {"name": "x"}, "data": data, "objective": objective})


def test_rows_without_effect_are_refused_for_every_term_that_has_them():
    """Prevents `rows` of a task, which has none, from being taken for an option."""
    chosen = {"reverse_kl": {"rows": "all"}, "dist_inter": {}, "soft_target_kl": {"rows": 0.5}, "r_drop": {"rows": 0.5}}
    names = ", ".join(f"objective.{name}.rows" for name in ("soft_target_kl", "reverse_kl", "r_drop"))
    with pytest.raises(UserError, match=rf"got {names} too"):
        validate_no_unused_keys(recipe("classification", chosen))
    validate_no_unused_keys(recipe("mlm", chosen))
    validate_no_unused_keys(recipe("regression", {"binned_regression": {"low": 1}, "soft_target_kl": {}}))


@pytest.mark.parametrize("wrong", [{"beta": 1.0}, {"epsilon": 0.1}, {"rows": "some"}, {"temperature": 0}])
def test_a_recipe_knows_the_options(wrong):
    """Prevents options that a recipe takes and the formula cannot."""
    recipe("mlm", {"jensen_shannon": {"beta": 0.3, "temperature": 1, "rows": 0.2}})
    with pytest.raises(ValueError, match=next(iter(wrong))):
        recipe("mlm", {"jensen_shannon": wrong})


def test_no_term_but_soft_targets_does_with_the_likeliest_words():
    """Prevents a divergence over 128 words that is taken for that over all."""
    assert [term.name for term in TERMS.values() if getattr(term, "accepts_top_logits", False)] == [SoftTargetKL.name]
