"""The files of a finished run that go up: card, model, results and report, without paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from distil_nlp.errors import UserError
from distil_nlp.hub.card import CARD_FILE, PLACEHOLDER, render_card
from distil_nlp.redaction import redact_paths, redact_paths_in_text
from distil_nlp.results import read_run
from distil_nlp.utils.files import validate_links

_MODEL = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json",
    "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
    "modules.json", "*sentence_*.json", "[0-9]_*/config.json", "[0-9]_*/model.safetensors",
)  # fmt: skip
"""The files of a model's folder that go up: weights, configuration, tokenizer, modules of sentence-transformers."""
_REPORT = ("report.md", "*.png")
"""The files of `report/` that go up. The Hub shows Markdown with its pictures, and only offers HTML to download."""


def finished_results(run: Path) -> dict[str, Any]:
    """Return the results of a run; raise UserError if it is not finished."""
    student = run / "student"
    is_there = {
        "results.json": (run / "results.json").is_file(),
        "student/config.json": (student / "config.json").is_file(),
        "student/model.safetensors": any(student.glob("model*.safetensors")),
    }
    missing = [name for name, there in is_there.items() if not there]
    if missing:
        got = f"no {', '.join(missing)}" if run.is_dir() else "no such folder"
        raise UserError(
            None,
            f"a finished run in {run}",
            got,
            why="there is nothing to publish",
            fix=(
                "give a training.output_dir that holds results.json and student/; the command that began "
                "the run finishes it"
            ),
        )
    validate_links(run)
    return read_run(run)


def files_of_run(run: Path, results: dict[str, Any], repo_id: str) -> dict[str, Path | bytes]:
    """Return what goes up: path in the repository → contents."""
    models = _model_files(run / "student")
    for folder in (one["folder"] for one in results.get("exits") or []):
        models |= {f"{folder}/{name}": path for name, path in _model_files(run / folder).items()}
    report: dict[str, Path | bytes] = {}
    for path in sorted(path for pattern in _REPORT for path in (run / "report").glob(pattern)):
        text = path.suffix == ".md"
        report[f"report/{path.name}"] = (
            redact_paths_in_text(path.read_text(encoding="utf-8")).encode() if text else path
        )
    return {
        CARD_FILE: _card(run, results, repo_id).encode(),
        **models,
        "results.json": (json.dumps(redact_paths(results), indent=2) + "\n").encode(),
        **report,
    }


def _model_files(folder: Path) -> dict[str, Path]:
    """Return the files that go up of a folder that transformers loads, by their paths in it."""
    found = [path for pattern in _MODEL for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _card(run: Path, results: dict[str, Any], repo_id: str) -> str:
    """Return the run's card, with the author's changes to it if there are any, naming the repository."""
    path = run / "student" / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else render_card(results, path.parent)
    try:
        card = ModelCard(text)
    except Exception as error:  # whatever the YAML parser and the card's classes raise
        raise UserError(
            None,
            f"a model card with valid YAML in {path}",
            " ".join(str(error).split())[:300],
            why="the Hub would reject it",
            fix="fix it, or delete it to have it written anew",
        ) from error
    data: Any = card.data
    if data.eval_results:
        data.model_name = repo_id.rpartition("/")[2]
    named = str(card).replace(PLACEHOLDER, repo_id)
    has_report = (run / "report" / "report.md").is_file() and "(report/report.md)" not in named
    return named + "\nCurves and matrices of this run: [report](report/report.md).\n" * has_report
