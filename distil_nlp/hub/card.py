"""The model card: what was distilled from what, how, how good it is, and what it is not for.

Every word that could be wrong comes from `results.json` or the teacher's own card. What they do not say is left out.
The prose is in `templates/card.md.j2`, its values are computed in `card_context` and `card_method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from distil_nlp.hub.card_context import card_context
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.hub.card_metadata import card_data
from distil_nlp.results import drop_non_finite
from distil_nlp.utils.files import write_atomically

CARD_FILE = "README.md"
PLACEHOLDER = "path/to/student"
"""Stands in the card where the model's name on the Hub will, once it is pushed."""
TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"


def write_card(results: Mapping[str, Any], student: Path) -> Path:
    """Write `<student>/README.md`, the model card that the Hub shows.

    No local path and no token gets into it; a path is named by its last component. To be called where the run ran:
    a relative path differs from a name on the Hub in that it exists.

    Args:
        results: as in `results.json`; `results["teacher"]["card"]` is what `teacher_metadata` returned.
        student: the folder that transformers loads; its config.json names class and depth.
    """
    write_atomically(student / CARD_FILE, render_card(results, student))
    return student / CARD_FILE


def is_written_card(results: Mapping[str, Any], student: Path) -> bool:
    """Return whether the student's card is the one that these results make, or there is none; no one has changed it."""
    path = student / CARD_FILE
    return not path.is_file() or path.read_text(encoding="utf-8") == render_card(results, student)


def render_card(results: Mapping[str, Any], student: Path) -> str:
    """Return the model card as text; see `write_card`.

    `ModelCard.from_template` renders with jinja's defaults: nothing is escaped, and a name that is missing is an empty
    text. So the context has every text from data escaped, and a test renders cards with missing names as errors.
    """
    facts = CardFacts(student.resolve().parent.name, student.parent, drop_non_finite(results))
    context = card_context(facts, student) | {"model_name": PLACEHOLDER}
    card = ModelCard.from_template(card_data(facts), template_path=str(TEMPLATE), **context)
    return str(card).rstrip("\n") + "\n"
