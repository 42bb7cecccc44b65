"""ModernBERT's first block, whose attention has no norm of its own: a norm has just given it the embeddings.

A student whose first block was a later one of the teacher's has no place for that block's norm, and one that has the
teacher's first block further up gets a norm that the block never had. Both are made up for here.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NORM, _EMBEDDING_NORM = "attn_norm", "embeddings.norm"
_READERS = ("attn.Wqkv", "attn.q_proj", "attn.k_proj", "attn.v_proj")
"""The projections that read the norm, in ModernBERT and in its decoder."""


def first_block_tensors(state: dict[str, Tensor], prefix: str, layers: list[int]) -> dict[str, Tensor]:
    """Return student name → tensor, for what depends on which block is the first; empty for other families.

    - A later block put first: its norm is folded into the projections that read it. Of LN(x) = γ (x − mean(x)) / std(x)
      all is linear but std(x), and the embeddings' norm has left that nearly the same for all tokens.
    - The first block put later: its attention has always read the embeddings' norm, whose weights its new norm gets.

    Args:
        state: the teacher's tensors.
        prefix: of the blocks' names, such as `model.layers.`.
        layers: the teacher's block for each of the student's.
    """
    before = f"{prefix.removesuffix('layers.')}{_EMBEDDING_NORM}"
    has_no_norm = f"{prefix}1.{_NORM}.weight" in state and f"{prefix}0.{_NORM}.weight" not in state
    if not has_no_norm or f"{before}.weight" not in state:
        return {}
    later = [i for i, layer in enumerate(layers) if i > 0 and layer == 0]
    tensors = {
        f"{prefix}{i}.{_NORM}.{kind}": state[f"{before}.{kind}"]
        for i in later
        for kind in ("weight", "bias")
        if f"{before}.{kind}" in state
    }
    return tensors | (_folded(state, prefix, layers[0], before) if layers[0] > 0 else {})


def _folded(state: dict[str, Tensor], prefix: str, layer: int, before: str) -> dict[str, Tensor]:
    """Return the first student block's projections, with the norm of the teacher's block `layer` in them."""
    norm, block, tensors = f"{prefix}{layer}.{_NORM}", f"{prefix}{layer}.", {}
    scale = state[f"{norm}.weight"] / _spread(state, before)
    for reader in (name for name in _READERS if f"{block}{name}.weight" in state):
        weight = state[f"{block}{reader}.weight"]
        scaled = weight * scale
        tensors[f"{prefix}0.{reader}.weight"] = scaled - scaled.mean(1, keepdim=True)
        if f"{norm}.bias" in state and f"{block}{reader}.bias" in state:
            tensors[f"{prefix}0.{reader}.bias"] = state[f"{block}{reader}.bias"] + weight @ state[f"{norm}.bias"]
    return tensors


def _spread(state: dict[str, Tensor], before: str) -> Tensor:
    """Return the standard deviation, over its features, of what the embeddings' norm puts out."""
    bias = state.get(f"{before}.bias")
    variance = state[f"{before}.weight"].square().mean()
    return torch.sqrt(variance if bias is None else variance + bias.var(correction=0))
