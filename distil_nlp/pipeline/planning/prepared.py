"""`PreparedRun`: the rows and untrained models of a run, as far as they are there before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.linear_probe import LinearProbe
from distil_nlp.models import StudentReport
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.links import Link, chain_of, guide_among
from distil_nlp.pipeline.plan import RunPlan, StudentPlan
from distil_nlp.pipeline.provenance import provenance_of
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.pipeline.teacher import is_finetuned, teacher_folder_of, teacher_to_train, trained_teacher
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.recipe import Recipe
from distil_nlp.teachers.ensemble import Ensemble


@dataclass
class PreparedRun:
    """The rows and untrained models of a run.

    Attributes:
        plan: the resolved recipe.
        tokenizers: of the student and of all teachers.
        data: rows and collator.
        teacher: a model or an ensemble; one that is to be fine-tuned as it is before that.
        probe: scores the run's own student while it trains; None without one.
        chain: the links before it, and what there is of them; None to find them.
    """

    plan: RunPlan
    tokenizers: RunTokenizers
    data: TransferSet
    teacher: PreTrainedModel
    probe: LinearProbe | None = None
    chain: Sequence[tuple[Link, PreparedRun]] | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's."""
        return self.tokenizers.student

    @cached_property
    def run(self) -> StudentRun:
        """The run's own student, to be built and tried without a cache or earlier checkpoints of the teacher."""
        return self.run_of(self.plan.main)

    @cached_property
    def built(self) -> tuple[PreTrainedModel, StudentReport]:
        """The run's own student, or one of its shape if it is pruned, and which tensors were copied into it."""
        origin = self.earlier[-1] if self.plan.recipe.teacher.start == "assistant" else self.teacher
        return builders.student_from(self.plan.recipe, origin, self.tokenizer, self.data.head)

    @property
    def student(self) -> PreTrainedModel:
        """The run's own student."""
        return self.built[0]

    def run_of(self, student: StudentPlan, steps: int | None = None) -> StudentRun:
        """Return the run of a student, without cache, earlier teachers and early end.

        Args:
            student: one of the plan's.
            steps: of a baseline.
        """
        recipe = student.recipe(self.plan.recipe, steps)
        args = self.plan.args
        if not student.is_main:
            args = builders.training_arguments(recipe.training, student.folder, recipe)
        recipe.teacher.checkpoints = recipe.teacher.cache = recipe.evaluation.early_stopping_patience = None
        provenance = provenance_of(recipe, self.data, self.tokenizer) if student.is_main else self.run.provenance
        place = (student.folder, args, self.tokenizer, self.data, provenance, student.is_main)
        return StudentRun(recipe, self.plan.objective_of(student), *place)

    def guide_of(self, student: StudentPlan) -> PreTrainedModel:
        """Return the model that a student learns from; those that links would have trained are untrained."""
        return guide_among(self.plan.recipe, self.earlier, self.teacher, self.data.kind, student.is_plain)

    def finetunings(self) -> list[tuple[int, Recipe]]:
        """Return (number of the teacher, recipe) of each teacher that is to be fine-tuned, seeds of their own too."""
        recipe = self.plan.recipe
        if recipe.teacher.finetune is None:
            return []
        seeds = dict.fromkeys(student.seed for student in self.plan.students) if recipe.teacher.reseed else [None]
        own = [self._with_seed(recipe, seed) for seed in seeds]
        return [pair for one in own for pair in enumerate(builders.single_teachers(one))]

    def _with_seed(self, recipe: Recipe, seed: int | None) -> Recipe:
        if seed is None:
            return recipe
        return next(student for student in self.plan.students if student.seed == seed).recipe(recipe, None)

    @cached_property
    def links(self) -> Sequence[tuple[Link, PreparedRun]]:
        """The links of the run in the order in which they are trained, and what there is of them."""
        if self.chain is not None:
            return self.chain
        found: list[tuple[Link, PreparedRun]] = []
        for link in chain_of(self.plan.recipe):
            plan = RunPlan.of(link.recipe, link.title).with_trained_teacher()
            found.append((link, PreparedRun(plan, self.tokenizers, self.data, self.teacher, chain=tuple(found))))
        return found

    @cached_property
    def earlier(self) -> list[PreTrainedModel]:
        """Untrained students of the links."""
        return [prepared.student for _, prepared in self.links]


def untrained_teacher(plan: RunPlan, data: TransferSet, tokenizers: RunTokenizers) -> tuple[PreTrainedModel, str]:
    """Return the teacher or ensemble, and whether it would be fine-tuned; one that would be is as it is before that."""
    if plan.recipe.teacher.finetune is None:
        state = "students are made of it; it does not teach" if plan.has_answers else "used as it is"
        return TeacherLoader(plan, tokenizers, data).load(plan.recipe), state
    members, states = [], []
    for number, own in enumerate(builders.single_teachers(plan.recipe)):
        folder = teacher_folder_of(own, data.read_by(number))
        is_there = is_finetuned(folder)
        members.append(trained_teacher(folder, data.head) if is_there else teacher_to_train(own, data.head))
        states.append(f"fine-tuned {'already, in' if is_there else 'first, into'} {folder}")
    if len(members) == 1:
        return members[0], states[0]
    return Ensemble(members, builders.mixing_of(plan.recipe), tokenizers.teachers), "; ".join(states)  # type: ignore[return-value]  # used as a model
