"""DistilBERT's GLUE protocol (arXiv:1910.01108, table 1): fine-tune on each task and seed, report the median."""

from __future__ import annotations

import gc
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from distil_nlp.data import TaskCollator, TaskData, load_splits, load_task
from distil_nlp.evaluation.glue.encoder import Encoder
from distil_nlp.evaluation.glue.finetuning import MODEL_FOLDER, finetune
from distil_nlp.evaluation.glue.output_folder import GLUE_RESULTS, SCORES, STARTED_FROM_MNLI, Folder, default_folder
from distil_nlp.evaluation.glue.processes import processes
from distil_nlp.evaluation.glue.settings import SEEDS, FinetuningSettings
from distil_nlp.evaluation.glue.submission import FILES, TestSplit, assemble, prediction_lines, test_splits
from distil_nlp.evaluation.glue.summary import SCORE, summary_text, with_score
from distil_nlp.evaluation.metrics import score
from distil_nlp.evaluation.predict import predict
from distil_nlp.models import check_words, load_tokenizer, max_positions
from distil_nlp.tasks import GLUE
from distil_nlp.utils.environment import environment
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger, is_main_process

logger = get_logger(__name__)


def finetune_on_glue(
    model: str,
    tasks: list[str],
    data: str,
    settings: FinetuningSettings,
    seeds: list[int] = SEEDS,
    submission: bool = False,
    output: Path | None = None,
) -> Path:
    """Fine-tune a model on each task with each seed, and score it on labelled splits; return the path of `glue.json`.

    The folder holds `glue.json`, `glue.md` (the same as a table), `<task>/seed-<seed>/scores.json`, with `submission`
    the predictions on test splits, and with `settings.from_mnli` the models fine-tuned on MNLI. Further commands with
    the same model, data and settings may add tasks and seeds. Finished fine-tunings are not repeated, and the summary
    covers all of them.

    `glue.json`: `model` {name, encoder_sha256}, `data`, `mode`, `settings`, `environment` of the last command, `rows`
    {task: {split: count}}, `tasks` {task: {metric: {seeds, values, median, minimum, maximum}}}, where the metric
    `score` is the mean of a task's metrics as on the leaderboard, and `averages` {name: mean over tasks of the median
    score}. All metrics are fractions.

    Args:
        model: folder or name on the Hub.
        tasks: GLUE tasks.
        data: path or name of the GLUE dataset.
        settings: of each fine-tuning.
        seeds: of the fine-tunings of each task.
        submission: write predictions on the test splits too.
        output: folder; see `default_folder` if None.

    Raises:
        UserError: if the folder belongs to another evaluation, the data lack a task, or MNLI is needed and missing.
    """
    state, encoder = processes(), Encoder.load(model)
    header = {
        "schema_version": 1,
        "mode": "finetune",
        "model": {"name": model, "encoder_sha256": encoder.sha256},
        "data": data,
        "settings": asdict(settings),
    }
    folder = Folder(output or default_folder(model), header, settings)
    tokenizer = load_tokenizer(model)
    check_words(tokenizer, encoder.config, model)
    run = GlueRun(model, data, folder, submission, encoder, tokenizer)
    folder.check()
    with claimed(folder.path):
        state.wait_for_everyone()  # until the main process holds the folder
        folder.check()
        return _evaluate(run, tasks, seeds, environment(0, state.device, state.num_processes))


