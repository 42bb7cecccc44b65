"""The source files of installed libraries, located without importing them."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import sysconfig
from pathlib import Path

from distil_nlp.errors import UserError

STDLIB = "stdlib"
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the package index has another name
SKIPPED_FOLDERS = frozenset({
    "test", "tests", "testing", "_vendor", "externals", "site-packages", "dist-packages",
    "idlelib", "lib2to3", "turtledemo",
})  # fmt: skip


def library_root(library: str) -> Path:
    """Return the folder of an installed library's sources, located without importing it.

    Raises:
        UserError: if the library is not installed.
    """
    if library == STDLIB:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "libraries",
            f"the package '{library}' for its documentation",
            "none installed",
            why="the dataset would lack a class",
            fix=f"pip install {DISTRIBUTIONS.get(library, library)}",
        )
    return Path(spec.submodule_search_locations[0])


def version(library: str) -> str:
    """Return the version of an installed library; the standard library's is Python's."""
    library_root(library)  # raises where there is none
    if library == STDLIB:
        return platform.python_version()
    return importlib.metadata.version(DISTRIBUTIONS.get(library, library))


def source_files(library: str, root: Path, max_files: int, seed: int) -> dict[str, Path]:
    """Return {`<library>/<path>`: path} of at most `max_files` sources, chosen by the hash of the name."""
    files = {}
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not SKIPPED_FOLDERS.intersection(relative.parts):
            files[f"{library}/{relative.as_posix()}"] = path
    return {name: files[name] for name in sorted(files, key=lambda name: fraction(name, seed))[:max_files]}


def fraction(text: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the text and the seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:6], "big") / 2**48
