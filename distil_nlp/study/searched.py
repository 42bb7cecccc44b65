"""What a study's page says of a search: what was found, its best trials, and a picture of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distil_nlp.reporting.formatting import decimal, duration, plural
from distil_nlp.reporting.plots.style import Picture
from distil_nlp.reporting.plots.trials import TrialAxis, TrialMark, trials_plot
from distil_nlp.reporting.report.pages import ReportSection
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.study.axes import Axis
from distil_nlp.study.search import best_trial

_MOST_LINES = 10
_WORDS = {"complete": "", "pruned": "ended early", "fail": "failed"}

_Search = Mapping[str, Any]


def search_sections(
    searches: Sequence[_Search], task: str, axes: Mapping[str, Axis], logs: set[str]
) -> list[ReportSection]:
    """Return a section for each search of a task.

    Args:
        searches: as `search.json` has them.
        task: whose sections are wanted.
        axes: key → its axis.
        logs: keys whose factors count.
    """
    return [
        ReportSection(
            f"{task}: search of {one['method']}",
            _sentences(one, axes),
            [_table(one, axes)],
            [_picture(one, axes, logs)],
        )
        for one in searches
        if one["task"] == task and one["best"] is not None
    ]


def _sentences(search: _Search, axes: Mapping[str, Axis]) -> list[str]:
    trials, best = search["trials"], best_trial(search)
    states = [trial["state"] for trial in trials]
    early, failed = states.count("pruned"), states.count("fail")
    spent = duration(sum(trial["seconds"] or 0 for trial in trials))
    also = [f"{early} ended early"] * bool(early) + [f"{failed} failed"] * bool(failed)
    found = ", ".join(f"{axes[key].title} {value}" for key, value in best["point"].items())
    return [
        f"{plural(len(trials), 'trial')}{''.join(f', {text}' for text in also)}, {spent} together. Best: {found}.",
        f"Its {search['metric']} of {decimal(best['value'])} is the best of many on the rows held back from training, "
        "so it flatters: how good these values are is said above, of other seeds and rows that nothing was chosen by.",
    ]


def _table(search: _Search, axes: Mapping[str, Axis]) -> Table | None:
    ranked = sorted(
        (trial for trial in search["trials"] if trial["value"] is not None),
        key=lambda trial: (trial["state"] != "complete", _rank(search, trial)),
    )
    names = [*axes]
    lines = [
        (
            str(trial["number"]),
            *(_shown(trial["point"].get(name)) for name in names),
            decimal(trial["value"]),
            _WORDS[trial["state"]],
            duration(trial["seconds"]),
        )
        for trial in ranked[:_MOST_LINES]
    ]
    head = ("trial", *(axes[name].title for name in names), search["metric"], "", "time")
    note = (
        f"The best {len(lines)} of {len(search['trials'])}; all are in search.json." if len(ranked) > len(lines) else ""
    )
    return make_table("Trials", head, lines, note)


def _picture(search: _Search, axes: Mapping[str, Axis], logs: set[str]) -> Picture | None:
    marks = {
        trial["number"]: TrialMark(
            [trial["point"].get(name) for name in axes], trial["value"], trial["state"] == "complete"
        )
        for trial in search["trials"]
        if trial["value"] is not None
    }
    shown = [
        TrialAxis(axis.title, name in logs, [str(value) for value in axis.values] or None)
        for name, axis in axes.items()
    ]
    title = f"Trials of {search['method']} on {search['task']}"
    name = f"search-{search['task']}-{search['method']}"
    return trials_plot(name, title, shown, list(marks.values()), marks[search["best"]], search["metric"])


def _rank(search: _Search, trial: Mapping[str, Any]) -> float:
    return trial["value"] if search["direction"] == "minimize" else -trial["value"]


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
