"""Two processes, one place: a run is refused, what is shared is waited for, and what a dead process held is free."""

import errno
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml
from datasets import Dataset

from distil_nlp.cli import evaluate_glue, study
from distil_nlp.data.augmentation.word_replacement import WordReplacement, augment_with_replacements
from distil_nlp.errors import UserError
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.run_folder import claim, run_state
from distil_nlp.recipe import load_recipe
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.utils.locks import LOCK, claimed
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.helpers.training import trainer

pytestmark = pytest.mark.integration

HOLD = """
import os, sys, time
from contextlib import ExitStack
from pathlib import Path
from distil_nlp.utils.locks import claimed

with ExitStack() as places:
    for folder in sys.argv[1:]:
        places.enter_context(claimed(Path(folder)))
    if os.fork() == 0:  # as the workers of a loader, which live a little longer than a killed run
        time.sleep(5)
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(*folders):
    """Another process holds these folders to the end of the context, or until it is waited for."""
    command = [sys.executable, "-c", HOLD, *map(str, folders)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    release, waiting = Release(process), logging.getLogger("distil_nlp.utils.locks")
    waiting.addHandler(release)
    try:
        yield process
    finally:
        waiting.removeHandler(release)
        process.kill()
        process.wait()


class Release(logging.Handler):
    """Ends a process once another says that it waits."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def emit(self, record):
        if record.getMessage().startswith("waiting for"):
            self.process.kill()


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def a_run(place):
    return place.run("training.max_steps=1"), place.out


def a_study(place):
    plan = {"recipe": place.command()[0], "tasks": ["classification"], "seeds": 1, "always": {"hard_label": {}}}
    path = place.folder / "study.yaml"
    path.write_text(yaml.safe_dump({**plan, "methods": {"plain": {}}}))
    return study([str(path), "--output", str(place.folder / "study")]), place.folder / "study"


def a_glue_evaluation(place):
    command = [
        str(place.folder / "teacher"),
        "--mode",
        "finetune",
        "--tasks",
        "sst2",
        "--data",
        str(place.folder / "data"),
    ]
    return evaluate_glue([*command, "--output", str(place.folder / "glue")]), place.folder / "glue"


@pytest.mark.parametrize(("start", "name"), [(a_run, "run"), (a_study, "study"), (a_glue_evaluation, "glue")])
def test_a_place_at_work_is_refused_before_anything_is_done(place, capsys, start, name):
    """Prevents two runs whose files are mixed in one folder, so that one's results tell of the other's student."""
    with held(place.folder / name) as other:
        code, folder = start(place)
        assert code == 2
        said = one_line(capsys.readouterr().err)
        assert f"process {other.pid} on {os.uname().nodename} works in" in said
        assert f"remove {folder / LOCK}" in said
        assert {path.name for path in folder.iterdir()} == {LOCK}


def test_what_a_killed_process_held_is_free_at_once(place):
    """Prevents a run that must be freed by hand after a kill, or waits for the orphans of its loader."""
    with held(place.out) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with claimed(place.out):
            pass
    assert not place.out.exists(), "nothing was written"


def test_a_run_that_moved_the_old_one_away_still_holds_its_folder(tmp_path, place):
    """Prevents a second run in the place that `run.overwrite` has just cleared, be the old run moved or deleted."""
    recipe = load_recipe(place.command()[0], ["run.overwrite=true"])
    for file in ("results.json", "checkpoint-1"):
        with claimed(place.out):
            claim(place.out, recipe)
            (place.out / file).touch()
        with claimed(place.out):
            claim(place.out, recipe)
            assert not (place.out / file).exists()
            with pytest.raises(UserError, match="alone / got a folder that process"), claimed(place.out):
                pass
            assert run_state(place.out, recipe) == "new"
    assert (place.out.with_name("run.previous") / "results.json").exists()


def test_a_teacher_that_another_run_trains_is_waited_for(place, monkeypatch, capsys):
    """Prevents a sweep over a new teacher in which one run removes the checkpoints of the other."""

    def teacher_only(pipeline, is_new):
        pipeline.teachers.load(pipeline.plan.recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "run", teacher_only)
    assert place.run("teacher.finetune={max_steps: 1}") == 130
    (folder,) = (place.folder / "teachers").iterdir()
    with held(folder) as other:
        assert place.run("teacher.finetune={max_steps: 1}") == 130
    said = capsys.readouterr().out
    assert f"waiting for the fine-tuned teacher in {folder}, which process {other.pid} on" in said
    assert said.index("fine-tuned now") < said.index("waiting for") < said.index("fine-tuned by an earlier run")


def test_a_cache_that_another_run_fills_is_waited_for(tmp_path, capsys):
    """Prevents a teacher that runs over the same rows in two processes."""
    models = tiny.mlm_model(2, seed=1), tiny.mlm_model(4)
    terms, cache = [SoftTargetKL()], CacheConfig(tmp_path / "caches")
    trainer(tmp_path, *models, terms, cache=cache, max_steps=1).train()
    (folder,) = (tmp_path / "caches").iterdir()
    with held(folder) as other:
        trainer(tmp_path, *models, terms, cache=cache, max_steps=1).train()
    said = capsys.readouterr().out
    assert f"waiting for the teacher's outputs in {folder}, which process {other.pid} on" in said


def test_replaced_rows_are_waited_for(tmp_path, capsys):
    """Prevents two processes that write the same file of rows."""
    tokenizer = tiny.tokenizer()
    encoded = [tokenizer(text) for text in tiny.SENTENCES]
    rows = Dataset.from_list(
        [
            {**one, "word_ids": [-1 if n is None else n for n in one.word_ids()], "labels": 0, "length": 9}
            for one in encoded
        ]
    )
    made = augment_with_replacements(rows, WordReplacement(folder=tmp_path), tiny.mlm_model(2), tokenizer)
    (folder,) = tmp_path.iterdir()
    capsys.readouterr()
    with held(folder):
        again = augment_with_replacements(rows, WordReplacement(folder=tmp_path), tiny.mlm_model(2), tokenizer)
    assert f"waiting for the rows with replaced words in {folder}, which process" in capsys.readouterr().out
    assert again["input_ids"] == made["input_ids"]


@pytest.mark.parametrize(
    ("number", "shared", "said"),
    [(errno.EROFS, True, ""), (errno.ENOLCK, False, "cannot be locked (No locks available): start nothing else")],
    ids=["read only", "no locks"],
)
def test_what_cannot_be_locked_can_still_be_used(tmp_path, monkeypatch, capsys, number, shared, said):
    """Prevents shared teachers that only their owner can read, and file systems on which nothing can be started."""

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("distil_nlp.utils.locks.FileLock.acquire", refuse)
    with claimed(tmp_path, wait_for="a teacher" if shared else None):
        pass
    assert said in capsys.readouterr().out
