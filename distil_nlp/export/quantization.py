"""A graph in int8, by onnxruntime: weights and activations of matrix products, and embeddings."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_dynamic, quantize_static
from torch import Tensor
from transformers import PretrainedConfig

from distil_nlp.errors import UserError
from distil_nlp.export.tracing import quiet_exporters
from distil_nlp.utils.files import atomic_file

Int8Method = Literal["dynamic", "static"]
Int8Layers = Literal["all", "feed_forward"]

_PRODUCTS = ("MatMul", "Gemm")
_EMBEDDING = "Gather"


@dataclass(frozen=True)
class Int8Settings:
    """How a graph becomes int8.

    Attributes:
        method: `dynamic` takes the range of activations anew in each forward; `static` takes ranges that were
            calibrated on rows.
        layers: `all` for every product with weights; `feed_forward` for those of the feed-forward layers alone, and
            the embeddings.
        reduce_range: weights of 7 bits, for processors whose sums of 8-bit products saturate.
    """

    method: Int8Method = "dynamic"
    layers: Int8Layers = "all"
    reduce_range: bool = False


def sums_saturate() -> bool:
    """Return whether sums of 8-bit products saturate on this machine: x86 without the VNNI instructions.

    Where it is not known whether an x86 processor has them, it is taken to be without.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return not any(name in flags.split() for name in ("avx512_vnni", "avx_vnni"))


def write_int8(
    source: Path,
    target: Path,
    settings: Int8Settings,
    config: PretrainedConfig,
    calibration: Iterable[Mapping[str, Tensor]] = (),
) -> None:
    """Write a graph in int8, per channel, as one file.

    Args:
        source: a graph of `write_graph`.
        target: path of the new one.
        settings: how.
        config: the student's, which tells the width of its feed-forward layers.
        calibration: inputs of the graph, for `static`.

    Raises:
        UserError: for `feed_forward`, if no product has the width of a feed-forward layer.
    """
    graph = onnx.load(str(source))
    _drop_shapes_of_weights(graph)
    nodes = [node.name for node in _quantized_nodes(graph, settings, config)]
    shared: dict[str, Any] = {"per_channel": True, "reduce_range": settings.reduce_range, "nodes_to_quantize": nodes}
    with tempfile.TemporaryDirectory() as folder, atomic_file(target) as partial, quiet_exporters():
        prepared = str(Path(folder, "model.onnx"))
        onnx.save(graph, prepared)
        if settings.method == "dynamic":
            quantize_dynamic(prepared, str(partial), **shared)
        else:
            quantize_static(
                prepared,
                str(partial),
                _Calibration(calibration, [value.name for value in graph.graph.input]),
                op_types_to_quantize=[*_PRODUCTS, _EMBEDDING],
                calibrate_method=CalibrationMethod.MinMax,  # the others take tensors of one shape alone
                **shared,
            )


def _drop_shapes_of_weights(graph: ModelProto) -> None:
    """Drop the noted shapes of weights: the quantiser transposes some, and stops at a shape that is no longer so."""
    weights = {weight.name for weight in graph.graph.initializer}
    kept = [info for info in graph.graph.value_info if info.name not in weights]
    del graph.graph.value_info[:]
    graph.graph.value_info.extend(kept)


def _quantized_nodes(graph: ModelProto, settings: Int8Settings, config: PretrainedConfig) -> list[NodeProto]:
    """Return the nodes with weights that become int8; products of two activations, as in attention, stay."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.graph.initializer}
    found = [node for node in graph.graph.node if (_shape_of_weight(node, shapes) is not None)]
    if settings.layers == "all":
        return found
    width = _feed_forward_width(config)
    inner = [
        node
        for node in found
        if node.op_type == _EMBEDDING or {width, 2 * width}.intersection(_shape_of_weight(node, shapes) or ())
    ]
    if all(node.op_type == _EMBEDDING for node in inner):
        raise UserError(
            "export.int8_layers",
            f"feed-forward layers of width {width} in the graph",
            "none",
            why="they alone would become int8",
            fix="leave export.int8_layers out",
        )
    return inner


def _shape_of_weight(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the shape of a node's matrix of weights; None for other nodes."""
    places = {"MatMul": 1, "Gemm": 1, _EMBEDDING: 0}
    name = node.input[places[node.op_type]] if node.op_type in places else ""
    return shapes[name] if len(shapes.get(name, ())) == 2 else None


def _feed_forward_width(config: Any) -> int:
    names = ("intermediate_size", "hidden_dim", "d_inner")
    return next((size for name in names if isinstance(size := getattr(config, name, None), int)), 0)


class _Calibration(CalibrationDataReader):
    """The rows of a calibration, as feeds of a graph; read once."""

    def __init__(self, batches: Iterable[Mapping[str, Tensor]], names: list[str]):
        self._feeds = iter(_feeds(batches, names))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _feeds(batches: Iterable[Mapping[str, Tensor]], names: list[str]) -> Iterator[dict[str, np.ndarray]]:
    for batch in batches:
        yield {name: batch[name].numpy() for name in names}
