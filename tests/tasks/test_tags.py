"""Tags of words: the entities that they make, and the repair of tags that begin none."""

import pytest

from distil_nlp.tasks.tags import Tags

BIO = Tags(("O", "B-PER", "I-PER", "B-creative-work", "I-creative-work"))
OUT, B, IN, BW, IW = range(5)


def test_types_of_entities_are_the_units_of_bio_tags_and_tags_themselves_otherwise():
    """Prevents parts of speech that are scored as entities, and types cut at their own hyphen."""
    assert BIO.are_entities
    assert BIO.units == ("PER", "creative-work")
    for names in (("NOUN", "VERB"), ("B-PER", "NOUN"), ("O",), ("0", "1"), ("B-", "O"), ("I", "O")):
        assert not Tags(names).are_entities
        assert Tags(names).units == names


@pytest.mark.parametrize(
    ("tags", "expected", "changed"),
    [
        ([B, IN, OUT, B], [B, IN, OUT, B], 0),
        ([IN, IN, OUT, IW, IN], [B, IN, OUT, BW, B], 3),  # IOB1
        ([B, IW, IW], [B, BW, IW], 1),
        ([IN, -100, IN], [B, -100, IN], 1),
        ([-100, IN, IW], [-100, IN, BW], 1),  # the word before may begin it
        ([], [], 0),
    ],
)
def test_an_inside_that_continues_nothing_begins_an_entity(tags, expected, changed):
    """Prevents entities that strict scoring can never find, and IOB1 read as if nothing began."""
    assert BIO.repaired(tags) == (expected, changed)


def test_tags_without_prefixes_are_not_touched():
    """Prevents a repair of parts of speech whose names begin with I or B."""
    assert Tags(("IN", "I-like", "B")).repaired([1, 1, 0]) == ([1, 1, 0], 0)


def test_other_schemes_and_missing_beginnings_are_found():
    """Prevents IOBES read as four times as many types, and types that cannot begin."""
    assert Tags(("O", "B-A", "E-A", "S-A")).other_prefixes == ["E-A", "S-A"]
    assert Tags(("S-BAR", "NOUN")).other_prefixes == []
    assert Tags(("O", "I-A", "I-B", "B-B")).without_begin == ["A"]
