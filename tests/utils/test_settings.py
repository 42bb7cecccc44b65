"""Differences between settings: one way to find and to tell them."""

from distil_nlp.utils.settings import IRRELEVANT_KEYS, changed_keys, describe_changes, flatten


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
