"""Recipes as files: YAML 1.2's numbers and booleans, no repeated keys, and messages for what is no recipe at all.

Imports neither torch nor transformers, so that a mistyped path is told at once.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from distil_nlp.errors import UserError, listed
from distil_nlp.recipe.shipped import nearest_shipped
from distil_nlp.utils.bounded_yaml import LONGEST_YAML, BoundedLoader

_NAME_ONE = "give the path of a .yaml file, or a name that `distil-nlp recipes` lists"


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, as recipes have it."""
    return yaml.load(text, Loader=_Loader)


def dump_yaml(tree: Any) -> str:
    """Return YAML in the style of recipes: lists in brackets, and no line breaks inside a value."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


class _Loader(BoundedLoader):
    """A loader with YAML 1.2's numbers (`5e-5`) and booleans (`eval_strategy: no` is text), without repeated keys."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in BoundedLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Return the mapping; raise an error for repeated keys and merge keys."""
        if any(key.tag.endswith(":merge") for key, _ in node.value):
            raise yaml.YAMLError(f"merge keys (<<), which are not supported: write the keys out{node.start_mark}")
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        counts = Counter(key for key in keys if isinstance(key, Hashable))
        repeated = sorted(str(key) for key, count in counts.items() if count > 1)
        if repeated:
            raise yaml.YAMLError(f"the key {listed(repeated)} is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes strings which `_Loader` would read as numbers, such as the revision 7e12345."""


def _in_brackets(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _in_brackets)


_BOOL = ("tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(*_BOOL)
_Loader.add_implicit_resolver(*_FLOAT)
_Dumper.add_implicit_resolver(*_FLOAT)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the sections of a recipe's file, unchecked.

    Raises:
        UserError: if there is no such file, or it is no YAML of sections.
    """
    if path.is_dir():
        raise UserError(
            None,
            f"a recipe at {path}",
            "a folder",
            fix="give the path of a .yaml file in it",
        )
    if not path.is_file():
        raise UserError(None, f"a recipe at {path}", "no such file", fix=_nearest(path))
    if path.stat().st_size > LONGEST_YAML:
        raise UserError(
            str(path),
            "a recipe",
            f"a file of {path.stat().st_size:,} bytes",
            why=f"recipes have thousands, and at most {LONGEST_YAML:,} are read",
            fix=_NAME_ONE,
        )
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(
            str(path),
            "YAML",
            " ".join(str(error).split()),
        ) from error
    if isinstance(tree, dict):
        return {name: {} if section is None else section for name, section in tree.items()}
    raise UserError(
        str(path),
        "sections such as teacher, student and data",
        type(tree).__name__,
    )


def _nearest(path: Path) -> str:
    """Return the remedy for a path at which there is no file: the nearest file beside it, or shipped recipe."""
    beside = sorted(str(file) for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    near = next(iter(difflib.get_close_matches(str(path), beside, 1)), None) or nearest_shipped(path.stem)
    return f"did you mean {near}?" if near else _NAME_ONE
