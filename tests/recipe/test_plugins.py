"""Terms of one's own in recipes: their keys, whose they are, and what is said of code that cannot be used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from distil_nlp.errors import UserError
from distil_nlp.evaluation.metrics import metric_names
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.provenance import changed_sources, hash_plugins
from distil_nlp.recipe import Recipe, complete, concise, dump_recipe, load_recipe, recipe_from
from distil_nlp.recipe.local_imports import local_imports
from distil_nlp.results.schema.environment import OwnCode
from distil_nlp.study.plan import StudyPlan, recipe_of
from distil_nlp.tasks import TASKS
from tests.helpers import ROOT

EXAMPLE = (ROOT / "examples" / "my_terms.py").read_text()
TEXT = """
plugins: [my_terms.py]
teacher: {name: t}
data: {path: d, task: classification, text_columns: [text]}
objective: {hidden_l1: {weight: 0.5, layers: last}, hard_label: {}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a recipe and its plugin, and another one to work in."""
    place = tmp_path / "mine"
    place.mkdir()
    (place / "own.yaml").write_text(TEXT)
    (place / "my_terms.py").write_text(EXAMPLE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return place


def refusal(folder, source, *overrides):
    """The message for a recipe with this plugin."""
    (folder / "my_terms.py").write_text(source)
    with pytest.raises(UserError) as caught:
        load_recipe(folder / "own.yaml", overrides)
    return str(caught.value)


def test_a_term_of_ones_own_is_a_key_with_its_options(folder):
    """Prevents a loss that only a fork could compare over seeds."""
    recipe = load_recipe(folder / "own.yaml", ["objective.hidden_l1.rows=0.3"])
    objective = builders.objective_from(recipe, "classification")
    assert objective.names == ["hard_label", "hidden_l1"]
    assert (objective.terms[1].layers, objective.terms[1].weight(0.0)) == ("last", 0.5)
    assert refusal(folder, EXAMPLE, "objective.hidden_l1.layer=all").endswith("unknown key; did you mean layers?")
    assert "objective.hiden_l1: unknown key; did you mean hidden_l1?" in refusal(
        folder, EXAMPLE, "objective.hiden_l1={}"
    )


def test_no_other_recipe_knows_it(folder):
    """Prevents a term that leaks from one recipe of a process into the next, and one of two of a name that is lost."""
    first = load_recipe(folder / "own.yaml")
    (folder / "other.py").write_text(EXAMPLE.replace(".abs()", ".square()"))
    second = load_recipe(folder / "own.yaml", [f"plugins=[{folder / 'other.py'}]"])
    assert first.terms["hidden_l1"] is not second.terms["hidden_l1"]
    assert load_recipe(folder / "own.yaml").terms["hidden_l1"] is first.terms["hidden_l1"]
    assert "hidden_l1" not in TERMS
    assert "hidden_l1" not in Recipe.model_fields["objective"].annotation.model_fields
    message = refusal(folder, EXAMPLE, "plugins=[]")
    assert "did you mean hidden_mse? A term of your own needs its file in plugins" in message


def test_a_file_that_changed_is_read_again(folder):
    """Prevents a notebook that trains with the loss of an hour ago."""
    before = load_recipe(folder / "own.yaml")
    (folder / "my_terms.py").write_text(EXAMPLE.replace("the hidden states", "states"))
    now = load_recipe(folder / "own.yaml")
    assert now.terms["hidden_l1"].formula.endswith("difference of states")
    assert before.imported[0].sha256 != now.imported[0].sha256


def test_a_file_lies_where_one_works_or_beside_the_recipe(folder, monkeypatch):
    """Prevents a run's own recipe.yaml that no longer finds the code."""
    found = load_recipe(folder / "own.yaml")
    assert found.plugins == [(folder / "my_terms.py").as_posix()]
    (folder.parent / "again.yaml").write_text(dump_recipe(found))
    assert load_recipe(folder.parent / "again.yaml").objective.model_dump() == found.objective.model_dump()
    monkeypatch.chdir(folder)
    assert load_recipe("own.yaml", ["plugins=my_terms.py"]).plugins == ["my_terms.py"]
    plan = StudyPlan(recipe="own.yaml", tasks=["classification"], always={}, methods={"l1": {"hidden_l1": {}}})
    monkeypatch.chdir(folder.parent / "work")
    assert load_recipe(recipe_of(plan, folder / "study.yaml", "l1", folder.parent)).terms.keys() >= {"hidden_l1"}


def test_both_forms_of_a_recipe_know_its_terms(folder):
    """Prevents a finished run that is taken for another recipe's, since defaults of its term are left out."""
    recipe = load_recipe(folder / "own.yaml", ["objective.hidden_l1.layers=uniform"])
    settings = recipe.model_dump(mode="json")
    short = concise(settings, type(recipe))
    assert short["objective"] == {"hard_label": {"weight": 1.0}, "hidden_l1": {"weight": 0.5}}
    assert complete(short, type(recipe)) == settings
    assert concise(settings)["objective"]["hidden_l1"] == {"weight": 0.5, "layers": "uniform", "rows": "all"}


def test_a_module_is_named_by_its_name(folder, monkeypatch):
    """Prevents terms of an installed package that must be copied into a file."""
    package = folder / "own_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("from .terms import HiddenL1\n")
    (package / "terms.py").write_text(EXAMPLE)
    name = package.name
    message = refusal(folder, EXAMPLE, f"plugins=[{name}.terms]")
    assert f"expected a module with a file that Python can import, or a .py file / got '{name}.terms'" in message
    monkeypatch.syspath_prepend(str(folder))
    for plugin in (name, f"{name}.terms"):
        recipe = load_recipe(folder / "own.yaml", [f"plugins=[{plugin}]"])
        assert recipe.terms["hidden_l1"].__module__ == f"{name}.terms"
    (package / "terms.py").write_text(EXAMPLE + "\n")
    assert "expected the file that this process imported" in refusal(folder, EXAMPLE, f"plugins=[{name}.terms]")
    for module in [module for module in sys.modules if module.startswith(name)]:
        monkeypatch.delitem(sys.modules, module)


HELPED = "import sys\n\nsys.path.insert(0, HERE)\nfrom helper_of_a_test import distance\nsys.path.pop(0)\n" + EXAMPLE


@pytest.fixture
def helped(folder, monkeypatch):
    """A plugin that imports a file beside it, which imports one of a folder."""
    (folder / "my_terms.py").write_text(HELPED.replace("HERE", repr(str(folder))))
    (folder / "helper_of_a_test.py").write_text("from lib_of_a_test import power\n\ndef distance(a, b): ...\n")
    (folder / "lib_of_a_test").mkdir()
    (folder / "lib_of_a_test" / "power.py").write_text("two = 2\n")
    (folder / "other.py").write_text("nobody = 'imports it'\n")
    yield folder
    for module in [module for module in sys.modules if "_of_a_test" in module]:
        monkeypatch.delitem(sys.modules, module)


def test_what_a_plugin_imports_is_part_of_its_fingerprint(helped, capsys):
    """Prevents a run that is carried on with another loss because its formula is in a second file."""
    (plugin,) = load_recipe(helped / "own.yaml").imported
    assert sorted(plugin.imports) == ["helper_of_a_test.py", "lib_of_a_test/power.py"]
    assert len({plugin.sha256, *plugin.imports.values()}) == len(plugin.hashes) == 3
    assert OwnCode.model_validate(plugin.to_dict()).imports == plugin.imports
    named = capsys.readouterr().out
    assert f"code of your own is run: lib_of_a_test/power.py, which {plugin.name} imports, sha256" in named
    assert load_recipe(helped / "own.yaml").imported == (plugin,)
    assert capsys.readouterr().out == ""
    (helped / "other.py").write_text("")
    assert load_recipe(helped / "own.yaml").imported == (plugin,)
    (helped / "lib_of_a_test" / "power.py").write_text("two = 3\n")
    with pytest.raises(UserError, match=r"imports lib_of_a_test/power.py: expected the file .* / got one that changed"):
        load_recipe(helped / "own.yaml")


def test_another_helper_is_another_provenance(helped, monkeypatch):
    """Prevents fingerprints that do not look at what they were given."""
    before = changed_sources(load_recipe(helped / "own.yaml"), {"plugins": "x"})
    assert before == ["plugins"]
    recipe = load_recipe(helped / "own.yaml")
    now = {"plugins": hash_plugins(recipe)}
    assert changed_sources(recipe, now) == []
    monkeypatch.setattr("distil_nlp.recipe.plugins._hashes", {})  # another process
    (helped / "helper_of_a_test.py").write_text("def distance(a, b): ...\n")
    assert changed_sources(load_recipe(helped / "own.yaml"), now) == ["plugins"]


def test_imports_are_read_from_the_files_alone(tmp_path):
    """Prevents fingerprints of half of the installed packages, of what was imported by chance, and endless circles."""
    package = tmp_path / "mine"
    (package / "deep").mkdir(parents=True)
    sources = {
        "mine/__init__.py": "from . import terms",
        "mine/terms.py": "import distil_nlp, mine\nfrom .deep import leaf\ndef late():\n    from ..mine import late",
        "mine/deep/leaf.py": "from .. import base\nfrom ...... import nowhere",
        "mine/base.py": "not Python",
        "mine/late.py": "",
        "mine/unused.py": "",
        "distil_nlp/__init__.py": "",
        "beside.py": "",
    }
    (tmp_path / "distil_nlp").mkdir()
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    found = local_imports(package / "terms.py", tmp_path, "mine.terms")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "mine/__init__.py", "mine/base.py", "mine/deep/leaf.py", "mine/late.py"]  # fmt: skip
    installed = Path(pytest.__file__)
    folders = {path.parent.name for path in local_imports(installed, installed.parent.parent, "pytest")}
    assert folders <= {"pytest"}


