"""What the README tells a stranger to type works."""

import re
import subprocess
import sys

import pytest
from transformers import DataCollatorForLanguageModeling

from distil_nlp.cli.commands import COMMANDS
from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe.shipped import recipe_file
from tests.helpers import ROOT, tiny

README = (ROOT / "README.md").read_text()


def blocks(language: str = "") -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [block for name, block in fences if name == language]


def test_the_notebook_example_runs(tmp_path, monkeypatch):
    """Prevents an example that no longer matches the code."""
    monkeypatch.chdir(tmp_path)
    tokenizer = tiny.tokenizer()
    (own_loop,) = [block for block in blocks("python") if "DistillationTrainer(" in block]
    example = own_loop.replace("max_steps=100", "max_steps=2, use_cpu=True")
    own = {
        "teacher": tiny.mlm_model(6),
        "rows": [tokenizer(text) for text in tiny.SENTENCES * 4],
        "collator": DataCollatorForLanguageModeling(tokenizer),
    }
    exec(compile(example, "README.md", "exec"), own)
    assert (tmp_path / "runs" / "mine" / "student" / "model.safetensors").is_file()


def test_the_recipe_shown_is_a_recipe(tmp_path):
    """Prevents a recipe in the README with keys that are refused."""
    from distil_nlp.recipe import load_recipe

    path = tmp_path / "shown.yaml"
    path.write_text(blocks("yaml")[0])
    shown, shipped = load_recipe(path), load_recipe(ROOT / "recipes" / "glue.yaml")
    assert shown.objective == shipped.objective
    assert shown.teacher == shipped.teacher


def test_it_counts_the_terms():
    """Prevents a number that was right once."""
    assert f"| {len(TERMS)} terms on outputs" in README


def test_commands_name_files_and_targets_that_exist():
    """Prevents a README that points at what was renamed."""
    commands = [line.split("#")[0].strip() for block in blocks() for line in block.splitlines()]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    found = 0
    for command in commands:
        if command.startswith("make "):
            assert command.split()[1] in targets
            found += 1
        if command.startswith("distil-nlp ") and not command.endswith("--help"):
            name, *rest = command.split()[1:]
            assert name in COMMANDS
            if name in ("distill", "check", "launch", "study") and "evaluate-glue" not in rest:
                assert recipe_file(rest[0], "study" if name == "study" else "").is_file(), command
            found += 1
        for path in re.findall(r"\b(?:scripts|recipes)/[\w./]+", command):
            assert (ROOT / path).is_file(), path
            found += 1
    assert found >= 20
    for path in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("script", ["distill", "evaluate_glue", "make_report", "push_to_hub", "benchmark"])
def test_scripts_explain_themselves(script):
    """Prevents a script that fails before it can say how to use it."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / f"{script}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage" in done.stdout


def test_a_users_mistake_exits_with_2():
    """Prevents a traceback, and exit code 0 or 1, from the script itself."""
    command = [sys.executable, ROOT / "scripts" / "distill.py", "recipes/glu.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "did you mean recipes/glue.yaml?" in done.stderr
    assert "Traceback" not in done.stderr
