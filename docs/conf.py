"""Configuration of the site: `make docs` builds it, and every warning is an error."""

from importlib.metadata import version as installed_version

project = "distil_nlp"
author = "distil_nlp contributors"
copyright = "distil_nlp contributors, Apache-2.0"
version = release = installed_version("distil-nlp")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["notebooks"]
nitpicky = False
suppress_warnings: list[str] = []

# Pages are Markdown that reads well on GitHub too: headings have GitHub's anchors.
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []

# Docstrings write code in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"distil_nlp {version}"
html_static_path = ["_static"]
html_copy_source = False
html_show_sphinx = False
