"""The search for a student's shape under a budget.

1. Costs: each sort of layer (heads × units) is measured at two depths, all of them beside the teacher in turns.
2. Of the shapes that fit, those that cannot grow are ordered by how much of the teacher's importance they lose.
3. The best few that fit when they are measured themselves are cut, repaired and trained for some steps; the better half
   is trained anew for twice the steps, and so on (successive halving, Jamieson and Talwalkar 2016, arXiv:1502.07943),
   by the distance of outputs to the teacher's on training rows that were drawn apart. No evaluation row and no label is
   read.

Of several processes the main one measures, and all take its figures; they train together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.evaluation.efficiency import forward_flops, forward_milliseconds
from distil_nlp.models.positions import usable_positions
from distil_nlp.models.pruning import Importance
from distil_nlp.models.pruning.shapes import Shape, all_shapes, costs, largest, lost_importance, model_of, shape_of
from distil_nlp.recipe.sections import BudgetSection
from distil_nlp.training.finite import NotFiniteError
from distil_nlp.utils.logging import get_logger, is_main_process
from distil_nlp.utils.processes import from_main_process

logger = get_logger(__name__)

_UNITS = {"latency_ms": "ms", "latency": "ms", "parameters": "parameters", "flops": "operations", "size_mb": "MB"}
"""Budget → what its cost is counted in."""
Trial = Callable[[Shape, int], float]
"""(shape, steps) → the distance of that student's outputs to the teacher's after so many steps."""


@dataclass
class Tried:
    """A shape that was trained for a while.

    Attributes:
        shape: of the student.
        cost: in the budget's unit.
        lost: importance that it loses.
        distances: of its outputs to the teacher's after each round.
    """

    shape: Shape
    cost: float
    lost: float
    distances: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self.shape), "cost": self.cost, "lost": self.lost, "distances": self.distances}


def search_shape(
    budget: BudgetSection,
    whole: PreTrainedModel,
    importance: Importance,
    try_shape: Trial,
    teacher: PreTrainedModel | None = None,
) -> dict[str, Any]:
    """Return the shape that was found, and how: the block `search` of `results.json`.

    Args:
        budget: what the student may cost.
        whole: what students are cut from: the teacher, with the student's vocabulary.
        importance: of its parts.
        try_shape: trains a shape for some steps.
        teacher: of whose cost a budget is a fraction, if it has another vocabulary.

    Raises:
        UserError: if no shape fits, the length is more than the model has positions, or every trial diverges.
    """
    most, has_length = usable_positions(whole.config), budget.limit[0] not in ("parameters", "size_mb")
    if has_length and budget.length > most:
        raise UserError("student.budget.length", f"at most {most}, the teacher's positions", str(budget.length))
    of_shapes, of_teacher, measure = _costs(budget, whole, teacher or whole)
    limit = _limit(budget, of_teacher)
    fitting = [shape for shape, cost in of_shapes.items() if cost <= limit]
    if not fitting:
        raise _nothing_fits(budget, of_shapes, of_teacher)

    def cost_of(shape: Shape) -> float:
        return min(measure(model_of(whole, shape)), of_teacher)  # of which it is a part, however busy the machine

    candidates: list[Tried] = []
    tried: list[Tried] = []
    left = list(fitting)
    while left and not tried:  # the largest that fit by their layers may not fit themselves, and hide smaller ones
        own = [Tried(shape, of_shapes[shape], lost_importance(importance, shape)) for shape in largest(left)]
        own.sort(key=lambda one: one.lost)
        tried = _within(limit, own, budget.tries, cost_of)
        candidates += own
        left = [shape for shape in left if shape not in {one.shape for one in own}]
    if not tried:
        raise _nothing_fits(budget, {one.shape: one.cost for one in candidates}, of_teacher)
    best = _halved(tried, budget.steps, try_shape)
    name, value = budget.limit
    return {
        "budget": {"name": name, "value": value, "limit": limit, "unit": _UNITS[name]},
        "batch": budget.batch,
        "length": budget.length,
        "teacher_cost": of_teacher,
        "shapes": len(of_shapes),
        "fitting": len(fitting),
        "candidates": [one.to_dict() for one in candidates],
        "chosen": best.to_dict(),
    }


def _within(limit: float, candidates: Sequence[Tried], count: int, measure: Callable[[Shape], float]) -> list[Tried]:
    """Return the first candidates that fit when they are measured themselves, and give them that cost."""
    found: list[Tried] = []
    for one in candidates:
        one.cost = measure(one.shape)
        found += [one] if one.cost <= limit else []
        if len(found) == count:
            break
    return found


def _halved(tried: Sequence[Tried], steps: int, try_shape: Trial) -> Tried:
    """Return the best by successive halving; one that diverges is behind all others.

    Each round trains anew, so that the learning rate falls to 0 within it.

    Raises:
        NotFiniteError: if all diverge.
    """
    going = list(tried)
    while len(going) > 1:
        for one in going:
            one.distances.append(_distance(try_shape, one.shape, steps))
            logger.info(f"{one.shape}: {one.distances[-1]:.4g} from the teacher’s outputs after {steps} steps")
        if all(math.isinf(one.distances[-1]) for one in going):
            raise NotFiniteError(
                "student.budget",
                "a shape whose training has a finite loss",
                f"NaN or infinity in each of {len(going)}",
                why="none can be compared with the teacher",
                fix="set a lower training.learning_rate",
            )
        going = sorted(going, key=lambda one: one.distances[-1])[: len(going) // 2]
        steps *= 2
    return going[0]


def _distance(try_shape: Trial, shape: Shape, steps: int) -> float:
    """Return the distance of a shape's outputs to the teacher's; infinity where its training diverges."""
    try:
        distance = try_shape(shape, steps)
    except NotFiniteError:
        return math.inf
    return distance if math.isfinite(distance) else math.inf


_Costs = tuple[dict[Shape, float], float, Callable[[PreTrainedModel], float]]
"""Cost of each shape, cost of the teacher, and what measures a model's, all in the budget's unit."""


def _costs(budget: BudgetSection, whole: PreTrainedModel, teacher: PreTrainedModel) -> _Costs:
    """Return costs as the main process finds them."""
    measures: list[Callable[[PreTrainedModel], float]] = []

    def found() -> tuple[dict[Shape, float], float]:
        of_shapes, of_teacher, measure = _own_costs(budget, whole, teacher)
        measures.append(measure)
        return of_shapes, of_teacher

    return *from_main_process(found), lambda model: from_main_process(lambda: measures[0](model))


def _own_costs(budget: BudgetSection, whole: PreTrainedModel, teacher: PreTrainedModel) -> _Costs:
    """Return costs as this process finds them."""
    name, _ = budget.limit
    shapes = all_shapes(shape_of(whole.config))
    if name.startswith("latency"):
        return _latencies(budget, whole, shapes)
    measure: Callable[[PreTrainedModel], float] = {
        "parameters": lambda model: float(model.num_parameters()),
        "size_mb": lambda model: 4 * model.num_parameters() / 1e6,
        "flops": lambda model: float(forward_flops(model, budget.length)),
    }[name]
    return costs(whole, shapes, measure, measure(whole), _shown), measure(teacher), measure


def _latencies(budget: BudgetSection, whole: PreTrainedModel, shapes: Sequence[Shape]) -> _Costs:
    """Return median milliseconds: what a model takes relative to the teacher in the same turns, times the teacher's."""
    turns: list[float] = []

    def relative(model: PreTrainedModel) -> float:
        models = {"teacher": whole, "student": model.to(whole.device)}  # type: ignore[arg-type]
        found = forward_milliseconds(models, budget.batch, budget.length, budget.threads)
        turns.append(found["teacher"])
        return found["student"] / found["teacher"]

    shares = costs(whole, shapes, relative, 1.0, _shown)
    of_teacher = float(torch.tensor(turns).median())
    of_shapes = {shape: share * of_teacher for shape, share in shares.items()}
    return of_shapes, of_teacher, lambda model: relative(model) * of_teacher


def _shown(sorts: Sequence[Any]) -> Iterable[Any]:
    """Return sorts of layers with a progress bar, on the main process."""
    return tqdm(sorts, desc="measuring what layers cost", unit="sort", disable=not is_main_process())


def _limit(budget: BudgetSection, of_teacher: float) -> float:
    """Return the limit in the unit of the cost."""
    name, value = budget.limit
    return value if name in ("latency_ms", "size_mb") else value * of_teacher


def _nothing_fits(budget: BudgetSection, of_shapes: Mapping[Shape, float], of_teacher: float) -> UserError:
    name, value = budget.limit
    shape, cost = min(of_shapes.items(), key=lambda item: item[1])
    least = cost if name in ("latency_ms", "size_mb") else cost / of_teacher
    fix = "raise it"
    if name in ("parameters", "size_mb"):
        fix += ", or cut the vocabulary too, by student.vocabulary"
    return UserError(
        f"student.budget.{name}",
        f"at least {least:.3g}, which the smallest shape takes: {shape}",
        f"{value:.3g}",
        why="no shape fits",
        fix=fix,
    )
