"""Terms on hidden states: each formula against the published one, token by token in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.cka import LinearCKA, linear_cka_loss
from distil_nlp.losses.contrastive import Contrastive, contrastive
from distil_nlp.losses.fitnets import FitNetsHint, fitnets_hint
from distil_nlp.losses.fsp import GramFlow, gram_flow
from distil_nlp.losses.mmd import MMD, mmd
from distil_nlp.losses.numerics import normalize
from distil_nlp.losses.pkd import PKD, pkd
from distil_nlp.losses.variational import Gaussian, VariationalInformation, variational_information
from distil_nlp.objective import ModelShape, by_sequence
from distil_nlp.signals.types import EMBEDDINGS, Signals
from tests.helpers import tiny
from tests.helpers.relations import RAGGED, assert_learns, assert_same, assert_zero_and_still, normal, trained
from tests.helpers.training import curve, trainer

TERMS = [PKD, FitNetsHint, VariationalInformation, MMD, LinearCKA, Contrastive, GramFlow]
KERNELS = ["linear", "polynomial", "gaussian"]


def naive_cosine(x: Tensor, y: Tensor) -> Tensor:
    return sum(a * b for a, b in zip(x, y, strict=True)) / sum(x * x).sqrt() / sum(y * y).sqrt()


def naive_pkd(student: Tensor, teacher: Tensor) -> Tensor:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        total = total + sum((s / sum(s * s).sqrt() - t / sum(t * t).sqrt()) ** 2)
    return total


def naive_hint(student: Tensor, teacher: Tensor) -> Tensor:
    return sum(0.5 * sum((t - s) ** 2) for s, t in zip(student, teacher, strict=True))


def naive_contrastive(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total, n = 0.0, len(student)
    for i in range(n):
        scores = [(naive_cosine(student[i], teacher[j]) / temperature).exp() for j in range(n)]
        total = total - (scores[i] / sum(scores)).log()
    return total / n


def naive_cka(student: Tensor, teacher: Tensor) -> Tensor:
    """By centred Gram matrices, HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))."""
    n = len(student)
    grams = []
    for one in (student, teacher):
        gram = torch.stack([torch.stack([sum(one[i] * one[j]) for j in range(n)]) for i in range(n)])
        centre = torch.eye(n, dtype=torch.float64) - 1 / n
        grams.append(centre @ gram @ centre)
    k, other = grams
    return 1 - torch.trace(k @ other) / (torch.trace(k @ k) * torch.trace(other @ other)).sqrt()


def naive_mmd(student: Tensor, teacher: Tensor, kernel: str) -> Tensor:
    """Over the neurons of sequences without padding, pair by pair."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = ([one[:, c] / sum(one[:, c] ** 2).sqrt() for c in range(one.shape[1])] for one in (s, t))
        spread = sum(sum((x - y) ** 2) for x in ours for y in theirs).detach() / len(ours) / len(theirs)
        k = {
            "linear": lambda x, y: sum(x * y),
            "polynomial": lambda x, y: sum(x * y) ** 2,
            "gaussian": lambda x, y, spread=spread: (-sum((x - y) ** 2) / (2 * spread)).exp(),
        }[kernel]
        total = total + sum(k(x, y) for x in ours for y in ours) / len(ours) ** 2
        total = total + sum(k(x, y) for x in theirs for y in theirs) / len(theirs) ** 2
        total = total - 2 * sum(k(x, y) for x in ours for y in theirs) / len(ours) / len(theirs)
    return total


def naive_flow(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """Of one sequence without padding."""
    n, width = teacher[0].shape
    total = 0.0
    for i in range(width):
        for j in range(width):
            ours, theirs = (sum(one[0][p, i] * one[1][p, j] for p in range(n)) / n for one in (student, teacher))
            total = total + (ours - theirs) ** 2
    return total / width**2


ROWS = [
    pytest.param(pkd, naive_pkd, id="pkd"),
    pytest.param(fitnets_hint, naive_hint, id="hint"),
    pytest.param(lambda s, t: contrastive(s, t, 0.5), lambda s, t: naive_contrastive(s, t, 0.5), id="contrastive T=.5"),
    pytest.param(contrastive, lambda s, t: naive_contrastive(s, t, 0.07), id="contrastive"),
    pytest.param(linear_cka_loss, naive_cka, id="cka"),
]


@pytest.mark.parametrize(("loss", "naive"), ROWS)
@pytest.mark.parametrize(("rows", "width"), [(5, 7), (3, 3), (6, 4)])
def test_loss_is_its_definition(loss, naive, rows, width):
    """A mean where the paper sums, or sides swapped, would look like a loss and be another."""
    teacher = normal(rows, width, seed=2)
    assert_same(lambda s: loss(s, teacher.float()), lambda s: naive(s, teacher), 2 * normal(rows, width, seed=1) + 0.5)


@pytest.mark.parametrize(("loss", "naive"), ROWS)
def test_slopes_are_those_of_differences(loss, naive):
    """A detached part would leave the value right and the gradient wrong."""
    teacher = normal(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), normal(4, 3, seed=1).requires_grad_())


