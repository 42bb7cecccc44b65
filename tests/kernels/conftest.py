"""Kernels run on the CPU, by Triton's interpreter."""

import os

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, and where a kernel is defined


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Let Triton interpret, whatever a test before has set."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
