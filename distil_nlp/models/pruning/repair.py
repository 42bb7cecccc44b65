"""Repair of a cut student before its first step: each block's output is fitted to the teacher's by least squares.

The projections behind attention and behind the feed-forward units are fitted one after the other, in the order in which
they run, so that each makes up for what those before it and its own cut parts lack. With a what a projection reads and
r what its output is added to, it is given the W and b of least

    Σ over tokens ‖W a + b + r − s‖² + λ ‖(W, b) − (W₀, b₀)‖²,

where s is the teacher's sum at the same place, restricted to the student's features; b is 0 where it has no bias. Where
the sum is is seen: it is what the next norm reads. The fit is that of Kwon et al. 2022 (arXiv:2204.09656, section 4.3,
which fits masks of units rather than weights); λ is a value of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.models.pruning.axes import Axes, parameter_axes, sites
from distil_nlp.models.pruning.importance import Batch
from distil_nlp.models.trial import undisturbed

MOST_TOKENS = 20_000
"""Tokens that are fitted to: several for each weight of an output."""
_RIDGE = 1e-2
"""λ, as a fraction of the mean squared norm of what the projection reads."""

Run = Callable[[PreTrainedModel, Batch], Any]


class _Sums:
    """Watches a model's forwards: what its projections read, and what the next norm reads, token by token."""

    def __init__(self, model: PreTrainedModel, places: Sequence[nn.Linear]):
        self.model, self.wanted = model, {id(place): number for number, place in enumerate(places)}
        self.read: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}

    def run(self, batch: Batch, run: Run) -> None:
        """Run a batch; the attributes then hold (tokens, width) of its attended tokens, by number of the place."""
        self.read, self.sums = {}, {}
        attended = batch["attention_mask"].bool()
        waiting: list[tuple[int, torch.Size]] = []

        def after(module: nn.Module, args: tuple, output: Any) -> None:
            if id(module) in self.wanted:
                number = self.wanted[id(module)]
                self.read[number] = args[0][attended].float()
                waiting[:] = [(number, output.shape)]

        def before(module: nn.Module, args: tuple) -> None:
            if waiting and _is_norm(module) and args and args[0].shape == waiting[0][1]:
                self.sums[waiting.pop()[0]] = args[0][attended].float()

        handles = [module.register_forward_hook(after) for module in self.model.modules() if id(module) in self.wanted]
        handles += [module.register_forward_pre_hook(before) for module in self.model.modules() if _is_norm(module)]
        try:
            run(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and not list(module.children())


def repair(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: Sequence[int],
    width: Tensor,
    batches: Iterable[Batch],
    run: Run,
    progress: Callable[[Sequence[nn.Linear]], Iterable[nn.Linear]] = iter,
) -> int:
    """Fit a student's projections to its teacher's states, in place; return the number of tokens.

    Args:
        student: cut.
        teacher: whole.
        layers: the teacher's block for each of the student's.
        width: the teacher's feature for each of the student's.
        batches: of rows, on the models' device.
        run: runs a model on a batch.
        progress: shows how many of the projections are fitted.
    """
    batches = list(_until(batches, MOST_TOKENS))
    places = _projections(student, parameter_axes(student))
    targets = [_projections(teacher, parameter_axes(teacher))[layer] for layer in layers]
    theirs = [place for block in targets for place in block.values()]
    own = [place for block in places for place in block.values()]
    with undisturbed(teacher), undisturbed(student):
        wanted = _teacher_sums(teacher, theirs, width, batches, run)
        watch = _Sums(student, own)
        for number, place in enumerate(progress(own)):
            if wanted[0].get(number) is not None:
                _fit(place, number, watch, wanted, batches, run)
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def _projections(model: PreTrainedModel, axes: Axes) -> list[dict[str, nn.Linear]]:
    """Return, for each block, the layers behind its heads and its units, in this order."""
    blocks = zip(sites(model, axes, "heads"), sites(model, axes, "units"), strict=True)
    return [heads | units for heads, units in blocks]


def _until(batches: Iterable[Batch], tokens: int) -> Iterable[Batch]:
    """Return batches until they have as many tokens."""
    seen = 0
    for batch in batches:
        if seen >= tokens:
            return
        seen += int(batch["attention_mask"].sum())
        yield batch


def _teacher_sums(
    teacher: PreTrainedModel, places: Sequence[nn.Linear], width: Tensor, batches: Sequence[Batch], run: Run
) -> list[dict[int, Tensor]]:
    """Return, for each batch, the teacher's sums at the student's features, by the number of the student's place."""
    distinct = list({id(place): place for place in places}.values())
    numbers = {id(place): number for number, place in enumerate(distinct)}
    watch, found = _Sums(teacher, distinct), []
    for batch in batches:
        watch.run(batch, run)
        found.append(
            {
                number: watch.sums[numbers[id(place)]][:, width.to(teacher.device)]
                for number, place in enumerate(places)
                if numbers[id(place)] in watch.sums
            }
        )
    return found


def _fit(
    place: nn.Linear,
    number: int,
    watch: _Sums,
    wanted: Sequence[Mapping[int, Tensor]],
    batches: Sequence[Batch],
    run: Run,
) -> None:
    """Move a projection's weights, and its bias if it has one, to those of least squares."""
    size = place.in_features + (place.bias is not None)
    squares = torch.zeros(size, size, dtype=torch.float64, device=place.weight.device)
    errors = torch.zeros(size, place.out_features, dtype=torch.float64, device=place.weight.device)
    for batch, targets in zip(batches, wanted, strict=True):
        watch.run(batch, run)
        if number not in watch.sums:
            return
        read = watch.read[number].double()
        if place.bias is not None:
            read = torch.cat([read, torch.ones_like(read[:, :1])], 1)
        squares += read.T @ read
        errors += read.T @ (targets[number] - watch.sums[number]).double()
    squares.diagonal().add_(_RIDGE * squares.diagonal().mean())
    change = torch.linalg.solve(squares, errors)
    place.weight.add_(change[: place.in_features].T.to(place.weight))
    if place.bias is not None:
        place.bias.add_(change[-1].to(place.bias))