def _evaluate(run: GlueRun, tasks: list[str], seeds: list[int], environment_now: dict[str, Any]) -> Path:
    """Fine-tune what is not done yet, in a folder that is held; return the path of `glue.json`."""
    folder, submission, state = run.folder, run.submission, PartialState()
    logger.info(
        f"fine-tuning {run.model} on {', '.join(tasks)}; seeds {', '.join(map(str, seeds))}; kept in {folder.path}"
    )
    plan = folder.plan(tasks, seeds, submission)
    for record in folder.records():
        if record["task"] in tasks and record["seed"] in seeds:
            repeats = record["seed"] in plan.get(record["task"], ())
            logger.info(_line(record, "done before" + "; again, for its predictions or model" * repeats))
    loaded = {task: run.load(task) for task in plan}  # before any training, so that missing data raise now
    environment_now = {key: value for key, value in environment_now.items() if key != "seed"}
    state.wait_for_everyone()  # all have read the records
    if is_main_process():
        folder.summarise(environment_now)
    for task, seeds_left in plan.items():
        for seed in seeds_left:
            run.train_and_score(task, seed, *loaded[task])
            if is_main_process():
                folder.summarise(environment_now)
    if is_main_process():
        logger.info(summary_text(json.loads((folder.path / GLUE_RESULTS).read_text())))
        if submission:
            logger.info("\n".join([*assemble(folder.path, folder.records()), ""]))
    return folder.path / GLUE_RESULTS


@dataclass
class GlueRun:
    """A GLUE evaluation: loads rows, fine-tunes, scores.

    Attributes:
        model: folder or name on the Hub.
        data: path or name of the GLUE dataset.
        folder: for results.
        submission: whether test splits are predicted.
        encoder: the model's.
        tokenizer: the model's.
    """

    model: str
    data: str
    folder: Folder
    submission: bool
    encoder: Encoder
    tokenizer: PreTrainedTokenizerBase

    def load(self, task: str) -> tuple[TaskData, dict[str, TestSplit] | None]:
        """Return a task's rows and, for a submission, the test splits that the data has."""
        settings = self.folder.settings
        length = min(settings.max_length, max_positions(self.model))
        with PartialState().main_process_first():
            splits = load_splits(self.data, task)
            limits: dict[str, Any] = {"max_length": length, "max_train_rows": settings.max_train_rows}
            rows = load_task(splits, self.tokenizer, GLUE[task], **limits)
            if not self.submission:
                return rows, None
            tests = test_splits(self.data, splits, GLUE[task], self.tokenizer, length)
        missing = [file for file in FILES[task].values() if file not in tests]
        if missing:
            logger.info(f"{task}: the data has no test split for {', '.join(missing)}")
        return rows, tests

    def train_and_score(self, task: str, seed: int, data: TaskData, tests: dict[str, TestSplit] | None) -> None:
        """Fine-tune, score, predict and write; `scores.json` is written last and marks the rest as complete."""
        start, settings, folder = time.monotonic(), self.folder.settings, self.folder.of(task, seed)
        encoder = self.encoder
        if settings.from_mnli and task in STARTED_FROM_MNLI:
            encoder = Encoder.load(str(self.folder.of("mnli", seed) / MODEL_FOLDER))
        model = finetune(encoder, data, self.tokenizer, settings, seed, folder)
        collator, splits = TaskCollator(self.tokenizer, data.kind), data.split.evaluation
        options = {"collator": collator, "device": PartialState().device, "bf16": settings.bf16}
        metrics = with_score(score(model, data.task, data.kind, splits, **options))
        rows = {file: test.rows for file, test in (tests or {}).items()}
        outputs = predict(model, data.kind, rows, **options)
        record = {
            "task": task,
            "seed": seed,
            "metrics": metrics,
            "rows": {"train": len(data.split.train)} | {name: len(rows) for name, rows in splits.items()},
            "seconds": round(time.monotonic() - start, 1),
            "predictions": None if tests is None else [*tests],
        }
        if is_main_process():
            tests = tests or {}
            for file, output in outputs.items():
                lines = prediction_lines(GLUE[task], output.predictions, tests[file].index)
                write_atomically(folder / file, "\n".join(lines) + "\n")
            if not (settings.from_mnli and task == "mnli"):
                shutil.rmtree(folder / MODEL_FOLDER)
            write_atomically(folder / SCORES, json.dumps(record, indent=2) + "\n")
            for checkpoint in folder.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        logger.info(_line(record, f"{record['seconds']:.0f} s"))
        del model
        gc.collect()  # a trainer and its callbacks hold each other, and with them the GPU's memory


def _line(record: dict[str, Any], remark: str) -> str:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in record["metrics"].items() if name != SCORE)
    return f"{record['task']}  seed {record['seed']}  {metrics}  ({remark})"
