"""The recipes that come with the package, by name: `glue`, `schemes/reverse`, `study/methods`, `accelerate/ddp`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_CITATION = re.compile(r"\s*\([^()]*arXiv[^()]*\)")
TRAINING_SCHEMES, STUDIES, CONFIGURATIONS = "schemes", "study", "accelerate"
"""Folders of the shipped recipes of training schemes, of studies, and of configurations for `accelerate launch`."""


def shipped_folder() -> Path:
    """Return the folder of the recipes: inside the package where it is installed, beside it in a checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def schema_file() -> Path:
    """Return the JSON schema of recipes, for editors."""
    return shipped_folder() / "recipe.schema.json"


def shipped_names(folder: str = "") -> list[str]:
    """Return the names of the shipped files of one folder, such as `study/methods`."""
    prefix = f"{folder}/" if folder else ""
    return sorted(f"{prefix}{file.stem}" for file in (shipped_folder() / folder).glob("*.yaml"))


def shipped_file(name: str) -> Path | None:
    """Return the shipped file of a name; None if there is none."""
    return shipped_folder() / f"{name}.yaml" if name in _all_names() else None


def nearest_shipped(name: str) -> str | None:
    """Return the name of a shipped recipe or study that a mistyped one was meant for; None if there is none."""
    return next(iter(difflib.get_close_matches(name, _all_names(), 1)), None)


def _all_names() -> list[str]:
    return [name for folder in ("", TRAINING_SCHEMES, STUDIES, CONFIGURATIONS) for name in shipped_names(folder)]


def recipe_file(text: str, folder: str = "") -> Path:
    """Return the file that a command line names: one at that path, or the shipped one of that name in a folder."""
    path = Path(text).expanduser()
    if path.is_file() or path.suffix:
        return path
    return shipped_file(f"{folder}/{text}".lstrip("/")) or shipped_file(text) or path


def describe_file(file: Path) -> str:
    """Return the first sentence of the comment at the head of a shipped file, without citations."""
    lines = file.read_text(encoding="utf-8").splitlines()
    paragraph = []
    for line in lines:
        if not line.startswith("# ") or line.startswith(("# Launch", "# Needs")):
            break
        paragraph.append(line.removeprefix("# "))
    return _CITATION.sub("", " ".join(paragraph)).split(". ")[0].removesuffix(".")
