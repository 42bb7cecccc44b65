"""Errors that a user can fix."""

import copy
import pickle

import pytest

from distil_nlp.errors import UserError
from tests.helpers.messages import one_line

PARTS = ("data.max_length", "at most 64, the positions of the student", "128", "no position embedding", "lower it")
TEXT = "data.max_length: expected at most 64, the positions of the student / got 128 / no position embedding / lower it"


def parts(error):
    return error.where, error.expected, error.got, error.why, error.fix


def test_parts_and_text_are_the_same_error():
    """Prevents two messages for one mistake while some raises still give one text."""
    assert str(UserError(*PARTS)) == str(UserError(TEXT)) == TEXT
    assert parts(UserError(*PARTS)) == parts(UserError(TEXT)) == PARTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("expected a / got b / why / fix", (None, "a", "b", "why", "fix")),
        ("data: expected rows / got none", ("data", "rows", "none", None, None)),
        ("data: expected rows / got none / nothing to learn", ("data", "rows", "none", "nothing to learn", None)),
        ("data: expected rows / got none / check the path", ("data", "rows", "none", None, "check the path")),
        ("a.yaml: b: expected c / got: d: e / w / f", ("a.yaml: b", "c", "d: e", "w", "f")),
        ("expected a / got 'x / y' / w / f", (None, "a", "'x / y'", "w", "f")),
        ("told to stop", (None, None, None, None, None)),
        ("r.yaml: 1 mistake\n  - a: expected b / got c", (None, None, None, None, None)),
    ],
)
def test_a_text_is_split_into_its_parts(text, expected):
    """Prevents a part under another label, and a list of mistakes that is torn apart."""
    assert parts(UserError(text)) == expected
    assert str(UserError(text)) == text


def test_a_terminal_gets_a_labelled_line_for_each_part():
    """Prevents one long line in which the remedy is hard to find."""
    assert UserError(*PARTS).for_terminal().splitlines() == [
        "data.max_length",
        "  expected  at most 64, the positions of the student",
        "  got       128",
        "  why       no position embedding",
        "  fix       lower it",
    ]
    assert UserError(None, "a folder", "a file", fix="name another").for_terminal().splitlines() == [
        "expected a folder",
        "  got       a file",
        "  fix       name another",
    ]
    assert UserError("two\n  - lines").for_terminal() == "two\n  - lines"
    assert one_line(f"error: {UserError(*PARTS).for_terminal()}\n") == f"error: {TEXT}\n"


def test_every_part_is_one_line_without_secrets(tmp_path, monkeypatch):
    """Prevents a token in a field, and log lines that a quoted exception breaks in two."""
    monkeypatch.setenv("HOME", str(tmp_path))
    token = "hf_" + "a1B2" * 9
    error = UserError(f"{tmp_path}/r.yaml", "JSON", f"{token}\n  at line 2", fix="delete it")
    assert parts(error) == ("~/r.yaml", "JSON", "hf_… at line 2", None, "delete it")
    assert str(error) == "~/r.yaml: expected JSON / got hf_… at line 2 / delete it"
    assert parts(UserError(f"{token}: expected a / got {token}")) == ("hf_…", "a", "hf_…", None, None)


@pytest.mark.parametrize("error", [UserError(*PARTS), UserError(None, "a", "b / c", fix="why not"), UserError("text")])
def test_an_error_survives_another_process(error):
    """Prevents an error of a worker that cannot be unpickled, or loses its parts on the way."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (str(other), parts(other)) == (str(error), parts(error))
