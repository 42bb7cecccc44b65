"""Files beside a Python file that it imports, told by its import statements; nothing is run for that."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_PACKAGE = __name__.partition(".")[0]


def local_imports(file: Path, root: Path, package: str | None = None) -> list[Path]:
    """Return the files below a folder that a file imports, and those that they import in turn, sorted.

    The answer follows from the files, whatever the process has imported before, so that it is the same in another
    process. Modules that are imported by a name made up at run time are not found; modules of this package are left
    out.

    Args:
        file: a Python file.
        root: the folder in which the name of a module is looked for.
        package: the name of the module that the file is, whose packages are imported first; None for a bare file.
    """
    site = {Path(sysconfig.get_path(name)).resolve() for name in _INSTALLED}
    own = (package or "").partition(".")[0]
    found, waiting = set(_files_of(package, root) if package else ()), [file]
    waiting += found - {file}
    while waiting:
        for name in _imported_names(waiting.pop(), root):
            top = name.partition(".")[0]
            if top == _PACKAGE or (root.resolve() in site and top != own):
                continue
            new = set(_files_of(name, root)) - found
            found |= new
            waiting += new
    return sorted(found - {file})


def _imported_names(file: Path, root: Path) -> Iterator[str]:
    """Yield the dotted names of the modules, or of what may be modules, that a file's statements import."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # Python itself says so, if it ever imports the file
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*_packages_above(file, root, node.level), *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _packages_above(file: Path, root: Path, level: int) -> list[str]:
    """Return the package that a relative import starts from; [] for an absolute one."""
    if level == 0 or not file.is_relative_to(root):
        return []
    folders = file.relative_to(root).parts[:-1]
    return list(folders[: len(folders) - (level - 1)])


def _files_of(name: str, root: Path) -> list[Path]:
    """Return the files below a folder that run where a dotted name is imported: those of its packages and its own."""
    parts = name.split(".")
    places = [root.joinpath(*parts[: number + 1]) for number in range(len(parts))]
    candidates = (path for place in places for path in (place.parent / f"{place.name}.py", place / "__init__.py"))
    return [path for path in candidates if path.is_file()]