@pytest.mark.parametrize("loss", [pkd, fitnets_hint, linear_cka_loss])
def test_loss_is_zero_at_equality(loss):
    states = normal(6, 4, seed=1)
    assert_zero_and_still(lambda s: loss(s, states), states)


@pytest.mark.parametrize("loss", [pkd, fitnets_hint, contrastive])
def test_unequal_shapes_are_an_error(loss):
    """(5, 7) against (5, 1) would broadcast in silence."""
    with pytest.raises(ValueError, match=r"\(5, 7\).*\(5, 1\)"):
        loss(torch.zeros(5, 7), torch.zeros(5, 1))


@pytest.mark.parametrize("loss", [pkd, fitnets_hint, contrastive, linear_cka_loss])
def test_no_gradient_reaches_the_teacher_and_a_state_of_zero_is_no_nan(loss):
    """A collapsed student, all states 0, has no direction; its gradient must not be NaN."""
    student, teacher = torch.zeros(4, 3, requires_grad=True), normal(4, 3, seed=1).float().requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all()


def test_products_are_fp32_under_autocast():
    """Autocast would round the operands of a matrix product to bfloat16."""
    student, teacher = normal(8, 6, seed=1).float(), normal(8, 6, seed=2).float()
    flat = [one[None] for one in (student, teacher)]
    cases = [
        lambda: contrastive(student, teacher),
        lambda: linear_cka_loss(student, teacher),
        lambda: mmd(*flat),
        lambda: gram_flow((flat[0], flat[0]), (flat[1], flat[1]), torch.tensor([8.0])),
    ]
    plain = [case() for case in cases]
    with torch.autocast("cpu", torch.bfloat16):
        found = [case() for case in cases]
    assert found == plain


def test_unit_has_no_slope_where_there_is_no_direction():
    states = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-8, 0.0]], requires_grad=True)
    found = normalize(states)
    found.sum().backward()
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 0]]
    assert states.grad[1:].abs().max() == 0


# Variational information -------------------------------------------------------------------------------------


def test_variational_information_is_the_likelihood_of_a_gaussian():
    """Variance and deviation, or its logarithm, are easily taken for each other."""
    mean, teacher = normal(4, 3, seed=1), normal(4, 3, seed=2)
    variance = normal(4, 3, seed=3).exp()
    constant = 4 * 0.5 * math.log(2 * math.pi)

    def naive(m, v):
        likely = torch.distributions.Normal(m, v.sqrt()).log_prob(teacher)
        return -sum(sum(row) / 3 for row in likely) - constant

    assert_same(lambda m, v: variational_information(m, v, teacher.float()), naive, mean, variance)
    assert torch.autograd.gradcheck(
        lambda m, v: variational_information(m, v, teacher), (mean.requires_grad_(), variance.requires_grad_())
    )


def test_the_least_variational_information_is_where_the_variance_is_the_error():
    """Its minimum is not 0: ½ (1 + log σ²) for a given error, and ½ log 1e-5 at the floor."""
    error = torch.tensor([0.3, 2.0], dtype=torch.float64)
    variance = (error**2).requires_grad_()
    value = variational_information(error[None], variance[None], torch.zeros(1, 2))
    value.backward()
    assert value.item() == pytest.approx(float((1 + (error**2).log()).mean() / 2))
    assert variance.grad.abs().max() < 1e-12
    floor = variational_information(error[None], torch.full((1, 2), 1e-5), error[None])
    assert floor.item() == pytest.approx(-5.756, abs=1e-3)


@pytest.mark.parametrize("variance", [1e-6, 0.01, 1.0, 5.0, 200.0])
def test_the_gaussian_begins_with_its_variance(variance):
    module = Gaussian(3, 4, variance)
    mean, found = module(torch.randn(5, 3)).chunk(2, -1)
    assert mean.shape == found.shape == (5, 4)
    assert found.flatten().tolist() == pytest.approx([max(variance, 2e-5)] * 20, rel=1e-3)


def test_the_variance_is_learned(tmp_path):
    """A module outside the student's projections would never see the optimiser."""
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), [VariationalInformation()])
    alphas = [p for name, p in run.model.named_parameters() if name.endswith("alpha")]
    before = [one.detach().clone() for one in alphas]
    run.train()
    assert len(alphas) == 2
    assert all((one - two).abs().min() > 0 for one, two in zip(alphas, before, strict=True))


