"""A model as an ONNX graph, by the experimental exporter of transformers, or by torch's own where that is missing.

All that may change from version to version of these interfaces is in this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.export import Dim
from transformers import PreTrainedModel

from distil_nlp.utils.logging import quiet_transformers

AXES = ("batch", "sequence")
"""Names of the axes of an input; both may have any size."""


class Traced(NamedTuple):
    """A traced model.

    Attributes:
        graph: of the model.
        exporter: what traced it: `transformers` or `torch`.
        is_fused: whether operators are fused already.
    """

    graph: onnx_ir.Model
    exporter: str
    is_fused: bool


def trace(model: PreTrainedModel, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Traced:
    """Return the graph of a model, with axes `batch` and `sequence`.

    Args:
        model: in eval mode on the CPU.
        inputs: an example of at least two rows and no short length, as tracing takes sizes 0 and 1 for constants.
        outputs: names of the outputs that are kept.
    """
    has_exporter = importlib.util.find_spec("transformers.exporters") is not None
    with quiet_exporters(), torch.no_grad():
        traced = (_by_transformers if has_exporter else _by_torch)(model, inputs, outputs)
    _keep_outputs(traced.graph, outputs)
    _name_axes(traced.graph, list(inputs))
    return traced


def fuse_file(path: Path) -> None:
    """Fuse the operators of a saved graph in place, for graphs that were not fused when they were traced."""
    from onnxruntime.transformers.optimizer import optimize_model

    with quiet_exporters():
        fused = optimize_model(str(path), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
        onnx.save(fused.model, str(path))


def _by_transformers(model: PreTrainedModel, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Traced:
    from transformers.exporters import OnnxConfig, OnnxExporter

    can_fuse = "ort_fusions" in {field.name for field in dataclasses.fields(OnnxConfig)}  # since transformers 5.23
    options: dict[str, Any] = {"ort_fusions": "cpu"} if can_fuse else {}
    config = OnnxConfig(dynamic_shapes=_dynamic_shapes(inputs), **options)
    exported: Any = OnnxExporter().export(model, dict(inputs), config=config)
    return Traced(getattr(exported, "program", exported), "transformers", can_fuse)


def _by_torch(model: PreTrainedModel, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Traced:
    program: Any = torch.onnx.export(
        _Positional(model, list(inputs), outputs),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes={"values": tuple(_dynamic_shapes(inputs).values())},
        dynamo=True,
        verbose=False,
    )
    return Traced(program.model, "torch", is_fused=False)


class _Positional(nn.Module):
    """A model that takes its inputs in order, and returns some of its outputs as a tuple."""

    def __init__(self, model: PreTrainedModel, inputs: Sequence[str], outputs: Sequence[str]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.inputs, values, strict=True)))
        return tuple(output[name] for name in self.outputs)


def _dynamic_shapes(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    return {name: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} for name in inputs}


def _keep_outputs(model: onnx_ir.Model, names: Sequence[str]) -> None:
    """Drop further outputs, such as a pooler's, and what only they need."""
    found = {value.name: value for value in model.graph.outputs}
    model.graph.outputs[:] = [found[name] for name in names]
    RemoveUnusedNodesPass()(model)


def _name_axes(model: onnx_ir.Model, inputs: Sequence[str]) -> None:
    """Rename the symbols of the inputs' axes, which differ from input to input, to `AXES` throughout the graph."""
    found = {value.name: value for value in model.graph.inputs}
    names: dict[Any, str] = {}
    for name in inputs:
        shape: Any = found[name].shape
        names |= {_symbol(size): axis for size, axis in zip(shape, AXES, strict=True)}
    for value in _values(model.graph):
        if value.shape is not None and any(_symbol(size) in names for size in value.shape):
            value.shape = onnx_ir.Shape([names.get(_symbol(size), size) for size in value.shape])


def _symbol(size: Any) -> str | None:
    """Return the name of an axis without a fixed size."""
    return getattr(size, "value", None) if not isinstance(size, int) else None


def _values(graph: onnx_ir.Graph) -> Iterator[Any]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Hide what the exporters print, log and warn of: the graph is compared with the model in any case."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime", "root")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), quiet_transformers(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
