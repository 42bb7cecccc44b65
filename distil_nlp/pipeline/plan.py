"""`RunPlan`: a recipe resolved once, into all that a run needs before data and models are loaded."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import TrainingArguments

from distil_nlp.data.paths import all_paths
from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.pipeline.run_folder import VARIANTS
from distil_nlp.pipeline.schemes import without_schemes
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import Task
from distil_nlp.training.sharding import Sharding
from distil_nlp.utils.names import path_name

DISTILLED, NO_DISTILLATION, RANDOM_INIT, COPIED_ONLY = "distilled", "no_distillation", "random_init", "copied_only"
PLAIN, EQUAL_COMPUTE = "plain", "equal_compute"


@dataclass(frozen=True)
class StudentPlan:
    """One student to train.

    Attributes:
        name: `distilled`, or a baseline.
        seed: of its initialisation and training.
        folder: for its checkpoints, its record and its outputs.
        is_main: whether it is the run's own student, whose weights are kept.
    """

    name: str
    seed: int
    folder: Path
    is_main: bool

    @property
    def is_plain(self) -> bool:
        """Whether it is distilled without the recipe's training schemes."""
        return self.name in (PLAIN, EQUAL_COMPUTE)

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}, seed {self.seed}"

    def recipe(self, recipe: Recipe, max_steps: int | None) -> Recipe:
        """Return the recipe of this student; a baseline takes `max_steps` steps."""
        changed = recipe.model_copy(deep=True)
        changed.training["seed"] = self.seed
        if self.name != DISTILLED:
            changed.training["max_steps"] = max_steps
            changed.evaluation.early_stopping_patience = None
        if not self.is_main:
            changed.training |= {"output_dir": str(self.folder), "report_to": "none"}
        if self.name == NO_DISTILLATION:
            changed.data.augmentation.mixup = None  # a mixture has no label
            changed.student.replacing = None  # the teacher takes no part
            changed.student = builders.lone_student(changed.student)
        if self.name == RANDOM_INIT:
            changed.student = builders.random_student(recipe.student)
        if self.is_plain:
            changed = without_schemes(changed)
        if recipe.teacher.reseed:
            changed.teacher.finetune = {**(changed.teacher.finetune or {}), "seed": self.seed}
        return changed


@dataclass(frozen=True)
class RunPlan:
    """A run before data and models are loaded.

    Attributes:
        recipe: the recipe, with the seed of the run's own student filled in.
        folder: output folder.
        args: training arguments of the run's own student.
        task: columns, kind of task, headline metric.
        objective: terms of the distilled students; unbound, so that each student gets a copy.
        students: all students, the run's own first.
    """

    recipe: Recipe
    folder: Path
    args: TrainingArguments
    task: Task
    objective: Objective
    students: tuple[StudentPlan, ...]

    @classmethod
    def of(cls, recipe: Recipe, recipe_name: str) -> RunPlan:
        """Resolve a recipe.

        Raises:
            UserError: for values that contradict each other.
        """
        seeds = student_seeds(recipe)
        recipe = recipe.model_copy(update={"training": recipe.training | {"seed": seeds[0]}})
        folder, task = output_folder(recipe, recipe_name), builders.task_of(recipe)
        args = builders.training_arguments(recipe.training, folder, recipe)
        objective = builders.objective_from(recipe, task.kind)
        return cls(recipe, folder, args, task, objective, _students(recipe, folder, seeds))

    @property
    def main(self) -> StudentPlan:
        """The run's own student."""
        return self.students[0]

    @property
    def asks_teacher(self) -> bool:
        """Whether a term of the distilled students learns from the teacher, rather than from the student itself."""
        return self.objective.needs_teacher and self.recipe.teacher.self is None

    @property
    def has_answers(self) -> bool:
        """Whether answers in the data's columns teach, and no model does."""
        return self.recipe.teacher.columns is not None

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed divide the student among processes."""
        return bool(Sharding.of(self.args))

    def with_trained_teacher(self) -> RunPlan:
        """Return the plan with the teacher as it is, where its fine-tuning is for untrained ones only."""
        return replace(self, recipe=builders.without_needless_finetuning(self.recipe, self.task.kind))

    def objective_of(self, student: StudentPlan) -> Objective:
        """Return a new objective for a student: a copy of the recipe's terms, or labels only."""
        if student.name == NO_DISTILLATION:
            return Objective([HardLabel()], self.task.kind)
        if student.is_plain:
            return builders.objective_from(without_schemes(self.recipe), self.task.kind)
        return copy.deepcopy(self.objective)


def _students(recipe: Recipe, folder: Path, seeds: list[int]) -> tuple[StudentPlan, ...]:
    """Return all students of a recipe; the first is the one that stays in `folder`."""
    names = [DISTILLED]
    for name in recipe.evaluation.baselines:
        names += [PLAIN, name] if name == EQUAL_COMPUTE else [name]  # plain steps tell what they take
    names = [name for name in dict.fromkeys(names) if name != COPIED_ONLY]
    main = StudentPlan(DISTILLED, seeds[0], folder, True)
    planned = [StudentPlan(name, seed, folder / VARIANTS / f"{name}-{seed}", False) for name in names for seed in seeds]
    return (main, *planned[1:])


def sources(recipe: Recipe) -> list[str]:
    """Return the models and the dataset that a recipe names, each a path or a name on the Hub."""
    replacement = recipe.data.augmentation.replacement
    further = [member.name for member in recipe.teacher.ensemble or () if member.name]
    named = [recipe.teacher.name, *further, recipe.student.name, *all_paths(recipe.data.path)]
    probe = recipe.evaluation.probe
    named += all_paths(probe.path) if probe is not None else []
    return [name for name in (*named, replacement and replacement.model) if name]


def student_seeds(recipe: Recipe) -> list[int]:
    """Return the seeds of the students, the run's own first.

    Raises:
        UserError: if a seed is listed twice, or `training.seed` differs from the first of the list.
    """
    seeds, own = recipe.evaluation.seeds, recipe.training.get("seed")
    if isinstance(seeds, int):
        first = DEFAULT_SEED if own is None else own
        return list(range(first, first + seeds))
    if len(set(seeds)) < len(seeds) or own not in (None, seeds[0]):
        raise UserError(
            "evaluation.seeds",
            "different seeds, training.seed the first of them",
            f"{seeds} and training.seed={own}",
            why="the run's own student would not be one of them",
            fix="leave training.seed out",
        )
    return seeds


def output_folder(recipe: Recipe, recipe_name: str) -> Path:
    """Return `training.output_dir`, or `runs/<recipe>-<task or dataset>-<seed>`."""
    folder = recipe.training.get("output_dir")
    if folder:
        return Path(folder)
    seed = recipe.training.get("seed", DEFAULT_SEED)
    return Path("runs") / path_name(f"{recipe_name}-{builders.folder_name(recipe)}-{seed}")
