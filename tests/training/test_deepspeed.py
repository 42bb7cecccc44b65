"""ZeRO-2 in two real processes gives what one process gives; `make test-deepspeed` installs what it needs."""

import json

import pytest

from tests.training.test_distributed import CUTS, check_a_whole_run, check_equals_one
from tests.workers.steps import ZERO_2

pytest.importorskip("deepspeed", reason="needs DeepSpeed: make test-deepspeed")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@pytest.mark.parametrize("cut", CUTS)
def test_zero_2_equals_one_process(tmp_path, cut):
    """Prevents a loss that is divided once more, and projections, counts or scores that DeepSpeed does not know of."""
    check_equals_one(tmp_path, cut, "DeepSpeedEngine", zero_2=True)


def test_a_whole_run_under_zero_2(tmp_path):
    """Prevents a teacher whose fine-tuning leaves no DeepSpeed to the student: accelerate refuses a second one."""
    path = tmp_path / "zero.json"
    path.write_text(json.dumps(ZERO_2))
    check_a_whole_run(tmp_path, f"training.deepspeed={path}")
