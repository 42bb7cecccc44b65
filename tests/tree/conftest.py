"""A run on tiny models, and the tree of its teacher, for all tests of this folder."""

import pytest

from distil_nlp.cli import main
from tests.helpers.runs import Place

QUICK = ("--seeds", "2", "--epochs", "2", "--depth", "2")


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    """A finished run and the tree of its teacher."""
    found = Place(tmp_path_factory.mktemp("tree") / "place").prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distil_nlp.pipeline.publication.write_report", lambda folders: folders[0] / "report.html")
        assert found.run("training.max_steps=1") == 0
    assert main(["tree", str(found.out), *QUICK]) == 0
    return found
