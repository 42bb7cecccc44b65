"""Dropout that is known beforehand: a mask for each of two passes, the same for every row and token."""

import torch
from torch import Tensor, nn

P = 0.25


class FixedDropout(nn.Dropout):
    """Drops out the same units in every even row of a batch, and others in every odd one; in train mode alone.

    Attributes:
        only: 0 or 1 to treat all rows as those of the first or second pass; None to go by their parity.
    """

    def __init__(self, seed: int):
        super().__init__(P)
        self.seed, self.only = seed, None

    def forward(self, states: Tensor) -> Tensor:
        if not self.training:
            return states
        generator = torch.Generator().manual_seed(self.seed)
        masks = (torch.rand(2, states.shape[-1], generator=generator) >= P).to(states) / (1 - P)
        chosen = self.only is None and len(states) == 1  # a head on tokens, whose copies are side by side
        count = states.shape[1] if chosen else len(states)
        parity = torch.arange(count) % 2 if self.only is None else torch.full((count,), self.only)
        shape = (1, count, -1) if chosen else (count, *[1] * (states.ndim - 2), -1)
        return states * masks[parity].view(shape)


def fix_dropout(model: nn.Module) -> None:
    """Replace all dropout modules of a model but those on attention, which stay without effect at 0."""
    places = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    for seed, name in enumerate(name for name in places if not name.endswith("attention.self.dropout")):
        model.set_submodule(name, FixedDropout(seed))


def read_pass(model: nn.Module, number: int | None) -> None:
    """Let all rows of the next forwards be those of one pass; None to go by their parity again."""
    for module in model.modules():
        if isinstance(module, FixedDropout):
            module.only = number
