"""docs/encoders.md is what the code does: each family, one step of distillation, saved and read back plainly."""

import pytest
import transformers

from distil_nlp.models.heads import classes_of_auto
from tests.helpers.encoder_table import FAMILIES, LEFT_OUT, families_written, row_of, written

FAST = ("Funnel",)
"""A family that is refused; that BERT trains all tests of training show."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in FAST else pytest.mark.integration) for name in FAMILIES]
)
def test_the_page_says_what_a_family_supports(family):
    """Prevents a page that promises what does not run, or leaves out what does; make it anew by `make encoders`."""
    assert row_of(family) == written(family)


def test_every_encoder_of_transformers_has_a_row_or_a_reason():
    """Prevents families that are forgotten as transformers grows."""
    known = (*FAMILIES, *LEFT_OUT)
    classes = classes_of_auto("AutoModelForMaskedLM")
    assert not [name for name in classes if not any(name.startswith((f"{one}For", f"{one}With")) for one in known)]
    assert set(FAMILIES) <= set(families_written())
    assert all(hasattr(transformers, f"{name}Config") for name in FAMILIES)
