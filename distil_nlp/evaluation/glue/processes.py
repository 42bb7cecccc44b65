"""Setup of the processes of a GLUE evaluation."""

import os

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Return whether models run on the CPU: by `accelerate launch --cpu`, or without an accelerator."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") or not torch.accelerator.is_available()


def processes() -> PartialState:
    """Set up the processes and return their state; call this before anything else does.

    Unless accelerate gets `cpu=True`, each process on a CPU takes itself for the only one.
    """
    return PartialState(cpu=on_cpu())
