"""Machines that run out of memory or disk, and the messages for their users."""

import ctypes
import errno
import json
import os
import re
import resource
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from distil_nlp.cli import distill
from distil_nlp.errors import UserError
from distil_nlp.training.checkpoints import last_complete_checkpoint, mark_as_complete, warn_about_changed_processes
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.failures import writable_disk
from tests.helpers import ROOT
from tests.helpers.gradients import distance
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.training.test_exactness import Case, expected, run


def out_of_memory(monkeypatch, above: int) -> list[int]:
    """Batches of more rows than `above` do not fit; what was tried."""
    compute_loss, tried = DistillationTrainer.compute_loss, []

    def short(self, model, inputs, *args, **kwargs):
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", short)
    return tried


@pytest.mark.integration
def test_no_memory_names_the_batch_size_to_try(tmp_path, monkeypatch, capsys):
    """Prevents a traceback through autograd for a batch that is too large."""
    out_of_memory(monkeypatch, above=0)
    place = Place(tmp_path).prepare()
    assert place.run("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=3") == 2
    said = capsys.readouterr().err
    assert "per_device_train_batch_size=2 and training.gradient_accumulation_steps=6" in said
    assert place.run("training.per_device_train_batch_size=1") == 2
    assert "training.gradient_checkpointing=true" in capsys.readouterr().err
    assert place.run("training.per_device_train_batch_size=1", "teacher.finetune.per_device_train_batch_size=4") == 2
    assert "set teacher.finetune.per_device_train_batch_size=2" in capsys.readouterr().err


@pytest.mark.integration
def test_other_errors_are_not_taken_for_want_of_memory(tmp_path, monkeypatch):
    """Prevents a message that sends a user the wrong way."""
    monkeypatch.setattr(DistillationTrainer, "compute_loss", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Place(tmp_path).prepare().run()


@pytest.mark.integration
def test_auto_find_batch_size_finds_one_and_stays_exact(tmp_path, monkeypatch):
    """Prevents gradients divided by the rows of a batch size that was given up."""
    tried = out_of_memory(monkeypatch, above=3)
    case = Case(lengths=(4, 9, 2, 20, 7, 11, 5, 13), batch=8, accumulation=1)
    made, steps = run(case, tmp_path, auto_find_batch_size=True)
    assert tried[0] == 8
    assert made._train_batch_size <= 3
    for number, (found, batches) in enumerate(zip(steps.gradients, steps.batches[-3:], strict=True)):
        assert distance(found, expected(case, number, batches)) < 1e-5


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x/a.pt"), r"runs/x/a\.pt: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "the disk is read-only"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "to the end"),
    ],
)  # fmt: skip
def test_a_disk_that_takes_nothing_is_named(raised, said):
    """Prevents a traceback of whichever library wrote first."""
    with pytest.raises(UserError, match=said), writable_disk():
        raise raised


def test_other_errors_are_not_taken_for_the_disk():
    """Prevents a bug that is blamed on the user's disk."""
    with pytest.raises(RuntimeError, match="shapes"), writable_disk():
        raise RuntimeError("shapes do not match")


@pytest.mark.integration
@pytest.mark.parametrize("kilobytes", [40, 120])
def test_files_that_may_not_grow_end_the_run_in_words_and_lose_nothing(tmp_path, capsys, kilobytes):
    """Prevents a truncated checkpoint or student that the next start takes for whole. The limit on the size of files
    stands for a full disk: the same calls of the same libraries fail, in the middle of a file."""
    whole, short = Place(tmp_path / "whole").prepare(), Place(tmp_path / "short").prepare()
    assert whole.run() == 0

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * kilobytes, 1000 * kilobytes))

    command = [sys.executable, "scripts/distill.py", *short.command()]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, preexec_fn=limit)
    assert ended.returncode == 2, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr
    assert "may not be that large" in ended.stderr or "to the end" in ended.stderr
    assert distill(short.command()) == 0
    one, two = (load_file(place.out / "student" / "model.safetensors") for place in (whole, short))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def without_privilege():
    """Before a program is started: file permissions hold for it even where this is root, whose capabilities to pass
    them over (1, CAP_DAC_OVERRIDE, and 2, CAP_DAC_READ_SEARCH) are dropped by PR_CAPBSET_DROP (24)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.integration
@pytest.mark.parametrize("locked", ["output", "checkpoint"])
def test_a_folder_that_may_not_be_written_or_read_is_named(tmp_path, locked):
    """Prevents a traceback on a shared disk, and a checkpoint that its reader has no right to and that ends the run."""
    place = Place(tmp_path).prepare()
    if locked == "output":
        place.out = tmp_path / "locked" / "run"
        place.out.parent.mkdir(mode=0o555)
    else:
        assert place.run("training.max_steps=4") == 0
        for name in ("results.json", "training.json", "student/model.safetensors"):
            (place.out / name).unlink()
        (place.out / "checkpoint-4" / "model.safetensors").chmod(0)
    command = [sys.executable, "scripts/distill.py", *place.command("training.max_steps=4")]
    how = {"capture_output": True, "text": True, "preexec_fn": without_privilege}
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, **how)
    assert "Traceback" not in ended.stderr
    if locked == "output":
        assert ended.returncode == 2
        assert f"got {place.out}: access is not allowed" in one_line(ended.stderr)
    else:
        assert ended.returncode == 0
        assert "checkpoint-4: model.safetensors cannot be read (Permission denied); passed over" in ended.stdout
        assert "training the student, from checkpoint-2 on" in ended.stdout


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, capsys):
    """Prevents a flipped bit that is learnt on from, and a fallback that nobody hears of."""
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.zeros(8)}, folder / "model.safetensors")
        mark_as_complete(folder)
        mark_as_complete(folder)  # a step that is saved twice
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-4"
    weights = tmp_path / "checkpoint-4" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-2"
    assert "checkpoint-4: model.safetensors is damaged; passed over" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("processes", "rows", "said"),
    [
        (1, 8, ""),
        (2, 8, "by 2 processes, this run has 1: each step takes the rows it would have taken"),
        (2, 16, r"a step takes 8 rows, it took 16.* on 2 processes all would be as if nobody had stopped"),
    ],
)
def test_a_checkpoint_of_other_processes_says_what_changes(tmp_path, capsys, processes, rows, said):
    """Prevents a schedule that is silently cut in half by a second GPU."""
    (tmp_path / "spent.json").write_text(json.dumps({"processes": processes, "rows_per_step": rows}))
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=2, use_cpu=True)
    warn_about_changed_processes(tmp_path, args)
    printed = capsys.readouterr().out
    assert re.search(said, printed)
    assert bool(printed) == bool(said)
