"""Kernels run on the CPU, by Triton's interpreter; on a GPU (`TEST_DEVICE`) those of whole trainings, compiled."""

import os

import pytest

if os.environ.get("TEST_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, and where a kernel is defined
INTERPRET = os.environ.get("TRITON_INTERPRET", "0")


@pytest.fixture
def count_calls(monkeypatch):
    """Return what makes a list of the calls of a kernel's method: for each, whether the kernel did the work."""

    def counting(kind, name):
        calls, own = [], getattr(kind, name)

        def counted(self, *arguments):
            found = own(self, *arguments)
            calls.append(found is not None)
            return found

        monkeypatch.setattr(kind, name, counted)
        return calls

    return counting


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Let Triton interpret, or compile, whatever a test before has set."""
    monkeypatch.setenv("TRITON_INTERPRET", INTERPRET)
