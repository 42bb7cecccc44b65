"""Argument parsing: redacted errors, and types of arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from distil_nlp.errors import quoted, shown
from distil_nlp.redaction import redact


class Parser(argparse.ArgumentParser):
    """Repeats no token that was typed in the wrong place."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message))


def path(text: str) -> Path:
    """Return a path with `~` expanded."""
    return Path(text).expanduser()


def names(text: str) -> list[str]:
    """Return the names in a list with commas between them."""
    parts = [name.strip() for name in text.split(",")]
    if not all(parts):
        raise argparse.ArgumentTypeError(f"expected names with a comma between them / got {quoted(text)}")
    return parts


def positive_int(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0 / got {shown(text)}")
    return int(text)


def positive_number(text: str) -> float:
    """Return a number above 0."""
    if not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0 / got {shown(text)}")
    return float(text)


def fraction_below_one(text: str) -> float:
    """Return a number from 0 to below 1."""
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1 / got {shown(text)}")
    return float(text)
