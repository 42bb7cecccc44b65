"""Measurement of the chosen parts in order, with the results written after each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distil_nlp.benchmark import report
from distil_nlp.benchmark.suites import PARTS, BenchmarkSettings, Log
from distil_nlp.benchmark.term_costs import MEASURED
from distil_nlp.errors import UserError
from distil_nlp.utils.environment import environment
from distil_nlp.utils.logging import is_main_process


def run_benchmark(settings: BenchmarkSettings, folder: Path, log: Log) -> Path:
    """Measure the parts, and return the path of `benchmark.json`, which has tables and plots beside it.

    Raises:
        UserError: if a part lacks its data, or there is no such term.
    """
    _check(settings)
    recorded = {**asdict(settings), "model": settings.model and Path(settings.model).name, "glue": None}
    if settings.threads:
        torch.set_num_threads(settings.threads)
    results: dict[str, Any] = {"settings": recorded, "environment": environment(0, torch.device(settings.device), 1)}
    for part in settings.parts:
        log(f"measuring {part}")
        results[part] = PARTS[part](settings, log)
        tables = report.write_benchmark(results, folder) if is_main_process() else ""
    log(f"\n{tables}")
    return folder / "benchmark.json"


def _check(settings: BenchmarkSettings) -> None:
    has_data = settings.model and settings.glue
    lacking = [] if has_data else [part for part in ("task", "terms") if part in settings.parts]
    if lacking:
        raise UserError(
            "--model, --glue",
            f"a model with its tokenizer and GLUE's data for the part {lacking[0]}",
            f"{settings.model} and {settings.glue}",
            why="the part measures batches of real sentences",
            fix="name both, or leave the part out",
        )
    unknown = [name for name in settings.terms or () if name not in MEASURED]
    if unknown:
        raise UserError(
            "--terms",
            f"some of {', '.join(MEASURED)}",
            ", ".join(unknown),
            why="soft_target_kl is in every step, as the baseline of the other terms' costs",
            fix="choose from the list",
        )
