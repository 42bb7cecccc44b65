"""The teachers of a run: loaded or fine-tuned, tried, and checked against a guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.kinds import Metrics
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import (
    ClassMapping,
    class_mapping,
    class_names,
    commit_of,
    load_config,
    load_model,
    names_classes,
)
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.answers import answered_outputs, answers_title, answers_to
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.ensemble_scores import member_scores, mixed_outputs
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.predictor import beside_teacher
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.pipeline.teacher import finetuned_teacher, is_finetuned, teacher_folder_of, teacher_to_train
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
        tokenizers: of the student and of all teachers.
        data: rows and collator.
        revisions: a teacher's name → its commit on the Hub, or None for a folder; filled while loading.
        commits: those of the teachers that were loaded last, in their order.
    """

    plan: RunPlan
    tokenizers: RunTokenizers
    data: TransferSet
    revisions: dict[str, str | None] = field(default_factory=dict)
    commits: list[str | None] = field(default_factory=list)

    def load(self, recipe: Recipe) -> PreTrainedModel:
        """Return the teacher of a recipe, or its ensemble; each is fine-tuned first if the recipe says so."""
        self.commits = []
        teachers = [self._load_member(number, own) for number, own in enumerate(self._single_teachers(recipe))]
        for member in teachers:
            try_alone(member)  # raises before scoring takes its time
        mixing = builders.mixing_of(recipe)
        if len(mixing.weights) == 1:
            return teachers[0]
        teacher: Any = Ensemble(teachers, mixing, self.tokenizers.teachers)  # used as a model
        return teacher

    def is_at_hand(self, recipe: Recipe) -> bool:
        """Return whether `load` would find each teacher of a recipe, and train none."""
        singles = [own for own in enumerate(self._single_teachers(recipe)) if own[1].teacher.finetune is not None]
        return all(is_finetuned(teacher_folder_of(own, self.data.read_by(number))) for number, own in singles)

    def predict(self, teacher: PreTrainedModel, run: StudentRun) -> tuple[dict[str, Outputs], list[dict[str, Outputs]]]:
        """Return the outputs of the teacher on the evaluation rows, and those of each teacher of an ensemble.

        Each runs once: where rows have logits or numbers, the ensemble's outputs are made of its teachers'. Where
        answers in the data teach, they are the outputs, and {} if some evaluation rows have none.
        """
        if self.plan.has_answers:
            answers = answered_outputs(self.data) or {}
            return answers, [answers] if answers else []
        predictor = run.predictor
        if not isinstance(teacher, Ensemble):
            outputs = predictor.read_by().predict(teacher, "teacher", is_kept=True)
            outputs = beside_teacher(self.data.kind, outputs, outputs)
            return outputs, [outputs]
        names = [one.teacher.name for one in builders.single_teachers(run.recipe)]
        pairs = enumerate(zip(teacher.members, names, strict=True))
        members = [
            predictor.read_by(number).predict(member, f"teacher {name}", is_kept=True)
            for number, (member, name) in pairs
        ]
        if self.are_mixable:
            members += [answers_to(self.data)] if teacher.mixing.has_answers else []
            return mixed_outputs(members, teacher.mixing), members
        return predictor.predict(teacher, "teacher"), members

    @property
    def are_mixable(self) -> bool:
        """Whether kept outputs are logits or numbers of rows, not sums over their tokens."""
        return self.data.kind.has_row_outputs

    def check(self, run: StudentRun, members: list[dict[str, Outputs]], majority: Metrics) -> None:
        """Stop before training if a teacher is no better than a guess; each member of an ensemble by itself."""
        if self.plan.has_answers and not members:
            return  # they are not scored
        singles = self._single_teachers(run.recipe)
        for recipe, outputs in zip(singles, members[: len(singles)], strict=True):
            name, is_finetuned = recipe.teacher.name, recipe.teacher.finetune is not None
            has_own_order = is_finetuned or self.plan.has_answers
            mapping = None if has_own_order else self._class_mapping(recipe)
            made = (outputs, majority, mapping, is_finetuned, self.plan.has_answers)
            check = TeacherCheck(name, self.data.kind, self.data.task, *made)
            check.run(self.plan.recipe.run.accept_weak_teacher)

    def members(self, teacher: PreTrainedModel, scores: RunScores) -> dict[str, Any]:
        """Return the scores of each teacher of an ensemble for `results.json`; {} for a single one."""
        if not isinstance(teacher, Ensemble):
            return {}
        outputs, student = next(iter(scores.members.values())), scores.first_outputs()[1]
        found = member_scores(self.data.task, outputs, teacher.mixing, student, self.are_mixable)
        names = [one.teacher.name for one in builders.single_teachers(self.plan.recipe)]
        names += [answers_title(self.plan.recipe.teacher.answers)] if teacher.mixing.has_answers else []
        commits = [*self.commits, *[None] * (len(names) - len(self.commits))]
        named = zip(names, commits, found, strict=True)
        return {"members": [{"name": name, "revision": commit, **own} for name, commit, own in named]}

    def classes(self) -> dict[str, Any]:
        """Return the classes of the teacher's checkpoint for `results.json`, where there is one that has classes."""
        section, mapping = self.plan.recipe.teacher, None
        if section.finetune is None and not section.ensemble and section.columns is None:
            mapping = self._class_mapping(self.plan.recipe)
        return {"classes": {"names": list(mapping.names), "told": mapping.told}} if mapping else {}

    def _load_member(self, number: int, recipe: Recipe) -> PreTrainedModel:
        """Return a teacher, fine-tuned first if the recipe says so; its commit is noted."""
        teacher = self._loaded(number, recipe)
        self.commits.append(self.revisions[recipe.teacher.name])
        return teacher

    def _loaded(self, number: int, recipe: Recipe) -> PreTrainedModel:
        name = recipe.teacher.name
        if recipe.teacher.columns is not None:
            self.revisions[name] = commit_of(name, recipe.teacher.revision)
            return teacher_to_train(recipe, self.data.head)
        if recipe.teacher.finetune is None:
            names = builders.label_names(recipe)
            teacher = load_model(name, self.data.head, revision=recipe.teacher.revision, label_names=names)
            self.revisions[name] = commit_of(name, recipe.teacher.revision)
            mapping = self._class_mapping(recipe)
            if mapping and mapping.told == "id" and class_names(teacher.config):
                logger.info(f"{name}: the data has numbers for its classes, which are the teacher's: {mapping}")
            return teacher
        before = [self._try_out] if name == self.plan.recipe.teacher.name else []  # students are made of the first
        data, tokenizer = self.data.read_by(number), self.tokenizers.of_teacher(number)
        teacher, is_new, self.revisions[name] = finetuned_teacher(recipe, data, tokenizer, *before)
        logger.info(f"teacher: {name}, {'fine-tuned now' if is_new else 'fine-tuned by an earlier run'}")
        return teacher

    def _try_out(self, teacher: PreTrainedModel) -> None:
        """Try a teacher that is not fine-tuned yet, and the run's own student of it."""
        objective = self.plan.objective_of(self.plan.main)
        try_teacher(teacher, self.plan.recipe, objective, self.tokenizers.student, self.data.head)

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
