"""The figures of a page: the teacher's beside those of the model in it."""

from __future__ import annotations

from dataclasses import dataclass

from distil_nlp.reporting.export import exported_models, single_text_setting
from distil_nlp.reporting.formatting import decimal, milliseconds, percent, ratio, times
from distil_nlp.reporting.latency import EXPORT_LATENCY, latency_in
from distil_nlp.reporting.scores import headline_name
from distil_nlp.results import RunResults, get_nested


@dataclass(frozen=True)
class Figure:
    """A line of the table, as text.

    Attributes:
        name: what was measured.
        teacher: the teacher's figure; a dash where there is none.
        student: that of the model in the page.
        compared: the two in a word or two.
    """

    name: str
    teacher: str
    student: str
    compared: str


def page_figures(run: RunResults, model: str) -> list[Figure]:
    """Return score, size and latency of the teacher and of an exported model, as far as they are known.

    Args:
        run: of the student.
        model: `onnx` or `int8`.
    """
    models = {one["model"]: one for one in exported_models(run).values()}
    teacher, student = models.get("teacher"), models[model]
    scores = [get_nested(one, "metrics", run.metric) for one in (teacher, student)]
    sizes = [get_nested(one, "size_mb") for one in (teacher, student)]
    setting = single_text_setting(run)
    speeds = [latency_in(run, setting, name, EXPORT_LATENCY) for name in ("teacher", model)]
    kept = get_nested(student, "retention")
    lines = [
        _figure(headline_name(run), [decimal(one) for one in scores], f"{percent(kept)} kept" if kept else ""),
        _figure("Size, MB", [decimal(one) for one in sizes], _factor(sizes, "smaller", "larger")),
        _figure("ms for one text", [milliseconds(one) for one in speeds], _factor(speeds, "as fast")),
    ]
    return [line for line in lines if line.student]


def figures_note(run: RunResults, model: str) -> str:
    """Return what the figures were measured on."""
    split, rows = next(iter(run.splits.items()), (None, None))
    scored = f"Scored on {f'{rows:,} rows of ' if rows else ''}{split}." if split else ""
    file = (
        "The student in this page is its int8 copy." if model == "int8" else "The student in this page is in float32."
    )
    setting, device = single_text_setting(run), run.get(f"{EXPORT_LATENCY}.device")
    timed = f"Times: median of a forward on {device}, {setting}; not of this browser." if setting else ""
    return " ".join(filter(None, [scored, file, timed]))


def _figure(name: str, values: list[str], compared: str) -> Figure:
    teacher, student = values
    return Figure(name, teacher or "–", student, compared)


def _factor(values: list[float | None], below: str, above: str = "") -> str:
    """Return how many times the student's figure is below the teacher's; in another word, how many times above."""
    found = ratio(*values)
    if not found:
        return ""
    return f"{times(found)} {below}" if found >= 1 or not above else f"{times(1 / found)} {above}"
