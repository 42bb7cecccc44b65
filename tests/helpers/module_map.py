"""The map of the package in docs/design.md: `python -m tests.helpers.module_map` writes it."""

import ast

from tests.helpers import ROOT

DESIGN = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- map -->\n", "<!-- /map -->\n"


def module_map() -> str:
    """Return one line a file, in the order of the layers: its path and the first line of its docstring."""
    paths = sorted((ROOT / "distil_nlp").rglob("*.py"), key=_place)
    lines = [f"{_indent(path)}{_name(path):<{32 - len(_indent(path))}} {_summary(path)}".rstrip() for path in paths]
    return "\n".join(["```", *lines, "```", ""])


def layers() -> list[list[str]]:
    """Return the packages that docs/design.md lists, highest first; those of one line do not import each other."""
    block = DESIGN.read_text().partition("```layers\n")[2].partition("```")[0]
    return [line.split() for line in block.splitlines()]


def written() -> str:
    """Return the map that docs/design.md has."""
    return DESIGN.read_text().partition(BEGIN)[2].partition(END)[0]


def _place(path):
    parts = path.relative_to(ROOT / "distil_nlp").parts
    order = [name for line in layers() for name in line]
    top = parts[0].removesuffix(".py")
    return (
        order.index(top) if top in order else -1,
        *[(part.endswith(".py") and part != "__init__.py", part) for part in parts],
    )


def _indent(path):
    depth = len(path.relative_to(ROOT / "distil_nlp").parts) - (path.name == "__init__.py")
    return "  " * depth


def _name(path):
    return f"{path.parent.name}/" if path.name == "__init__.py" else path.name


def _summary(path):
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    before, _, rest = DESIGN.read_text().partition(BEGIN)
    DESIGN.write_text(before + BEGIN + module_map() + END + rest.partition(END)[2])
