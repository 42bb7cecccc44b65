"""The gate of an int8 graph: what it keeps of the score of the graph that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distil_nlp.evaluation.metrics import retention


def gate_block(graph: Mapping[str, float], int8: Mapping[str, float], task: str, threshold: float) -> dict[str, Any]:
    """Return `kept`, the share of the graph's headline score that int8 keeps, and whether that is enough (`passed`).

    A share that is not known, because the graph's score is not above 0, is not enough.

    Args:
        graph: metrics of the graph in float32.
        int8: metrics of the int8 graph.
        task: name in the table of tasks.
        threshold: `export.gate`.
    """
    kept = retention(int8, graph, task)
    return {"threshold": threshold, "kept": kept, "passed": kept is not None and kept >= threshold}
