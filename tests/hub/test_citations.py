"""The papers that a card cites: all there, well-formed, and those of the run."""

import re

import pytest

from distil_nlp.hub.citations import AUGMENTATION, DISTILBERT, bibtex, read_papers
from distil_nlp.losses.registry import TERMS
from tests.helpers import ROOT

TEXT = (ROOT / "distil_nlp" / "hub" / "papers.bib").read_text(encoding="utf-8")


def fields(entry):
    return dict(re.findall(r"^  (\w+) += \{(.*?)\},?$", entry, re.M | re.S))


def test_every_paper_that_a_card_may_name_has_an_entry():
    """Prevents a card that uses a method and does not cite it."""
    named = {term.paper for term in TERMS.values() if term.paper} | {DISTILBERT, *AUGMENTATION.values()}
    assert read_papers().keys() == named


def test_every_entry_parses_and_no_key_stands_twice():
    """Prevents an entry that the reader swallows, and BibTeX that names one paper twice."""
    keys = re.findall(r"^@article\{([a-z0-9]+),$", TEXT, re.M)
    assert len(keys) == len(set(keys)) == TEXT.count("@") == len(read_papers())


@pytest.mark.parametrize("number", read_papers())
def test_an_entry_says_title_authors_year_and_number(number):
    """Prevents a citation that leads nowhere: a field left out, open braces, the year of another version."""
    entry = read_papers()[number]
    found = fields(entry)
    assert found.keys() == {"title", "author", "journal", "eprint", "year"}
    assert found["eprint"] == number
    assert found["journal"] == f"arXiv preprint arXiv:{number}"
    assert found["year"] == f"20{number[:2]}"  # of the first version
    assert entry.count("{") == entry.count("}")
    assert all(re.fullmatch(r"[\w .'-]+, [\w .'-]+", name) for name in re.split(r"\s+and\s+", found["author"]))


def test_what_was_used_is_cited_once():
    """Prevents the same paper twice where two terms share it, and papers of methods that were not used."""
    text = bibtex(["rkd_distance", "rkd_angle", "hidden_cosine", "hard_label", "of_an_older_version"], ["mixup"])
    assert re.findall(r"eprint  = \{(.*?)\}", text) == ["1904.05068", "1910.01108", "2011.00593"]
    assert bibtex([]) == read_papers()[DISTILBERT]
