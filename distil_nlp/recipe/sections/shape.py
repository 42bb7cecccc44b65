"""The shape of a model that is made of the teacher: `student` and each of `teacher.assistants`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from distil_nlp.recipe.sections.base import FractionOrAll, Section, StudentLayers


class VocabularySection(Section):
    """A smaller vocabulary, of the tokens that the training text needs most; one of the two keys.

    Special tokens, single characters or bytes, and what longer tokens are merged of are always kept, so that any text
    can be read.

    Attributes:
        keep: tokens that the student has at most.
        coverage: the most frequent tokens that are this fraction of the text.
    """

    keep: PositiveInt | None = None
    coverage: FractionOrAll | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.keep is None) == (self.coverage is None):
            raise ValueError("one of keep (a number of tokens) and coverage (a fraction of the text)")
        return self


class PruningSection(Section):
    """A student cut from the important parts of its teacher, and repaired before its first step.

    Feed-forward units, and the width with its heads, are cut to the same number in each layer, as transformers needs
    it. See `distil_nlp.models.pruning.importance` for the criteria, which need no labels.

    Attributes:
        feed_forward: fraction of the feed-forward units that stay.
        width: fraction of the attention heads that stay, and with them of the features of the states.
        importance: what stays: the most important parts by `fisher`, `taylor`, `obd` (Optimal Brain Damage) or
            `activation`, or any of them, by `random`. `student.layers=important` goes by it too.
        rows: training rows that importance is measured on.
        repair: fit each block's output to the teacher's by least squares before the first step.
        folder: parent folder of what was measured, which other runs with the same teacher and rows use again.
    """

    feed_forward: FractionOrAll = 1.0
    width: FractionOrAll = 1.0
    importance: Literal["fisher", "taylor", "obd", "activation", "random"] = "fisher"
    rows: PositiveInt = 2000
    repair: bool = True
    folder: str = "runs/importance"


class BudgetSection(Section):
    """What a student may cost; its shape is searched for. One of the first five keys.

    Attributes:
        latency_ms: median milliseconds of a forward, on this machine and device.
        latency: the same, as a fraction of the teacher's.
        parameters: fraction of the teacher's parameters.
        flops: fraction of the operations of the teacher's forward.
        size_mb: megabytes (10⁶ bytes) of the weights in float32.
        batch: rows of the forward whose latency is measured.
        length: tokens of each row, none of them padding.
        threads: threads of a CPU; all of the process if null.
        tries: shapes that are trained for a while, those of most importance among the ones that fit.
        steps: optimiser steps of the first round of these; each round has half as many shapes and twice as many steps.
    """

    latency_ms: Annotated[float, Field(gt=0)] | None = None
    latency: FractionOrAll | None = None
    parameters: FractionOrAll | None = None
    flops: FractionOrAll | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None
    batch: PositiveInt = 1
    length: PositiveInt = 128
    threads: PositiveInt | None = None
    tries: PositiveInt = 4
    steps: PositiveInt = 50

    @property
    def limit(self) -> tuple[str, float]:
        """The name of the cost, and its limit."""
        return next((name, value) for name in _BUDGETS if (value := getattr(self, name)) is not None)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in _BUDGETS) != 1:
            raise ValueError(f"one of {', '.join(_BUDGETS)}")
        return self


StudentPart = Literal["embeddings", "layers", "head"]
_BUDGETS = ("latency_ms", "latency", "parameters", "flops", "size_mb")


class ShapeSection(Section):
    """The shape of a model that is made of the teacher.

    Attributes:
        architecture: the teacher's classes, or DistilBERT's for a BERT teacher.
        num_layers: depth; by default half the teacher's, or the number of copied layers. May be above the teacher's.
        layers: teacher layers (from 0) to copy, or `important` for those of most importance by `student.pruning`, or
            `random` for random weights throughout. `stack` and `interpolate` repeat all of them, for a student deeper
            than its teacher.
        config: fields of the model's configuration to change, such as `hidden_size`. A wider student's neurons are
            copies of the teacher's; see `distil_nlp.models.widening`.
    """

    architecture: Literal["same", "distilbert"] = "same"
    num_layers: PositiveInt | None = None
    layers: StudentLayers = "every_other"
    config: dict[str, Any] = {}
