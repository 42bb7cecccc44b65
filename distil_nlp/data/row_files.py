"""Files of rows as lines: each line of a CSV or TSV file is a row of the header's columns, or an error names it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec

from distil_nlp.errors import UserError, quoted
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

COMPRESSIONS = (".gz", ".bz2", ".xz")
"""Suffixes of compressed files, which are read as what they hold."""
_ARCHIVES = (".zip", ".zst", ".lz4", ".7z", ".rar", ".tar", ".tgz")
_DELIMITERS = (",", "\t", ";", "|")
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_MOST_VALUES = 1000
"""Number of different values up to which a column is known by them."""


def kind_of_file(file: Path) -> str:
    """Return a file's suffix in small letters, without that of its compression."""
    name = Path(file.stem) if file.suffix.lower() in COMPRESSIONS else file
    return name.suffix.lower()


def is_text_file(file: Path) -> bool:
    """Return whether a path is a local file whose lines can be looked at: no archive, no name on the Hub."""
    return file.is_file() and file.suffix.lower() not in _ARCHIVES


def quoting_of(files: Sequence[Path], delimiter: str, limit: int | None = None) -> tuple[int, dict[Path, int]]:
    """Return (the quoting by which files are read, as in `csv`; the number of rows of each file).

    Quotes of a CSV file are quotes. A TSV file may have texts that open with a quote which nobody closes: it is read
    without quoting unless that would cut its rows.

    Args:
        limit: lines of a file that are looked at; None for all.

    Raises:
        UserError: with the line, if a row has more or fewer fields than the header, or a quote swallows lines.
    """
    quoted = [_read_quoted(file, delimiter, limit) for file in files]
    plain = [_read_plain(file, delimiter, limit) for file in files] if delimiter == "\t" else []
    if any(_needs_plain(*readings) for readings in zip(quoted, plain, strict=False)):
        rows = _checked(plain)
        logger.info(f"{_list(files)}: read without quoting, so that each of {sum(rows.values()):,} lines is a row")
        return csv.QUOTE_NONE, rows
    rows, inside = _checked(quoted), sum(reading.inside for reading in quoted)
    if inside:
        logger.info(f"{_list(files)}: {sum(rows.values()):,} rows; {inside:,} more lines are inside quoted texts")
    return csv.QUOTE_MINIMAL, rows


@dataclass
class _Reading:
    """One reading of a file, with or without quotes.

    Attributes:
        rows: rows after the header.
        width: fields of the header.
        fault: the first error; None if each row has all fields.
        inside: lines that are no row, because a quoted text goes on in them.
        balanced: whether each quote that opens a field closes at the end of one.
    """

    file: Path
    delimiter: str
    width: int = 0
    rows: int = 0
    inside: int = 0
    balanced: bool = True
    fault: UserError | None = None

    def take(self, row: list[str], line: int, text: str) -> bool:
        """Count a row, the header first; return whether it has the header's number of fields."""
        if not self.width:
            self.width = len(row)
            self.fault = _header_fault(row, self.file, self.delimiter)
            return True
        self.rows += 1
        if len(row) != self.width and self.fault is None:
            self.fault = self._width_fault(len(row), line, text)
        return len(row) == self.width

    def _width_fault(self, fields: int, line: int, text: str) -> UserError:
        text = text.rstrip("\r\n")
        if fields < self.width:
            why, fix = "its last columns would be empty", "write every field; an empty one for a missing value"
        elif text.endswith(self.delimiter) and fields == self.width + 1:
            why, fix = "columns would be shifted by one", "drop what separates nothing at the end of the lines"
        else:
            why = "columns would be shifted, and texts cut"
            fix = "quote texts that hold the separator, as pandas' to_csv does, or use JSON lines"
        got = f"{fields} in line {line:,}: {_short(text)}"
        return UserError(
            "data.path",
            f"{self.width} {'field' if self.width == 1 else 'fields'} in each line of {self.file.name}",
            got,
            why,
            fix,
        )


def _needs_plain(quoted: _Reading, plain: _Reading) -> bool:
    """Return whether the quotes in a file are no quoting: they are unbalanced, or swallow lines that are whole rows."""
    return not quoted.balanced or (plain.fault is None and (quoted.fault is not None or quoted.rows < plain.rows))


def _checked(readings: Sequence[_Reading]) -> dict[Path, int]:
    """Return the number of rows of each file; raise the first error among them."""
    for reading in readings:
        if reading.fault:
            raise reading.fault
    return {reading.file: reading.rows for reading in readings}


def _read_plain(file: Path, delimiter: str, limit: int | None) -> _Reading:
    reading = _Reading(file, delimiter)
    with _lines(file, limit) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip(" \r\n"):
                reading.take(line.rstrip("\r\n").split(delimiter), number, line)
    return reading


def _read_quoted(file: Path, delimiter: str, limit: int | None) -> _Reading:
    reading, memory, start = _Reading(file, delimiter), _Columns(delimiter), 0
    with _lines(file, limit) as lines, _fields_of_any_size():
        recent: list[str] = []
        rows = csv.reader(_recorded(lines, recent), delimiter=delimiter, strict=True)
        try:
            for row in rows:
                if row and not (len(row) == 1 and not recent[0].strip()):
                    is_header = not reading.width
                    if reading.take(row, start + 1, recent[0]) and not is_header:
                        memory.add(row, recent, start + 1)
                        reading.inside += len(recent) - 1
                start = rows.line_num
                recent.clear()
        except csv.Error as error:
            if limit is None or rows.line_num < limit:  # otherwise the limit may have cut a row
                reading.balanced = False
                at_end = "end of data" in str(error)
                reading.fault = reading.fault or _unbalanced(file, start + 1, rows.line_num, recent, at_end)
    if reading.fault is None and (swallowed := memory.swallowed()):
        first, texts = swallowed
        got = f"a quote that opens in line {first:,} and closes in line {first + len(texts) - 1:,}"
        why = "each of these lines is a row by itself, but together they would be one"
        reading.fault = _quote_fault(file, got, texts, why)
    return reading


