"""The command line's parsers, help and messages."""

import contextlib
import gc
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distil_nlp
from distil_nlp import cli
from distil_nlp.cli.commands import COMMANDS
from distil_nlp.cli.guard import run_guarded
from distil_nlp.cli.quick_imports import quick_imports
from distil_nlp.errors import Preempted, UserError
from tests.helpers import ROOT

TOKEN = "hf_" + "a1B2" * 9


def python(*arguments, **environment):
    how = {"capture_output": True, "text": True, "cwd": ROOT, "env": os.environ | environment}
    return subprocess.run([sys.executable, *arguments], **how)


def raising(error):
    def run():
        raise error

    return run


def test_help_lists_the_commands(capsys):
    """Prevents a command that only somebody who reads the code knows."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {command.summary}" in printed for name, command in COMMANDS.items())
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "--help", "--version", "benchmark --help", "evaluate-glue --help", "launch --help",
        "export --help", "plan --help", "distil",
        "distill nowhere.yaml", "launch nowhere.yaml", "study nowhere.yaml", "distill pyproject.toml",
        "distill glue --data.path x", "recipes", "recipes show glue",
    ],
)  # fmt: skip
def test_what_needs_no_torch_imports_none(line):
    """Prevents seconds of imports before a mistyped path, option or command is told."""
    code = "import sys; from distil_nlp.cli import main\ntry: main({})\nfinally: print({} & sys.modules.keys())"
    heavy = {"torch", "transformers", "datasets", "pydantic", "huggingface_hub"}
    printed = python("-c", code.format(line.split(), heavy)).stdout
    assert printed.endswith("set()\n"), printed[-200:]


@pytest.mark.integration
def test_mistakes_in_a_recipe_are_told_before_the_pipeline_is_imported(tmp_path):
    """Prevents seconds of imports of what runs a recipe for one that has a mistake in it."""
    code = "import sys; from distil_nlp.cli import main\nprint(main(['distill', 'glue', 'teacher.nam=x']))\n"
    ended = python("-c", f"{code}print({{'datasets', 'evaluate', 'matplotlib'}} & sys.modules.keys())")
    assert "teacher.nam: unknown key; did you mean name?" in ended.stderr
    assert ended.stdout == "2\nset()\n"


def test_imports_are_quick_and_leave_the_collector_as_it_was(monkeypatch):
    """Prevents garbage that is never collected: in a process that has imported all, and where it was off before."""
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with quick_imports():
        assert not gc.isenabled()
        import json  # noqa: F401  # is imported already
    assert gc.isenabled()
    assert not frozen
    with quick_imports(), contextlib.redirect_stdout(None):
        import this  # noqa: F401
    assert frozen == [True]
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_every_script_has_its_function():
    """Prevents functions for `scripts/` that went away."""
    for name in ("distill", "evaluate_glue", "push_to_hub", "make_report", "benchmark", "study"):
        with pytest.raises(SystemExit, match=r"^0$"):
            getattr(cli, name)(["--help"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_usage(name, capsys):
    """Prevents usage lines of a program that is not installed."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: distil-nlp {name} [-h]")
    assert printed.endswith(f"\n\nexample: {COMMANDS[name].example}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distil"], "there is no command 'distil'; did you mean distill?"),
        (["evaluate_glue", "x"], "did you mean evaluate-glue?"),
        (["validate", "r.yaml"], "there is no command 'validate'; did you mean check?"),
        (["--dry-run"], "the following arguments are required: COMMAND\n"),
        (["qqq"], "there is no command 'qqq'; there are distill, check, plan, launch, "),
        (["--token", TOKEN], "'hf_…'"),
        (["distill"], "distil-nlp distill: error: the following arguments are required: recipe\n"),
        (["distill", "r.yaml", "--lr", "1"], "arguments: --lr 1; settings are given as section.key=value, such as"),
        (["distill", "r.yaml", "--data.path", "x"], "arguments: --data.path x; did you mean data.path=x?"),
        (["distill", "r.yaml", "--data.path=x"], "arguments: --data.path=x; did you mean data.path=x?"),
        (["study", "r.yaml", "--data.path"], "did you mean data.path=…?"),
        (["evaluate-glue", "m", "--tasks", "rte", "--data.path", "x"], "unrecognized arguments: --data.path x\n"),
        (["launch"], "the following arguments are required: recipe"),
        (["launch", "r.yaml", "--num_processes", "2"], "options of accelerate launch come before the recipe"),
        (["launch", "r.yaml", "--data.path=x"], "did you mean data.path=x?"),
        (["recipes", "copy"], "copy: expected a name / see `distil-nlp recipes`"),
        (["recipes", "show", "glue", "x.yaml"], "show: takes no destination"),
    ],
)
def test_wrong_arguments_exit_with_2(capsys, arguments, message):
    """Prevents a typing mistake that ends as a traceback, in success or without a hint."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert TOKEN not in printed


@pytest.mark.parametrize("options", [["--methods", "a,b"], ["--output", "o"]])
def test_options_may_stand_between_overrides(monkeypatch, tmp_path, options):
    """Prevents overrides after an option that argparse does not recognise."""
    parsed = []
    monkeypatch.setattr("distil_nlp.study.runner.run_study", lambda *args: parsed.append(args))
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("{}")
    for arguments in (["r.yaml", "a.b=1", *options, "c.d=2"], [*options, "r.yaml", "a.b=1", "c.d=2"]):
        assert cli.study(arguments) == 0
    assert [args[2] for args in parsed] == [["a.b=1", "c.d=2"]] * 2


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (UserError("a.b", "c", "d", fix="e"), 2, "error: a.b\n  expected  c\n  got       d\n  fix       e\n"),
        (UserError("r.yaml: 1 mistake\n  - a: b"), 2, "error: r.yaml: 1 mistake\n  - a: b\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command carries on from the last checkpoint\n"),
        (Preempted(f"told to stop / {TOKEN}"), 143, "told to stop / hf_…\n"),
    ],
)
def test_every_ending_has_its_message_and_exit_code(capsys, error, code, printed):
    """Prevents a job queue that takes a mistake for a preemption, or a mistake for success."""
    assert run_guarded(raising(error)) == code
    assert capsys.readouterr() == ("", printed)


@pytest.mark.parametrize("module", ["distil_nlp", pytest.param("distil_nlp.cli", marks=pytest.mark.integration)])
def test_the_package_runs_as_a_module(module):
    """Prevents `python -m` and `accelerate launch -m` that find nothing to run, or do nothing and exit with 0."""
    ended = python("-m", module, "--version")
    assert (ended.returncode, ended.stdout) == (0, f"distil-nlp {distil_nlp.__version__}\n")
    launched = python("-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "-m", module, "distill", "x")
    assert "expected  a recipe at x" in launched.stderr or "expected a recipe at x" in launched.stderr


@pytest.mark.skipif(not importlib.util.find_spec("argcomplete"), reason="an optional extra")
def test_a_shell_completes_commands_and_options(tmp_path):
    """Prevents completion that is promised and silent."""
    for line, words in (("distil-nlp ev", ["evaluate-glue"]), ("distil-nlp benchmark --si", ["--size"])):
        answer = tmp_path / "answer"
        variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        python("-m", "distil_nlp", **variables, _ARGCOMPLETE_STDOUT_FILENAME=str(answer))
        assert re.split(r"\s+", answer.read_text().strip()) == words
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "distil_nlp/cli/__init__.py").read_text()[:1024]
