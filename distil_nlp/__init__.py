"""Distil Hugging Face encoders, DistilBERT-style."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_nlp.errors import UserError
    from distil_nlp.losses import (
        ALPKD,
        MMD,
        PKD,
        PKT,
        ActivationBoundary,
        ActivationShare,
        Adversarial,
        AttentionKL,
        AttentionMSE,
        AttentionScoresMSE,
        BinnedRegression,
        BoundedRegression,
        Contrastive,
        DecoupledKD,
        DistInter,
        DistIntra,
        EmbeddingCosine,
        EmbeddingMSE,
        EmbeddingSimilarityKL,
        FactorTransfer,
        FitNetsHint,
        GramFlow,
        HardLabel,
        HiddenCosine,
        HiddenEMD,
        HiddenMSE,
        InputGradient,
        JensenShannon,
        KeyRelation,
        LabelSmoothing,
        LinearCKA,
        ListwiseKL,
        LogitMSE,
        MarginMSE,
        QueryRelation,
        RDrop,
        ReplacedTokens,
        ReverseKL,
        RKDAngle,
        RKDDistance,
        SimilarityPreserving,
        SoftTargetCrossEntropy,
        SoftTargetKL,
        StandardisedLogits,
        ValueRelation,
        VariationalInformation,
        VirtualTeacher,
        WeightsMSE,
    )
    from distil_nlp.models import build_student, choose_layers
    from distil_nlp.objective import BatchTerm, HiddenTerm, LabelTerm, LossTerm, SoftTerm
    from distil_nlp.objective.objective import Objective
    from distil_nlp.objective.schedule import Schedule
    from distil_nlp.pipeline.distillation import distill
    from distil_nlp.pipeline.distillation_result import DistillationResult
    from distil_nlp.training.trainer import DistillationTrainer

__version__ = "0.1.0"

_HOMES = {
    "BatchTerm": "objective",
    "DistillationResult": "pipeline.distillation_result",
    "DistillationTrainer": "training.trainer",
    "HiddenTerm": "objective",
    "LabelTerm": "objective",
    "LossTerm": "objective",
    "Objective": "objective.objective",
    "Schedule": "objective.schedule",
    "SoftTerm": "objective",
    "UserError": "errors",
    "build_student": "models",
    "choose_layers": "models",
    "distill": "pipeline.distillation",
}
"""Public name → the module that it is imported from; names that are not here are losses."""

__all__ = [
    "ALPKD",
    "MMD",
    "PKD",
    "PKT",
    "ActivationBoundary",
    "ActivationShare",
    "Adversarial",
    "AttentionKL",
    "AttentionMSE",
    "AttentionScoresMSE",
    "BatchTerm",
    "BinnedRegression",
    "BoundedRegression",
    "Contrastive",
    "DecoupledKD",
    "DistInter",
    "DistIntra",
    "DistillationResult",
    "DistillationTrainer",
    "EmbeddingCosine",
    "EmbeddingMSE",
    "EmbeddingSimilarityKL",
    "FactorTransfer",
    "FitNetsHint",
    "GramFlow",
    "HardLabel",
    "HiddenCosine",
    "HiddenEMD",
    "HiddenMSE",
    "HiddenTerm",
    "InputGradient",
    "JensenShannon",
    "KeyRelation",
    "LabelSmoothing",
    "LabelTerm",
    "LinearCKA",
    "ListwiseKL",
    "LogitMSE",
    "LossTerm",
    "MarginMSE",
    "Objective",
    "QueryRelation",
    "RDrop",
    "RKDAngle",
    "RKDDistance",
    "ReplacedTokens",
    "ReverseKL",
    "Schedule",
    "SimilarityPreserving",
    "SoftTargetCrossEntropy",
    "SoftTargetKL",
    "SoftTerm",
    "StandardisedLogits",
    "UserError",
    "ValueRelation",
    "VariationalInformation",
    "VirtualTeacher",
    "WeightsMSE",
    "build_student",
    "choose_layers",
    "distill",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import distil_nlp` takes no seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'distil_nlp' has no attribute {name!r}")
    return getattr(import_module(f"distil_nlp.{_HOMES.get(name, 'losses')}"), name)


def __dir__() -> list[str]:
    """List the public names too, imported or not."""
    return sorted({*globals(), *__all__})
