"""The command line's parsers, help and messages."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

import distil_nlp
from distil_nlp import cli
from distil_nlp.cli.commands import COMMANDS
from distil_nlp.cli.guard import run_guarded
from distil_nlp.errors import UserError
from distil_nlp.training.preemption import Preempted
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


def test_help_and_version_take_no_seconds():
    """Prevents an import of torch before the arguments are known to be right."""
    code = "import sys; from distil_nlp.cli import main\ntry: main({})\nfinally: print('torch' in sys.modules)"
    for arguments in (["--help"], ["--version"], ["benchmark", "--help"], ["evaluate-glue", "--help"]):
        printed = python("-c", code.format(arguments)).stdout
        assert printed.endswith("False\n"), arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_usage(name, capsys):
    """Prevents usage lines of a program that is not installed, and functions for `scripts/` that went away."""
    for call in (lambda: cli.main([name, "--help"]), lambda: getattr(cli, name.replace("-", "_"))(["--help"])):
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"usage: distil-nlp {name} [-h]")
        assert printed.endswith(f"\n\nexample: {COMMANDS[name].example}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distil"], "there is no command 'distil'; did you mean distill?"),
        (["evaluate_glue", "x"], "did you mean evaluate-glue?"),
        (["qqq"], "invalid choice: 'qqq' (choose from"),
        (["--token", TOKEN], "'hf_…'"),
        (["distill"], "distil-nlp distill: error: the following arguments are required: recipe\n"),
        (["distill", "r.yaml", "--bogus"], "distil-nlp distill: error: unrecognized arguments: --bogus"),
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
def test_options_may_stand_between_overrides(monkeypatch, options):
    """Prevents overrides after an option that argparse does not recognise."""
    parsed = []
    monkeypatch.setattr("distil_nlp.study.runner.run_study", lambda *args: parsed.append(args))
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
