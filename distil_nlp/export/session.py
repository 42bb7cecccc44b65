"""`GraphSession`: an ONNX graph that is run by onnxruntime, with torch's number of threads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

_ERRORS_ONLY = 3


class GraphSession:
    """A graph on the CPU. Inputs that a batch lacks are filled in: a mask of ones, segments of zeros.

    It computes with as many threads as torch does at that moment, which do not spin between two forwards: models that
    take turns would slow each other.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._by_threads: dict[int, onnxruntime.InferenceSession] = {}

    @cached_property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [one.name for one in self._session().get_inputs()]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name; inputs that the graph does not have are left out."""
        session = self._session()
        ids = inputs["input_ids"]
        filled = {"attention_mask": torch.ones_like, "token_type_ids": torch.zeros_like}
        feed = {name: (inputs[name] if name in inputs else filled[name](ids)).numpy() for name in self.inputs}
        names = [one.name for one in session.get_outputs()]
        found: list[Any] = session.run(names, feed)
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    def _session(self) -> onnxruntime.InferenceSession:
        threads = torch.get_num_threads()
        if threads not in self._by_threads:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = _ERRORS_ONLY
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._by_threads[threads] = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        return self._by_threads[threads]
