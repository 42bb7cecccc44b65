"""Cells of a study: one run for each task, method and point of its grid, known by what makes it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil_nlp.study.plan import LABELS_ONLY_METHOD, SHARE_KEYS, WITHOUT_TEACHER, StudyPlan
from distil_nlp.utils.names import path_name

EQUAL_STEPS = " (equal steps)"
"""Ending of the name of a method that takes as many steps with a share of the rows as with all of them."""
TUNED = " (tuned)"
"""Ending of the name of a method with the values that a search has found."""
_HASH = 8
_OF_TEACHING = ("objective.", "balance.", "teacher.cache")
"""Keys without effect on a student that has no teacher."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        task: that it is run on.
        method: the name of its method.
        point: name of an axis → its value here; {} where nothing but methods is varied.
        settings: key of the recipe → value, of all axes.
        ending: of the name of its method: `EQUAL_STEPS`, `TUNED` or nothing.
    """

    task: str
    method: str
    point: Mapping[str, Any]
    settings: Mapping[str, Any]
    ending: str = ""

    @property
    def arm(self) -> str:
        """The method, with how long it is trained, or whose values it has, where that differs from the recipe."""
        return f"{self.method}{self.ending}"

    @property
    def name(self) -> str:
        """The name of its folder: that of the method, and of what makes it another than the method's other cells."""
        if not self.settings:
            return self.method
        ingredients = json.dumps(self.settings, sort_keys=True)
        shown = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in self.settings.items())
        readable = path_name(shown)[:60].rstrip("-.")
        return f"{self.method}_{readable}-{hashlib.sha256(ingredients.encode()).hexdigest()[:_HASH]}"

    @property
    def label(self) -> str:
        """Its name for people: distilled, temperature 2."""
        names = short_names(list(self.point))
        return ", ".join([self.arm, *(f"{names[name]} {value}" for name, value in self.point.items())])

    def folder(self, study: Path) -> Path:
        """Return the folder of its run."""
        return study / self.task / self.name

    @property
    def overrides(self) -> list[str]:
        """Its settings as `section.key=value`."""
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.settings.items()]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key its last part, or the last two where others end alike."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: (end if last.count(end) == 1 else ".".join(name.split(".")[-2:])).replace("_", " ")
        for name, end in zip(names, last, strict=True)
    }


def cells_of(plan: StudyPlan) -> list[Cell]:
    """Return all cells of a study; two that would be made of the same are one."""
    cells: dict[tuple[str, str], Cell] = {}
    for task in plan.tasks or []:
        for indices in _indices(plan):
            for equal, method in itertools.product(plan.equal, plan.all_methods):
                cell = cell_at(plan, task, method, indices, equal)
                cells.setdefault((task, cell.name), cell)
    for (task, method), settings in plan.found.items():
        cell = Cell(task, method, {}, settings, TUNED)
        cells.setdefault((task, cell.name), cell)
    return list(cells.values())


def baseline_of(plan: StudyPlan, cell: Cell) -> Cell:
    """Return the cell that one is compared with: the baseline's at the same point.

    One whose keys were searched is compared with the baseline after its own search, and that with itself as the file
    has it: what the search is worth.
    """
    if cell.ending == TUNED:
        tuned = plan.found.get((cell.task, plan.compared_with))
        if tuned is None or cell.method == plan.compared_with:
            return cell_at(plan, cell.task, plan.compared_with, ())
        return Cell(cell.task, plan.compared_with, {}, tuned, TUNED)
    for indices, equal in itertools.product(_indices(plan), plan.equal):
        if cell_at(plan, cell.task, cell.method, indices, equal).name == cell.name:
            return cell_at(plan, cell.task, plan.compared_with, indices, equal)
    raise ValueError(f"{cell.name} is no cell of this study")


def cell_at(plan: StudyPlan, task: str, method: str, indices: Sequence[int], equal: str = "epochs") -> Cell:
    """Return the cell of a method at a point, given by the number of each axis's value."""
    point: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for axis, index in zip(plan.axes, indices, strict=True):
        own = {key: value for key, value in axis.settings(index).items() if not is_lost(plan, method, key)}
        if own:
            point[axis.name] = axis.values[index]
            settings |= own
    has_all_steps = equal == "steps" and any(settings.get(key, 1) != 1 for key in SHARE_KEYS)
    settings |= {"training.max_steps": plan.all_steps.get(task, 1)} if has_all_steps else {}
    return Cell(task, method, point, settings, EQUAL_STEPS if has_all_steps else "")


def _indices(plan: StudyPlan) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(axis.values)) for axis in plan.axes)))


def is_lost(plan: StudyPlan, method: str, key: str) -> bool:
    """Return whether a key has no effect, because the method has no teacher, or not the term that the key is of."""
    if method not in plan.methods:
        return method == LABELS_ONLY_METHOD and key.startswith(_OF_TEACHING)
    section, _, rest = key.partition(".")
    return section == "objective" and plan.methods[method].get(rest.partition(".")[0], {}) is None


def run_overrides(plan: StudyPlan, cell: Cell, run_folder: Path, overrides: Sequence[str]) -> list[str]:
    """Return `section.key=value` of one run: those for all runs, its own, and its task, seeds and folder.

    Later ones win: those for all runs, the method's, the cell's. On dashboards (trackio; W&B by the runner) all runs
    of a study are in a project of its name, unless another is set.
    """
    place, project = (json.dumps(str(one), ensure_ascii=False) for one in (run_folder, run_folder.parents[1].name))
    shown = [f"training.project={project}", f"training.run_name={json.dumps(f'{cell.task}-{run_folder.name}')}"]
    own = [f"data.task={cell.task}", f"evaluation.seeds={plan.seeds}", f"training.output_dir={place}"]
    return [*shown, *overrides_of(plan, cell.method, overrides), *cell.overrides, *own]


def overrides_of(plan: StudyPlan, method: str, overrides: Sequence[str]) -> list[str]:
    """Return `section.key=value` of all runs as one method takes them: what makes the method is not overridden.

    `training.num_train_epochs=1` leaves a method that is there for its eight epochs at eight, `teacher.cache={}` gives
    none to a method with `teacher.cache: null`, and a term that a method leaves out is not brought back.
    """
    kept = [one for one in overrides if not is_lost(plan, method, _key_of(one))]
    changes = plan.methods.get(method, WITHOUT_TEACHER)
    own = [key for key in changes if "." in key and any(_overlap(key, _key_of(one)) for one in kept)]
    return [*kept, *(f"{key}={json.dumps(changes[key], ensure_ascii=False)}" for key in own)]


def _key_of(override: str) -> str:
    return override.partition("=")[0].strip()


def _overlap(one: str, other: str) -> bool:
    """Return whether two dotted keys are the same, or one is a section that holds the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
