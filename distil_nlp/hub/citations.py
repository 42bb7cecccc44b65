"""The papers behind a run, as BibTeX: `papers.bib` and what of it a card cites."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from distil_nlp.losses.registry import TERMS

DISTILBERT = "1910.01108"
"""Sanh et al. 2019, whose way of halving a BERT every run follows."""
AUGMENTATION = {"replacement": "1909.10351", "cutoff": "2009.13818", "mixup": "2011.00593"}
"""Section of `data.augmentation` → the arXiv number of its paper."""

_ENTRY = re.compile(r"^@\w+\{.*?^\}$", re.M | re.S)
_EPRINT = re.compile(r"^ *eprint *= *\{(.*?)\}", re.M)


@cache
def read_papers() -> dict[str, str]:
    """Return the entries of `papers.bib` by their arXiv numbers."""
    text = Path(__file__).with_name("papers.bib").read_text(encoding="utf-8")
    return {_EPRINT.findall(entry)[0]: entry for entry in _ENTRY.findall(text)}


def bibtex(terms: Iterable[str], augmentations: Iterable[str] = ()) -> str:
    """Return the entries of all papers that a run builds on, each once.

    Args:
        terms: names of the terms that were computed; an older run may name some that no longer exist.
        augmentations: the sections of `data.augmentation` that were used.
    """
    papers, known = read_papers(), [TERMS[term].paper for term in terms if term in TERMS]
    numbers = [*known, *map(AUGMENTATION.get, augmentations), DISTILBERT]
    return "\n\n".join(papers[number] for number in dict.fromkeys(numbers) if number in papers)
