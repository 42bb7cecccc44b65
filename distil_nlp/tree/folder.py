"""The folder of a tree: where it is, and whether files of something else are in it."""

from __future__ import annotations

from pathlib import Path

from distil_nlp.errors import UserError
from distil_nlp.utils.files import validate_links
from distil_nlp.utils.locks import LOCK

TREE_FILES = ("teacher.npz", "tree.json", "results.json", "tree.html")


def validate_tree_folder(folder: Path) -> None:
    """Raise unless an output folder is missing, empty or a tree's.

    Raises:
        UserError: if it is a file, or holds files that no tree wrote or links that lead out of it.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(names - {*TREE_FILES, LOCK})
    if foreign or (folder.exists() and not folder.is_dir()):
        raise UserError(
            "--output",
            "an empty folder, or one of a tree",
            f"{folder} with {foreign[0]}" if foreign else f"{folder}, a file",
            why="they would be mixed up",
            fix="name another folder",
        )
    validate_links(folder)
