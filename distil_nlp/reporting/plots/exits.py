"""The plot of a student's exits: score over latency."""

from __future__ import annotations

from distil_nlp.reporting.joint import ladder_of_exits
from distil_nlp.reporting.latency import headline_setting, latency_in
from distil_nlp.reporting.plots.scores import ModelMark, latency_plot, majority_line
from distil_nlp.reporting.plots.style import SERIES, STUDENT_COLOUR, TEACHER_COLOUR, Picture
from distil_nlp.reporting.scores import headline_name
from distil_nlp.results import RunResults


def exits_figure(run: RunResults) -> Picture | None:
    """Return the headline metric over latency for each exit, the student and the teacher."""
    setting = headline_setting(run)
    if not run.get("exits") or setting is None:
        return None
    colours = {"teacher": TEACHER_COLOUR, "student": STUDENT_COLOUR}
    marks = []
    for model in (step.model for step in ladder_of_exits(run)):
        time, score = latency_in(run, setting, model.role), model.score(run.metric)
        if time and score:
            colour, shape = colours.get(model.role, SERIES[2]), "o" if model.role in colours else "D"
            marks.append(ModelMark(model.label, time, score, colour, shape))
    if len(marks) < 2:
        return None
    return latency_plot(
        marks, setting, headline_name(run), majority_line(run), "exits", "Exits: quality against latency"
    )
