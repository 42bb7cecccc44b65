"""The recipes that come with the package: in the wheel, by name, listed, shown and copied."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest

from distil_nlp import cli
from distil_nlp.recipe import shipped
from distil_nlp.recipe.shipped import describe_file, recipe_file, shipped_file, shipped_names
from tests.helpers import ROOT

FILES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.integration
@pytest.mark.skipif(not importlib.util.find_spec("setuptools"), reason="builds the wheel with this environment's")
def test_a_wheel_has_every_file_and_recipe(tmp_path):
    """Prevents an installed package without recipes, or whose report, card or demo lacks a template."""
    wheel, unpacked = tmp_path / "wheel", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path / "source"
    ignored = ("build", "runs", "*.egg-info", ".git", ".venv*", "__pycache__", "tests", "docs")
    _copy_sources(source, ignored)
    subprocess.run([*pip, "-w", wheel, source], check=True)
    zipfile.ZipFile(next(wheel.glob("*.whl"))).extractall(unpacked)
    inside = {path.relative_to(unpacked / "distil_nlp/recipes") for path in unpacked.rglob("recipes/**/*.yaml")}
    assert inside == {path.relative_to(ROOT / "recipes") for path in FILES}
    assert (unpacked / "distil_nlp/recipes/recipe.schema.json").is_file()
    own = {path for path in (ROOT / "distil_nlp").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to(ROOT) for path in own} <= {path.relative_to(unpacked) for path in unpacked.rglob("*")}
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r}); from distil_nlp.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code, "recipes", "show", "glue"], cwd=tmp_path, capture_output=True)
    assert shown.stdout.strip() == (ROOT / "recipes/glue.yaml").read_bytes().strip()


def _copy_sources(to, ignored):
    import shutil

    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*ignored), symlinks=True)


def test_installed_recipes_come_first(monkeypatch, tmp_path):
    """Prevents an installed package that looks for its recipes beside itself, among those of others."""
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "distil_nlp")
    assert shipped.shipped_folder() == tmp_path / "recipes"
    (tmp_path / "distil_nlp/recipes").mkdir(parents=True)
    assert shipped.shipped_folder() == tmp_path / "distil_nlp/recipes"


def test_the_list_has_every_file_with_a_sentence(capsys, monkeypatch):
    """Prevents a recipe that is shipped and not found, and lines wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recipes"]) == 0
    printed = capsys.readouterr().out
    for file in FILES:
        name = file.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        assert f"\n  {name} " in f"\n{printed}"
        assert describe_file(file).split()[0] in printed
    listed = [line for line in printed.splitlines() if line.startswith("  ")]
    assert max(map(len, listed)) <= 80


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_has_a_sentence(file):
    """Prevents a line of the list that is empty, cites a paper or runs into what the recipe needs."""
    sentence = describe_file(file)
    assert len(sentence) > 10
    assert not sentence.endswith(".")
    assert not any(word in sentence for word in ("arXiv", "Needs", "Launch", "\n"))


def test_names_and_paths(tmp_path, monkeypatch):
    """Prevents a file in the working folder that is passed over for a shipped one, and names that leave the folder."""
    monkeypatch.chdir(tmp_path)
    assert recipe_file("glue") == ROOT / "recipes/glue.yaml"
    assert recipe_file("methods", "study") == recipe_file("study/methods") == ROOT / "recipes/study/methods.yaml"
    assert shipped_file("../recipes/glue") is None
    assert str(recipe_file("glue.yaml")) == "glue.yaml"
    (tmp_path / "glue").write_text("teacher: {}")
    assert str(recipe_file("glue")) == "glue"
    assert "accelerate/ddp" in shipped_names("accelerate")


def test_copy_overwrites_nothing(tmp_path, monkeypatch, capsys):
    """Prevents somebody's own recipe that a copy of the shipped one replaces."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes", "copy", "glue"]) == 0
    assert capsys.readouterr().out == "glue.yaml\n"
    assert (tmp_path / "glue.yaml").read_text() == (ROOT / "recipes/glue.yaml").read_text()
    (tmp_path / "glue.yaml").write_text("own")
    assert cli.main(["recipes", "copy", "glue"]) == 2
    assert (tmp_path / "glue.yaml").read_text() == "own"
    assert cli.main(["recipes", "copy", "accelerate/ddp", str(tmp_path / "new" / "mine.yaml")]) == 0
    assert (tmp_path / "new" / "mine.yaml").is_file()
    assert cli.main(["recipes", "show", "gleu"]) == 2
    assert "did you mean glue?" in capsys.readouterr().err


def test_a_recipe_that_is_not_here_is_named_if_it_is_shipped(capsys):
    """Prevents an installed package that advises paths of the repository."""
    assert cli.main(["distill", "nowhere/glue.yaml"]) == 2
    assert "did you mean glue?" in capsys.readouterr().err
    assert cli.main(["distill", "qqqq"]) == 2
    assert "a name that `distil-nlp recipes` lists" in capsys.readouterr().err
