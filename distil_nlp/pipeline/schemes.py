"""Training schemes: the keys of a recipe that change who teaches, or how often; each in a sentence.

To add one: a line in `SCHEMES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.pipeline.builders.teacher import teaching_sentence
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import ShapeSection
from distil_nlp.recipe.validate import is_set
from distil_nlp.reporting.teachers import ensemble_sentence
from distil_nlp.results import RunResults
from distil_nlp.training.ema import average_sentence
from distil_nlp.training.netaug import NetAug
from distil_nlp.training.replacing import Replacing


@dataclass(frozen=True)
class Scheme:
    """A training scheme.

    Attributes:
        section, key: where a recipe switches it on.
        title: its name.
        paper: number of its paper on arXiv; None where the sentence has it.
        sentence: says what is done, for report and card.
        details: further keys of the section that have a meaning with it alone.
    """

    section: str
    key: str
    title: str
    paper: str | None
    sentence: Callable[[Recipe], str]
    details: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The key that switches it on, such as `teacher.assistants`."""
        return f"{self.section}.{self.key}"

    def is_used(self, recipe: Recipe) -> bool:
        """Return whether a recipe has it."""
        section = getattr(recipe, self.section)
        is_off = self.section == "objective" and not getattr(getattr(section, self.key), "weight", 0)
        return is_set(section, self.key) and not is_off

    def to_dict(self, recipe: Recipe) -> dict[str, Any]:
        """Return a line of the block `schemes` of `results.json`."""
        return {"key": self.place, "title": self.title, "paper": self.paper, "sentence": self.sentence(recipe)}


def schemes_of(recipe: Recipe) -> list[Scheme]:
    """Return the schemes that a recipe has."""
    return [scheme for scheme in SCHEMES if scheme.is_used(recipe)]


def without_schemes(recipe: Recipe) -> Recipe:
    """Return the recipe of plain distillation: the teacher, one student, the same terms."""
    plain = recipe.model_copy(deep=True)
    for scheme in SCHEMES:
        section = getattr(plain, scheme.section)
        for key in (scheme.key, *scheme.details):
            setattr(section, key, type(section).model_fields[key].get_default(call_default_factory=True))
    return plain


def total_compute(trainings: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return steps, seconds, tokens and operations of several trainings together."""
    totals: dict[str, float | None] = {
        name: sum(training[name] for training in trainings) for name in ("steps", "seconds", "tokens")
    }
    return {**totals, "flops": total_flops(trainings)}


def total_flops(trainings: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the operations of several trainings; None if those of one are not known."""
    flops = [training.get("flops") for training in trainings]
    return None if None in flops else sum(filter(None, flops))


def _ensemble(recipe: Recipe) -> str:
    return ensemble_sentence(RunResults("", Path(), {"recipe": recipe.model_dump(mode="json")}))


def _assistants(recipe: Recipe) -> str:
    teacher, shapes = recipe.teacher, recipe.teacher.assistants or []
    drop = f", each of which is left out of a step with probability {teacher.drop:g}" if teacher.drop else ""
    taught = "by the last one alone" if teacher.guided == "last" else f"by the teacher and all of them{drop}"
    return (
        f"{len(shapes)} assistant{'s' * (len(shapes) > 1)} came between teacher and student "
        f"({'; '.join(map(describe_shape, shapes))}); the student was taught {taught}."
    )


def _generations(recipe: Recipe) -> str:
    count = recipe.student.generations
    return f"The student is the last of {count} generations of its shape: the teacher taught the first, each the next."


def _replacing(recipe: Recipe) -> str:
    section = recipe.student.replacing
    return Replacing([], section.start, section.full_at).sentence if section else ""


def _augment(recipe: Recipe) -> str:
    section = recipe.student.augment
    return NetAug(section.ffn, section.until, section.weight).sentence if section else ""


def _exits(recipe: Recipe) -> str:
    after = ", ".join(map(str, recipe.student.exits.after if recipe.student.exits else []))
    return f"Exits after {after} layers trained together with the student, and learned from its output."


def _peers(recipe: Recipe) -> str:
    models = recipe.student.peers.models if recipe.student.peers else 1
    count = models if isinstance(models, int) else 1 + len(models)
    return f"{count} students trained together and learned from each other; the best is kept."


def _branches(recipe: Recipe) -> str:
    count = recipe.student.branches.models if recipe.student.branches else 1
    return f"{count} branches over shared layers trained together, taught by their gated sum; the best is kept."


def _ema(recipe: Recipe) -> str:
    return average_sentence(recipe.student.ema or 0)


def _r_drop(recipe: Recipe) -> str:
    return "In training the student read each row twice, with other dropout, and learned to answer both times alike."


def describe_shape(shape: ShapeSection) -> str:
    """Return a shape in words, such as `9 layers`."""
    layers = shape.num_layers or (len(shape.layers) if isinstance(shape.layers, list) else None)
    fields = [f"{layers} layer{'s' * (layers > 1)}" if layers else "half the layers"]
    return ", ".join([*fields, *(f"{name} {value}" for name, value in shape.config.items())])


SCHEMES = (
    Scheme("teacher", "ensemble", "several teachers", "1503.02531", _ensemble, ("weight", "mix", "weighting")),
    Scheme("teacher", "assistants", "teaching assistants", "1902.03393", _assistants, ("guided", "drop")),
    Scheme("teacher", "self", "self-distillation", None, teaching_sentence),
    Scheme("teacher", "checkpoints", "route of the teacher’s checkpoints", "1904.09149", teaching_sentence),
    Scheme("student", "replacing", "module replacing (BERT-of-Theseus)", "2002.02925", _replacing),
    Scheme("student", "augment", "network augmentation (NetAug)", "2110.08890", _augment),
    Scheme("student", "exits", "exits (Be Your Own Teacher)", "1905.08094", _exits),
    Scheme("student", "peers", "deep mutual learning", "1706.00384", _peers),
    Scheme("student", "branches", "branches (ONE)", "1806.04606", _branches),
    Scheme("student", "ema", "average of the student’s weights", "1703.01780", _ema),
    Scheme("objective", "r_drop", "R-Drop", "2106.14448", _r_drop),
    Scheme("student", "generations", "generations (born-again networks)", "1805.04770", _generations),
)
