"""`load_recipe`: a YAML file and `section.key=value` overrides → a `Recipe`, or one message with all mistakes.

`load_any_recipe` also takes several tasks at once, for the commands that run them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distil_nlp.errors import UserError, quoted, shown
from distil_nlp.recipe.forms import concise
from distil_nlp.recipe.multitask import MultitaskRecipe, entry_name, task_trees
from distil_nlp.recipe.own_terms import recipe_class
from distil_nlp.recipe.plugins import load_plugins, locate_plugins
from distil_nlp.recipe.sections import Recipe, section_class
from distil_nlp.recipe.training_arguments import training_mistakes
from distil_nlp.recipe.yaml_file import dump_yaml, parse_yaml, read_yaml
from distil_nlp.redaction import abbreviate_home, expand_home, mask_secrets
from distil_nlp.utils.names import why_no_path

_PATHS = (
    "teacher.name", "teacher.folder", "teacher.ensemble", "teacher.ensemble.name", "teacher.cache.folder",
    "student.name", "data.path", "data.teacher.name", "evaluation.probe.path",
    "data.augmentation.replacement.model", "data.augmentation.replacement.folder", "training.output_dir", "plugins",
)  # fmt: skip
"""Keys whose values are paths, or may be."""
_WITHOUT_SECTION = ("data", "plugins")
"""Keys that are no sections, or may be lists of them."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe of a file, with overrides such as `training.learning_rate=5e-5` merged in.

    Values are YAML: `[1, 3, 5]`, `true`, `null`, `5e-5`. `~/` at the start of a value is the home folder.

    Raises:
        UserError: with every mistake, and the nearest known key for each unknown key.
    """
    path = Path(path).expanduser()
    return recipe_from(read_yaml(path), overrides, path)


def recipe_from(settings: Mapping[str, Any], overrides: Iterable[str] = (), file: Path | None = None) -> Recipe:
    """Return the recipe of settings by section, with overrides merged in.

    Args:
        settings: section → key → value; left as it is.
        overrides: `section.key=value`, where the value is YAML.
        file: the file that the settings are from, for messages and plugins; None without one.

    Raises:
        UserError: as for `load_recipe`, and for several tasks.
    """
    recipe = any_recipe_from(settings, overrides, file)
    if isinstance(recipe, MultitaskRecipe):
        raise UserError(
            "data",
            "one section, for one task",
            f"a list of {len(recipe.tasks)}",
            why="several tasks at once are for distil-nlp distill and check alone",
            fix="name one task, or use one of those commands",
        )
    return recipe


def load_any_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe | MultitaskRecipe:
    """Return the recipe of a file as `load_recipe` does, or that of several tasks where `data` is a list.

    Raises:
        UserError: as for `load_recipe`.
    """
    path = Path(path).expanduser()
    return any_recipe_from(read_yaml(path), overrides, path)


def any_recipe_from(
    settings: Mapping[str, Any], overrides: Iterable[str] = (), file: Path | None = None
) -> Recipe | MultitaskRecipe:
    """Return the recipe of settings as `recipe_from` does, or that of several tasks where `data` is a list.

    An override of `data` is for all tasks, or for one that is named: `data.max_length=64`, `data.rte.max_length=64`.

    Raises:
        UserError: as for `load_recipe`.
    """
    tree = {key: {} if section is None else section for key, section in deepcopy(dict(settings)).items()}
    name, folder = ("the recipe", Path()) if file is None else (str(file), file.parent)
    mistakes = [mistake for text in overrides if (mistake := _merge_override(tree, text))]
    for place, container, key in _strings(tree):
        if mask_secrets(container[key]) != container[key]:
            mistake = "expected no token or password / got one / recipes are kept and published / see hf auth login"
            mistakes.append(f"{place}: {mistake}")
        elif place in _PATHS and (reason := why_no_path(container[key])):
            mistakes.append(f"{place}: expected a path / got {quoted(container[key])} / {reason}")
        container[key] = expand_home(container[key])
    schema = recipe_class(load_plugins(locate_plugins(tree, folder)))
    if not isinstance(tree.get("data"), list):
        recipe, own = _recipe_of(tree, schema)
        _raise_mistakes(name, mistakes + own)
        assert recipe is not None  # or there were mistakes
        return recipe
    trees, own = task_trees(tree)
    mistakes += own
    found = {task: _recipe_of(tree, schema) for task, tree in trees.items()}
    everywhere = set.intersection(*(set(own) for _, own in found.values())) if found else set()
    for task, (_, own) in found.items():
        mistakes += [one if one in everywhere else f"{task}: {one}" for one in own]
    _raise_mistakes(name, list(dict.fromkeys(mistakes)))
    return MultitaskRecipe({task: recipe for task, (recipe, _) in found.items() if recipe}, tree)


def _recipe_of(tree: dict[str, Any], schema: type[Recipe]) -> tuple[Recipe | None, list[str]]:
    """Return the recipe of a tree, or None, and all mistakes in it."""
    recipe, mistakes = _validate(tree, schema)
    for where, fields in (
        ("training", tree.get("training")),
        ("teacher.finetune", _get(tree, "teacher", "finetune")),
    ):
        if isinstance(fields, dict):
            mistakes += training_mistakes(where, fields)
    return recipe, mistakes


def _raise_mistakes(name: str, mistakes: list[str]) -> None:
    """Raise UserError with all mistakes in a recipe, if there are any."""
    if mistakes:
        lines = [f"  - {mistake}" for mistake in mistakes]
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise UserError("\n".join([f"{name}: {count} in the recipe, nothing was run", *lines]))


def dump_recipe(recipe: Recipe) -> str:
    """Return the settings that differ from the defaults as YAML for `load_recipe`, with the home folder as `~`."""
    return dump_yaml(abbreviate_home(concise(recipe.model_dump(mode="json"), type(recipe))))


def _merge_override(tree: dict[str, Any], text: str) -> str | None:
    """Merge `section.key=value` into the tree; return the mistake in it, or None."""
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or (len(parts) < 2 and key not in _WITHOUT_SECTION):
        return f"{quoted(text)}: expected section.key=value, such as training.learning_rate=5e-5"
    try:
        parsed = parse_yaml(value) if value else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = why_no_path(text) or " ".join(str(error).split())
        return f"{quoted(text)}: expected a YAML value / got {reason}"
    return _set(tree, parts, parsed, text)


def _set(section: dict[str, Any], parts: list[str], value: Any, text: str) -> str | None:
    """Set a value below a section by its keys; return the mistake in them, or None."""
    part, *rest = parts
    if not rest:
        section[part] = value
        return None
    if section.get(part) is None:
        section[part] = {}
    inner = section[part]
    if part == "data" and isinstance(inner, list):
        named = [one for one in inner if isinstance(one, dict) and len(rest) > 1 and entry_name(one) == rest[0]]
        entries, rest = (named, rest[1:]) if named else (inner, rest)
        found = [_set(one, rest, deepcopy(value), text) for one in entries if isinstance(one, dict)]
        return next(filter(None, found), None)
    if not isinstance(inner, dict):
        return f"{quoted(text)}: {shown(part)} is a value, not a section"
    return _set(inner, rest, value, text)


def _strings(tree: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, container, key in it) of every string; each container once, however many aliases it has."""
    containers, visited = [("", tree)], set()
    for place, container in containers:  # the list grows in the loop
        if id(container) in visited:
            continue
        visited.add(id(container))
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            where = f"{place}.{key}".lstrip(".") if isinstance(container, dict) else place
            if isinstance(value, str):
                yield where, container, key
            elif isinstance(value, dict | list):
                containers.append((where, value))


