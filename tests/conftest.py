"""Tests run on the CPU, offline, and speak to no Hub."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import transformers

from tests.helpers import ROOT
from tests.helpers.device import use_test_device

torch.set_num_threads(1)  # the models are tiny, and several processes run tests
transformers.logging.disable_progress_bar()
use_test_device()

SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and weights beside the checkout; skipped where they are absent, but never in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"expected real data in {SHARED} / got none / CI must not skip it")
        pytest.skip(f"no real data in {SHARED}")
    return SHARED
