"""Names that users import: from the package, from its losses, and nothing loaded before it is needed."""

import subprocess
import sys

import pytest

import distil_nlp
from distil_nlp import losses
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import BatchTerm, HiddenTerm, LabelTerm, LossTerm, SoftTerm
from tests.helpers import ROOT

TERM_NAMES = [term.__name__ for term in TERMS.values()]
BASES = (LossTerm, HiddenTerm, SoftTerm, LabelTerm, BatchTerm)


@pytest.mark.parametrize("term", TERMS.values(), ids=TERM_NAMES)
def test_every_term_can_be_imported_from_both_places(term):
    """Prevents a loss that recipes know and Python users cannot reach."""
    assert getattr(losses, term.__name__) is term
    assert getattr(distil_nlp, term.__name__) is term


def test_bases_for_a_loss_of_ones_own_are_public():
    """Prevents users who must import from inside the package to add a loss."""
    assert [getattr(distil_nlp, base.__name__) for base in BASES] == list(BASES)


def test_public_names_of_the_losses_are_classes_formulas_and_the_table():
    """Prevents `from distil_nlp.losses import *` with helpers or modules in it, or without a term."""
    public = {name: getattr(losses, name) for name in losses.__all__}
    formulas = {name for name in public if name.islower()}
    assert set(public) == {*TERM_NAMES, "TERMS"} | formulas
    assert len(formulas) >= 40
    for name in formulas:  # a file of the same name must not hide its formula
        assert public[name].__name__ == name
        assert public[name].__module__.startswith("distil_nlp.losses.")


def test_public_names_of_the_package_are_there():
    """Prevents a name in `__all__` that nothing backs, one that `dir` hides, and a typo that is taken for a loss."""
    for name in distil_nlp.__all__:
        assert getattr(distil_nlp, name).__name__ == name
    assert set(distil_nlp.__all__) == {*TERM_NAMES, *distil_nlp._HOMES}
    assert set(distil_nlp.__all__) <= set(dir(distil_nlp))
    with pytest.raises(AttributeError, match="no attribute 'HiddenCosin'"):
        distil_nlp.HiddenCosin  # noqa: B018


def test_importing_the_package_loads_no_heavy_library():
    """Prevents commands that take seconds to say what they do."""
    code = "import distil_nlp, sys; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
