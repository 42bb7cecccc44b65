"""Links: runs whose students teach the student of another run, such as assistants and earlier generations.

A link is a run of its own, in a folder named by what it is made of: it is done once, carries on where it was stopped,
has a report of its own, and is shared by all runs that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.data.fingerprint import hash_data_files, hash_json
from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.compute import COUNTED
from distil_nlp.pipeline.kept_outputs import OUTPUTS, load_outputs
from distil_nlp.pipeline.plan import student_seeds
from distil_nlp.pipeline.provenance import fingerprint_of_recipe, hash_plugins, hash_teachers
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT
from distil_nlp.pipeline.schemes.shapes import describe_shape
from distil_nlp.pipeline.students import altered_student
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import BalanceSection, StudentSection
from distil_nlp.results import read_results
from distil_nlp.tasks import TaskKind
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.mixing import Mix, Mixing
from distil_nlp.utils.names import path_name

_OF_CHAINS = {"guided": "last", "drop": 0.0, "start": "teacher"}
"""Defaults of the keys that mean nothing to the first assistant, which is the same run whatever they are."""


@dataclass(frozen=True)
class Link:
    """A run whose student teaches.

    Attributes:
        title: its role, such as `assistant of 9 layers`.
        recipe: of the run; it has the links before this one.
    """

    title: str
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.recipe.training["output_dir"])

    @property
    def student(self) -> str:
        """The folder of the student that teaches.

        Raises:
            UserError: if its weights are not those that were scored.
        """
        if altered := altered_student(self.folder):
            raise UserError(
                str(self.folder / STUDENT),
                f"the {self.title} as its run saved it",
                f"another {', '.join(altered)}",
                why="the student would learn from something else",
                fix=f"delete {self.folder}, so that it is trained again",
            )
        return str(self.folder / STUDENT)

    @property
    def outputs(self) -> dict[str, Outputs]:
        """Outputs of its student on the evaluation rows."""
        return load_outputs(self.folder / OUTPUTS)

    def to_dict(self) -> dict[str, Any]:
        """Return a finished link for `results.json`: its student's size and scores, and its cost."""
        results = read_results(self.folder / RESULTS)
        student, training = results["student"], results["training"]
        return {
            "title": self.title,
            "folder": str(self.folder),
            **{name: student[name] for name in ("parameters", "encoder_parameters", "metrics")},
            **{name: training.get(name) for name in ("steps", "seconds", "tokens", *COUNTED)},
        }


def chain_of(recipe: Recipe) -> list[Link]:
    """Return the links of a recipe in the order in which they are trained; none where the teacher teaches alone."""
    link = last_link(recipe)
    return [*chain_of(link.recipe), link] if link else []


def last_link(recipe: Recipe) -> Link | None:
    """Return the last link before a recipe's student."""
    return _last_assistant(recipe) or _last_generation(recipe) or _earlier_self(recipe)


def guide_among(
    recipe: Recipe, students: Sequence[PreTrainedModel], teacher: PreTrainedModel, kind: TaskKind, is_plain: bool
) -> PreTrainedModel:
    """Return the model that a student learns from: the teacher, the last link's student, or all of them.

    Args:
        recipe: the student's.
        students: of the links before it, in the order in which they are trained.
        teacher: a model, or an ensemble.
        kind: kind of task.
        is_plain: whether the student is distilled without training schemes.
    """
    if is_plain:
        return ensemble_members(teacher)[0]
    if not students or recipe.teacher.guided != "dense":
        return students[-1] if students else teacher
    mix: Mix = "probabilities" if kind.output == "distribution" else "logits"
    guide: Any = Ensemble([*reversed(students), teacher], Mixing((1.0,) * (1 + len(students)), mix))  # used as a model
    return guide


def _last_assistant(recipe: Recipe) -> Link | None:
    """Return the smallest assistant; its own run has those before it (Mirzadeh et al. 2020, arXiv:1902.03393)."""
    if not recipe.teacher.assistants:
        return None
    *before, shape = recipe.teacher.assistants
    teacher = {"assistants": before or None, **({} if before else _OF_CHAINS)}
    student = StudentSection(**shape.model_dump())
    return _link(f"assistant of {describe_shape(shape)}", recipe, teacher, student)


def _last_generation(recipe: Recipe) -> Link | None:
    """Return the generation before the run's own (Furlanello et al. 2018, arXiv:1805.04770)."""
    number = recipe.student.generations - 1
    if not number:
        return None
    return _link(f"generation {number}", recipe, {}, recipe.student.model_copy(update={"generations": number}))


def _earlier_self(recipe: Recipe) -> Link | None:
    """Return the same student trained on labels only (Tf-KD_self, Yuan et al. 2020, arXiv:1909.11723, section 4)."""
    if recipe.teacher.self is None or recipe.teacher.self.kind != "pretrained":
        return None
    labels = recipe.model_copy(deep=True)
    labels.objective = type(recipe.objective).model_validate({"hard_label": {}})
    labels.balance = BalanceSection()
    labels.data.augmentation.mixup = None  # a mixture has no label
    return _link("student on labels only", labels, {"self": None, "cache": None}, recipe.student)


def _link(title: str, recipe: Recipe, teacher: dict[str, Any], student: StudentSection) -> Link:
    """Return a link with a teacher section of these changes: one seed, no baselines, nothing measured or uploaded."""
    link = recipe.model_copy(deep=True)
    link.teacher = link.teacher.model_copy(update=teacher)
    link.student = student
    link.evaluation = link.evaluation.model_copy(
        update={"seeds": 1, "baselines": [], "efficiency": "off", "probe": None}
    )
    link.hub = link.hub.model_copy(update={"push": False})
    link.run = link.run.model_copy(update={"overwrite": False})
    name = path_name(f"{Path(link.teacher.name).name}-{builders.data_name(link)}-{title.replace(' ', '-')}")
    link.training["seed"] = student_seeds(recipe)[0]
    link.training["output_dir"] = str(Path(link.teacher.folder) / f"{name}-{_fingerprint(link)}")
    return Link(title, link)


def _fingerprint(recipe: Recipe) -> str:
    """Return a hash of all that makes a link, other than rows on the Hub."""
    made_of = (fingerprint_of_recipe(recipe), hash_data_files(recipe.data.path), hash_teachers(recipe))
    return hash_json([*made_of, hash_plugins(recipe)])[:10]
