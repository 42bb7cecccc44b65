"""What divides the student among processes, wherever that was said: in the recipe, or to `accelerate launch`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from accelerate.utils import str_to_bool
from transformers import TrainingArguments


@dataclass(frozen=True)
class Sharding:
    """FSDP, or DeepSpeed of a ZeRO stage; neither for one process and DDP, where it is false.

    Attributes:
        is_fsdp: whether FSDP shards the student.
        zero_stage: DeepSpeed's, where DeepSpeed trains it.
    """

    is_fsdp: bool = False
    zero_stage: int | None = None

    @classmethod
    def of(cls, args: TrainingArguments) -> Sharding:
        """Read it from arguments of a training, and from what `accelerate launch` has left in the environment."""
        told: Any = args
        plugin = told.deepspeed_plugin  # of both
        is_launched = bool(str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")))
        on_cpu = args.device.type == "cpu"  # where accelerate takes DDP in its place
        return cls(bool(told.fsdp or is_launched) and not on_cpu, plugin and plugin.zero_stage)

    def __bool__(self) -> bool:
        return self.is_fsdp or self.zero_stage is not None

    def __str__(self) -> str:
        return "FSDP" if self.is_fsdp else f"DeepSpeed's ZeRO-{self.zero_stage}" if self else "none"

    @property
    def takes_weights(self) -> bool:
        """Whether no process has whole weights: FSDP and ZeRO-3."""
        return self.is_fsdp or self.zero_stage == 3