@dataclass
class _Columns:
    """The values of columns in rows of one line, by which lines that a quote swallowed are known for rows.

    A quote that opens by chance, and another that ends a text by chance, are a quoted text to every parser. But then
    each line between them is a row, with values that its columns have elsewhere.
    """

    delimiter: str
    values: list[set[str]] = field(default_factory=list)
    doubtful: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, row: list[str], lines: list[str], number: int) -> None:
        """Remember a row's values, or its lines where it has several that look like rows."""
        if len(lines) > 1:
            if len(row) > 1 and all(line.count(self.delimiter) == len(row) - 1 for line in lines):
                self.doubtful.append((number, list(lines)))
            return
        self.values = self.values or [set() for _ in row]
        for known, value in zip(self.values, row, strict=True):
            if len(known) <= _MOST_VALUES:
                known.add(value)

    def swallowed(self) -> tuple[int, list[str]] | None:
        """Return (number of the first line, lines) of the first row that swallowed others; None if there is none."""
        known = {i: values for i, values in enumerate(self.values) if 0 < len(values) <= _MOST_VALUES}
        for number, lines in self.doubtful:
            rows = [line.rstrip("\r\n").split(self.delimiter) for line in lines]
            if any(all(_fits(row[i], values) for row in rows) for i, values in known.items()):
                return number, lines
        return None


def _fits(value: str, values: set[str]) -> bool:
    return value in values or (_is_number(value) and all(map(_is_number, values)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _header_fault(header: list[str], file: Path, delimiter: str) -> UserError | None:
    duplicates = sorted({name for name in header if header.count(name) > 1})
    if duplicates:
        return UserError(
            "data.path",
            f"each column once in {file.name}",
            f"{', '.join(map(quoted, duplicates[:10]))} more than once",
            why="it is undefined which of them is read",
            fix="rename or drop one",
        )
    others = [other for other in _DELIMITERS if other != delimiter and other in header[0]] if len(header) == 1 else []
    if not others:
        return None
    ending = {",": "end its name in .csv", "\t": "end its name in .tsv"}
    return UserError(
        "data.path",
        f"columns separated by {_NAMES[delimiter]} in {file.name}",
        f"{_NAMES[others[0]]}: {_short(header[0])}",
        why="each line would be a single column",
        fix=ending.get(others[0], "write it with commas") if delimiter in ",\t" else "name the separator in README.md",
    )


def _quote_fault(file: Path, got: str, lines: list[str], why: str) -> UserError:
    fix = "quote the whole text and double the quotes in it, as pandas' to_csv does, or use JSON lines"
    if '\\"' in "".join(lines):
        fix = 'double the quotes within texts ("") rather than write \\" (Spark: option("escape", "\\""))'
    got = f"{got}: {_short(lines[0])}"
    return UserError("data.path", f"balanced quotes in {file.name}", got, why, fix)


def _unbalanced(file: Path, first: int, last: int, lines: list[str], at_end: bool) -> UserError:
    """Return the error for a quote that nothing closes, or that closes within a text."""
    if first == last and not at_end:
        return _quote_fault(
            file, f"text after a closing quote in line {first:,}", lines, "the text would be changed, or cut"
        )
    until = "never closes" if at_end else f"closes in line {last:,}, within a text"
    why = "all lines up to there would be one text"
    return _quote_fault(file, f"a quote that opens in line {first:,} and {until}", lines, why)


def broken_json_line(file: Path) -> str | None:
    """Return a description of the first broken line in a file of JSON lines; None without one, or for other JSON."""
    try:
        with _lines(file, None) as lines:
            filled = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
            number, line = next(filled, (0, ""))
            if not line.lstrip().startswith("{") or line.strip() == "{":
                return None
            while line:
                try:
                    row = json.loads(line)
                except ValueError as error:
                    return f"line {number:,} is not JSON ({error}): {_short(line)}"
                if not isinstance(row, dict):
                    return f"line {number:,} is not an object of columns: {_short(line)}"
                number, line = next(filled, (0, ""))
    except (OSError, UnicodeDecodeError):
        pass
    return None


@contextmanager
def _lines(file: Path, limit: int | None) -> Iterator[Iterator[str]]:
    """Open the lines of a file, compressed or not; a NUL among them is an error."""
    with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8-sig", newline="") as lines:
        try:
            yield islice(_without_nul(lines, file), limit)
        except UnicodeDecodeError as error:
            raise _not_utf8(file, f"UnicodeDecodeError: {error}") from error


def _without_nul(lines: Iterable[str], file: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise _not_utf8(file, f"a NUL in line {number:,}: {_short(line)}")
        yield line


def _not_utf8(file: Path, got: str) -> UserError:
    why, fix = "it is in another encoding, or not text", "convert the file to UTF-8"
    return UserError("data.path", f"text in UTF-8 in {file.name}", got, why, fix)


def _recorded(lines: Iterable[str], recent: list[str]) -> Iterator[str]:
    for line in lines:
        recent.append(line)
        yield line


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _short(text: str) -> str:
    """Return the beginning of a text, quoted."""
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _list(files: Sequence[Any]) -> str:
    names = [Path(file).name for file in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
