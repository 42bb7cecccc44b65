"""Every command and snippet of the documentation parses, and those of the guides run on tiny models."""

import ast
import re

import jsonschema
import pytest
from transformers import DataCollatorWithPadding, TrainingArguments

import distil_nlp
from distil_nlp import cli
from distil_nlp.cli.commands import COMMANDS
from distil_nlp.pipeline import findings
from distil_nlp.recipe import Recipe, any_recipe_from, load_any_recipe, read_yaml, recipe_from
from distil_nlp.recipe.json_schema import recipe_schema
from distil_nlp.recipe.shipped import recipe_file, shipped_names
from distil_nlp.recipe.yaml_file import parse_yaml
from distil_nlp.study.plan import StudyPlan
from tests.helpers import ROOT, tiny
from tests.helpers.snippets import prepare_readers_folder, run_results, snippets

ALL = snippets()
SHELL = [snippet for snippet in ALL if snippet.is_shell]
PYTHON = [snippet for snippet in ALL if snippet.language == "python"]
YAML = [snippet for snippet in ALL if snippet.language == "yaml"]
TO_RUN = {snippet.page for snippet in ALL if snippet.note == "run"}
IN_README = "README.md"
"""Its blocks are looked at, and run, by tests/test_readme.py too."""
OTHER_LANGUAGES = {"text", "json", "js", "layers", "{toctree}", "{eval-rst}", "{include}"}
SHORT = (
    "training.max_steps=2", "training.use_cpu=true", "training.disable_tqdm=true", "data.max_length=32",
    "evaluation.efficiency=off", "run.accept_weak_teacher=true",
)  # fmt: skip
EDITOR = jsonschema.Draft202012Validator(recipe_schema())
STAND_IN = {"teacher": {"name": "x"}, "data": {"path": "x", "task": "classification"}, "objective": {"hard_label": {}}}
READERS_RECIPES = {"RECIPE", "my-recipe.yaml", "my.yaml", "my-study.yaml", "tickets.yaml"}
"""Recipes that commands name and that are the reader's own."""


def ids(snippet):
    return str(snippet)


def test_every_block_is_known():
    """Prevents a language whose blocks nobody looks at, and a page that the collection misses."""
    for snippet in ALL:
        assert snippet.is_shell or snippet.language in {"", "python", "yaml"} | OTHER_LANGUAGES, snippet
        if not snippet.language and not snippet.is_shell:
            assert not re.search(r"^distil-nlp ", snippet.code, re.M), f"{snippet}: tag it as sh"
    assert len(SHELL) > 30
    assert len(PYTHON) >= 15
    assert len(YAML) >= 10
    fences = sum(len(re.findall(r"^ *```\S*$", (ROOT / page).read_text(), re.M)) for page in {one.page for one in ALL})
    assert fences == 2 * len(ALL)


def test_what_is_not_run_says_why():
    """Prevents a snippet that nobody has run and that does not say so."""
    for snippet in PYTHON:
        if snippet.page == IN_README:
            continue
        assert re.match(r"run\b|not run: \w+", snippet.note), f"{snippet}: run it, or say why not"
        if by := re.match(r"run by (\w+)::(\w+)$", snippet.note):
            assert f"def {by[2]}(" in (ROOT / "tests" / f"{by[1]}.py").read_text(), snippet
    for snippet in [*SHELL, *YAML]:
        assert re.match(r"(run|a study|not run: \w.+|)$", snippet.note), snippet


@pytest.mark.parametrize("snippet", SHELL, ids=ids)
def test_commands_parse(snippet):
    """Prevents a command with an argument that is refused, or a setting that no recipe has."""
    for command in snippet.commands:
        program, *arguments = (word if word != "$RANK" else "0" for word in command)
        assert program in PROGRAMS, f"{snippet}: {program}"
        PROGRAMS[program](arguments)


def parse_command(arguments):
    """Parse the arguments of `distil-nlp`, and the settings of the recipe that they name."""
    name, *rest = arguments
    if name in ("--help", "--version", "COMMAND") or rest in (["--help"], ["-h"]):
        assert name in {*COMMANDS, "--help", "--version", "COMMAND"}
        return
    assert name in COMMANDS, name
    if name == "launch":
        return parse_launch(rest)
    command, parser = COMMANDS[name], cli._parsers()[1][name]
    options = command.parse(parser, rest)
    command.validate(options)
    check_settings(options, name)


def check_settings(options, name):
    if "overrides" not in options or (name == "tree" and not options.overrides):
        return
    if name == "export":  # whose settings are of the section `export` of a run's recipe
        recipe_from(STAND_IN, options.overrides)
        return
    recipe = getattr(options, {"study": "study", "tree": "source"}.get(name, "recipe"))
    file = recipe_file(recipe, "study" if name == "study" else "")
    if not file.is_file():
        assert recipe in READERS_RECIPES, recipe
    if name == "study" or not file.is_file() or "methods" in read_yaml(file):
        recipe_from(STAND_IN, options.overrides)
    else:
        load_any_recipe(file, options.overrides)


