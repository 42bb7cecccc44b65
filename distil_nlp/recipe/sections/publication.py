"""The sections `export` and `hub`: the student as ONNX files, and its upload."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from distil_nlp.recipe.sections.base import Section


class HubSection(Section):
    """Upload of the student to the Hugging Face Hub.

    Attributes:
        repo_id: repository, such as `me/my-student`.
        push: whether to upload, unless the student is no better than a guess.
        private: whether a new repository is private.
    """

    repo_id: str | None = None
    push: bool = False
    private: bool = False


class ExportSection(Section):
    """Export of the student to ONNX, after the run or by `distil-nlp export`; see `distil_nlp.pipeline.export`.

    Attributes:
        onnx: whether the run exports its student at its end.
        int8: an int8 copy: `dynamic` takes ranges of activations in each forward, `static` calibrates them on training
            rows, `off` makes none.
        int8_layers: what becomes int8: `all` products with weights, or those of the `feed_forward` layers alone; the
            embeddings in either case.
        reduce_range: weights of 7 bits, for x86 processors without VNNI; null for what this machine needs.
        calibration_rows: training rows for `static`.
        gate: share of the ONNX model's headline score that the int8 copy must keep to be published.
        latency: how long teacher, student and the exported models are timed: `full` (about a minute), `quick`
            (seconds) or `off`.
    """

    onnx: bool = False
    int8: Literal["dynamic", "static", "off"] = "dynamic"
    int8_layers: Literal["all", "feed_forward"] = "all"
    reduce_range: bool | None = None
    calibration_rows: PositiveInt = 64
    gate: Annotated[float, Field(ge=0)] = 0.99
    latency: Literal["full", "quick", "off"] = "full"
