"""Helpers for tests of terms on hidden states: comparison with naive arithmetic, and training."""

import math

import torch
from torch import Tensor

from tests.helpers import tiny
from tests.helpers.training import curve, task_rows, trainer

RAGGED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
"""Attended tokens of three sequences; the last one is a filler."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(loss, naive, *students: Tensor) -> None:
    """Assert that value and gradient of a loss in float32 are those of the naive one in float64."""
    inputs = [student.float().requires_grad_() for student in students]
    exact = [student.double().requires_grad_() for student in students]
    value, expected = loss(*inputs), naive(*exact)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)
    for tensor, exact_tensor in zip(inputs, exact, strict=True):
        torch.testing.assert_close(tensor.grad.double(), exact_tensor.grad, rtol=2e-3, atol=2e-6)


def assert_zero_and_still(loss, student: Tensor) -> None:
    """Assert that the value at the minimum is 0, and the gradient too."""
    student = student.clone().requires_grad_()
    value = loss(student)
    value.backward()
    assert abs(value.item()) < 1e-9
    assert student.grad.abs().max() < 1e-9


def trained(folder, terms, kind: str, width: int = 32, batch: int = 8):
    """Return a finished run of two steps on ragged rows, for a student of this width and a teacher of width 32."""
    if kind == "mlm":
        student, teacher, rows = tiny.mlm_model(2, seed=1, hidden_size=width), tiny.mlm_model(4), None
    else:
        labels = 1 if kind == "regression" else 2
        student = tiny.classifier(2, num_labels=labels, seed=1, hidden_size=width)
        teacher = tiny.classifier(4, num_labels=labels)
        rows = [{**row, "labels": float(row["labels"])} for row in task_rows()] if kind == "regression" else None
    run = trainer(folder, student, teacher, terms, kind=kind, rows=rows, max_steps=2, per_device_train_batch_size=batch)
    run.train()
    assert all(math.isfinite(value) for term in terms for value in curve(run, term.name))
    return run


def assert_learns(folder, term) -> None:
    """Assert that a term falls when trained alone on six rows; models have large weights, so that rows differ."""
    student, teacher = (tiny.classifier(depth, seed=depth, initializer_range=0.3) for depth in (2, 4))
    steps = {"max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    run = trainer(folder, student, teacher, [term], kind="classification", rows=task_rows(6), **steps)
    run.train()
    values = curve(run, term.name)
    assert values[-1] < values[0] - 1e-4