def test_nothing_is_imported_that_the_recipe_does_not_name(folder):
    """Prevents code that runs because it lies beside a recipe, in the working directory, or in a run's folder."""
    for place in (folder, folder.parent / "work"):
        (place / "my_terms.py").write_text("raise SystemExit('run')")
        (place / "plugins.py").write_text("raise SystemExit('run')")
    settings = {"teacher": {"name": "t"}, "data": {"path": "d", "task": "mlm"}, "objective": {"hard_label": {}}}
    assert recipe_from(settings).imported == ()
    assert "SystemExit" in refusal(folder, "raise SystemExit('run')")


REFUSED = {
    "a mistake in Python": ("x = (\n", r"SyntaxError in \S+my_terms\.py, line 1: '\(' was never closed"),
    "an error when it is imported": ("import os\n\n\nprint(nothing)\n", r"NameError in \S+my_terms\.py, line 4: name"),
    "a script that ends": ("import sys\n\nsys.exit(3)\n", r"SystemExit in \S+my_terms\.py, line 3: 3"),
    "no term": ("from distil_nlp import HiddenTerm\n", "expected a loss term: a subclass .* / got none"),
    "the name of a term of the tool": (EXAMPLE.replace("hidden_l1", "pkd"), "'pkd', one of the tool's own terms"),
    "the name of a metric": (
        EXAMPLE.replace("hidden_l1", "accuracy"),
        "name = 'accuracy', the name of a metric or of another number in the log / .* such as accuracy_distance",
    ),
    "the name of a term's weight": (EXAMPLE.replace("hidden_l1", "pkd_weight"), "such as pkd_distance"),
    "a name that is a method of sections": (EXAMPLE.replace("hidden_l1", "copy"), "name = 'copy', taken already"),
    "a name with a space": (EXAMPLE.replace("hidden_l1", "hidden l1"), "expected a name of small letters"),
    "no words for the card": (EXAMPLE.replace(", formula", ", words"), "expected its formula in words / got none"),
    "arguments without a type": (
        EXAMPLE + "\n    def __init__(self, weight: float = 1.0, margin=2): ...\n",
        "got margin=2 without a type",
    ),
    "any arguments": (EXAMPLE + "\n    def __init__(self, weight: float = 1.0, **options: int): ...\n", "options"),
    "no weight": (EXAMPLE + "\n    def __init__(self, margin: float = 1.0): ...\n", "got no argument weight"),
    "a type that no recipe has": (
        EXAMPLE + "\n    def __init__(self, weight: float = 1.0, by: HiddenTerm = None): ...\n",
        "expected a constructor with typed arguments",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_code_that_cannot_be_used_is_refused_with_its_place(folder, name):
    """Prevents a traceback of this package for a mistake in somebody's own file."""
    source, message = REFUSED[name]
    found = refusal(folder, source)
    assert found.startswith("plugins: ")
    assert "my_terms.py" in found
    assert re.search(message, found), found


def test_no_name_of_the_log_is_a_terms(folder):
    """Prevents a log, and curves, in which a term overwrites a metric, or the loss itself."""
    metrics = {name for task in TASKS for name in metric_names(task)}
    trainers = {"loss", "grad_norm", "learning_rate", "epoch", "step", "tokens_per_second", "total_flos"}
    summaries = {"eval_loss", "eval_hidden_l1", "train_runtime", "test_accuracy"}
    for name in sorted(metrics | trainers | summaries):
        why = f"name = '{name}', the name of" if name.islower() else "expected a name of small letters"
        assert why in refusal(folder, EXAMPLE.replace("hidden_l1", name))


@pytest.mark.parametrize(
    "value", ["nowhere.py", "mine/", "[3]", "''", '"a\\0.py"', "[nowhere.terms]", f"{'a' * 5000}.py"]
)
def test_a_plugin_that_is_none_is_refused(folder, value):
    """Prevents a traceback for a path that is not there, or cannot be."""
    assert "plugins" in refusal(folder, EXAMPLE, f"plugins={value}")


def test_an_argument_without_a_default_is_a_key_that_must_be_there(folder):
    """Prevents a constructor that is called without what it needs."""
    source = (
        EXAMPLE + "\n    def __init__(self, margin: float, weight: float = 1.0):\n        super().__init__(weight)\n"
    )
    assert "objective.hidden_l1.margin: missing" in refusal(folder, source, "objective.hidden_l1={}")


def test_what_is_recorded_of_a_plugin_has_a_schema(folder):
    """Prevents results that card and report could not show without the code."""
    (plugin,) = load_recipe(folder / "own.yaml").imported
    assert all(issubclass(term, LossTerm) for term in plugin.terms)
    assert OwnCode.model_validate(plugin.to_dict()).terms["hidden_l1"].class_name == "HiddenL1"


def test_the_log_names_code_before_it_runs(folder):
    """Prevents code of a stranger's recipe that runs unseen."""
    (folder / "my_terms.py").write_text("print('now it runs')\n" + EXAMPLE)
    code = f"from distil_nlp.recipe import load_recipe; load_recipe({str(folder / 'own.yaml')!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    named, ran = done.stdout.splitlines()
    assert re.fullmatch(r"code of your own is run: \S+my_terms\.py, sha256 [0-9a-f]{64}", named)
    assert ran == "now it runs"
