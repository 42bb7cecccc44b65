"""Summary of a metric over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any


def summarize_seeds(seeds: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Return a metric's value for each seed, with median, minimum and maximum.

    A correlation that is not a number, because all predictions are the same, counts as 0 in the three.
    """
    counted = [0.0 if math.isnan(value) else value for value in values]
    summary = {"median": median(counted), "minimum": min(counted), "maximum": max(counted)}
    return {"seeds": seeds, "values": values, **summary}
