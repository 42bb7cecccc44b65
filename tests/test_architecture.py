"""Imports run down one list of packages."""

import ast
import sys

from tests.helpers import ROOT

PACKAGE = ROOT / "distil_nlp"
LAYERS = """__main__
cli
study benchmark quickstart
pipeline
evaluation hub
reporting
recipe
training
teachers
losses
objective
data
signals
models
results
tasks
utils
errors
redaction
""".splitlines()
HEIGHT = {name: -i for i, line in enumerate(LAYERS) for name in line.split()}


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "distil_nlp":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distil_nlp."):
            yield node.module.split(".")[1]


def test_imports_run_down():
    """Prevents losses that know models, parts that reach for recipes, and a package without a place."""
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"]
    assert {package_of(path) for path in modules} == set(HEIGHT)
    wrong = [
        (str(path.relative_to(PACKAGE)), name)
        for path in modules
        for name in imports(path)
        if name != package_of(path) and HEIGHT[name] >= HEIGHT[package_of(path)]
    ]
    assert not wrong


def test_arithmetic_imports_torch_alone():
    """Prevents arithmetic that depends on a model library."""
    losses = [path for path in (PACKAGE / "losses").glob("*.py")]
    for path in (PACKAGE / "signals/attention.py", PACKAGE / "objective/chunked_logits.py", *losses):
        tops = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                tops.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
        assert tops - set(sys.stdlib_module_names) <= {"torch", "distil_nlp"}, path
