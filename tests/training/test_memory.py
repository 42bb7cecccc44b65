"""Memory: kept for the next step, and counted as it is."""

import subprocess
import sys

import pytest
import torch

from distil_nlp.utils.memory import LiveBytes

FAULTS = """
import resource, sys, torch
from distil_nlp.utils.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(30):  # glibc parks the first few crumbs beside a tensor, and what they part is not joined
    faults()
print(faults())
"""


@pytest.mark.integration
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told what to keep")
def test_freed_memory_is_used_again():
    """A step would ask the system for every large tensor anew: 16,384 pages for 64 MiB."""
    found = {}
    for how in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        found[how] = int(done.stdout)
    assert 10 * found["keep"] < found["default"]


def test_living_tensors_are_counted_once_and_while_they_live():
    """A view counts with its storage, what is freed no more."""
    with LiveBytes() as live:
        one = torch.zeros(1000)
        view = one[10:]
        other = one + 1
        assert live.now == 8000
        del other
        assert (live.now, live.peak) == (4000, 8000)
        assert view.numel() == 990


def test_what_is_there_already_is_counted_with_its_gradient():
    """Weights and gradients are the most of what a step holds."""
    weight = torch.ones(1000, requires_grad=True)
    before = LiveBytes()
    before.see_all()
    weight.grad = torch.ones(1000)
    live = LiveBytes()
    live.see_all()
    assert live.now - before.now == 4000


def test_a_sparse_tensor_has_no_storage_to_count():
    """The gradient of an embedding by rows is one."""
    with LiveBytes() as live:
        torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.ones(2, 3), (4, 3))
    assert live.peak > 0
