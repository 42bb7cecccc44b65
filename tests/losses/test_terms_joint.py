"""Terms whose learned modules see both models' hidden states: factor transfer, and a discriminator."""

import math

import pytest
import torch
from torch import Tensor

from distil_nlp.errors import UserError
from distil_nlp.losses.adversarial import Adversarial, Discriminator, adversarial, reverse_gradient
from distil_nlp.losses.factor_transfer import FactorModules, FactorTransfer, factor_transfer
from distil_nlp.objective import ModelShape
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.types import ProjectionInput
from tests.helpers import tiny
from tests.helpers.relations import assert_learns, assert_same, assert_zero_and_still, normal, trained
from tests.helpers.training import curve, trainer

TERMS = [FactorTransfer, Adversarial]


def gradients(module, loss) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}


# Factor transfer -----------------------------------------------------------------------------------------------


def naive_factor_transfer(student, factor, rebuilt, teacher) -> Tensor:
    total = 0.0
    for s, f, r, t in zip(student, factor, rebuilt, teacher, strict=True):
        total = total + sum((s / sum(s * s).sqrt() - f / sum(f * f).sqrt()).abs())
        total = total + sum((r - t) ** 2) / len(t)
    return total


def test_factor_transfer_is_its_definition():
    """Prevents a mean where the paper sums, and lengths that matter where only directions should."""
    factor, teacher = normal(5, 3, seed=2), normal(5, 7, seed=3)

    def loss(student, rebuilt):
        return factor_transfer(student, factor.float(), rebuilt, teacher.float())

    def naive(student, rebuilt):
        return naive_factor_transfer(student, factor, rebuilt, teacher)

    assert_same(loss, naive, 2 * normal(5, 3, seed=1) + 0.5, normal(5, 7, seed=4))
    inputs = normal(5, 3, seed=1).requires_grad_(), normal(5, 7, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, r: factor_transfer(s, factor, r, teacher), inputs)


def test_factor_transfer_is_zero_where_factors_have_one_direction_and_the_teacher_is_rebuilt():
    factor, teacher = normal(4, 3, seed=1), normal(4, 6, seed=2)
    assert factor_transfer(3 * factor, factor, teacher, teacher).item() == pytest.approx(0, abs=1e-9)
    assert_zero_and_still(lambda rebuilt: factor_transfer(factor, factor, rebuilt, teacher), teacher)
    opposite = factor_transfer(-factor, factor, teacher, teacher).item()
    assert 0 < opposite <= 4 * 2 * math.sqrt(3)


@pytest.mark.parametrize(
    ("shapes", "got"),
    [
        ([(5, 3), (5, 1), (5, 7), (5, 7)], r"student \(5, 3\), factor \(5, 1\)"),
        ([(5, 3), (5, 3), (5, 7), (1, 7)], r"rebuilt \(5, 7\), teacher \(1, 7\)"),
    ],
)
def test_factors_of_other_shapes_are_an_error(shapes, got):
    """Prevents a broadcast in silence."""
    with pytest.raises(ValueError, match=got):
        factor_transfer(*(torch.zeros(shape) for shape in shapes))


def test_the_student_does_not_teach_the_paraphraser_nor_the_paraphraser_the_student():
    """Prevents factors that come to meet the student: all of them equal would be the least distance."""
    modules, teacher = FactorModules(3, 6, 4), normal(5, 6, seed=2).float()
    found = []
    for shift in (0.0, 10.0):
        student = (normal(5, 3, seed=1).float() + shift).requires_grad_()
        found.append(gradients(modules, factor_transfer(*modules(student, teacher))))
        assert student.grad.abs().max() > 0
    for name in found[0]:
        same = torch.equal(found[0][name], found[1][name])
        assert same == (not name.startswith("translate")), name
    assert {name.split(".")[0] for name in found[0]} == {"translate", "paraphrase", "rebuild"}
    student = normal(5, 3, seed=1).float().requires_grad_()
    *factors, _, _ = modules(student, teacher)
    alone = factor_transfer(*factors, teacher, teacher)
    assert {name.split(".")[0] for name in gradients(modules, alone)} == {"translate"}


@pytest.mark.parametrize(("rate", "wide", "factors"), [(0.5, 8, 4), (0.75, 8, 6), (0.01, 8, 1)])
def test_the_rate_is_the_share_of_the_width_that_is_kept(rate, wide, factors):
    student, factor, rebuilt, _ = FactorTransfer(rate=rate).module(3, wide)(torch.zeros(5, 3), torch.zeros(5, wide))
    assert student.shape == factor.shape == (5, factors)
    assert rebuilt.shape == (5, wide)


# Adversarial ---------------------------------------------------------------------------------------------------


