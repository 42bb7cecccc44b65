"""The table at the end of a run."""

from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import large, milliseconds, percent, plain
from distil_nlp.reporting.markdown import aligned, filled
from distil_nlp.reporting.scores import headline_name, retention_of, scored
from distil_nlp.reporting.tables import gain, median, seeds
from distil_nlp.results import Run, finite


def summary_table(results: dict[str, Any]) -> str:
    """Teacher, student and baselines side by side: headline metric (median and range of several seeds), retention,
    what the student gains over each, size and speed."""
    run = Run("", Path(), finite(results))
    batch = max((run("student.latency_ms") or {}), key=int, default="")
    head = ["", headline_name(run), "range (seeds)", "perplexity", "retention", "student’s gain, points", "parameters",
            "encoder", "MB", f"ms, batch {batch}"]  # fmt: skip
    rows = [
        (
            row.label,
            median(row.score(run.metric)) or "–",
            seeds(row.score(run.metric)),
            median(row.score("perplexity")),
            percent(retention_of(run, row)),
            gain(row.gain),
            large(run(f"{row.role}.parameters")),
            large(run(f"{row.role}.encoder_parameters")),
            plain(run(f"{row.role}.size_mb")),
            milliseconds(run(f"{row.role}.latency_ms.{batch}.median")),
        )
        for row in scored(run)
    ]
    return f"\n{run.task}\n{aligned(filled([head, *rows]))}\n"
