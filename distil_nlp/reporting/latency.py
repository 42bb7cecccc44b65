"""Latencies of a run by setting: batch size, lengths of the inputs and threads; the setting of the headline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from distil_nlp.reporting.formatting import count, decimal, milliseconds, plural, ratio, times
from distil_nlp.reporting.scores import teacher_word
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults, get_nested

RUN_LATENCY, EXPORT_LATENCY = "efficiency", "export.efficiency"
"""Places in `results.json` with latencies: of the run's models, and of the exported student beside them."""
BUSY = 1.5
"""95th percentile ÷ median of the same inputs above which the machine is called busy."""


class Setting(NamedTuple):
    """A setting whose latencies can be compared between models, and between runs.

    Attributes:
        batch_size: rows of a forward.
        tokens: of each row, none of them padding; None for rows of the data's own lengths.
        threads: of the CPU; None on a GPU, or where it is not known.
    """

    batch_size: int
    tokens: int | None
    threads: int | None

    def __str__(self) -> str:
        """Return `batch 32, real lengths, 2 threads`."""
        lengths = "real lengths" if self.tokens is None else plural(self.tokens, "token")
        threads = [] if self.threads is None else [plural(self.threads, "thread")]
        return ", ".join([f"batch {self.batch_size}", lengths, *threads])

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """The order of tables: real lengths, all threads and small batches first."""
        return self.tokens is not None, -(self.threads or 0), self.batch_size, self.tokens or 0


Latencies = Mapping[str, Mapping[str, Any]]
"""Model → its latency in a setting, as `results.json` has it."""


def latencies_by_setting(run: RunResults, block: str = RUN_LATENCY) -> dict[Setting, Latencies]:
    """Return all settings in which the student was timed, with the latencies of all models."""
    found: dict[Setting, Latencies] = {}
    for entry in run.get(f"{block}.latency") or ():
        models = {name: latency for name, latency in (entry.get("models") or {}).items() if get_nested(latency, "p50")}
        size, tokens = entry.get("batch_size"), entry.get("tokens")
        fixed = entry.get("lengths") == "max_length"
        if "student" in models and size and (tokens or not fixed):
            found[Setting(size, round(tokens) if fixed else None, entry.get("threads"))] = models
    return dict(sorted(found.items(), key=lambda item: item[0].rank))


def headline_setting(*runs: RunResults) -> Setting | None:
    """Return the setting that headlines are of: the largest batch of real lengths with all threads.

    Of several runs, one in which the students of all runs with latencies were timed; None without such a setting.
    """
    timed = [set(settings) for run in runs if (settings := latencies_by_setting(run))]
    common = set.intersection(*timed) if timed else set()
    return min(common, key=lambda setting: (*setting.rank[:2], -setting.batch_size), default=None)


def latency_in(run: RunResults, setting: Setting | None, model: str, block: str = RUN_LATENCY) -> float | None:
    """Return a model's median latency in a setting, in ms."""
    return None if setting is None else get_nested(latencies_by_setting(run, block).get(setting), model, "p50")


def speed_up(
    run: RunResults, setting: Setting | None, model: str = "student", block: str = RUN_LATENCY
) -> float | None:
    """Return the teacher's median latency ÷ a model's."""
    return ratio(latency_in(run, setting, "teacher", block), latency_in(run, setting, model, block))


def timed_model_name(run: RunResults, role: str) -> str:
    """Return the name under which a model of the latencies is shown, by its key there."""
    exit_from, _, layers = role.partition("_")
    if exit_from == "exit":
        return f"exit after {plural(int(layers), 'layer')}"
    return {"teacher": teacher_word(run), "onnx": "ONNX model", "int8": "int8 model"}.get(role, role)


