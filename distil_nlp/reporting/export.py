"""The exported student in tables and sentences: what it keeps of the score, how fast and how large it is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from distil_nlp.reporting.formatting import decimal, milliseconds, percent, times
from distil_nlp.reporting.latency import (
    EXPORT_LATENCY,
    Setting,
    busy_note,
    format_percentiles,
    latencies_by_setting,
    latency_note,
    speed_up,
)
from distil_nlp.reporting.markdown import terminal_table, terminal_width
from distil_nlp.reporting.scores import headline_name, teacher_word
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults, get_nested

EXPORTED_NAMES = {"onnx": "ONNX", "int8": "ONNX, int8"}
"""Model in the block `export` → its name in tables and plots."""
_LIKENESS = {
    "agreement": "predictions as the student’s",
    "pearson": "Pearson correlation with the student",
    "cosine": "cosine to the student’s vectors",
    "kendall_tau": "Kendall’s τ with the student’s order",
}
"""Measure of `fidelity` → heading; a kind of task has one of them first."""
_ADVICE = (
    ("int8", "static", "calibrates the ranges of activations on training rows"),
    ("int8_layers", "feed_forward", "leaves attention in float32"),
)
"""Settings of `export` for an int8 copy that lost too much: key, value, and what it does."""


def exported_models(run: RunResults) -> dict[str, dict[str, Any]]:
    """Return the models of the block `export` by their names; {} where the student was not exported."""
    names = {"teacher": teacher_word(run), "student": "student", **EXPORTED_NAMES}
    found = run.get("export.models") or {}
    return {name: found[model] | {"model": model} for model, name in names.items() if model in found}


def is_publishable(run: RunResults, model: str) -> bool:
    """Return whether an exported model may be uploaded: the int8 copy only if it passed its gate."""
    return run.get(f"export.models.{model}") is not None and (model != "int8" or run.get("export.gate.passed") is True)


def export_table(run: RunResults) -> Table | None:
    """Return score, likeness, retention, size and latency of teacher, student, ONNX model and int8 copy."""
    models = exported_models(run)
    if not models:
        return None
    measure, setting = _measure(models), single_text_setting(run)
    timed = f"ms, batch {setting.batch_size}" if setting else ""
    head = ["", headline_name(run), _LIKENESS.get(measure or "", ""), "retention", "MB", timed, "speed-up"]
    rows = [
        (
            name,
            decimal(get_nested(one, "metrics", run.metric)),
            _likeness(run, one, measure),
            percent(one.get("retention")),
            decimal(one.get("size_mb")),
            _milliseconds(run, setting, one["model"]),
            _speed_up(run, setting, one["model"]),
        )
        for name, one in models.items()
    ]
    return make_table("Scores of the exported student", head, rows, _note(run, setting))


def export_latency_table(run: RunResults) -> Table | None:
    """Return the percentiles of all models' latencies and their speed-ups, setting by setting."""
    settings = latencies_by_setting(run, EXPORT_LATENCY)
    names = {one["model"]: name for name, one in exported_models(run).items()}
    faster = [model for model in names if model != "teacher"]
    head = ["", *(f"{name}, ms" for name in names.values()), *(f"speed-up, {names[model]}" for model in faster)]
    rows = [
        (
            str(setting),
            *(format_percentiles(latencies.get(model)) for model in names),
            *(times(speed_up(run, setting, model, EXPORT_LATENCY)) for model in faster),
        )
        for setting, latencies in settings.items()
    ]
    return make_table("Latency of the exported student", head, rows, latency_note(run, EXPORT_LATENCY))


def export_sentences(run: RunResults) -> list[str]:
    """Return how the exported student was made, and what its gate says; [] where it was not exported."""
    block = run.get("export")
    if not block:
        return []
    gate = [_gate_sentence(run)] if block.get("gate") else []
    return [one for one in (_how_made(block), *gate, busy_note(run, EXPORT_LATENCY)) if one]


