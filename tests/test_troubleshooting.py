"""The page of messages names messages that the package has."""

import re

import pytest

from tests.helpers import ROOT

HEADINGS = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
_BETWEEN_LITERALS = re.compile(r'"\s*\n\s*f?"')
SOURCE = "\n".join(
    _BETWEEN_LITERALS.sub("", path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "distil_nlp").rglob("*"))
    if path.suffix in (".py", ".j2")
)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_message_of_the_page_is_one_of_the_package(heading):
    """Prevents advice on a message that was reworded, which nobody who searches for it finds."""
    assert all(part.strip() in SOURCE for part in heading.split("…")), heading


def test_there_are_messages():
    """Prevents a page whose headings have another form, so that none is looked at."""
    assert len(HEADINGS) >= 20