def latency_table(run: RunResults) -> Table | None:
    """Return the percentiles of each model's latencies and its rows per second, setting by setting."""
    settings = latencies_by_setting(run)
    models = list(dict.fromkeys(name for latencies in settings.values() for name in latencies))
    others = [name for name in models if name != "teacher"]
    words = {name: timed_model_name(run, name) for name in models}
    head = ["", *(f"{name}, ms" for name in words.values()), *(f"{name}, rows/s" for name in words.values()),
            *(f"speed-up, {words[name]}" if len(others) > 1 else "speed-up" for name in others)]  # fmt: skip
    rows = [
        (
            str(setting),
            *(format_percentiles(latencies.get(name)) for name in models),
            *(_rate(get_nested(latencies.get(name), "rows_per_second")) for name in models),
            *(times(speed_up(run, setting, name)) for name in others),
        )
        for setting, latencies in settings.items()
    ]
    return make_table("Latency", head, rows, latency_note(run))


def latency_note(run: RunResults, block: str = RUN_LATENCY) -> str:
    """Return what the figures of a table of latencies mean, and how they were measured."""
    return " ".join(filter(None, [_reading(run, block), _conditions(run, block)]))


def format_percentiles(latency: Mapping[str, Any] | None) -> str:
    """Format p50 / p90 / p99, or what there is of them."""
    values = (get_nested(latency, name) for name in ("p50", "p90", "p99"))
    return " / ".join(milliseconds(value) for value in values if value is not None)


def _rate(rows_per_second: float | None) -> str:
    """Format rows per second: 0.4, 23.1, 267."""
    return decimal(rows_per_second, 1) if (rows_per_second or 0) < 100 else count(rows_per_second)


def _reading(run: RunResults, block: str) -> str:
    """Return what the figures of the table mean."""
    entries = run.get(f"{block}.latency") or ()
    tokens = next((entry.get("tokens") for entry in reversed(entries) if entry.get("lengths") == "data"), None)
    mean = f" ({count(tokens)} tokens on average)" if tokens else ""
    real = f" Real lengths: rows of the evaluation split{mean}, padded to the longest of their batch."
    has_real = any(setting.tokens is None for setting in latencies_by_setting(run, block))
    has_tail = any(get_nested(entry, "models", "student", "p90") for entry in entries)
    figures = "p50 / p90 / p99" if has_tail else "Median"
    return f"{figures} of a forward of a whole batch.{real if has_real else ''} Speed-up: of the medians."


def _conditions(run: RunResults, block: str) -> str:
    """Return the conditions of the measurement, as sentences."""
    conditions = run.get(block) or {}
    forwards = [
        latency["forwards"]
        for latencies in latencies_by_setting(run, block).values()
        for latency in latencies.values()
        if latency.get("forwards")
    ]
    span = f"{plural(max(forwards), 'forward')} of each model" if forwards else ""
    if forwards and min(forwards) < max(forwards):
        span = f"{min(forwards)} to {span}"
    parts = filter(None, [conditions.get("device"), conditions.get("dtype"), span])
    left_out = conditions.get("left_out")
    late = f" {plural(left_out, 'setting')} left out: the time was over." if left_out else ""
    text = ", ".join(parts)
    return f"Measured on {text}.{late}" if text else ""


def latency_sentences(run: RunResults) -> list[str]:
    """Return that nothing was measured, or that the machine was busy; [] where neither is so."""
    if not latencies_by_setting(run):
        if latencies_by_setting(run, EXPORT_LATENCY):
            return []
        off = run.get("recipe.evaluation.efficiency") == "off"
        return [f"Latency{', operations and memory were' if off else ' was'} not measured"
                f"{' (evaluation.efficiency: off)' if off else ''}."]  # fmt: skip
    return [note] if (note := busy_note(run)) else []


def busy_note(run: RunResults, block: str = RUN_LATENCY) -> str:
    """Return a note where the slowest forwards took far longer than others on the same inputs."""
    jitters = [
        (jitter, f"the {timed_model_name(run, name)} at {setting}")
        for setting, latencies in latencies_by_setting(run, block).items()
        for name, latency in latencies.items()
        if (jitter := latency.get("jitter"))
    ]
    worst, where = max(jitters, default=(0.0, ""))
    if worst <= BUSY:
        return ""
    share = f"{sum(jitter > BUSY for jitter, _ in jitters)} of {plural(len(jitters), 'measurement')}"
    return (
        f"The machine was busy: the 95th percentile is over {BUSY} × the median of the same inputs in {share} "
        f"({times(worst)} for {where})."
    )
