"""The folder of a demo: the page, its scripts, the exported student, and the library that runs it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from distil_nlp.demo.library import fetch_library
from distil_nlp.demo.page import DemoPage, mode_for
from distil_nlp.errors import UserError
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.hub.exported import exported_files
from distil_nlp.results import drop_non_finite, read_run
from distil_nlp.utils.files import atomic_folder, validate_links

_GRAPHS = {"onnx/model_quantized.onnx": "int8", "onnx/model.onnx": "onnx"}
"""File of the exported student → its name in `results.json`; the first that may be published is the page's."""
_SCRIPTS = ("demo.css", "demo.js", "models.js")
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
_LICENSES = "LICENSES.txt"


def write_demo(
    run: Path,
    folder: Path,
    *,
    has_rows: bool = True,
    repo_id: str | None = None,
    fetch: Callable[[Path], None] = fetch_library,
) -> Path:
    """Write the demo of an exported student; return its page. A demo that is there already is replaced.

    Args:
        run: a finished run, exported.
        folder: what to write; only an empty folder or an earlier demo may be there.
        has_rows: whether rows of the data may be examples, if the run shows its rows.
        repo_id: where the student is on the Hub, if it is there.
        fetch: puts the files of the JavaScript library into a folder.

    Raises:
        UserError: for every problem that the user can fix.
    """
    facts = CardFacts(run.resolve().name, run, drop_non_finite(read_run(run)))
    validate_links(run)
    mode, (graph, model) = mode_for(facts), _graph(facts)
    _check_student(run / "student")
    _check_place(folder)
    page = DemoPage(facts, mode, model, graph.stat().st_size / 1e6, has_rows, repo_id)
    with tempfile.TemporaryDirectory() as downloaded:
        fetch(Path(downloaded) / "vendor")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as place:
            _fill(place, page, graph, Path(downloaded) / "vendor")
    return folder / "index.html"


def _fill(place: Path, page: DemoPage, graph: Path, vendor: Path) -> None:
    """Write all files of a demo into a folder."""
    (place / "index.html").write_text(page.html(), encoding="utf-8")
    shutil.copytree(vendor, place / "vendor")
    _copy_scripts(place)
    _copy_student(page.facts.folder / "student", graph, place / "model")


def _graph(facts: CardFacts) -> tuple[Path, str]:
    """Return the exported model of a page and its name: int8 if it passed its gate.

    Raises:
        UserError: if there is none, or only one that nobody scored.
    """
    files, left_out = exported_files(facts)
    found = next(((files[name], model) for name, model in _GRAPHS.items() if name in files), None)
    if found is None:
        raise UserError(
            str(facts.folder / "student"),
            "an exported student",
            left_out[0] if left_out else "none",
            why="the page runs the ONNX model",
            fix=f"start `distil-nlp export {facts.folder}` first",
        )
    return found


def _check_student(student: Path) -> None:
    missing = [name for name in _NEEDED if not (student / name).is_file()]
    if missing:
        raise UserError(
            str(student),
            ", ".join(_NEEDED),
            f"no {', '.join(missing)}",
            why="transformers.js reads the tokenizer from there",
            fix="use a student with a fast tokenizer, which has a tokenizer.json",
        )


def _check_place(folder: Path) -> None:
    """Raise UserError if there is something that is no demo."""
    is_demo = folder.is_dir() and ((folder / "models.js").is_file() or not any(folder.iterdir()))
    if folder.exists() and not is_demo:
        raise UserError(
            str(folder),
            "a new folder, an empty one or an earlier demo",
            "something else",
            why="it would be replaced",
            fix="name another folder with --out",
        )


def _copy_scripts(folder: Path) -> None:
    templates = resources.files("distil_nlp.demo") / "templates"
    for name in _SCRIPTS:
        (folder / name).write_bytes((templates / name).read_bytes())
    (folder / "vendor" / _LICENSES).write_bytes((templates / _LICENSES).read_bytes())


def _copy_student(student: Path, graph: Path, folder: Path) -> None:
    (folder / "onnx").mkdir(parents=True)
    for name in _NEEDED:
        shutil.copyfile(student / name, folder / name)
    shutil.copyfile(graph, folder / "onnx" / graph.name)
