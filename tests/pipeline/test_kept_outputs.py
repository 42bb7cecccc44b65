"""Outputs that runs share: known by weights and rows, and the same figures as without."""

import pytest

from tests.helpers import tiny
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

QUICK = ("training.max_steps=1", "run.report=false", "evaluation.compare_layers=false")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def scored(place, name, capsys, *overrides):
    """The models that a run had to score, and its results."""
    place.out = place.folder / name
    capsys.readouterr()
    assert place.run(*QUICK, f"run.outputs_folder={place.folder / 'outputs'}", *overrides) == 0
    said = capsys.readouterr().out.splitlines()
    return [line.split()[2] for line in said if line.startswith("scoring the")], place.results


def test_a_second_run_asks_neither_teacher_nor_copy_again(place, capsys):
    """Prevents a study that scores the same models in each cell, or figures that differ for it."""
    models, first = scored(place, "first", capsys)
    assert models == ["teacher", "copy", "student"]
    models, second = scored(place, "second", capsys)
    assert models == ["student"]
    for block in ("teacher", "student", "fidelity", "baselines", "intervals"):
        for part in ("metrics", "mean", "agreement", "copied_only"):
            assert first[block].get(part) == second[block].get(part)
    assert "cka" not in first["fidelity"]
    assert not (place.out / "report").exists()


def test_another_teacher_or_other_rows_are_asked(place, capsys):
    """Prevents answers of a teacher that is gone."""
    scored(place, "first", capsys)
    models, _ = scored(place, "rows", capsys, "data.max_evaluation_rows=5")
    assert models == ["teacher", "copy", "student"]
    other = tiny.classifier(4, seed=3)
    other.config.id2label, other.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    place.teacher(other)
    models, _ = scored(place, "another", capsys)
    assert models == ["teacher", "copy", "student"]