def _validate(tree: dict[str, Any], schema: type[Recipe]) -> tuple[Recipe | None, list[str]]:
    try:
        return schema.model_validate(tree), []
    except ValidationError as error:
        by_place: dict[tuple[str, ...], list[Any]] = {}
        for detail in error.errors(include_url=False):
            by_place.setdefault(_place(detail, schema), []).append(detail)
        return None, [_describe(keys, details, schema) for keys, details in by_place.items()]


def _describe(keys: tuple[str, ...], errors: list[dict[str, Any]], schema: type[Recipe]) -> str:
    """Return one line for all errors of pydantic about a key; a union has one for each member."""
    first, place = errors[0], ".".join(map(shown, keys))
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1], schema)
        near = difflib.get_close_matches(keys[-1], known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        if keys[:-1] == ("objective",) and not schema.imported:
            hint += " A term of your own needs its file in plugins" if near else "; or name your own term's in plugins"
        return f"{place}: unknown key; {hint}"
    if first["type"] == "missing":
        return f"{place}: missing"
    told = (error["msg"].removeprefix("Input should be ").removeprefix("Value error, ") for error in errors)
    expected = " or ".join(dict.fromkeys(map(_lower, told)))
    return f"{place}: expected {expected} / got {quoted(first['input'])}"


def _place(error: Mapping[str, Any], schema: type[Recipe]) -> tuple[str, ...]:
    """Return the keys as the recipe spells them, without the union members and list positions that pydantic adds."""
    parts: list[str] = []
    model: Any = schema
    *inner, last = error["loc"]
    unknown = last if error["type"] == "extra_forbidden" else None
    for part in (*inner, last):
        if model is not None and part not in (*model.model_fields, unknown):
            continue  # a position in a list of sections, or a member of a union
        if isinstance(model, type) and issubclass(model, BaseModel):
            parts.append(str(part))
            field = model.model_fields.get(str(part))
            model = section_class(field.annotation) if field else None
        else:
            break
    return tuple(parts)


def _known_keys(path: tuple[str, ...], schema: type[Recipe]) -> list[str]:
    model: Any = schema
    for part in path:
        model = section_class(model.model_fields[part].annotation)
    return list(model.model_fields)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _get(tree: Any, *keys: str) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