def parse_launch(arguments):
    """Parse what `accelerate launch` gets: its options, then a recipe or a command."""
    from accelerate.commands.launch import launch_command_parser

    options = launch_command_parser().parse_args(arguments)
    if options.config_file is not None:
        known = options.config_file in shipped_names("accelerate") or (ROOT / options.config_file).is_file()
        assert known, options.config_file
    script, rest = options.training_script, options.training_script_args
    if options.module:
        assert script == "distil_nlp"
        parse_command(rest)
    elif script.endswith(".py"):
        parse_script([script, *rest])
    else:
        parse_command([script, *rest] if script in COMMANDS else ["distill", script, *rest])


def parse_script(arguments):
    """Parse what Python runs: a file of the repository, or a module."""
    if arguments[0] == "-m":
        module, *rest = arguments[1:]
        if module in ("distil_nlp", "distil_nlp.cli"):
            parse_command(rest)
        else:
            assert module in ("pytest", "pip") or (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
        return
    script, *rest = arguments
    assert (ROOT / script).is_file(), script
    name = script.removeprefix("scripts/").removesuffix(".py").replace("_", "-")
    if name in COMMANDS:
        parse_command([name, *rest])


def parse_make(arguments):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert arguments[0] in targets, arguments


def parse_torchrun(arguments):
    position = next(i for i, word in enumerate(arguments) if word == "-m" or word.endswith(".py"))
    parse_script(arguments[position:])


def parse_accelerate(arguments):
    assert arguments[0] == "launch"
    parse_launch(arguments[1:])


def parse_jupytext(arguments):
    assert (ROOT / arguments[-1]).is_file()


PROGRAMS = {
    "distil-nlp": parse_command,
    "make": parse_make,
    "python": parse_script,
    ".venv/bin/python": parse_script,
    "accelerate": parse_accelerate,
    "torchrun": parse_torchrun,
    "jupytext": parse_jupytext,
    "pip": lambda arguments: None,  # installs
    "hf": lambda arguments: None,  # huggingface_hub's own
    "tail": lambda arguments: None,
}
"""Program → what looks at its arguments, and raises for those that it would refuse."""


@pytest.mark.parametrize("snippet", PYTHON, ids=ids)
def test_python_compiles_and_imports_what_there_is(snippet):
    """Prevents an example with a slip, or with a name that was moved."""
    from importlib import import_module

    for node in ast.walk(ast.parse(snippet.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distil_nlp"):
            module = import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), snippet


@pytest.mark.parametrize("snippet", YAML, ids=ids)
def test_yaml_is_a_recipe_or_a_part_of_one(snippet, monkeypatch):
    """Prevents a key in an example that is refused, and an editor that marks one that is not."""
    settings = parse_yaml(snippet.code)
    if snippet.note == "a study":
        StudyPlan.model_validate(settings)
        return
    monkeypatch.chdir(ROOT / "examples")  # with the file that `plugins` names
    assert settings.keys() <= Recipe.model_fields.keys(), f"{snippet}: say why it is no recipe"
    if isinstance(settings.get("data"), list):  # several tasks, which `teacher` and the like are for
        any_recipe_from(STAND_IN | settings)
        EDITOR.validate(STAND_IN | settings)
        return
    sections = {*STAND_IN, *settings} - {"plugins"}
    whole = {name: {**STAND_IN.get(name, {}), **settings.get(name, {})} for name in sections}
    if "self" in whole["teacher"]:
        whole["objective"] = settings.get("objective", {})
    whole |= {"plugins": settings["plugins"]} if "plugins" in settings else {}
    recipe_from(whole)
    EDITOR.validate(whole)


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    prepare_readers_folder(folder)
    return folder


def names_of_the_text():
    """What the text around a snippet takes for granted: the package, a teacher, rows, a collator, arguments."""
    tokenizer = tiny.tokenizer()
    return {
        "distil_nlp": distil_nlp,
        "teacher": tiny.classifier(4),
        "rows": [{**tokenizer(text), "labels": i % 2} for i, text in enumerate(tiny.SENTENCES * 2)],
        "collator": DataCollatorWithPadding(tokenizer),
        "args": TrainingArguments("runs/trainer", max_steps=1, use_cpu=True, report_to="none"),
    }


@pytest.mark.integration
@pytest.mark.parametrize("page", sorted(TO_RUN))
def test_the_guide_runs(page, readers_folder, monkeypatch, capfd):
    """Prevents a guide whose reader is stopped at a command; in order, on tiny models and for two steps."""
    monkeypatch.chdir(readers_folder)
    nothing = {"teacher": {}, "student": {}, "efficiency": {}}
    monkeypatch.setattr(findings, "measure_efficiency", lambda *args, **kwargs: nothing)  # a minute of latencies
    run_results(readers_folder / "runs" / "example-42")
    names = names_of_the_text()
    for snippet in ALL:
        if snippet.page != page or snippet.note != "run":
            continue
        if snippet.language == "python":
            exec(compile(snippet.code, str(snippet), "exec"), names)
            continue
        for _, name, *arguments in snippet.commands:
            more = SHORT if name in ("distill", "check") else ()
            assert cli.main([name, *arguments, *more]) == 0, f"{snippet}: {capfd.readouterr().err}"


def test_the_skills_script_reads_a_run(tmp_path, monkeypatch, capsys):
    """Prevents a script for coding assistants that no longer matches the package."""
    run_results(tmp_path / "run")
    script = ROOT / "skills" / "distil-encoder" / "scripts" / "read_results.py"
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path / "run")])
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert re.search(r"^  student +0\.\d{3}$", printed, re.M)
    assert re.search(r"^(stop|caution|note|good): ", printed, re.M)
