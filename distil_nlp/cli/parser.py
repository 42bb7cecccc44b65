"""Argument parsing: redacted errors with hints, and types of arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from distil_nlp.errors import quoted, shown
from distil_nlp.redaction import redact


class Parser(argparse.ArgumentParser):
    """Repeats no token that was typed in the wrong place, and tells how a recipe's settings are written."""

    def error(self, message: str) -> NoReturn:
        super().error(redact(message.rstrip()))  # a padded metavar may end it

    def parse_intermixed_args(  # type: ignore[override]  # the overloads of typeshed
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return the options; end the process with a hint for what it does not know."""
        options, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            hint = self.hint(unknown[0], args) if "overrides" in options else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options

    def hint(self, unknown: str, args: Sequence[str]) -> str:
        """Return what an option was meant for that is none, in the place of a recipe's setting."""
        key, equals, value = unknown.lstrip("-").partition("=")
        if "." not in key or not unknown.startswith("-"):
            return "; settings are given as section.key=value, such as training.learning_rate=5e-5"
        if not equals:
            value = next((arg for arg in args[args.index(unknown) + 1 :][:1] if not arg.startswith("-")), "…")
        return f"; did you mean {key}={value}?"


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


def fraction_up_to_one(text: str) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1 / got {shown(text)}")
    return float(text)


def fraction_above_zero(text: str) -> float:
    """Return a number above 0, up to 1."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 1 / got {shown(text)}")
    return float(text)
