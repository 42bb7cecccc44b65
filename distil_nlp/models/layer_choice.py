"""The choice of a student's layers among its teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distil_nlp.errors import UserError
from distil_nlp.models.deepening import Repetition, repeated_layers

LayerChoice = Literal["every_other", "first", "last", "important", "random"] | Repetition | Sequence[int]


def choose_layers(choice: LayerChoice, teacher_layers: int, num_layers: int | None) -> list[int] | None:
    """Return the teacher block (0-based) for each student block; None for random weights.

    `every_other` takes the upper one of each group: [1, 3, 5] of 6, ⌊(i + 1) · T / S⌋ − 1 in general. `stack` and
    `interpolate` repeat blocks, for a student deeper than its teacher (`repeated_layers`). Half the teacher's depth is
    the default of `num_layers`. A list is taken as it is.

    Raises:
        UserError: if the student is deeper than the teacher and the choice is not one that repeats blocks, if it is
            shallower and the choice is, or a number is out of range.
    """
    if choice in ("stack", "interpolate"):
        return repeated_layers(choice, teacher_layers, num_layers)
    if choice == "important":
        raise UserError(
            "student.layers",
            "numbers of layers, or a way to choose them by number",
            "important",
            why="importance is measured on rows, which are not there",
            fix="choose them by distil_nlp.models.pruning.measure_importance, and pass their numbers",
        )
    is_list = not isinstance(choice, str)
    depth = num_layers or (len(choice) if is_list else max(teacher_layers // 2, 1))
    if is_list and len(choice) != depth:
        raise UserError(
            None,
            f"as many student.layers as student.num_layers={depth}",
            str(list(choice)),
            why="the depth is ambiguous",
            fix="leave student.num_layers out",
        )
    if depth > teacher_layers and choice in ("every_other", "first", "last"):
        raise UserError(
            "student.layers",
            f"stack or interpolate for a student of {depth} layers, or at most the teacher's {teacher_layers} layers",
            str(choice),
            why="the teacher has too few to choose from",
            fix="set student.layers=interpolate, which repeats each layer next to itself, or lower student.num_layers",
        )
    if not isinstance(choice, str):
        wrong = [layer for layer in choice if not 0 <= layer < teacher_layers]
        if wrong:
            raise UserError(
                "student.layers",
                f"numbers from 0 to {teacher_layers - 1}",
                f"{wrong} in {list(choice)}",
                why="the teacher has no such layer",
                fix="blocks count from 0",
            )
        return list(choice)
    return {
        "every_other": [(i + 1) * teacher_layers // depth - 1 for i in range(depth)],
        "first": list(range(depth)),
        "last": list(range(teacher_layers - depth, teacher_layers)),
        "random": None,
    }[choice]
