"""`distil_nlp.distill`: what the command does, from Python."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import distil_nlp
from distil_nlp.errors import UserError
from distil_nlp.pipeline import distillation, findings
from distil_nlp.recipe import read_yaml
from distil_nlp.reporting.verdicts import verdicts
from tests.helpers.runs import Place


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The recipes that would have been run, with their names."""
    recipes = []

    def distil(recipe, name):
        recipes.append((recipe, name))
        return tmp_path / "results.json"

    monkeypatch.setattr(distillation, "distil", distil)
    return recipes


SECTIONS = {
    "teacher": {"name": Path("t")},
    "data": {"path": "d", "task": "classification", "text_columns": ("text",)},
    "objective": {"hard_label": None, "soft_target_kl": {"weight": 2.0}},
}


def test_overrides_are_sections_or_dotted_keys(asked):
    """Prevents an override that drops the rest of its section, and one that writes into the caller's dict."""
    distil_nlp.distill(SECTIONS, objective={"soft_target_kl": {"temperature": 3.0}, "hard_label": {}},
                       **{"training.seed": 7, "teacher.finetune.max_steps": 2})  # fmt: skip
    recipe, name = asked[0]
    assert (recipe.objective.soft_target_kl.weight, recipe.objective.soft_target_kl.temperature) == (2.0, 3.0)
    assert recipe.objective.hard_label is not None
    assert (recipe.training, recipe.teacher.finetune) == ({"seed": 7}, {"max_steps": 2})
    assert (recipe.teacher.name, recipe.data.text_columns, name) == ("t", ["text"], "recipe")
    assert SECTIONS["objective"] == {"hard_label": None, "soft_target_kl": {"weight": 2.0}}
    assert "training" not in SECTIONS


def test_a_recipe_is_a_path_or_the_name_of_a_shipped_one(asked, tmp_path):
    """Prevents a name that only the command line knows."""
    path = Path(Place(tmp_path).prepare().command()[0])
    distil_nlp.distill("glue", data={"task": "mrpc"})
    distil_nlp.distill(path)
    distil_nlp.distill(str(path))
    assert [name for _, name in asked] == ["glue", "tiny", "tiny"]
    assert (asked[0][0].data.task, asked[1][0]) == ("mrpc", asked[2][0])


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("nowhere.yaml", {}, r"expected a recipe at nowhere\.yaml / got no such file"),
        (SECTIONS, {"data": {"taks": "x"}}, "the recipe: 1 mistake .*\n.*data.taks: unknown key; did you mean task"),
        (SECTIONS, {"teacher.name.x": 1}, r"teacher\.name\.x: expected keys of sections / got name, which is a value"),
        ({}, {}, "teacher: missing"),
    ],
)
def test_mistakes_are_raised(asked, recipe, overrides, message):
    """Prevents an exit of the notebook's process, and a traceback from within."""
    with pytest.raises(UserError, match=message):
        distil_nlp.distill(recipe, **overrides)
    assert not asked


@pytest.mark.integration
def test_a_run_from_python_leaves_what_the_command_leaves(tmp_path, monkeypatch, capsys):
    """Prevents results that a notebook must read from files by itself, or that differ from the command's."""
    monkeypatch.setattr(
        findings, "measure_efficiency", lambda *args, **kwargs: {"teacher": {}, "student": {}, "efficiency": {}}
    )
    place = Place(tmp_path).prepare()
    sections = read_yaml(Path(place.command()[0]))
    options = {"training": {"output_dir": place.out, "max_steps": 2}, "evaluation.baselines": ["no_distillation"]}
    run = distil_nlp.distill(sections, **options, **{"evaluation.seeds": 2})
    results = run.results
    assert run.scores["accuracy"] == results["seeds"]["accuracy"]["median"]
    assert run.teacher_scores == results["teacher"]["metrics"]
    assert set(run.baselines) == {"majority", "copied_only", "no_distillation"}
    assert run.retention == results["retention"]
    assert (run.folder, run.results_path) == (place.out, place.out / "results.json")
    assert run.report_path.is_file()
    student, tokenizer = run.load_student(), run.load_tokenizer()
    assert not student.training
    assert torch.isfinite(student(**tokenizer("the cat", return_tensors="pt")).logits).all()

    capsys.readouterr()
    run.show()
    printed = capsys.readouterr().out
    assert "teacher" in printed
    assert "report.html" in printed
    shown, page = [], run._repr_html_()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython, display.display = lambda: True, shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    run.show()
    assert shown == [run]
    assert "<table><tr>" in page
    for shown_first, text in ((page.index("<table>"), page), (printed.index("retention"), printed)):
        assert verdicts(run.run)[0].severity in text[:shown_first]
    assert "labels only" in page

    again = distil_nlp.distill(sections, **options, **{"evaluation.seeds": 2})
    assert "this run is finished" in capsys.readouterr().out
    assert again.results == results
