"""What the tests of terms on hidden states share: comparing value and gradient with naive arithmetic, and training."""

import math

import torch
from torch import Tensor

from tests.helpers import tiny
from tests.helpers.training import curve, task_rows, trainer

RAGGED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
"""Which of three sequences' tokens are attended; the last only fills up the batch."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(loss, naive, *students: Tensor) -> None:
    """Value and gradient of the loss in float32 are those of the naive one in float64."""
    ours = [one.float().requires_grad_() for one in students]
    exact = [one.double().requires_grad_() for one in students]
    value, expected = loss(*ours), naive(*exact)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2e-3, atol=2e-6)


def assert_zero_and_still(loss, student: Tensor) -> None:
    """At the minimum the value is 0 and so is the gradient."""
    ours = student.clone().requires_grad_()
    value = loss(ours)
    value.backward()
    assert abs(value.item()) < 1e-9
    assert ours.grad.abs().max() < 1e-9


def trained(folder, terms, kind: str, width: int = 32, batch: int = 8):
    """A finished run of two steps on ragged rows, of a student of this width with a teacher of 32."""
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
    """Alone, on the same six rows again and again, it falls. The models begin far from 0, where sequences differ."""
    student, teacher = (tiny.classifier(depth, seed=depth, initializer_range=0.3) for depth in (2, 4))
    steps = {"max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    run = trainer(folder, student, teacher, [term], kind="classification", rows=task_rows(6), **steps)
    run.train()
    values = curve(run, term.name)
    assert values[-1] < values[0] - 1e-4
