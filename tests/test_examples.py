"""Examples run as a newcomer would run them, and leave a student that plain transformers loads."""

import ast
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tests.helpers import ROOT, tiny

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def teacher(tmp_path):
    """The folder of a teacher with 4 layers, and its tokenizer."""
    folder = tmp_path / "teacher"
    tiny.mlm_model(4).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def run_example(name, folder, *arguments):
    """Run an example in `folder`, offline and on the CPU, and return its output."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_loads(folder, teacher):
    """Half the teacher's layers, finite logits, and weights that training moved away from the teacher's."""
    student, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert student.config.num_hidden_layers == 2
    logits = student(**tokenizer(tiny.SENTENCES[0], return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    before = AutoModelForMaskedLM.from_pretrained(teacher).get_input_embeddings().weight
    assert not torch.equal(student.get_input_embeddings().weight, before)


def test_distil_with_trainer(tmp_path, teacher):
    """Prevents a first script that no longer matches the code."""
    (tmp_path / "texts.txt").write_text("\n".join(tiny.SENTENCES * 4) + "\n\n", encoding="utf-8")
    arguments = (teacher, "mine", "--texts", "texts.txt", "--max-steps", 3)
    assert "parameters" in run_example("distil_with_trainer.py", tmp_path, *arguments)
    assert_loads(tmp_path / "mine" / "student", teacher)


def test_own_loss(tmp_path, teacher):
    """Prevents a class to derive from that asks for more than the example says, and a term that is not logged."""
    assert "hidden_l1" in run_example("own_loss.py", tmp_path, teacher, "own")
    assert_loads(tmp_path / "own" / "student", teacher)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_need_public_names_alone(path):
    """Prevents an example that works in a checkout only, or that teaches imports from inside the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "transformers"} or module == "distil_nlp"