def test_variational_information_of_unequal_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"variance \(5, 1\), teacher \(5, 7\)"):
        variational_information(torch.zeros(5, 7), torch.ones(5, 1), torch.zeros(5, 7))


# Sequences ---------------------------------------------------------------------------------------------------


def padded(width: int, seed: int, value: float = 0.0) -> Tensor:
    return normal(*RAGGED.shape, width, seed=seed).masked_fill(~RAGGED[..., None], value)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", [3, 6])
def test_mmd_is_its_definition_over_the_attended_tokens(kernel, width):
    """Padding, and a sequence that only fills up the batch, add nothing; widths may differ."""
    teacher = padded(4, seed=2)

    def naive(student):
        pairs = [(student[i, seen], teacher[i, seen]) for i, seen in enumerate(RAGGED) if seen.any()]
        return sum(naive_mmd(s[None], t[None], kernel) for s, t in pairs)

    assert_same(lambda s: mmd(s, teacher.float(), kernel), naive, padded(width, seed=1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_mmd_is_zero_for_the_same_neurons_in_any_order(kernel):
    """It compares distributions: neurons are not numbered alike in both models."""
    states = normal(2, 5, 4, seed=1)
    assert_zero_and_still(lambda s: mmd(s, states[..., [2, 0, 3, 1]], kernel), states)
    assert mmd(states, normal(2, 5, 4, seed=2), kernel) > 0.01


@pytest.mark.parametrize("kernel", ["linear", "polynomial"])  # the width of the gaussian has no gradient
def test_slopes_of_mmd_are_those_of_differences(kernel):
    teacher = normal(2, 3, 4, seed=2)
    assert torch.autograd.gradcheck(lambda s: mmd(s, teacher, kernel), normal(2, 3, 5, seed=1).requires_grad_())


def test_mmd_of_other_tokens_is_an_error():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(2, 4, 4\)"):
        mmd(torch.zeros(2, 3, 4), torch.zeros(2, 4, 4))


def test_gram_flow_is_its_definition_over_the_attended_tokens():
    """Divided by the tokens of each sequence, not by the padded length."""
    teacher = padded(3, seed=3), padded(3, seed=4)
    lengths = RAGGED.sum(1)

    def naive(lower, upper):
        found = 0.0
        for i, seen in enumerate(RAGGED[:2]):
            found = found + naive_flow([lower[i, seen], upper[i, seen]], [one[i, seen] for one in teacher])
        return found

    halves = [one.float() for one in teacher]
    assert_same(lambda a, b: gram_flow((a, b), halves, lengths), naive, padded(3, seed=1), padded(3, seed=2))
    both = padded(3, seed=1).requires_grad_(), padded(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: gram_flow((a, b), teacher, lengths), both)
    assert gram_flow(teacher, teacher, lengths) == 0


def test_gram_flow_of_other_widths_is_an_error():
    one, other = torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\).*\(1, 2, 4\)"):
        gram_flow((one, one), (other, other), torch.ones(1))


def test_states_by_sequence_are_zero_elsewhere():
    states, places = normal(8, 3, seed=1).requires_grad_(), RAGGED.flatten().nonzero().flatten()
    found = by_sequence(states, places, RAGGED)
    assert torch.equal(found[RAGGED], states)
    assert (found[~RAGGED] == 0).all()
    found.sum().backward()
    assert (states.grad == 1).all()


@pytest.mark.parametrize("term", [MMD(), GramFlow()])
def test_a_sequence_term_sums_over_the_sequences_and_means_over_the_pairs(term):
    term.layers = "all"
    term.bind("mlm", ModelShape(4, 3, 1), ModelShape(2, 3, 1))
    places = RAGGED.flatten().nonzero().flatten()
    batch = {"rows": {"all": places}, "input_ids": RAGGED.long()}
    student, teacher = (
        Signals(hidden={(block, "all"): normal(8, 3, seed=seed + block).float() for block in blocks})
        for seed, blocks in ((10, (EMBEDDINGS, 0, 1)), (20, (EMBEDDINGS, 1, 3)))
    )
    laid = [
        [by_sequence(one.hidden[block, "all"], places, RAGGED) for block in blocks]
        for one, blocks in ((student, (EMBEDDINGS, 0, 1)), (teacher, (EMBEDDINGS, 1, 3)))
    ]
    if isinstance(term, MMD):
        expected = sum(mmd(s, t) for s, t in zip(*laid, strict=True)) / 3
    else:
        flows = [gram_flow(laid[0][i : i + 2], laid[1][i : i + 2], RAGGED.sum(1)) for i in (0, 1)]
        expected = sum(flows) / 2
    torch.testing.assert_close(term.sum(student, teacher, batch, 0.0), expected)


# CKA, contrast -------------------------------------------------------------------------------------------------


def test_cka_is_blind_to_rotation_scale_and_shift_and_takes_any_widths():
    states = normal(9, 4, seed=1)
    rotation = torch.linalg.qr(normal(4, 4, seed=2)).Q
    assert linear_cka_loss(3 * states @ rotation + 5, states).item() == pytest.approx(0, abs=1e-9)
    assert 0 < linear_cka_loss(normal(9, 2, seed=3), states).item() < 1
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(3, 2\)"):
        linear_cka_loss(torch.zeros(4, 2), torch.zeros(3, 2))


def test_contrastive_has_the_stated_bounds():
    """Its minimum is above 0, so that a curve that ends there is no failure."""
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert contrastive(opposite, opposite, 0.5).item() == pytest.approx(math.log1p(math.exp(-2 / 0.5)))
    teacher = normal(5, 3, seed=1)
    at_equality = (F.cosine_similarity(teacher[:, None], teacher[None], dim=-1) - 1).div(0.3).exp().sum(1).log().mean()
    assert contrastive(teacher, teacher, 0.3).item() == pytest.approx(at_equality.item())
    same = torch.ones(5, 3)
    assert contrastive(same, same).item() == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="temperature above 0 / got 0"):
        contrastive(same, same, 0)


