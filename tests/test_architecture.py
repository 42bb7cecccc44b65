"""The table of rooms in docs/design.md holds for the code."""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "distil_nlp"


def allowed_imports() -> dict[str, set[str]]:
    """Room → rooms it may import, read from the table."""
    rooms: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", cells[0])
        if line.startswith("| `") and len(cells) == 3 and names:
            everything = cells[2] == "everything above"
            may = set(rooms) if everything else {name.strip() for name in cells[2].split(",")} - {"–"}
            rooms |= {name: may for name in names}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "distil_nlp":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distil_nlp."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distil_nlp.")}
    return found


def test_rooms_import_only_what_the_table_allows():
    """Prevents parts that reach for recipes, losses that know models, and a table that has drifted."""
    allowed = allowed_imports()
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"]
    assert {room_of(path) for path in modules} == set(allowed)
    wrong = {str(path.relative_to(ROOT)): imports(path) - allowed[room_of(path)] - {room_of(path)} for path in modules}
    assert not {name: rooms for name, rooms in wrong.items() if rooms}


def test_arithmetic_imports_torch_alone():
    """Prevents arithmetic that depends on a model library."""
    for path in (PACKAGE / "attention.py", PACKAGE / "vocabulary.py", *(PACKAGE / "losses").glob("*.py")):
        tops = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                tops.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                tops |= {alias.name.split(".")[0] for alias in node.names}
        assert tops - set(sys.stdlib_module_names) <= {"torch", "distil_nlp"}, path


def test_nothing_imports_scripts():
    """Prevents logic that hides in scripts."""
    assert not [path for path in PACKAGE.rglob("*.py") if re.search(r"^(from|import) scripts", path.read_text(), re.M)]
