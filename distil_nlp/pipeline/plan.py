"""What a run trains: its seeds, its students and baselines, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distil_nlp.errors import UserError
from distil_nlp.pipeline import builders as build
from distil_nlp.pipeline.builders.training import DEFAULT_SEED
from distil_nlp.pipeline.run_folder import VARIANTS
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import BalanceSection

DISTILLED, NO_DISTILLATION, RANDOM_INIT, COPIED_ONLY = "distilled", "no_distillation", "random_init", "copied_only"


@dataclass(frozen=True)
class StudentPlan:
    """One student to train: which kind, with which seed, and where."""

    name: str
    seed: int
    folder: Path
    is_main: bool

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}, seed {self.seed}"

    def recipe(self, recipe: Recipe, max_steps: int | None) -> Recipe:
        """The recipe of this student. Baselines take as many steps as the distilled student: `max_steps`."""
        changed = recipe.model_copy(deep=True)
        changed.training["seed"] = self.seed
        if self.name != DISTILLED:
            changed.training["max_steps"] = max_steps
            changed.evaluation.early_stopping_patience = None
        if not self.is_main:
            changed.training |= {"output_dir": str(self.folder), "report_to": "none"}
        if self.name == NO_DISTILLATION:
            changed.objective, changed.balance = build.labels_only_objective(), BalanceSection()
            changed.data.augmentation.mixup = None  # a mixture has no label
        if self.name == RANDOM_INIT:
            changed.student = build.random_student(recipe.student)
        if recipe.teacher.reseed:
            changed.teacher.finetune["seed"] = self.seed
        return changed


def student_plans(recipe: Recipe, folder: Path) -> list[StudentPlan]:
    """All students that a recipe asks for; the first is the run's own, which stays in `folder`."""
    chosen = student_seeds(recipe)
    names = [DISTILLED, *(name for name in recipe.evaluation.baselines if name != COPIED_ONLY)]
    main = StudentPlan(DISTILLED, chosen[0], folder, True)
    every = [StudentPlan(name, seed, folder / VARIANTS / f"{name}-{seed}", False) for name in names for seed in chosen]
    return [main, *every[1:]]


def student_seeds(recipe: Recipe) -> list[int]:
    """The seeds of the students, the run's own first.

    Raises:
        UserError: if a seed comes twice, or `training.seed` is another than the first of the list.
    """
    named, own = recipe.evaluation.seeds, recipe.training.get("seed")
    if isinstance(named, int):
        first = DEFAULT_SEED if own is None else own
        return list(range(first, first + named))
    if len(set(named)) < len(named) or own not in (None, named[0]):
        raise UserError(
            f"evaluation.seeds: expected different seeds, training.seed the first of them / got {named} and "
            f"training.seed={own} / the run's own student would not be one of them / leave training.seed out"
        )
    return named


def with_first_seed(recipe: Recipe) -> Recipe:
    """The recipe that says its own student's seed, whether or not it was written down."""
    return recipe.model_copy(update={"training": recipe.training | {"seed": student_seeds(recipe)[0]}})


def output_folder(recipe: Recipe, recipe_name: str) -> Path:
    """`training.output_dir`, or `runs/<recipe>-<task or corpus>-<seed>`."""
    named = recipe.training.get("output_dir")
    if named:
        return Path(named)
    what = Path(recipe.data.path).name if recipe.data.task == "mlm" else recipe.data.task
    return Path("runs") / f"{recipe_name}-{what}-{recipe.training.get('seed', DEFAULT_SEED)}"
