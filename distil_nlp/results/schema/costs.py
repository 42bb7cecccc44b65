"""What a model costs: size, operations, memory and latencies."""

from __future__ import annotations

from typing import Literal

from distil_nlp.results.schema.base import Block, ModelName, described


class Latency(Block):
    """Time of an inference forward of a whole batch: one model in one setting."""

    p50: float = described("Median, in milliseconds.")
    p90: float = described("90th percentile, in milliseconds.", absent="in files of older versions")
    p99: float = described(
        "99th percentile, in milliseconds; of fewer than a hundred forwards it is close to the slowest.",
        absent="in files of older versions",
    )
    rows_per_second: float = described("Rows ÷ seconds, over all timed forwards.")
    forwards: int = described("Forwards that were timed.")
    jitter: float = described(
        "95th percentile of a forward's time ÷ the median time of the same batch. Above 1.5 the machine was busy with "
        "other work.",
        absent="if no batch was timed three times",
    )


class LatencySetting(Block):
    """Latencies of all models at one batch size, for inputs of the same lengths, with the same threads."""

    batch_size: int = described("Rows of a forward.")
    lengths: Literal["data", "max_length"] = described(
        "`data`: rows of the first evaluation split, drawn with a fixed seed, padded to the longest of their batch; "
        "`max_length`: rows of `max_length` random tokens, none of them padding."
    )
    tokens: float = described("Mean tokens of a row, without padding.")
    threads: int | None = described("CPU threads of torch.", null="on a GPU")
    models: dict[ModelName, Latency] = described(
        "Latencies of `teacher`, `student` and each of its exits; of exported models in `export.efficiency`."
    )


class ModelCost(Block):
    """Size and inference cost of a model. Latencies and conditions of the measurement are in `efficiency`."""

    parameters: int = described("Parameters, tied ones counted once; of an ensemble, of all members.")
    encoder_parameters: int = described("Parameters of the encoder's layers.")
    embedding_parameters: int = described("Parameters of the embeddings.")
    size_mb: float = described("Weights in the model's dtype, in megabytes (10⁶ bytes).")
    flops_per_token: float = described(
        "Floating-point operations of the matrix products of a forward of `efficiency.max_length` tokens, per token; a "
        "multiply-add counts 2.",
        absent="if `evaluation.efficiency` is `off`",
    )
    peak_memory_mib: float = described(
        "Weights plus the largest memory of a forward of the largest batch of `efficiency.max_length` tokens, in MiB "
        "(2²⁰ bytes).",
        absent="unless `evaluation.efficiency` is `full`",
    )


class Efficiency(Block):
    """Latencies of teacher and student, and the conditions of the cost measurement."""

    device: str = described("GPU name, or processor and number of cores.")
    dtype: Literal["float32", "bfloat16"] = described("Precision of the forward; bfloat16 is autocast.")
    max_length: int = described(
        "Tokens of the longest inputs: `data.max_length`, or fewer where a model has fewer positions."
    )
    warm_up: int = described("Forwards of each model in a setting before the timed ones.")
    seconds: float = described("Seconds that the measurement took.", absent="in files of older versions")
    latency: list[LatencySetting] = described("Latencies, setting by setting, in the order in which they were timed.")
    left_out: int = described(
        "Settings that were left out because the time was over.", absent="in files of older versions"
    )