def gate_failure(run: RunResults) -> str:
    """Return why the int8 copy is not published, and what to try; "" where it is, or there is none."""
    gate = run.get("export.gate")
    if not gate or gate.get("passed"):
        return ""
    kept = gate.get("kept")
    found = "its score cannot be compared" if kept is None else f"it keeps {percent(kept)} of the ONNX model’s score"
    settings = run.get("export.settings") or {}
    options = [f"export.{key}={value} ({what})" for key, value, what in _ADVICE if settings.get(key) != value]
    options.append(f"export.gate=… below {decimal(gate['threshold'])} to publish it all the same")
    return f"The int8 copy is not published: {found}, less than {percent(gate['threshold'])}. Try {'; '.join(options)}."


def export_summary(run: RunResults) -> str:
    """Return the tables and sentences of an export for a terminal, folded to its width."""
    table: Any = export_table(run)
    rows = terminal_table([table.head, *table.rows])
    sentences = [table.note, *export_sentences(run)]
    return "\n".join(["", run.task, rows, *(textwrap.fill(one, terminal_width()) for one in sentences if one), ""])


def _measure(models: Mapping[str, dict[str, Any]]) -> str | None:
    """Return the measure of likeness that this kind of task has."""
    known = [measure for one in models.values() for measure in one.get("fidelity") or {}]
    return next((measure for measure in _LIKENESS if measure in known), None)


def _likeness(run: RunResults, model: dict[str, Any], measure: str | None) -> str:
    """Return how alike a model's predictions are to the student's; the teacher's from the run."""
    if measure is None or model["model"] == "student":
        return ""
    value = run.get(f"fidelity.{measure}") if model["model"] == "teacher" else get_nested(model, "fidelity", measure)
    return percent(value) if measure == "agreement" else decimal(value)


def single_text_setting(run: RunResults) -> Setting | None:
    """Return the setting of a single text and a single thread: threads that others keep waiting tell little."""
    settings = latencies_by_setting(run, EXPORT_LATENCY)
    return min(settings, key=lambda one: (one.batch_size, one.tokens is not None, one.threads or 0), default=None)


def _milliseconds(run: RunResults, setting: Setting | None, model: str) -> str:
    found = latencies_by_setting(run, EXPORT_LATENCY).get(setting) if setting else None
    values = (get_nested(found, model, name) for name in ("p50", "p90"))
    return " / ".join(milliseconds(value) for value in values if value is not None)


def _speed_up(run: RunResults, setting: Setting | None, model: str) -> str:
    return "" if model == "teacher" else times(speed_up(run, setting, model, EXPORT_LATENCY))


def _note(run: RunResults, setting: Setting | None) -> str:
    against = f"Retention and speed-up: against the {teacher_word(run)}."
    if setting is None:
        return against
    return f"{against} ms: p50 / p90 of a forward on the CPU, {setting}."


def _how_made(block: Mapping[str, Any]) -> str:
    int8 = block.get("int8")
    difference = f"its outputs differ from the student’s by {block['difference']:.1g} of the largest at most"
    made = f"The ONNX model was traced by {block['exporter']}; {difference}."
    if not int8:
        return made
    ranges = "ranges of activations taken in each forward"
    if int8["method"] == "static":
        ranges = f"ranges of activations calibrated on {int8['calibration_rows']} training rows"
    layers = "" if int8["layers"] == "all" else ", feed-forward layers and embeddings alone"
    bits = ", weights of 7 bits (no VNNI)" if int8["reduce_range"] else ""
    return f"{made} The int8 copy: weights per channel, {ranges}{layers}{bits}."


def _gate_sentence(run: RunResults) -> str:
    gate = run.get("export.gate")
    if failure := gate_failure(run):
        return failure
    return f"The int8 copy keeps {percent(gate['kept'])} of the ONNX model’s {headline_name(run)}, and is published."
