"""What divides the student is seen wherever it was said: recipe, or `accelerate launch --config_file`."""

from types import SimpleNamespace

import pytest
import torch

from distil_nlp.training.sharding import Sharding

LAUNCHED = "ACCELERATE_USE_FSDP"  # what `accelerate launch` sets for a configuration with FSDP


def args(fsdp=None, zero_stage=None, device="cuda"):
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    return SimpleNamespace(fsdp=fsdp, deepspeed_plugin=plugin, device=torch.device(device))


@pytest.mark.parametrize(
    ("told", "launched", "expected"),
    [
        ({}, None, Sharding()),
        ({}, "false", Sharding()),
        ({"fsdp": True}, None, Sharding(is_fsdp=True)),
        ({}, "true", Sharding(is_fsdp=True)),
        ({"device": "cpu"}, "true", Sharding()),
        ({"zero_stage": 2}, None, Sharding(zero_stage=2)),
    ],
)
def test_it_is_read_from_the_recipe_and_from_the_launcher(monkeypatch, told, launched, expected):
    """Prevents checks that pass because FSDP was asked for in the launcher's file, and a run that fails hours later."""
    monkeypatch.delenv(LAUNCHED, raising=False)
    if launched is not None:
        monkeypatch.setenv(LAUNCHED, launched)
    assert Sharding.of(args(**told)) == expected


@pytest.mark.parametrize(
    ("sharding", "is_on", "takes_weights"),
    [
        (Sharding(), False, False),
        (Sharding(zero_stage=0), True, False),
        (Sharding(zero_stage=2), True, False),
        (Sharding(zero_stage=3), True, True),
        (Sharding(is_fsdp=True), True, True),
    ],
)
def test_what_leaves_weights_whole(sharding, is_on, takes_weights):
    """Prevents terms on whole weights where a process has a part of them."""
    assert (bool(sharding), sharding.takes_weights) == (is_on, takes_weights)
