"""Configuration of the site: `make docs` builds it, and every warning is an error."""

from importlib.metadata import version as installed_version
from pathlib import Path

from pygments.lexers.special import TextLexer

project = "distil_nlp"
author = "distil_nlp contributors"
copyright = "distil_nlp contributors, Apache-2.0"
release = installed_version("distil-nlp")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Pages are Markdown that GitHub shows too: headings have its anchors.
myst_heading_anchors = 4

# Docstrings write code in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
python_maximum_signature_line_length = 80
toc_object_entries = False

html_theme = "furo"
html_title = "distil_nlp"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

OPTIONAL = ("production",)
"""Pages of docs/index.md that a checkout may lack."""


def drop_missing(app, name, source):
    """Take pages that are not there out of the lists of docs/index.md, in place."""
    missing = [page for page in OPTIONAL if not (Path(app.srcdir) / f"{page}.md").is_file()]
    if name == "index":
        source[0] = "\n".join(line for line in source[0].splitlines() if line not in missing)


def show_fences(app, what, name, obj, options, lines):
    """Turn the fenced code of a docstring into a code block of reStructuredText, in place."""
    written, inside = [], False
    for line in lines:
        if line.startswith("```"):
            inside = not inside
            written += [f".. code-block:: {line[3:]}", ""] if inside else [""]
        else:
            written.append(f"   {line}" if inside else line)
    lines[:] = written


def setup(app):
    """Show fences in docstrings, and the fenced block of docs/design.md that tests read."""
    app.connect("source-read", drop_missing)
    app.add_lexer("layers", TextLexer)
    app.connect("autodoc-process-docstring", show_fences, priority=400)  # before napoleon
