"""The exported graph of a student: its inputs and outputs, one file, and the comparison with the student itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.errors import UserError
from distil_nlp.export.session import GraphSession
from distil_nlp.export.tracing import fuse_file, trace
from distil_nlp.models import usable_positions
from distil_nlp.signals.types import forward_arguments
from distil_nlp.tasks import TaskKind
from distil_nlp.utils.files import atomic_file

GRAPH, QUANTIZED = Path("onnx", "model.onnx"), Path("onnx", "model_quantized.onnx")
"""Places of the graphs in a student's folder, where transformers.js and sentence-transformers look for them."""
MOST_BYTES = 2 * 10**9
"""Weights that fit into one file: a protobuf is below 2 GiB."""
MOST_DIFFERENCE = 1e-4
"""Largest difference of outputs, relative to the largest output, at which a graph counts as the model."""
RAGGED = ((1, 7), (3, 33), (2, 128))
"""Rows and tokens of the inputs on which graph and model are compared; rows after the first are ever shorter."""
_EXAMPLE = (2, 16)


@dataclass(frozen=True)
class GraphInfo:
    """What a graph was made by.

    Attributes:
        exporter: `transformers` or `torch`.
        inputs: its inputs.
        outputs: its outputs.
        difference: largest difference to the student's outputs, relative to the largest of these.
    """

    exporter: str
    inputs: list[str]
    outputs: list[str]
    difference: float


def write_graph(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: TaskKind, path: Path) -> GraphInfo:
    """Write the graph of a student as one file, and compare it with the student.

    The graph of a sentence encoder ends at its tokens' states, as sentence-transformers and transformers.js expect:
    they pool and normalise by the files beside it.

    Raises:
        UserError: if the model cannot be traced, is too large for one file, or the graph has other outputs.
    """
    model, names = traced_part(student, kind), kind.graph_outputs
    _check_bytes(model)
    inputs = ragged_inputs(model, input_names(model, tokenizer), *_EXAMPLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        traced = trace(model, inputs, names)
        with atomic_file(path) as partial:
            onnx_ir.save(traced.graph, str(partial))
            if not traced.is_fused:
                fuse_file(partial)
    except Exception as error:  # whatever the exporters raise
        raise UserError(
            "export",
            f"{type(model).__name__} to be traced into an ONNX graph",
            " ".join(f"{type(error).__name__}: {error}".split())[:300],
            why="the exporters do not know all that it computes",
            fix="run the student with transformers, or choose a student of another family",
        ) from error
    difference = largest_difference(model, GraphSession(path), names)
    _check_difference(difference, path)
    return GraphInfo(traced.exporter, list(inputs), list(names), difference)


def traced_part(student: PreTrainedModel, kind: TaskKind) -> PreTrainedModel:
    """Return the part of a student that its graph has: all of it, or the encoder of a sentence encoder."""
    part: Any = student.base_model if kind.has_vectors else student
    return part


def input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the inputs of a model that its tokenizer makes; segments where the model tells them apart."""
    known, segments = forward_arguments(model), getattr(model.config, "type_vocab_size", None)
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in tokenizer.model_input_names and segments not in (0, 1):
        names.append("token_type_ids")
    return [name for name in names if name in known]


def ragged_inputs(model: PreTrainedModel, names: Sequence[str], rows: int, tokens: int) -> dict[str, Tensor]:
    """Return random tokens, (rows, tokens); each row is a third shorter than the one before, and padded."""
    config: Any = model.config
    generator = torch.Generator().manual_seed(tokens)
    padding = config.pad_token_id or 0
    ids = torch.randint(config.vocab_size - 1, (rows, tokens), generator=generator)
    ids += ids >= padding
    mask = torch.ones_like(ids)
    for row in range(rows):
        length = max(int(tokens * (2 / 3) ** row), 1)
        ids[row, length:], mask[row, length:] = padding, 0
    segments = (torch.arange(tokens) >= tokens // 3).long() * mask
    made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    return {name: made[name] for name in names}


def largest_difference(model: PreTrainedModel, session: GraphSession, names: Sequence[str]) -> float:
    """Return the largest difference of outputs between graph and model over `RAGGED`, relative to the largest output.

    Outputs at padding do not count.
    """
    return max(_difference(model, session, names, *shape) for shape in RAGGED)


@torch.no_grad()
def _difference(model: PreTrainedModel, session: GraphSession, names: Sequence[str], rows: int, tokens: int) -> float:
    tokens = min(tokens, usable_positions(model.config))
    inputs = ragged_inputs(model, session.inputs, rows, tokens)
    wanted, found = model(**inputs), session.run(inputs)
    present = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones(rows, tokens).bool()
    differences = []
    for name in names:
        own, other = wanted[name], found[name]
        if own.shape[:2] == present.shape and own.dim() > 1 and own.shape[1] == tokens:
            own, other = own[present], other[present]
        differences.append(float((own - other).abs().max() / own.abs().max().clamp_min(1e-6)))
    return max(differences)


def _check_bytes(model: PreTrainedModel) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in {id(w): w for w in model.parameters()}.values())
    if size > MOST_BYTES:
        raise UserError(
            "export",
            f"weights of at most {MOST_BYTES / 1e9:g} GB",
            f"{size / 1e9:.1f} GB",
            why="the graph is one file, which clients load as a whole",
            fix="choose a smaller student",
        )


def _check_difference(difference: float, path: Path) -> None:
    if not difference <= MOST_DIFFERENCE:  # NaN too
        path.unlink()
        raise UserError(
            "export",
            f"outputs of the graph within {MOST_DIFFERENCE:g} of the student's",
            f"a relative difference of {difference:.2g}",
            why="it would be another model; tracing takes some of what it computes for constants",
            fix="run the student with transformers, or choose a student of another family",
        )
