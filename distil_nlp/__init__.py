"""Distil Hugging Face encoders, DistilBERT-style."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_nlp.errors import UserError
    from distil_nlp.losses.registry import AttentionKL, AttentionMSE, HardLabel, HiddenCosine, HiddenMSE, SoftTargetKL
    from distil_nlp.models import build_student, choose_layers
    from distil_nlp.objective.objective import Objective
    from distil_nlp.objective.schedule import Schedule
    from distil_nlp.training.trainer import DistillationTrainer

__version__ = "0.1.0"

_HOMES = {
    "AttentionKL": "losses.registry",
    "AttentionMSE": "losses.registry",
    "DistillationTrainer": "training.trainer",
    "HardLabel": "losses.registry",
    "HiddenCosine": "losses.registry",
    "HiddenMSE": "losses.registry",
    "Objective": "objective.objective",
    "Schedule": "objective.schedule",
    "SoftTargetKL": "losses.registry",
    "UserError": "errors",
    "build_student": "models",
    "choose_layers": "models",
}

__all__ = [
    "AttentionKL",
    "AttentionMSE",
    "DistillationTrainer",
    "HardLabel",
    "HiddenCosine",
    "HiddenMSE",
    "Objective",
    "Schedule",
    "SoftTargetKL",
    "UserError",
    "build_student",
    "choose_layers",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import distil_nlp` takes no seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'distil_nlp' has no attribute {name!r}")
    return getattr(import_module(f"distil_nlp.{_HOMES[name]}"), name)
