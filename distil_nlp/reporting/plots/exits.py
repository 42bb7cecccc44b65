"""The plot of a student's exits: score over latency."""

from __future__ import annotations

from distil_nlp.reporting.joint import ladder_of_exits
from distil_nlp.reporting.latency import headline_setting, latency_in
from distil_nlp.reporting.plots.scores import ModelMark, latency_plot, majority_line
from distil_nlp.reporting.plots.style import SERIES, STUDENT_COLOUR, TEACHER_COLOUR, Picture
from distil_nlp.reporting.scores import SeedScores, headline_name, headline_score
from distil_nlp.results import RunResults, get_nested


def exits_figure(run: RunResults) -> Picture | None:
    """Return the headline metric over latency for each exit, the student and the teacher."""
    setting = headline_setting(run)
    if not run.get("exits") or setting is None:
        return None
    colours = {"teacher": TEACHER_COLOUR, "student": STUDENT_COLOUR}
    marks = []
    for role, label, _, part in ladder_of_exits(run):
        time, value = latency_in(run, setting, role), get_nested(part, "metrics", run.metric)
        score = headline_score(run, role) if role in colours else value is not None and SeedScores(value, (value,))
        if time and score:
            marks.append(ModelMark(label, time, score, colours.get(role, SERIES[2]), "o" if role in colours else "D"))
    if len(marks) < 2:
        return None
    return latency_plot(
        marks, setting, headline_name(run), majority_line(run), "exits", "Exits: quality against latency"
    )
