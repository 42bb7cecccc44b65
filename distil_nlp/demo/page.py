"""The page of a demo: everything in it that differs from run to run, and its HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from distil_nlp.demo.figures import figures_note, page_figures
from distil_nlp.demo.modes import Mode, mode_of
from distil_nlp.demo.rows import rows_to_type
from distil_nlp.errors import UserError
from distil_nlp.hub.card_export import vector_settings
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.models.sentence_folder import MODULES
from distil_nlp.redaction import last_component
from distil_nlp.reporting.formatting import large, percent
from distil_nlp.reporting.scores import answers_word, has_taught_itself, learned_from_answers, teacher_word
from distil_nlp.reporting.verdicts import verdicts
from distil_nlp.utils.files import read_json

_INVENTED = "Invented texts; the model was made for texts such as those of its data."
_OF_THE_DATA = "Rows that the model was scored on."


@dataclass(frozen=True)
class DemoPage:
    """What the page of a run says and does.

    Attributes:
        facts: of the run.
        mode: what the page asks for and shows.
        model: the exported model in it, `onnx` or `int8`.
        megabytes: size of its file.
        has_rows: whether rows of the data are examples.
        repo_id: where the student is on the Hub, if it is there.
    """

    facts: CardFacts
    mode: Mode
    model: str
    megabytes: float
    has_rows: bool
    repo_id: str | None = None

    @property
    def title(self) -> str:
        """What the page does, on which data."""
        return f"{self.facts.dataset}: a small model in your browser"

    @property
    def lead(self) -> str:
        """A sentence of what the model is and where it comes from."""
        parameters = large(self.facts.get("student.parameters"))
        size = f"A model of {parameters} parameters" if parameters else "A small model"
        return f"{size} that {self.mode.does}, {_origin(self.facts)} on {self.facts.dataset}."

    def html(self) -> str:
        """Return the page."""
        rows = rows_to_type(self.facts, self.mode) if self.has_rows else ()
        examples = rows or self.mode.examples
        settings = self._settings(examples)
        return _ENVIRONMENT.get_template("index.html.j2").render(
            title=self.title,
            lead=self.lead,
            mode=self.mode,
            settings=settings,
            examples=examples,
            origin=_OF_THE_DATA if rows else _INVENTED,
            threshold=percent(settings["threshold"]) if self.facts.kind.output == "labels" else None,
            warnings=[one.text for one in verdicts(self.facts) if one.severity in ("stop", "caution")],
            megabytes=f"{self.megabytes:,.0f}" if self.megabytes >= 1 else f"{self.megabytes:.1g}",
            figures=page_figures(self.facts, self.model),
            figures_note=figures_note(self.facts, self.model),
            teacher=teacher_word(self.facts),
            repo_id=self.repo_id,
        )

    def _settings(self, examples: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
        """Return what the page's scripts read."""
        student = self.facts.folder / "student"
        config = read_json(student / "config.json", "the page has the names of results.json") or {}
        names = config.get("id2label") or dict(enumerate(self.facts.get("labels") or []))
        return {
            "mode": self.mode.name,
            "auto_model": self.mode.auto_model,
            "dtype": "q8" if self.model == "int8" else "fp32",
            "labels": [names[key] for key in sorted(names, key=int)],
            "threshold": config.get("threshold", 0.5 if self.facts.kind.output == "labels" else 0.0),
            "max_length": self.facts.get("recipe.data.max_length") or 512,
            "pooling": vector_settings(student).pooling if self.facts.kind.has_vectors else None,
            "may_have_no_answer": "NoAns_f1" in (self.facts.get("student.metrics") or {}),
            "examples": examples,
        }


def mode_for(facts: CardFacts) -> Mode:
    """Return what the page of a run does.

    Raises:
        UserError: for a kind of task that pages cannot do.
    """
    mode = mode_of(facts.kind, facts.is_pair and facts.kind.joins_pairs)
    if mode is None:
        raise UserError(
            str(facts.folder),
            "a student that classifies, labels, rates, tags, ranks, compares, answers or fills in words",
            f"one for {facts.kind.title}",
            why="the page would not know what to show of its outputs",
            fix="use the exported student itself, as in docs/production.md",
        )
    if facts.kind.has_vectors and vector_settings(facts.folder / "student").dense:
        raise UserError(
            str(facts.folder / "student" / MODULES),
            "vectors that are pooled states",
            "a Dense layer after the pooling",
            why="it is not part of the ONNX model that runs in the browser, and the cosines would be others",
            fix="use the exported student itself, as in docs/production.md",
        )
    return mode


def _origin(facts: CardFacts) -> str:
    """Return who taught the student, in words."""
    if learned_from_answers(facts):
        return f"taught by {answers_word(facts)}"
    if has_taught_itself(facts):
        return "which taught itself"
    ensemble, name = facts.get("recipe.teacher.ensemble"), facts.get("recipe.teacher.name")
    if ensemble:
        return f"distilled from {1 + len(ensemble)} teachers"
    return f"distilled from {last_component(name)}" if name else "distilled from its teacher"


_ENVIRONMENT = Environment(
    loader=PackageLoader("distil_nlp.demo"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
