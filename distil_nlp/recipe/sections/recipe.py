"""A whole recipe, with defaults that depend on more than one section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm
from distil_nlp.recipe.plugins import Plugin
from distil_nlp.recipe.sections.base import NAME_AS_LIST, Section, TrainingFields
from distil_nlp.recipe.sections.data import DataSection, MultitaskSection
from distil_nlp.recipe.sections.evaluation import EvaluationSection
from distil_nlp.recipe.sections.objective import BalanceSection, ObjectiveSection
from distil_nlp.recipe.sections.publication import ExportSection, HubSection
from distil_nlp.recipe.sections.run import RunSection
from distil_nlp.recipe.sections.student import StudentSection
from distil_nlp.recipe.sections.teacher import TeacherSection, as_self_teacher

SELF_OBJECTIVES: Mapping[str, dict[str, Any]] = {
    "last_epoch": {"soft_target_cross_entropy": {}},
    "ema": {"hard_label": {}, "logit_mse": {}},
    "checkpoints": {"hard_label": {}, "logit_mse": {}},
    "pretrained": {"hard_label": {}, "soft_target_kl": {}},
}
"""`teacher.self.kind` → the objective of its paper, which a recipe without `objective` has."""


def _with_objective(settings: Any) -> Any:
    """Return a recipe's settings with the objective of `teacher.self` where they have none."""
    if not isinstance(settings, dict) or "objective" in settings or not isinstance(settings.get("teacher"), dict):
        return settings
    own = as_self_teacher(settings["teacher"].get("self"))
    kind = own.get("kind") if isinstance(own, dict) else None
    objective = SELF_OBJECTIVES.get(str(kind))
    return settings if objective is None else settings | {"objective": objective}


def _with_start(settings: Any) -> Any:
    """Return a recipe's settings with `student.name` as `teacher.name`, where columns teach and no teacher is named."""
    if not isinstance(settings, dict):
        return settings
    teacher, student = settings.get("teacher"), settings.get("student")
    if not isinstance(teacher, dict) or not isinstance(student, dict) or not teacher.get("columns"):
        return settings
    if "name" in teacher or not student.get("name"):
        return settings
    start = {key: student[key] for key in ("name", "revision") if key in student}
    return settings | {"teacher": {**teacher, **start}}


class Recipe(Section):
    """The settings of a run.

    Attributes:
        plugins: Python files, or modules, whose loss terms `objective` may name; imported when the recipe is loaded.
        teacher: the model to learn from.
        student: the model to train.
        data: transfer set and evaluation splits.
        multitask: several tasks at once; the recipe is then that of one of them.
        objective: terms of the loss; with `teacher.self`, by default those of its paper.
        balance: balancing of the terms.
        training: any fields of `transformers.TrainingArguments`.
        evaluation: seeds, baselines and scores.
        export: the student as ONNX files.
        hub: upload of the student.
        run: settings that do not change the student.
        terms: the terms that `objective` may name: the tool's own, and those of the plugins.
        imported: the plugins.
    """

    terms: ClassVar[Mapping[str, type[LossTerm]]] = TERMS
    imported: ClassVar[tuple[Plugin, ...]] = ()

    plugins: Annotated[list[Annotated[str, Field(min_length=1)]], NAME_AS_LIST] = []
    teacher: TeacherSection
    student: StudentSection = StudentSection()
    data: DataSection
    multitask: MultitaskSection = MultitaskSection()
    objective: ObjectiveSection
    balance: BalanceSection = BalanceSection()
    training: TrainingFields = {}
    evaluation: EvaluationSection = EvaluationSection()
    export: ExportSection = ExportSection()
    hub: HubSection = HubSection()
    run: RunSection = RunSection()

    @model_validator(mode="before")
    @classmethod
    def fill_objective(cls, settings: Any) -> Any:
        """Fill in the objective of `teacher.self`, and the start of a student that columns teach."""
        return _with_start(_with_objective(settings))
