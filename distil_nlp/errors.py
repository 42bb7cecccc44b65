"""The exceptions that end a command with a message, and the values that messages quote."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from typing import Any

from distil_nlp.redaction import redact

_SENTENCE = re.compile(r"(?:(?P<where>.+?): )?expected (?P<expected>.+?) / got:? (?P<rest>.+)")
_FIX = re.compile(
    r"(add|cast|check|choose|delete|did you mean|give|leave|lower|name|pass|raise|see|set|start|take|use)\b"
)
"""The words by which a fix is told from a reason, where a message has only one of the two."""

_WORD = re.compile(r"\S{101,}")
_VALUE, _PATH, _PART, _LINES = 100, 300, 1000, 40
"""Characters that are shown of a value, of a word with a slash in it, and of a part or line; lines of a message."""


class UserError(Exception):
    """A mistake that the user can fix: where it is, expected and actual value, reason and fix; shown without traceback.

    `str(error)` is one line, `where: expected … / got … / why / fix`, for logs and tests; `for_terminal()` puts each
    part on a line of its own. Tokens are masked and the home folder is `~` in all of them. Words are cut after 100
    characters, paths after 300, parts after 1,000; values that may be long and hold spaces are given by `quoted`.

    Attributes:
        where: the recipe key, option or file; None where there is none.
        expected: a phrase that completes "expected …"; None for a message that has no parts.
        got: the value that was there instead.
        why: the consequence, or the reason that the value cannot be used.
        fix: what to do, as an imperative.
    """

    def __init__(
        self,
        where: str | None,
        expected: str | None = None,
        got: str | None = None,
        why: str | None = None,
        fix: str | None = None,
    ):
        """Take the parts, or one text, which is split into them where it has the form of `str(error)`."""
        if expected is None:
            text = _bounded_lines(str(where))
            parts: list[Any] = _parse(text)
        else:
            parts = [_clean(part) for part in (where, expected, got, why, fix)]
            text = _join(*parts)
        super().__init__(text)  # the text alone: an exception is pickled as its arguments and its attributes
        self.where, self.expected, self.got, self.why, self.fix = parts

    def for_terminal(self) -> str:
        """Return the parts on labelled lines, or the text as it is where it has none."""
        if self.expected is None:
            return str(self)
        parts = {"expected": self.expected, "got": self.got, "why": self.why, "fix": self.fix}
        first = self.where or f"expected {parts.pop('expected')}"
        return "\n".join([first, *(f"  {label:<8}  {part}" for label, part in parts.items() if part is not None)])


class Preempted(Exception):
    """Training was stopped by SIGTERM, and left what it had done to be carried on from."""


def _parse(text: str) -> list[str | None]:
    """Split a text into the five parts; all None where it has another form, such as a list of mistakes."""
    match = _SENTENCE.fullmatch(text)
    if match is None:
        return [None] * 5
    got, *rest = match["rest"].rsplit(" / ", 2)  # from the right: a quoted value may hold a slash of its own
    if len(rest) == 1:
        rest = [None, *rest] if _FIX.match(rest[0]) else [*rest, None]
    return [match["where"], match["expected"], got, *(rest or (None, None))]


def _join(where: str | None, expected: str, got: str | None, why: str | None, fix: str | None) -> str:
    start = f"expected {expected}" if where is None else f"{where}: expected {expected}"
    return " / ".join([start, *([] if got is None else [f"got {got}"]), *filter(None, (why, fix))])


def _clean(part: object) -> str | None:
    """Return a part on one line, redacted and of bounded length."""
    return None if part is None else _bounded(re.sub(r"\s*\n\s*", " ", _redacted(str(part))))


def quoted(value: Any) -> str:
    """Return a value as Python writes it, redacted and cut to 100 characters."""
    return _shortened(_short_repr.repr(value))


def listed(values: Iterable[Any], most: int = 10) -> str:
    """Return the first of some values with commas between them, each cut to 100 characters, and how many follow."""
    values = list(values)
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return ", ".join(map(shown, values[:most])) + more


def shown(name: Any) -> str:
    """Return a name without quotes, on one line, redacted and cut to 100 characters."""
    return _shortened(" ".join(_redacted(str(name)).split()))


class _ShortRepr(reprlib.Repr):
    """Writes values down in bounded time, and masks tokens before they are cut in two."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 4, 10, 10, 10, 10

    def repr_str(self, text: str, level: int) -> str:
        return repr(_shortened(_redacted(text)))

    def repr_int(self, number: int, level: int) -> str:
        try:
            return repr(number)
        except ValueError:  # Python writes no number of more than 4,300 digits
            return f"a number of {number.bit_length():,} bits"


_short_repr = _ShortRepr()


def _redacted(text: str) -> str:
    """Return a text without secrets; of one too long to be shown, the beginning."""
    return redact(text[: 20 * _PART])


def _shortened(text: str, longest: int = _VALUE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _bounded(text: str) -> str:
    """Return a text with long words and all that is beyond its length cut off."""
    return _shortened(_WORD.sub(_bounded_word, text), _PART)


def _bounded_word(word: re.Match[str]) -> str:
    """Return the beginning of a long word; of a path, beginning and end."""
    text = word[0]
    if "/" not in text and "\\" not in text:
        return _shortened(text)
    return text if len(text) <= _PATH else f"{text[: _PATH // 2]}…{text[1 - _PATH // 2 :]}"


def _bounded_lines(text: str) -> str:
    lines = text.splitlines()
    more = [f"  … and {len(lines) - _LINES:,} more"] if len(lines) > _LINES else []
    return "\n".join([*(_bounded(_redacted(line)) for line in lines[:_LINES]), *more])
