"""Differences between nested settings: of a run that is taken up again, of runs side by side, of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distil_nlp.errors import quoted, shown
from distil_nlp.redaction import abbreviate_home

IRRELEVANT_KEYS = (
    "run.", "hub.", "export.", "training.output_dir", "training.project", "training.run_name", "teacher.cache.folder",
    "data.augmentation.replacement.folder", "plugins", "teacher.columns.source", "evaluation.probe",
)  # fmt: skip
"""Beginnings of recipe keys that do not change a student; of plugins, their code does, which has a fingerprint."""
EXTENDING_KEYS = (
    "evaluation.seeds", "evaluation.baselines", "evaluation.efficiency", "evaluation.show_rows",
    "evaluation.compare_layers",
)  # fmt: skip
"""Keys that add students, measurements or files. A run that lacks some is unfinished, not the run of another recipe."""
_EFFORTS = ("off", "quick", "full")
"""Values of `evaluation.efficiency`, ascending."""


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by dotted keys; an empty section is a value."""
    return dict(_leaves(settings, ""))


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> list[str]:
    """Return the dotted keys whose values differ, but for those with an ignored beginning; the home folder is `~`."""
    return [key for key, _, _ in _changes(before, now, ignored)]


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> list[str]:
    """Return `section.key was …, is …` for each of `changed_keys`."""
    return [f"{shown(key)} was {quoted(old)}, is {quoted(new)}" for key, old, new in _changes(before, now, ignored)]


def asks_for_more(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a recipe asks for students, measurements or files that a run of another one has not made.

    Args:
        before: all settings of the run's recipe, defaults included.
        now: likewise, of the other; the two differ in `EXTENDING_KEYS` at most.
    """
    done, wanted = flatten(before), flatten(now)
    return any(_is_more(value, done[key]) for key, value in wanted.items() if key in EXTENDING_KEYS)


def _is_more(value: Any, than: Any) -> bool:
    if isinstance(value, list):
        return not isinstance(than, list) or not {*value} <= {*than}
    if isinstance(value, str):
        return _EFFORTS.index(value) > _EFFORTS.index(than)
    return value > (len(than) if isinstance(than, list) else than)


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], ignored: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, value before, value now) of each key that differs; None for a key that one of them lacks."""
    before, now = flatten(abbreviate_home(before)), flatten(abbreviate_home(now))
    for key in before | now:
        old, new = before.get(key), now.get(key)
        if old != new and not key.startswith(ignored):
            yield key, old, new


def _leaves(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping) or (not tree and key):
        yield key, tree
        return
    for name, value in tree.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))
