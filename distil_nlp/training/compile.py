"""`training.torch_compile`: the transformer blocks of both models, compiled.

Blocks are where the arithmetic is, and all blocks of a model share their graphs; hooks, heads and losses stay outside,
so that nothing there breaks a graph. With packed blocks of text every step has the same shapes, and no step compiles
anew.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import nn
from torch._dynamo.utils import counters
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.models.architecture import all_layers, block_parts


def compile_blocks(models: list[PreTrainedModel], args: TrainingArguments, accelerator: Accelerator) -> None:
    """Compile the blocks' forwards in place, with the backend and mode of `args`; accelerate then compiles nothing."""
    accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
    for model in models:
        for part in {part for block in all_layers(model) for part in block_parts(block)}:
            if not _is_compiled(part):  # by another trainer of the same teacher
                part.forward = torch.compile(
                    part.forward, backend=args.torch_compile_backend or "inductor", mode=args.torch_compile_mode
                )


def restore_blocks(model: PreTrainedModel) -> None:
    """Replace compiled forwards by the modules' own."""
    for module in filter(_is_compiled, model.modules()):
        del module.__dict__["forward"]


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")


def compiled_graphs() -> int:
    """Return the number of graphs that this process has compiled: each shape or layer that needs its own counts."""
    return counters["stats"]["unique_graphs"]
