"""The device that tests train on: the CPU, or with `TEST_DEVICE=accelerator` whatever accelerator is there."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import TrainingArguments


def use_test_device() -> None:
    """Let `TrainingArguments` have an accelerator in spite of `use_cpu=True`, where `TEST_DEVICE` asks for it.

    Tests say `use_cpu` so that they give the same on every machine. Those that speak of the CPU itself, or compare bit
    for bit with other arithmetic, fail on another device.

    Raises:
        RuntimeError: if there is no accelerator.
    """
    if os.environ.get("TEST_DEVICE", "cpu") == "cpu":
        return
    if not torch.accelerator.is_available():
        raise RuntimeError("TEST_DEVICE=accelerator: expected an accelerator / got none / leave TEST_DEVICE out")
    check = TrainingArguments.__post_init__

    def with_accelerator(self: Any) -> None:
        self.use_cpu = False
        check(self)

    TrainingArguments.__post_init__ = with_accelerator  # type: ignore[method-assign]
