"""The kernel of the vocabulary's losses, interpreted on the CPU, against the terms in float64."""

import os
import subprocess
import sys

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.kernels.fallback import kernel_for
from distil_nlp.kernels.vocabulary import FusedRows, VocabularyKernel
from distil_nlp.losses.hard_labels import hard_cross_entropy
from distil_nlp.losses.soft_targets import soft_target_kl
from tests.helpers import ROOT

pytest.importorskip("triton", reason="needs Triton: make test-kernels")
CPU = torch.device("cpu")


def drawn(count, words, dtype=torch.float32, padding=0, scale=3.0):
    """Logits of both models and labels of some rows; with columns that are no words, as an aligned projection has."""
    generator = torch.Generator().manual_seed(count * words)
    student, teacher = ((torch.randn(count, words + padding, generator=generator) * scale).to(dtype) for _ in range(2))
    student[:, words:] = 0
    labels = torch.randint(words, (count,), generator=generator)
    labels[::3] = -100
    taught = (torch.arange(count) % 4 != 1).to(torch.int8)
    return student, teacher, labels, taught


def reference(student, teacher, labels, taught, temperature, factors):
    """Both sums and the gradient of the loss, by the terms' own functions in float64."""
    logits = student.double().requires_grad_()
    rows, known = taught.bool(), labels >= 0
    soft = soft_target_kl_64(logits[rows], teacher.double()[rows], temperature)
    hard = torch.nn.functional.cross_entropy(logits[known], labels[known], reduction="sum")
    (gradient,) = torch.autograd.grad(factors[0] * soft + factors[1] * hard, logits)
    return soft.item(), hard.item(), gradient


def soft_target_kl_64(student, teacher, temperature):
    own, target = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    return (target.exp() * (target - own)).sum() * temperature**2


TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}
"""Of the gradient, absolute, where factors are 1 and the largest entries are near 2: half a unit in the last place."""


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("count", "words", "padding"), [(5, 7, 0), (4, 64, 0), (3, 4096, 0), (2, 4097, 31), (3, 9000, 24), (1, 2, 6)]
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sums_and_gradient_are_those_of_the_terms(dtype, count, words, padding, temperature):
    """Prevents a loss, or a gradient, that is not the one that the recipe names."""
    student, teacher, labels, taught = drawn(count, words, dtype, padding)
    factors = torch.tensor([0.7, 1.3])
    own = student[:, :words]
    soft, hard, gradient = reference(own, teacher[:, :words], labels, taught, temperature, factors.double())
    rows = FusedRows(labels, teacher[:, :words], taught, temperature)
    found = VocabularyKernel(is_required=True).replace_by_gradient(own, rows, factors)
    assert found is not None
    assert [value.item() for value in found] == pytest.approx([soft, hard], rel=2e-5, abs=2e-5)
    torch.testing.assert_close(own.double(), gradient, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert not student[:, words:].any(), "columns that are no words keep their zeros"
    assert not own[(taught == 0) & (labels < 0)].any(), "rows that no term reads have no gradient"


@pytest.mark.parametrize("part", ["soft", "hard"])
def test_one_term_alone(part):
    """Prevents a term that is there although the recipe has it not."""
    student, teacher, labels, taught = drawn(6, 100)
    rows = FusedRows(None, teacher, taught, 2.0) if part == "soft" else FusedRows(labels)
    factors = torch.tensor([1.0, 0.0]) if part == "soft" else torch.tensor([0.0, 1.0])
    soft, hard, gradient = reference(student, teacher, labels, taught, 2.0, factors.double())
    found = VocabularyKernel(is_required=True).replace_by_gradient(student, rows, factors)
    wanted = [soft, 0.0] if part == "soft" else [0.0, hard]
    assert [value.item() for value in found] == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(student.double(), gradient, rtol=1e-6, atol=2e-6)


def test_large_logits_do_not_overflow_and_equal_ones_cost_nothing():
    """Prevents infinity where a softmax without its maximum would have it, and a KL below 0."""
    student, teacher, labels, taught = drawn(4, 300, scale=300.0)
    soft, hard, gradient = reference(student, teacher, labels, taught, 1.0, torch.ones(2).double())
    found = VocabularyKernel(True).replace_by_gradient(student, FusedRows(labels, teacher, taught), torch.ones(2))
    assert [value.item() for value in found] == pytest.approx([soft, hard], rel=1e-5)
    torch.testing.assert_close(student.double(), gradient, rtol=1e-5, atol=1e-5)
    same = teacher.clone()
    soft, _ = VocabularyKernel(True).replace_by_gradient(same, FusedRows(None, teacher, taught), torch.ones(2))
    assert soft.item() == pytest.approx(0.0, abs=1e-3)
    assert same.abs().max() < 1e-6


def test_the_terms_in_torch_are_the_same_functions():
    """Prevents a kernel that equals this file's formulas, and not those of the terms."""
    student, teacher, labels, _ = drawn(4, 50)
    known = labels >= 0
    assert soft_target_kl(student, teacher, 2.0).item() == pytest.approx(
        soft_target_kl_64(student.double(), teacher.double(), 2.0).item(), rel=1e-5
    )
    rows = FusedRows(labels)
    _, hard = VocabularyKernel(True).replace_by_gradient(student.clone(), rows, torch.ones(2))
    assert hard.item() == pytest.approx(hard_cross_entropy(student[known], labels[known]).item(), rel=1e-5)


def test_a_kernel_that_fails_warns_once_and_leaves_the_logits(caplog, monkeypatch):
    """Prevents a run that ends, or a loss that is wrong, where a kernel cannot be compiled."""

    def broken(*_):
        raise RuntimeError("ptxas fatal\nmore")

    monkeypatch.setattr("distil_nlp.kernels.vocabulary._launch", broken)
    kernel, (student, _, labels, _) = VocabularyKernel(), drawn(3, 10)
    before = student.clone()
    for _ in range(2):
        assert kernel.replace_by_gradient(student, FusedRows(labels), torch.ones(2)) is None
    assert torch.equal(student, before)
    assert sum("torch goes on: ptxas fatal" in record.message for record in caplog.records) == 1
    with pytest.raises(UserError, match=r"run.kernels: expected Triton to run the kernel .* / got ptxas fatal"):
        VocabularyKernel(is_required=True).replace_by_gradient(student, FusedRows(labels), torch.ones(2))


def test_who_gets_a_kernel(monkeypatch):
    """Prevents Triton on a machine without a GPU, and silence where it was asked for."""
    assert kernel_for(VocabularyKernel, "torch", CPU) is None
    assert kernel_for(VocabularyKernel, "auto", CPU) is not None, "interpreted"
    monkeypatch.delenv("TRITON_INTERPRET")
    assert kernel_for(VocabularyKernel, "auto", CPU) is None
    with pytest.raises(UserError, match=r"run.kernels: expected Triton on a GPU / got device cpu"):
        kernel_for(VocabularyKernel, "triton", CPU)


def test_nothing_imports_triton_before_a_kernel_is_asked_for():
    """Prevents a package that cannot be imported without a GPU's compiler."""
    code = "import sys, distil_nlp.kernels.vocabulary as v; assert 'triton' not in sys.modules, 'imported'"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
