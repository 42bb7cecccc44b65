"""The exception for mistakes that a user can fix."""

from __future__ import annotations

import re

from distil_nlp.redaction import redact

_SENTENCE = re.compile(r"(?:(?P<where>.+?): )?expected (?P<expected>.+?) / got:? (?P<rest>.+)")
_FIX = re.compile(
    r"(add|cast|check|choose|delete|did you mean|give|leave|lower|name|pass|raise|see|set|start|take|use)\b"
)
"""The words by which a fix is told from a reason, where a message has only one of the two."""


class UserError(Exception):
    """A mistake that the user can fix: where it is, expected and actual value, reason and fix; shown without traceback.

    `str(error)` is one line, `where: expected … / got … / why / fix`, for logs and tests; `for_terminal()` puts each
    part on a line of its own. Tokens are masked and the home folder is `~` in all of them.

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
            text = redact(str(where))
            parts = _parse(text)
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
    """Return a part on one line and redacted."""
    return None if part is None else re.sub(r"\s*\n\s*", " ", redact(str(part)))
