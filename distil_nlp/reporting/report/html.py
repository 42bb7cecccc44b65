"""Templates of self-contained pages, and the policy that lets a page run its own script alone."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distil_nlp.reporting.markdown import escape_markdown, fence

_PACKAGE = "distil_nlp.reporting.report"


def page_script(file: Path) -> dict[str, Any]:
    """Return `script` and `script_hash` for `layout.html.j2`, whose policy allows this script and no other."""
    script = Markup(file.read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": script, "script_hash": f"sha256-{digest}"}


def page_template(name: str, markdown: bool = False, package: str = _PACKAGE) -> Any:
    """Return a template that escapes all it shows, except through its filters `safe` and `fence`.

    Args:
        name: of a file in `templates/` of the package, or of the report.
        markdown: whether it is escaped as Markdown rather than as HTML.
        package: the package of the page; it may use the report's layout, tables and style sheet.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(_PACKAGE)]),
        autoescape=not markdown,
        finalize=_escape_markdown if markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fence"] = lambda *text: Markup(fence(*text))
    return environment.get_template(name)


def _escape_markdown(value: Any) -> Any:
    """Return a value as one line of text that Markdown shows unchanged, in a table too."""
    if isinstance(value, Markup):
        return value
    return escape_markdown(" ".join(str(value).split())).replace("|", r"\|")
