"""The table at the end of a run."""

import textwrap
from pathlib import Path
from typing import Any

from distil_nlp.reporting.formatting import decimal, large, milliseconds, percent
from distil_nlp.reporting.joint import exits_table, members_tables
from distil_nlp.reporting.latency import headline_setting, latency_in, latency_sentences
from distil_nlp.reporting.markdown import drop_empty, terminal_table, terminal_width
from distil_nlp.reporting.scores import headline_name, retention_of, scored_models
from distil_nlp.reporting.tables import answers_note, format_gain, format_median, format_range
from distil_nlp.results import RunResults, drop_non_finite


def summary_table(results: dict[str, Any]) -> str:
    """Return teacher, student and baselines as a table for a terminal, with its notes, folded to its width.

    Columns are the headline metric (median and range of several seeds), retention, the student's gain over each line,
    size and speed.
    """
    run = RunResults("", Path(), drop_non_finite(results))
    setting = headline_setting(run)
    head = ["", headline_name(run), "range (seeds)", "perplexity", "retention", "student’s gain, points", "parameters",
            "encoder", "MB", f"ms, batch {setting.batch_size}" if setting else ""]  # fmt: skip
    rows = [
        (
            row.label,
            format_median(row.score(run.metric)) or "–",
            format_range(row.score(run.metric)),
            format_median(row.score("perplexity")),
            percent(retention_of(run, row)),
            format_gain(row.gain),
            large(run.get(f"{row.role}.parameters")),
            large(run.get(f"{row.role}.encoder_parameters")),
            decimal(run.get(f"{row.role}.size_mb")),
            milliseconds(latency_in(run, setting, row.role)),
        )
        for row in scored_models(run)
    ]
    notes = [note for note in (answers_note(run), f"ms: median latency, {setting}." if setting else "") if note]
    table = terminal_table(drop_empty([head, *rows]))
    together = [found for found in (exits_table(run), *members_tables(run)) if found]
    further = ["\n".join(["", found.caption, terminal_table([found.head, *found.rows])]) for found in together]
    folded = [textwrap.fill(note, terminal_width()) for note in (*notes, *latency_sentences(run))]
    return "\n".join(["", run.task, table, *further, *folded, ""])
