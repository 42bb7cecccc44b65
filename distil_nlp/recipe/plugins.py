"""Plugins of a recipe: Python files or modules of one's own, whose loss terms its objective may name.

They are the only code that a recipe can make run, and nothing is imported that its `plugins` do not name. A file is
executed as a module of its own, so that two files of one name, or two versions of a file, do not meet.
"""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from os.path import exists, expanduser, isfile
from pathlib import Path
from types import ModuleType
from typing import Any

from distil_nlp.errors import UserError, quoted, shown
from distil_nlp.objective import LossTerm
from distil_nlp.recipe.local_imports import local_imports
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.names import why_no_path

logger = get_logger(__name__)

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_hashes: dict[str, str] = {}
"""Modules that a recipe named, and files that plugins import → the hash of their file when this process imported it."""


@dataclass(frozen=True)
class Plugin:
    """Imported code of one's own.

    Attributes:
        name: the path of a file, or a module, as the recipe has it.
        sha256: of the file.
        terms: the loss terms that it defines.
        imports: files beside it that it imports, from the folder where their names are looked for → their SHA-256.
    """

    name: str
    sha256: str
    terms: tuple[type[LossTerm], ...]
    imports: Mapping[str, str] = field(default_factory=dict)

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of the file and of those that it imports from beside it."""
        return [self.sha256, *self.imports.values()]

    def to_dict(self) -> dict[str, Any]:
        """Return the plugin's entry in `results.json`, from which a card and a report know its terms."""
        terms = {term.name: _facts(term) for term in self.terms}
        return {"name": self.name, "sha256": self.sha256, "imports": dict(self.imports), "terms": terms}


def _facts(term: type[LossTerm]) -> dict[str, Any]:
    facts = ("formula", "formula_of_regression", "unit", "paper", "is_variant")
    return {"class_name": term.__name__, **{name: getattr(term, name, None) for name in facts}}


def locate_plugins(tree: dict[str, Any], folder: Path) -> list[str]:
    """Write the paths of a recipe's plugins, from the working directory, into its settings, and return its plugins.

    A file is looked for from the working directory, as all paths of a recipe are, and then from the recipe's folder.
    There are none where they are no list of paths, which the schema tells.
    """
    named = tree.get("plugins") or []
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not all(isinstance(name, str) and not why_no_path(name) for name in named):
        return []
    tree["plugins"] = [_located(name, folder) for name in named]
    return tree["plugins"]


def _located(name: str, folder: Path) -> str:
    is_beside = _is_file(name) and not isfile(expanduser(name)) and isfile(folder / name)
    return (folder / name).as_posix() if is_beside else name


def load_plugins(names: Iterable[str]) -> tuple[Plugin, ...]:
    """Import the plugins of a recipe and return them with their terms. The log names each before it runs.

    Raises:
        UserError: if one is not there, cannot be imported (with the line), or defines no term.
    """
    return tuple(_load(name) for name in dict.fromkeys(names))


def _load(name: str) -> Plugin:
    module, sha256, imports = _module_of_file(name) if _is_file(name) else _module_by_name(name)
    terms = [value for value in vars(module).values() if _is_term_of(value, module)]
    if not terms:
        raise UserError(
            f"plugins: {shown(name)}",
            "a loss term: a subclass of HiddenTerm, SoftTerm, LabelTerm, … with a name",
            "none",
            why="it would have no effect",
            fix="see docs/own_terms.md, or leave it out",
        )
    return Plugin(name, sha256, tuple(dict.fromkeys(terms)), imports)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or _MODULE.fullmatch(name) is None


def _is_term_of(value: Any, module: ModuleType) -> bool:
    """Return whether a value is a term with a name that the module, or a module within it, defines."""
    if not (isinstance(value, type) and issubclass(value, LossTerm) and getattr(value, "name", None)):
        return False
    return f"{value.__module__}.".startswith(f"{module.__name__}.")


