"""The rules of the house: imports run down one list, names are not shared, kinds of task are no branches."""

import ast
import re
import sys
from collections import defaultdict

from distil_nlp.tasks import KINDS
from tests.helpers import ROOT
from tests.helpers.module_map import layers, module_map, written

PACKAGE = ROOT / "distil_nlp"
HEIGHT = {name: -i for i, line in enumerate(layers()) for name in line}
SHARED_NAMES = {
    "logger": "each module's own",
    "load": "protocol of a kind's module in data/",
    "labelled_rows": "protocol of a kind's module in data/",
    "LABELS": "protocol of a kind's module in data/",
    "EVALUATOR": "protocol of a kind's module in evaluation/",
    "COMMAND": "protocol of cli/commands/",
    "add_arguments": "protocol of cli/commands/",
    "run": "protocol of cli/commands/",
    "validate": "protocol of cli/commands/",
    "precheck": "protocol of cli/commands/",
    "distill": "the command in cli/, and the call from Python in pipeline/",
}
"""Public names that several modules define, and why."""


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "distil_nlp":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distil_nlp."):
            yield node.module.split(".")[1]


def test_imports_run_down():
    """Prevents losses that know models, parts that reach for recipes, and a package without a place."""
    assert {package_of(path) for path in modules()} == set(HEIGHT)
    wrong = [
        (str(path.relative_to(PACKAGE)), name)
        for path in modules()
        for name in imports(path)
        if name != package_of(path) and HEIGHT.get(name, 1) >= HEIGHT[package_of(path)]
    ]
    assert not wrong


def test_arithmetic_imports_torch_alone():
    """Prevents arithmetic that depends on a model library."""
    losses = [path for path in (PACKAGE / "losses").glob("*.py")]
    for path in (PACKAGE / "signals/attention.py", PACKAGE / "objective/chunked_logits.py", *losses):
        assert _top_imports(path) - set(sys.stdlib_module_names) <= {"torch", "distil_nlp"}, path


def test_nothing_imports_the_scripts():
    """Prevents a package that works in its checkout alone."""
    assert not [path for path in PACKAGE.rglob("*.py") if _top_imports(path) & {"scripts", "tests", "examples"}]


def test_no_two_modules_define_the_same_public_name():
    """Prevents a `Pair` that is two models here and two layers there."""
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in _definitions(path):
            homes[name].add(str(path.relative_to(PACKAGE)))
    shared = {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1 and not name.startswith("_")}
    assert {name: paths for name, paths in shared.items() if name not in SHARED_NAMES} == {}
    assert shared.keys() == SHARED_NAMES.keys()


def test_kinds_of_task_are_no_branches():
    """Prevents a new kind of task that must be added to comparisons all over the package."""
    named = re.compile(rf"(==|!=|\bin) *[\[({{]?['\"]({'|'.join(KINDS)})['\"]")
    found = [path for path in modules() if package_of(path) != "tasks" and named.search(path.read_text())]
    assert not found


def test_the_map_in_the_docs_is_true():
    """Prevents a map of files that are gone; `make map` writes it."""
    assert written() == module_map()


def _top_imports(path):
    tops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            tops.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
    return tops


def _definitions(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
