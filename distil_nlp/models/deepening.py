"""Depth growth: a student with more blocks than its teacher, whose blocks are repeated.

In a block whose norms come before its attention and feed-forward parts, what these add to the states is the output of a
projection: x + W(…). With W = 0 the block gives x itself, and a student whose further blocks start so is its teacher.
Where norms come after the sum (BERT), both projections at 0 still leave LN(LN(x)), with the block's own γ and β, and no
choice of W gives x: such a student starts from plain copies, and not as its teacher.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import layer_stack
from distil_nlp.models.trial import run_plainly, trial_batch, undisturbed

Repetition = Literal["stack", "interpolate"]

_ADDS_TO_STATES = re.compile(r"(^|\.)(output\.dense|Wo|o_proj|down_proj|out_lin|lin2)$")
"""Names, within a block, of the projections whose output is added to the states."""


def repeated_layers(choice: Repetition, teacher_layers: int, num_layers: int | None) -> list[int]:
    """Return the teacher's block for each of a deeper student's.

    `stack` begins again from the first block once all are there: [0, 1, 2, 0, 1] for 5 of 3. `interpolate` repeats
    blocks next to themselves, spread evenly over the depth, block ⌊i · T / S⌋: [0, 0, 1, 1, 2].

    Raises:
        UserError: unless `num_layers` is at least the teacher's.
    """
    if num_layers is None or num_layers < teacher_layers:
        raise UserError(
            "student.num_layers",
            f"at least the teacher's {teacher_layers} for student.layers={choice}",
            "none" if num_layers is None else str(num_layers),
            why="it repeats blocks for a student that is deeper than its teacher",
            fix="set student.num_layers, or student.layers=every_other for a shallower student",
        )
    if choice == "stack":
        return [i % teacher_layers for i in range(num_layers)]
    return [i * teacher_layers // num_layers for i in range(num_layers)]


def added_blocks(layers: list[int], teacher_layers: int) -> list[int]:
    """Return the student's blocks that repeat an earlier one; none if without these it would not be the teacher."""
    first = [i for i, layer in enumerate(layers) if layer not in layers[:i]]
    is_teacher = [layers[i] for i in first] == list(range(teacher_layers))
    return sorted(set(range(len(layers))).difference(first)) if is_teacher else []


@torch.no_grad()
def silence_blocks(student: PreTrainedModel, numbers: list[int]) -> bool:
    """Set to 0 what these blocks add to the states, if they then leave the states as they are; else change nothing.

    Returns:
        Whether each of them is now an identity, as a forward of a few tokens shows.
    """
    stack = layer_stack(student)
    blocks = [stack[i] for i in numbers]
    parameters = [parameter for block in blocks for parameter in _adding_parameters(block)]
    before = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.zero_()
    if parameters and _are_identities(student, blocks):
        return True
    for parameter, value in zip(parameters, before, strict=True):
        parameter.copy_(value)
    return False


def _adding_parameters(block: nn.Module) -> list[nn.Parameter]:
    modules = [module for name, module in block.named_modules() if _ADDS_TO_STATES.search(name)]
    return [parameter for module in modules if isinstance(module, nn.Linear) for parameter in module.parameters()]


def _are_identities(model: PreTrainedModel, blocks: list[nn.Module]) -> bool:
    """Return whether each block gives the states that it gets, on a few tokens."""
    seen: list[bool] = []

    def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        result: Tensor = output if isinstance(output, Tensor) else output[0]
        seen.append(result.shape == states.shape and torch.equal(result, states))

    with undisturbed(model):
        handles = [block.register_forward_hook(compare, with_kwargs=True) for block in blocks]
        try:
            run_plainly(model, trial_batch(model))
        finally:
            for handle in handles:
                handle.remove()
    return len(seen) >= len(blocks) and all(seen)
