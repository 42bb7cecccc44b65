"""What is known of a run: `results.json` with everything missing as None."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from distil_nlp.publish.markdown import code
from distil_nlp.publish.privacy import last_component
from distil_nlp.publish.sources import hub_id
from distil_nlp.tasks import GLUE, OWN

METRICS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "accuracy": ("accuracy", "accuracy", None),
    "f1": ("f1", "F1", None),
    "f1_macro": ("f1", "macro F1", {"average": "macro"}),
    "matthews_correlation": ("matthews_correlation", "Matthews correlation", None),
    "pearson": ("pearsonr", "Pearson correlation", None),
    "spearmanr": ("spearmanr", "Spearman correlation", None),
    "mse": ("mse", "mean squared error", None),
    "perplexity": ("perplexity", "perplexity", None),
}
"""Name in `results.json` → (id on the Hub, name for a reader, arguments it is computed with)."""
_SPELLING = {"cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B"}


class Facts:
    """`facts("teacher.metrics.f1")` is that value of `results.json`, or None where any step of the way is missing.

    Attributes:
        task: as in `results.json`.
        kind: `mlm`, `classification` or `regression`.
    """

    def __init__(self, results: Mapping[str, Any]):
        self._results = json.loads(json.dumps(results, default=str), parse_constant=lambda _: None)  # no NaN
        self.task: str = results["task"]
        self.kind = "mlm" if self.task == "mlm" else (GLUE | OWN)[self.task].kind

    def __call__(self, path: str) -> Any:
        found: Any = self._results
        for step in path.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    @property
    def splits(self) -> dict[str, int | None]:
        """The splits that were scored, with their rows if known; the first one's scores have plain names."""
        named = dict.fromkeys(name.rpartition("/")[0] for name in self("student.metrics") or {} if "/" in name)
        return self("rows.evaluation") or named

    @property
    def seeds(self) -> list[int]:
        """The seeds that the student was trained with, the published one first."""
        listed = (one.get("seeds") for one in (self("seeds") or {}).values())
        return next(filter(None, listed), [])

    @property
    def terms(self) -> dict[str, dict[str, Any]]:
        """The terms that were computed: named, and not of weight 0 throughout."""
        named = {name: term for name, term in (self("recipe.objective") or {}).items() if term is not None}
        return {name: term for name, term in named.items() if term.get("weight", 1.0) or _final_weight(term)}

    @property
    def gains(self) -> list[dict[str, Any]]:
        """The distilled student's gain over each baseline that has one."""
        return [part["gain"] for part in (self("baselines") or {}).values() if part.get("gain")]

    @property
    def dataset(self) -> str:
        """`GLUE MRPC`, or the data's name on the Hub, or their path's last component."""
        on_hub = hub_id(self("recipe.data.path"))
        if self.task in GLUE and on_hub in (None, "nyu-mll/glue", "glue"):
            return f"GLUE {_SPELLING.get(self.task, self.task.upper())}"
        return on_hub or last_component(self("recipe.data.path") or self.task)

    @property
    def linked_dataset(self) -> str:
        """The same in Markdown, as a link where there is something to link to."""
        on_hub = hub_id(self("recipe.data.path"))
        if on_hub:
            return f"[{self.dataset}](https://huggingface.co/datasets/{on_hub})"
        return self.dataset if self.task in GLUE else code(self.dataset)


def metric_label(name: str | None) -> str:
    """`accuracy, validation_matched` for `validation_matched/accuracy`."""
    split, _, metric = (name or "score").rpartition("/")
    label = METRICS[metric][1] if metric in METRICS else metric
    return f"{label}, {split}" if split else label


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def joined(*parts: str | None, by: str = " ") -> str:
    """The parts that say something, as one text."""
    return by.join(part for part in parts if part)


def _final_weight(term: Mapping[str, Any]) -> float:
    change = (term.get("schedule") or {}).get("weight")
    return change["end"] if change else 0.0
