"""Differences between settings: one way to find and to tell them."""

import pytest

from distil_nlp.utils.settings import IRRELEVANT_KEYS, asks_for_more, changed_keys, describe_changes, flatten


def test_nested_settings_are_compared_by_dotted_keys():
    """Prevents a whole section named for one value, and a key that only one side has being passed over."""
    before = {"training": {"seed": 1, "optim": "adamw"}, "data": {"path": "a"}, "gone": 1}
    now = {"training": {"seed": 2, "optim": "adamw"}, "data": {"path": "a"}, "new": None, "added": [1]}
    assert changed_keys(before, now) == ["training.seed", "gone", "added"]
    assert describe_changes(before, now)[0] == "training.seed was 1, is 2"


def test_places_are_not_differences():
    """Prevents a comparison page, or a run that is taken up again, that names where caches are kept."""
    before = {"teacher": {"name": "a", "cache": {"folder": "x", "top_k": 8}}, "run": {"overwrite": True}}
    now = {"teacher": {"name": "a", "cache": {"folder": "y", "top_k": 9}}, "run": {"overwrite": False}}
    assert changed_keys(before, now, IRRELEVANT_KEYS) == ["teacher.cache.top_k"]


def test_an_empty_section_is_a_value():
    """Prevents `cache: {}` (switched on) from being the same as no cache."""
    assert flatten({"teacher": {"cache": {}}}) == {"teacher.cache": {}}
    assert changed_keys({"cache": {}}, {"cache": None}) == ["cache"]
    assert flatten({}) == {}


def test_the_home_folder_is_one_place(monkeypatch):
    """Prevents a run from being another one on a machine whose home folder lies elsewhere."""
    monkeypatch.setenv("HOME", "/home/me")
    assert changed_keys({"data": {"path": "~/x"}}, {"data": {"path": "/home/me/x"}}) == []


@pytest.mark.parametrize(
    ("before", "now", "more"),
    [
        ({"seeds": 2}, {"seeds": 3}, True),
        ({"seeds": 3}, {"seeds": 2}, False),
        ({"seeds": [42, 43]}, {"seeds": 3}, True),
        ({"seeds": 2}, {"seeds": [7]}, True),
        ({"seeds": [42, 43]}, {"seeds": [43]}, False),
        ({"efficiency": "off"}, {"efficiency": "quick"}, True),
        ({"efficiency": "full"}, {"efficiency": "quick"}, False),
        ({"baselines": []}, {"baselines": ["plain"]}, True),
        ({"baselines": ["plain", "random_init"]}, {"baselines": ["random_init"]}, False),
        ({"compare_layers": False}, {"compare_layers": True}, True),
        ({"compare_layers": True}, {"compare_layers": False}, False),
    ],
    ids=str,
)
def test_more_is_asked_for_only_where_something_is_missing(before, now, more):
    """Prevents a finished run that is scored again because less is asked of it, and one that is never timed."""
    assert asks_for_more({"evaluation": before}, {"evaluation": now}) is more