def test_adversarial_is_the_binary_cross_entropy():
    """Prevents a discriminator that is told the wrong names."""
    teacher = 2 * normal(5, seed=2)

    def naive(student):
        def sigmoid(x):
            return 1 / (1 + (-x).exp())

        return sum(
            -sigmoid(t).log() - (1 - sigmoid(s)).log() for s, t in zip(student.unbind(), teacher.unbind(), strict=True)
        )

    assert_same(lambda s: adversarial(s, teacher.float()), naive, 2 * normal(5, seed=1))
    both = normal(5, seed=1).requires_grad_(), normal(5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(adversarial, both)


def test_adversarial_has_the_stated_values():
    """Prevents logarithms of 0 where the discriminator is sure."""
    undecided, sure = torch.zeros(3), torch.full((3,), 200.0)
    assert adversarial(undecided, undecided).item() == pytest.approx(3 * 2 * math.log(2))
    assert adversarial(-sure, sure).item() == 0
    assert adversarial(sure, -sure).item() == pytest.approx(3 * 400)
    with pytest.raises(ValueError, match=r"\(5,\).*\(1,\)"):
        adversarial(torch.zeros(5), torch.zeros(1))


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("narrow", [6, 4])
def test_the_students_gradient_is_reversed_and_nobody_elses(narrow, strength):
    """Prevents a student that helps its discriminator, and a discriminator that forgets what it knows."""
    module, student = Discriminator(narrow, 6, 8, strength), normal(5, narrow, seed=1).float().requires_grad_()
    teacher = normal(5, 6, seed=2).float()
    found = gradients(module, adversarial(*module(student, teacher))) | {"student": student.grad.clone()}
    student.grad = None
    plain = adversarial(module.tell(module.project(student)).squeeze(-1), module.tell(teacher).squeeze(-1))
    expected = gradients(module, plain) | {"student": student.grad}
    assert expected["student"].abs().max() > 0
    for name, gradient in expected.items():
        factor = 1.0 if name.startswith("tell") else -strength
        torch.testing.assert_close(found[name], factor * gradient)
    assert any(name.startswith("project") for name in found) == (narrow != 6)


def test_reversal_leaves_the_states():
    states = normal(2, 3, seed=1)
    assert torch.equal(reverse_gradient(states, 2.0), states)


def test_the_discriminator_learns_what_does_not_move():
    """Prevents one that gets the reversed gradient itself."""
    module, student, teacher = Discriminator(4, 4, 16, 1.0), normal(32, 4, seed=1), normal(32, 4, seed=2) + 1
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(200):
        optimiser.zero_grad()
        loss = adversarial(*module(student.float(), teacher.float())) / 32
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * 2 * math.log(2)


@pytest.mark.parametrize("width", [4, 3])
def test_a_student_that_is_free_to_move_comes_to_its_teachers_distribution(width):
    """Prevents a game that the student plays for the other side."""
    torch.manual_seed(0)
    module, teacher = Discriminator(width, 4, 16, 1.0), normal(256, 4, seed=2).float() + 2
    student = normal(256, width, seed=1).float().requires_grad_()
    optimiser = torch.optim.Adam([*module.parameters(), student], 1e-2)

    def apart():
        return (module.project(student).mean(0) - teacher.mean(0)).norm().item()

    before = apart()
    for _ in range(300):
        optimiser.zero_grad()
        (adversarial(*module(student, teacher)) / 256).backward()
        optimiser.step()
    assert apart() < 0.5 * before


def test_it_is_not_balanced_by_its_value():
    """Prevents a share that grows without end while the discriminator wins."""
    with pytest.raises(UserError, match=r"expected gradient_norm with adversarial / got uncertainty / it falls where"):
        Objective([Adversarial()], "mlm", LossBalancer("uncertainty"))
    Objective([Adversarial()], "mlm", LossBalancer("gradient_norm"))


# Both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TERMS)
def test_each_pair_has_a_module_that_is_shown_both(kind):
    """Prevents one module for two teacher layers, and a teacher that nobody asked."""
    term = kind(layers=[[1, 0], [3, 0], ["embeddings", "embeddings"]])
    term.bind("mlm", ModelShape(4, 8, 2), ModelShape(2, 6, 2))
    found = {name: source for name, (source, _) in term.projections().items()}
    assert found == {
        f"{term.name}_1_0": ProjectionInput(0, "all", teacher=(1, "all")),
        f"{term.name}_3_0": ProjectionInput(0, "all", teacher=(3, "all")),
        f"{term.name}_embeddings_embeddings": ProjectionInput(-1, "all", teacher=(-1, "all")),
    }
    assert {source.teacher for source in found.values()} == term.request("teacher").hidden


@pytest.mark.parametrize(("kind", "width"), [("mlm", 32), ("classification", 16), ("regression", 16)])
def test_terms_train(tmp_path, kind, width):
    """Prevents modules that the optimiser never sees, and ones that stay with the student."""
    run = trained(tmp_path, [term() for term in TERMS], kind, width)
    modules = [one for name, one in run.model.named_parameters() if "distillation_projections" in name]
    learned = {id(one) for group in run.optimizer.param_groups for one in group["params"]}
    assert len(modules) == (16 if width == 32 else 18)
    assert {id(one) for one in modules} <= learned
    assert not [name for name in run.detach().state_dict() if "distillation" in name]


@pytest.mark.parametrize("kind", TERMS)
def test_modules_learn_at_a_strength_or_a_rate_of_their_own(tmp_path, kind):
    """Prevents options of the recipe that reach nothing."""
    values = []
    for options in ({}, {"rate": 0.25} if kind is FactorTransfer else {"strength": 9.0}):
        run = trained(tmp_path, [kind(**options)], "mlm", 16)
        values.append(curve(run, kind.name))
    assert values[0] != values[1]


def test_factor_transfer_learns_by_itself(tmp_path):
    """Prevents a gradient that points the wrong way and is finite."""
    assert_learns(tmp_path, FactorTransfer())


@pytest.mark.parametrize("kind", TERMS)
def test_a_teacher_in_half_precision_is_seen_by_modules_in_whole(tmp_path, kind):
    """Prevents states of bfloat16 before weights of float32, which linear layers refuse."""
    teacher = tiny.mlm_model(4).bfloat16()
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), teacher, [kind()], max_steps=1)
    run.train()
    assert math.isfinite(curve(run, kind.name)[0])