# Layers --------------------------------------------------------------------------------------------------------


def test_layers_are_those_of_the_papers():
    """PKD-Skip is {2, 4, 6, 8, 10} of 12 counted from 1; FitNets' hint is the middle layer."""
    twelve, six = ModelShape(12, 8, 2), ModelShape(6, 8, 2)
    term = PKD()
    term.bind("classification", twelve, six)
    assert term.pairs == [(1, 0), (3, 1), (5, 2), (7, 3), (9, 4)]
    for depths, pair in [((12, 6), (5, 2)), ((12, 3), (7, 1)), ((4, 1), (3, 0)), ((24, 12), (11, 5))]:
        hint = FitNetsHint()
        hint.bind("mlm", *(ModelShape(depth, 8, 2) for depth in depths))
        assert hint.pairs == [pair]


def test_layers_that_cannot_be_are_said():
    four, two, one = (ModelShape(depth, 8, 2) for depth in (4, 2, 1))
    with pytest.raises(UserError, match=r"objective.pkd.layers: expected a student and a teacher of 2 layers or more"):
        PKD().bind("mlm", four, one)
    with pytest.raises(UserError, match=r"objective.gram_flow.layers: expected two pairs of layers or more / got last"):
        GramFlow(layers="last").bind("mlm", four, two)
    for term in (PKD(layers=[["embeddings", "embeddings"]]), Contrastive(layers=[["embeddings", 0]])):
        with pytest.raises(UserError, match=rf"objective.{term.name}.layers: expected blocks / got embeddings"):
            term.bind("mlm", four, two)
    term = PKD(layers="all")
    term.bind("mlm", four, two)
    assert term.pairs == [(1, 0), (3, 1)]


def test_modules_are_learned_where_the_papers_have_them():
    """A hint's regressor is learned at equal widths too; relations take any widths and learn nothing."""
    learned = {FitNetsHint: (1, 1), VariationalInformation: (2, 2), Contrastive: (1, 1), PKD: (0, 1), GramFlow: (0, 3)}
    for kind in TERMS:
        found = []
        for width in (8, 6):
            term = kind()
            term.bind("mlm", ModelShape(4, 8, 2), ModelShape(2, width, 2))
            found.append(len(term.projections()))
        assert tuple(found) == learned.get(kind, (0, 0)), kind.name


# Training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "width"), [("mlm", 32), ("mlm", 16), ("classification", 16), ("regression", 16)])
def test_terms_train(tmp_path, kind, width):
    """On ragged rows, of a student as wide as its teacher and of a narrower one."""
    trained(tmp_path, [term() for term in TERMS], kind, width)


@pytest.mark.parametrize("term", [*TERMS, *(lambda k=k: MMD(kernel=k) for k in ("linear", "gaussian"))])
def test_a_term_learns_by_itself(tmp_path, term):
    """A term whose gradient pointed the wrong way would still be finite."""
    assert_learns(tmp_path, term())


def test_cls_rows_of_cka(tmp_path):
    run = trained(tmp_path, [LinearCKA(rows="cls")], "mlm", 16)
    assert {name for _, name in run.objective.request("student").hidden} == {"cls"}


def test_a_micro_batch_of_one_sequence_takes_no_part_in_relations(tmp_path):
    """0 / 0 rows: nothing is logged of them; the others count it as they should."""
    run = trained(tmp_path, [PKD(), LinearCKA(), Contrastive(), GramFlow()], "mlm", 16, batch=1)
    assert curve(run, "linear_cka") == curve(run, "contrastive") == []
    assert min(curve(run, "pkd")) > 0
