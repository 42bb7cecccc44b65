"""Runs as they lie on disk after an export, and stand-ins for what npm downloads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.helpers import tiny
from tests.helpers.showcase import example, exported

GRAPHS = {"onnx": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


def exported_run(folder: Path, kept: float = 0.998, **changes: Any) -> Path:
    """Write a finished and exported run; its graphs are bytes, its int8 copy keeps so much of the score."""
    student, block = folder / "student", exported(kept)
    tiny.classifier(2).save_pretrained(student)
    tiny.tokenizer().save_pretrained(student)
    (student / "onnx").mkdir()
    for model, file in GRAPHS.items():
        (student / file).write_bytes(model.encode())
        block["models"][model] |= {"file": file, "sha256": hashlib.sha256(model.encode()).hexdigest()}
    (folder / "results.json").write_text(json.dumps(example(export=block, **changes)))
    return folder


def stand_in(folder: Path) -> None:
    """Put files of the library's names into a folder."""
    folder.mkdir(exist_ok=True)
    for name in ("transformers.js", "onnxruntime.js", "onnxruntime-wasm.js", "onnxruntime.wasm"):
        (folder / name).write_text(name)
