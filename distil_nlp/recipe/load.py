"""`load_recipe`: a YAML file and `section.key=value` overrides → a `Recipe`, or one message with all mistakes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ValidationError

from distil_nlp.errors import UserError
from distil_nlp.recipe.forms import concise
from distil_nlp.recipe.sections import Recipe, section_class
from distil_nlp.recipe.training_arguments import training_mistakes
from distil_nlp.redaction import abbreviate_home, expand_home, mask_secrets


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a file, with overrides such as `training.learning_rate=5e-5` merged in.

    Values are YAML: `[1, 3, 5]`, `true`, `null`, `5e-5`. One that begins with `~/` lies in the home folder.

    Raises:
        UserError: listing every mistake, each with the nearest right key where one is unknown.
    """
    tree = read_yaml(Path(path).expanduser())
    mistakes = [mistake for text in overrides if (mistake := _override(tree, text))]
    for place, holder, key in _texts(tree):
        if mask_secrets(holder[key]) != holder[key]:
            wrong = "expected no token or password / got one / recipes are kept and published / see hf auth login"
            mistakes.append(f"{place}: {wrong}")
        holder[key] = expand_home(holder[key])
    recipe, found = _validate(tree)
    mistakes += found
    for where, fields in (
        ("training", tree.get("training")),
        ("teacher.finetune", _get(tree, "teacher", "finetune")),
    ):
        if isinstance(fields, dict):
            mistakes += training_mistakes(where, fields)
    if mistakes or recipe is None:
        listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise UserError(f"{path}: {count} in the recipe, nothing was run\n{listed}")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Return what differs from the defaults as YAML that `load_recipe` reads back, the home folder as `~`."""
    return dump_yaml(abbreviate_home(concise(recipe.model_dump(mode="json"))))


def dump_yaml(tree: Any) -> str:
    """Return YAML that recipes can be read from: lists in brackets, no text broken into lines."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers (`5e-5` is one) and booleans (`no` is a word, as in `eval_strategy: no`); no key twice."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"the key {', '.join(twice)} stands twice{node.start_mark}")
        if "<<" in keys:
            raise yaml.YAMLError(f"merge keys (<<) are not supported{node.start_mark}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would take for a number, such as the revision 7e12345."""


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
    """The tree of a recipe's file, unchecked.

    Raises:
        UserError: if there is none, or no YAML in it.
    """
    if path.is_dir():
        raise UserError(
            None,
            f"a recipe at {path}",
            "a folder",
            fix="give the path of a .yaml file in it",
        )
    if not path.is_file():
        known = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), known, 1)
        hint = f"did you mean {near[0]}?" if near else "give the path of a .yaml file, such as recipes/glue.yaml"
        raise UserError(
            None,
            f"a recipe at {path}",
            "no such file",
            why=f"{hint}",
        )
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}",
            "YAML",
            f"{' '.join(str(error).split())}",
        ) from error
    if isinstance(tree, dict):
        return {name: {} if section is None else section for name, section in tree.items()}
    raise UserError(
        f"{path}",
        f"sections {', '.join(Recipe.model_fields)}",
        f"{type(tree).__name__}",
    )


def _override(tree: dict[str, Any], text: str) -> str | None:
    """Merges one `section.key=value`; returns what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or len(parts) < 2:
        return f"{text!r}: expected section.key=value, such as training.learning_rate=5e-5"
    try:
        parsed = yaml.load(value, Loader=_Loader) if value else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return f"{text!r}: expected a YAML value / got: {' '.join(str(error).split())}"
    section = tree
    for part in parts[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            return f"{text!r}: {part} is a value, not a section"
    section[parts[-1]] = parsed
    return None


def _texts(tree: Any) -> Iterator[tuple[str, Any, Any]]:
    """(place, what holds it, its key there) of every text; each branch once, whatever aliases lead to it."""
    branches, seen = [("", tree)], set()
    for place, branch in branches:  # grows meanwhile
        if id(branch) in seen:
            continue
        seen.add(id(branch))
        for key, one in branch.items() if isinstance(branch, dict) else enumerate(branch):
            where = f"{place}.{key}".lstrip(".") if isinstance(branch, dict) else place
            if isinstance(one, str):
                yield where, branch, key
            elif isinstance(one, dict | list):
                branches.append((where, one))


def _validate(tree: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    try:
        return Recipe.model_validate(tree), []
    except ValidationError as error:
        by_place: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for one in error.errors(include_url=False):
            by_place.setdefault(_place(one["loc"]), []).append(one)
        return None, [_describe(keys, ones) for keys, ones in by_place.items()]


def _describe(keys: tuple[str, ...], errors: list[dict[str, Any]]) -> str:
    """One line for all that pydantic says about one key (a union says something for each member)."""
    first, place = errors[0], ".".join(keys)
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        near = difflib.get_close_matches(keys[-1], known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return f"{place}: unknown key; {hint}"
    if first["type"] == "missing":
        return f"{place}: missing"
    wanted = " or ".join(dict.fromkeys(_lower(one["msg"].removeprefix("Input should be ")) for one in errors))
    return f"{place}: expected {wanted} / got {first['input']!r}"


def _place(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys as the recipe spells them: pydantic adds the union member it tried, and list positions."""
    parts: list[str] = []
    model: Any = Recipe
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            parts.append(str(part))
            field = model.model_fields.get(str(part))
            model = section_class(field.annotation) if field else None
        else:
            break
    return tuple(parts)


def _known_keys(path: tuple[str, ...]) -> list[str]:
    model: Any = Recipe
    for part in path:
        model = section_class(model.model_fields[part].annotation)
    return list(model.model_fields)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _get(tree: dict[str, Any], *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
