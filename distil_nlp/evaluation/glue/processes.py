"""The processes of a command."""

import os

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Whether models run on the CPU: `accelerate launch --cpu` asks for it, or there is nothing else."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Sets the processes up; to be called before anything asks for them. Unless accelerate is told of the CPU, each
    process there takes itself for the only one."""
    return PartialState(cpu=on_cpu())