def _module_of_file(name: str) -> tuple[ModuleType, str, dict[str, str]]:
    """Return a file as a module that only its path and contents name, its hash, and those of what it imports."""
    path = Path(name).expanduser()
    if path.suffix != ".py" or not isfile(path):
        raise UserError(
            "plugins",
            "a Python file, such as my_terms.py, or a module, such as my_package.my_terms",
            f"{quoted(name)}, which {'is no .py file' if exists(path) else 'does not exist'}",
            fix="give its path from the working directory, or from the recipe's folder",
        )
    source, path = path.read_bytes(), path.resolve()
    sha256 = hashlib.sha256(source).hexdigest()
    imports = _hash_imports(name, path, path.parent)
    unique = f"plugin_{hashlib.sha256(f'{path} {sha256}'.encode()).hexdigest()[:16]}_{path.stem}"
    if unique not in sys.modules:
        _announce(name, sha256)
        spec: Any = spec_from_file_location(unique, path)
        sys.modules[unique] = module = module_from_spec(spec)  # dataclasses look for their module there
        try:
            exec(compile(source, path, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[unique]
            raise _not_importable(name, path, error) from error
    return sys.modules[unique], sha256, imports


def _hash_imports(plugin: str, path: Path, root: Path, package: str | None = None) -> dict[str, str]:
    """Return the files that a plugin imports from a folder and below → their hashes; the log names each once.

    Raises:
        UserError: if a file changed since this process imported it.
    """
    hashes = {}
    for file in local_imports(path, root, package):
        sha256, shown_path = hashlib.sha256(file.read_bytes()).hexdigest(), file.relative_to(root).as_posix()
        if str(file) not in _hashes:
            _announce(f"{shown_path}, which {plugin} imports", sha256)
        _check_unchanged(f"plugins: {plugin}, which imports {shown_path}", str(file), sha256)
        hashes[shown_path] = sha256
    return hashes


def _check_unchanged(where: str, key: str, sha256: str, otherwise: str = "") -> None:
    """Raise UserError if a file has another hash than when this process imported it first."""
    if _hashes.setdefault(key, sha256) != sha256:
        raise UserError(
            where,
            "the file that this process imported",
            "one that changed since",
            why="Python keeps the code that it has, so that the fingerprint would be another's",
            fix=f"start Python (a notebook's kernel) again{otherwise}",
        )


def _module_by_name(name: str) -> tuple[ModuleType, str, dict[str, str]]:
    """Return a module that Python finds, the hash of its file, and those of what it imports from beside it."""
    try:
        path = _file_of_module(name)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        imports = _hash_imports(name, path, path.parents[name.count(".") + (path.name == "__init__.py")], name)
        if name not in _hashes:
            _announce(name, sha256)
        module = import_module(name)
    except (Exception, SystemExit) as error:
        raise error if isinstance(error, UserError) else _not_importable(name, None, error) from error
    _check_unchanged(f"plugins: {name}", name, sha256, ", or name the file, which is read anew")
    return module, sha256, imports


def _file_of_module(name: str) -> Path:
    """Return the file of a module, which is not imported yet; packages around it are."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None or spec.origin is None or not spec.has_location:
        raise UserError(
            "plugins",
            "a module with a file that Python can import, or a .py file",
            f"{quoted(name)}, which is none",
            fix="install it, add its folder to PYTHONPATH, or name the file: plugins=[path/to/my_terms.py]",
        )
    return Path(spec.origin).absolute()


def _announce(name: str, sha256: str) -> None:
    logger.info(f"code of your own is run: {name}, sha256 {sha256}")


def _not_importable(name: str, path: Path | None, error: BaseException) -> UserError:
    """Return the error of code that does not run, with the line that it stops at."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and frame.filename == str(path)] or frames
    file, line = own[-1].filename, own[-1].lineno
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno
    return UserError(
        f"plugins: {shown(name)}",
        "code that can be imported",
        f"{type(error).__name__} in {file}, line {line}: {error.msg if isinstance(error, SyntaxError) else error}",
        why="its terms are not known until it is",
    )
