"""Names that become parts of paths: letters, digits, `._-`, whatever they are made of."""

from __future__ import annotations

import hashlib
import os
import re
import sys

from distil_nlp.errors import UserError, quoted

_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LONGEST, _HASH = 120, 8
"""File systems take 255 bytes; what is added, such as `.previous`, must fit as well."""


def path_name(text: str) -> str:
    """Return a text as the name of one file or folder, unchanged if it is one already.

    Other characters become `-`, dots and dashes at the ends are dropped, and what is too long is cut. A name that was
    changed ends in a hash of the text, so that texts that look alike afterwards do not share a folder.
    """
    name = _OTHERS.sub("-", text).strip("-.")
    if name == text and 0 < len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_HASH]
    return "-".join(filter(None, (name[: _LONGEST - _HASH - 1].rstrip("-."), digest)))


def why_no_path(text: str) -> str | None:
    """Return why a text cannot be the path of a file on this machine; None if it can.

    What Python could not decode, from a command line or a file system, holds surrogates.
    """
    encoding = sys.getfilesystemencoding()
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raw = None
    if raw is not None and b"\0" in raw:
        return "no path holds the character NUL"
    if raw is not None and not _SURROGATES.search(text):
        return None
    if encoding == "utf-8":
        return "it is not text in UTF-8"
    return f"the locale's encoding is {encoding}, which cannot spell it: set PYTHONUTF8=1 or LC_ALL=C.UTF-8"


def check_path_names(where: str, names: list[str]) -> None:
    """Raise UserError for a name that cannot be a folder's as it is, and for two that differ in case alone."""
    folders: dict[str, str] = {}
    for name in names:
        if path_name(name) != name:
            raise UserError(
                where,
                f"names of at most {_LONGEST} letters (a to z), digits, dots, dashes and underscores, "
                "that neither begin nor end with a dot or a dash",
                quoted(name),
                why="each is the name of a folder",
                fix=f"call it {path_name(name)[: -_HASH - 1] or 'a'}",
            )
        other = folders.setdefault(name.lower(), name)
        if other != name:
            raise UserError(
                where,
                "names that differ in more than upper and lower case",
                f"{quoted(other)} and {quoted(name)}",
                why="on some disks they are the same folder",
                fix="rename one",
            )
