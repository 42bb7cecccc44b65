"""A demo as a static Space on the Hub: its folder with the README.md that makes it one."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from distil_nlp.demo.build import write_demo
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.results import drop_non_finite, read_run

_TEXT = """

A student distilled by distil_nlp runs in this page, in the browser of whoever opens it; no server is asked.
The model, its scores and what it is not for: [{model}](https://huggingface.co/{model}).
"""


def write_space(run: Path, folder: Path, model_id: str) -> Path:
    """Write the demo of an exported student with a README.md for a static Space; return that file.

    Rows of the data are left out, as in everything else that is uploaded.

    Args:
        run: a finished run, exported.
        folder: a new one.
        model_id: the student's repository.

    Raises:
        UserError: as for `write_demo`.
    """
    write_demo(run, folder, has_rows=False, repo_id=model_id)
    facts = CardFacts(run.resolve().name, run, drop_non_finite(read_run(run)))
    card = SpaceCard(f"---\n{_metadata(facts, model_id).to_yaml()}\n---{_TEXT.format(model=model_id)}")
    card.save(folder / "README.md")
    return folder / "README.md"


def _metadata(facts: CardFacts, model_id: str) -> SpaceCardData:
    """Return what the Hub reads of a Space; the licence is the student's."""
    return SpaceCardData(
        title=f"{facts.dataset}: a distilled model",
        sdk="static",
        app_file="index.html",
        license=facts.get("teacher.card.license"),
        models=[model_id],
        pinned=False,
    )
