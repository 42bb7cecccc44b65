"""The facts of a run that only a card needs: its data and models on the Hub, its terms, links in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distil_nlp.data.paths import all_paths
from distil_nlp.hub.sources import hub_id
from distil_nlp.redaction import last_component
from distil_nlp.reporting.markdown import longest_run
from distil_nlp.results import RunResults
from distil_nlp.tasks import GLUE

_SPELLING = {"cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B"}


class CardFacts(RunResults):
    """The results of a run, and the origins of its data and models."""

    @property
    def seeds(self) -> list[int]:
        """The seeds that the student was trained with, the published one first."""
        listed = (scores.get("seeds") for scores in (self.get("seeds") or {}).values())
        return next(filter(None, listed), [])

    @property
    def terms(self) -> dict[str, dict[str, Any]]:
        """The terms that were computed: named, and not of weight 0 throughout."""
        named = {name: term for name, term in (self.get("recipe.objective") or {}).items() if term is not None}
        return {name: term for name, term in named.items() if term.get("weight", 1.0) or _final_weight(term)}

    @property
    def augmentations(self) -> dict[str, dict[str, Any]]:
        """The sections of `data.augmentation` that were used."""
        sections = self.get("recipe.data.augmentation") or {}
        return {name: settings for name, settings in sections.items() if settings}

    @property
    def is_pair(self) -> bool:
        """Whether an input is two texts."""
        columns = GLUE[self.task].text_columns if self.task in GLUE else self.get("recipe.data.text_columns") or ()
        return len(columns) == 2

    @property
    def dataset(self) -> str:
        """The name of the data: `GLUE MRPC`, or the name on the Hub, or the last component of the path."""
        on_hub = self.dataset_on_hub
        if self.task in GLUE and on_hub in (None, "nyu-mll/glue", "glue"):
            return f"GLUE {_SPELLING.get(self.task, self.task.upper())}"
        paths = all_paths(self.get("recipe.data.path") or self.task)
        return on_hub or ", ".join(map(last_component, paths))

    @property
    def dataset_on_hub(self) -> str | None:
        """The data's name on the Hub; None for files."""
        path = self.get("recipe.data.path")
        return hub_id(path) if isinstance(path, str) else None

    @property
    def linked_dataset(self) -> str:
        """The name of the data in Markdown, as a link if it is on the Hub."""
        on_hub = self.dataset_on_hub
        if on_hub:
            return f"[{self.dataset}](https://huggingface.co/datasets/{on_hub})"
        return self.dataset if self.task in GLUE else inline_code(self.dataset)


def inline_code(value: Any) -> str:
    """Return inline code on one line, whatever is in it."""
    text = " ".join(str(value).split())
    ticks = "`" * (longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def model_link(name: str | None) -> str:
    """Return a link to the Hub if the model is there, else the last component of its path."""
    if hub_id(name):
        return f"[{name}](https://huggingface.co/{name})"
    return inline_code(last_component(name)) if name else ""


def _final_weight(term: Mapping[str, Any]) -> float:
    change = (term.get("schedule") or {}).get("weight")
    return change["end"] if change else 0.0
