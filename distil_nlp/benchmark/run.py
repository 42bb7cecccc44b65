"""Measures the parts one after the other, and writes after each what is known so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distil_nlp.benchmark import report as show
from distil_nlp.benchmark.suites import PARTS, BenchmarkSettings
from distil_nlp.benchmark.term_costs import MEASURED
from distil_nlp.errors import UserError
from distil_nlp.utils.environment import environment
from distil_nlp.utils.logging import is_main_process


def run_benchmark(settings: BenchmarkSettings, folder: Path, say: Callable[[str], None]) -> Path:
    """Returns the path of `benchmark.json`, beside which lie tables and plots.

    Raises:
        UserError: if a part lacks its data, or there is no such term.
    """
    _check(settings)
    told = {**asdict(settings), "model": settings.model and Path(settings.model).name, "glue": None}
    if settings.threads:
        torch.set_num_threads(settings.threads)
    found: dict[str, Any] = {"settings": told, "environment": environment(0, torch.device(settings.device), 1)}
    for part in settings.parts:
        say(f"measuring {part}")
        found[part] = PARTS[part](settings, say)
        table = show.write_benchmark(found, folder) if is_main_process() else ""
    say(f"\n{table}")
    return folder / "benchmark.json"


def _check(settings: BenchmarkSettings) -> None:
    lacking = [] if settings.model and settings.glue else [one for one in ("task", "terms") if one in settings.parts]
    if lacking:
        raise UserError(
            f"--model, --glue: expected a model with its tokenizer and GLUE's data for the part {lacking[0]} / got "
            f"{settings.model} and {settings.glue} / lengths of real sentences are what it is about / name both, or "
            "leave the part out"
        )
    unknown = [name for name in settings.terms or () if name not in MEASURED]
    if unknown:
        raise UserError(
            f"--terms: expected some of {', '.join(MEASURED)} / got {', '.join(unknown)} / soft_target_kl is in every "
            "step, what each term costs is counted from it / choose from the list"
        )
