"""Results of older schema versions in today's form."""

from __future__ import annotations

from typing import Any

from distil_nlp.results.schema import SCHEMA_VERSION

READABLE_VERSIONS = (1, SCHEMA_VERSION)


def upgraded(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a readable version in today's form; others as they are.

    Version 1 has latencies by batch size in the blocks of the models, at one length and one number of threads.
    """
    if results.get("schema_version") != 1:
        return results
    models = {role: dict(block) for role in ("teacher", "student") if isinstance(block := results.get(role), dict)}
    latencies = {role: _by_size(block.pop("latency_ms", None)) for role, block in models.items()}
    for block in models.values():
        block.pop("tokens_per_second", None)
    old = results.get("efficiency")
    if not isinstance(old, dict):
        return {**results, **models, "schema_version": SCHEMA_VERSION}
    conditions = {key: value for key, value in old.items() if key not in ("speed_up", "threads", "sequence_length")}
    conditions |= {"max_length": old.get("sequence_length"), "latency": _settings(latencies, old)}
    return {**results, **models, "efficiency": conditions, "schema_version": SCHEMA_VERSION}


def _by_size(old: Any) -> dict[int, dict[str, Any]]:
    """Return batch size → latency of a model, for all sizes with a usable one."""
    items = old.items() if isinstance(old, dict) else ()
    latencies = {int(size): _latency(latency, int(size)) for size, latency in items if size.isdecimal()}
    return {size: latency for size, latency in latencies.items() if latency}


def _latency(old: Any, batch_size: int) -> dict[str, Any] | None:
    """Return a model's latency at a batch size; None without a median.

    Args:
        old: median, p95 and repeats.
        batch_size: rows of a forward.
    """
    median, p95 = (_number(old, key) for key in ("median", "p95"))
    if not median:
        return None
    latency = {"p50": median, "rows_per_second": round(batch_size * 1e3 / median, 2), "forwards": old.get("repeats")}
    return {**latency, "jitter": round(p95 / median, 3)} if p95 else latency


def _settings(latencies: dict[str, dict[int, Any]], conditions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a setting for each batch size.

    Args:
        latencies: model → batch size → latency.
        conditions: the block `efficiency`.
    """
    shared = {
        "lengths": "max_length",
        "tokens": conditions.get("sequence_length"),
        "threads": conditions.get("threads"),
    }
    return [
        {
            "batch_size": size,
            **shared,
            "models": {role: by_size[size] for role, by_size in latencies.items() if size in by_size},
        }
        for size in sorted(set().union(*latencies.values()))
    ]


def _number(tree: Any, key: str) -> float | None:
    """Return a number of a block; None where there is none."""
    value = tree.get(key) if isinstance(tree, dict) else None
    return value if isinstance(value, int | float) else None
