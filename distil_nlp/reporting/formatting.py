"""Formatting of numbers. None gives an empty string; a number and its unit stay on one line."""

from __future__ import annotations

import math

GAP = "\u00a0"
"""The no-break space between a number and its unit."""


def decimal(value: float | None, digits: int = 3) -> str:
    """Format a number: 0.837, −0.012.

    Digits before the point replace digits after it: 2.11, 23.4, 1,234. A number that would round to 0 keeps its first
    digit: 4e−05.
    """
    if value is None:
        return ""
    if 0 < abs(value) < 10**-digits:
        return _minus(f"{value:.1g}")
    if abs(value) > 1:
        digits = min(digits, 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0)
    return _minus(f"{value:,.{digits}f}")


def span(low: float, high: float) -> str:
    """Format a range: 0.835 to 0.839."""
    return f"{decimal(low)} to {decimal(high)}"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction in percent: 99.4 %."""
    return "" if value is None else _minus(f"{100 * value:.{digits}f}{GAP}%")


def points(value: float, sign: str = "") -> str:
    """Format a difference of fractions in points of 0.01: 7.7, or +7.7 where `sign` is `+`."""
    return _minus(f"{100 * value:{sign}.1f}")


def count(value: float | None) -> str:
    """Format a count: 12,345."""
    return "" if value is None else f"{value:,.0f}"


def large(value: float | None, unit: str = "") -> str:
    """Format a large number with its SI prefix: 22.7 M, 1.2 G, 23.0 k; with the unit B, 69.6 MB."""
    if value is None:
        return ""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.1f}{GAP}{prefix}{unit}"
    return f"{value:.0f}{GAP * bool(unit)}{unit}"


def milliseconds(value: float | None) -> str:
    """Format milliseconds with about three digits: 5.31, 14.8, 148."""
    return "" if value is None else f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def times(value: float | None) -> str:
    """Format a factor: 1.9×."""
    return "" if value is None else f"{value:.{2 if value < 1.2 else 1}f}×"


def duration(seconds: float | None) -> str:
    """Format seconds: 45 s, 6 min 52 s, 1 h 12 min."""
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{GAP}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s"
    return f"{minutes // 60}{GAP}h {minutes % 60}{GAP}min"


def plural(number: int, word: str) -> str:
    """Format a count with its noun: 1 seed, 3 seeds, 9,815 rows, 12 queries."""
    if number == 1:
        return f"{number:,}{GAP}{word}"
    return f"{number:,}{GAP}" + (f"{word[:-1]}ies" if word.endswith("ry") else f"{word}s")


def ratio(part: float | None, whole: float | None) -> float | None:
    """Return part ÷ whole; None if a value is missing, `whole` is 0 or the ratio is not finite."""
    if part is None or not whole or not math.isfinite(part / whole):
        return None
    return part / whole


def _minus(text: str) -> str:
    """Return the text with a minus sign for each hyphen."""
    return text.replace("-", "−")
