"""Outputs of question answering: two distributions over the positions that an answer may start or end at."""

from torch import Tensor

NOT_ALLOWED = -1e30
"""Logit of a position that can be no answer: its probability is 0 at any temperature, and it stays finite."""


def span_rows(logits: Tensor, is_allowed: Tensor) -> Tensor:
    """Return the distributions of windows as rows, start and end in turn, (2 · windows, seq), in fp32.

    Positions that are not allowed have `NOT_ALLOWED`, so that padding changes neither a softmax nor its gradient.

    Args:
        logits: (windows, seq, 2).
        is_allowed: (windows, seq).
    """
    return logits.float().transpose(1, 2).masked_fill(~is_allowed.unsqueeze(1), NOT_ALLOWED).flatten(0, 1)
