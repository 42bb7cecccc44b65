"""The exported student, and its gate."""

from __future__ import annotations

from typing import Annotated, Literal

from distil_nlp.results.schema.base import Block, FileName, MetricValues, ModelName, Number, described
from distil_nlp.results.schema.costs import Efficiency


class ExportSettings(Block):
    """The section `export` of the recipe, as it was when the student was exported."""

    onnx: bool = described("Whether the run itself exported its student.")
    int8: Literal["dynamic", "static", "off"] = described("The int8 copy that was asked for.")
    int8_layers: Literal["all", "feed_forward"] = described("What of it is int8.")
    reduce_range: bool | None = described("Weights of 7 bits.", null="for what the machine needs")
    calibration_rows: int = described("Training rows for `static`.")
    gate: float = described("Share of the ONNX model's headline score that the int8 copy must keep.")
    latency: Literal["full", "quick", "off"] = described("How long the models were timed.")


class Int8Copy(Block):
    """How the int8 copy was made."""

    method: Literal["dynamic", "static"] = described("Ranges of activations: taken in each forward, or calibrated.")
    layers: Literal["all", "feed_forward"] = described("What of it is int8.")
    reduce_range: bool = described("True for weights of 7 bits.")
    calibration_rows: int | None = described("Training rows that ranges were taken from.", null="for `dynamic`")


class ExportGate(Block):
    """What the int8 copy keeps of the ONNX model's headline score on the first evaluation split."""

    threshold: float = described("The share that it must keep (`export.gate`).")
    kept: Number = described("The share that it keeps.", null="unless the ONNX model's score is above 0")
    passed: bool = described("True if that is enough: only then `push-to-hub` uploads it.")


class ExportedModel(Block):
    """Size and scores of the teacher, the student, the ONNX model (`onnx`) or its int8 copy (`int8`)."""

    size_mb: float = described(
        "Of `onnx` and `int8` the file, of the others the weights, in megabytes (10⁶ bytes).",
        absent="for a teacher that is no model",
    )
    file: FileName = described("The file, within `student/`.", absent="for teacher and student")
    sha256: str = described("SHA-256 of the file.", absent="for teacher and student")
    metrics: MetricValues = described(
        "Scores; keys as in `teacher.metrics`. The teacher's are those of the run; the student was scored again, on "
        "the CPU in float32.",
        absent="for answers that were not scored",
    )
    retention: float = described("Headline score ÷ the teacher's.", absent="for the teacher, or without its score")
    fidelity: dict[Annotated[str, "measure"], Number] = described(
        "How alike the predictions are to the student's, on the first evaluation split; keys as in `fidelity`, with "
        "the student in the teacher's place: `agreement` is the fraction of equal predictions.",
        absent="for teacher and student",
    )


class ExportResults(Block):
    """The exported student: `onnx/` in its folder."""

    settings: ExportSettings = described("How it was asked for.")
    versions: dict[str, str | None] = described("Versions of onnx, onnxscript, onnxruntime, torch and transformers.")
    exporter: Literal["transformers", "torch"] = described("What traced the student.")
    inputs: list[str] = described("Inputs of the graph, each (batch, sequence).")
    outputs: list[str] = described("Outputs of the graph.")
    difference: float = described(
        "Largest difference of the graph's outputs to the student's, relative to the largest of these, over random "
        "tokens of three shapes with padding."
    )
    int8: Int8Copy | None = described("The int8 copy.", null="without one")
    gate: ExportGate | None = described("Its gate.", null="without an int8 copy")
    models: dict[ModelName, ExportedModel] = described("`teacher`, `student`, `onnx` and `int8`.")
    efficiency: Efficiency | None = described(
        "Latencies on the CPU of these models, which took turns; without a teacher that is not at hand any more.",
        null="if `export.latency` is `off`",
    )
