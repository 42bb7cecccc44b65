"""The teachers of a run: loaded or fine-tuned, tried, and checked against a guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.kinds import Metrics
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import (
    ClassMapping,
    check_vocabulary,
    class_mapping,
    class_names,
    commit_of,
    load_config,
    load_model,
    load_tokenizer,
    names_classes,
)
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.pipeline.teacher import finetuned_teacher
from distil_nlp.pipeline.teacher_check import TeacherCheck
from distil_nlp.pipeline.trial import try_alone, try_teacher
from distil_nlp.recipe import Recipe
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass
class TeacherLoader:
    """Loads the teachers of one run.

    Attributes:
        plan: the resolved recipe.
        tokenizer: the first teacher's.
        data: rows and collator.
        revisions: a teacher's name → its commit on the Hub, or None for a folder; filled while loading.
    """

    plan: RunPlan
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    revisions: dict[str, str | None] = field(default_factory=dict)

    def load(self, recipe: Recipe) -> PreTrainedModel:
        """Return the teacher of a recipe, or its ensemble; each is fine-tuned first if the recipe says so."""
        teachers = [self._load_member(own) for own in self._single_teachers(recipe)]
        for member in teachers:
            try_alone(member)  # raises before scoring takes its time
        teacher: Any = Ensemble(teachers) if len(teachers) > 1 else teachers[0]  # either is used as a model
        return teacher

    def check(self, teacher: PreTrainedModel, run: StudentRun, outputs: dict[str, Outputs], majority: Metrics) -> None:
        """Stop before training if a teacher is no better than a guess; each member of an ensemble by itself."""
        members = ensemble_members(teacher)
        for recipe, member in zip(self._single_teachers(run.recipe), members, strict=True):
            name, is_finetuned = recipe.teacher.name, recipe.teacher.finetune is not None
            own = outputs if len(members) == 1 else run.predict(member, f"teacher {name}")
            mapping = None if is_finetuned else self._class_mapping(recipe)
            check = TeacherCheck(name, self.data.kind, self.data.task, own, majority, mapping, is_finetuned)
            check.run(self.plan.recipe.run.accept_weak_teacher)

    def classes(self) -> dict[str, Any]:
        """Return the classes of the teacher's checkpoint for `results.json`, where there is one that has classes."""
        section, mapping = self.plan.recipe.teacher, None
        if section.finetune is None and not section.ensemble:
            mapping = self._class_mapping(self.plan.recipe)
        return {"classes": {"names": list(mapping.names), "told": mapping.told}} if mapping else {}

    def _load_member(self, recipe: Recipe) -> PreTrainedModel:
        """Return a teacher, fine-tuned first if the recipe says so."""
        name = recipe.teacher.name
        if name != self.plan.recipe.teacher.name:
            check_vocabulary(self.tokenizer, load_tokenizer(name))
        if recipe.teacher.finetune is None:
            names = builders.label_names(recipe)
            teacher = load_model(name, self.data.head, revision=recipe.teacher.revision, label_names=names)
            self.revisions[name] = commit_of(name, recipe.teacher.revision)
            mapping = self._class_mapping(recipe)
            if mapping and mapping.told == "id" and class_names(teacher.config):
                logger.info(f"{name}: the data has numbers for its classes, which are the teacher's: {mapping}")
            return teacher
        before = [self._try_out] if name == self.plan.recipe.teacher.name else []  # students are made of the first
        teacher, is_new, self.revisions[name] = finetuned_teacher(recipe, self.data, self.tokenizer, *before)
        logger.info(f"teacher: {name}, {'fine-tuned now' if is_new else 'fine-tuned by an earlier run'}")
        return teacher

    def _try_out(self, teacher: PreTrainedModel) -> None:
        """Try a teacher that is not fine-tuned yet, and the run's own student of it."""
        objective = self.plan.objective_of(self.plan.main)
        try_teacher(teacher, self.plan.recipe, objective, self.tokenizer, self.data.head)

    def _single_teachers(self, recipe: Recipe) -> list[Recipe]:
        """Return a recipe for each teacher alone; in an ensemble, names that are the data's count for themselves."""
        recipes = builders.single_teachers(recipe)
        if len(recipes) > 1 and recipe.data.label_names:
            for own in recipes:
                config = load_config(own.teacher.name, own.teacher.revision)
                if names_classes(config, self.data.head):
                    own.data = own.data.model_copy(update={"label_names": None})
        return recipes

    def _class_mapping(self, recipe: Recipe) -> ClassMapping | None:
        """Return the place of a teacher's classes in the data's order; None where there are no classes."""
        name, head = recipe.teacher.name, self.data.head
        if (head.num_labels or 0) < 2:
            return None
        return class_mapping(load_config(name, recipe.teacher.revision), head, name, builders.label_names(recipe))
