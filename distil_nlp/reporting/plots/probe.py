"""The plot of the linear probe: its accuracy on the student over training, beside teacher and majority class."""

from __future__ import annotations

from matplotlib.ticker import EngFormatter

from distil_nlp.reporting.formatting import decimal
from distil_nlp.reporting.plots.curves import logged_curve
from distil_nlp.reporting.plots.style import MUTED, STUDENT_COLOUR, TEACHER_COLOUR, Picture, canvas, picture
from distil_nlp.reporting.scores import teacher_word
from distil_nlp.results import RunResults


def probe_figure(run: RunResults) -> Picture | None:
    """Return the accuracy over steps, with a line for the teacher and one for the majority class; None without any."""
    curve, task = logged_curve(run, "probe_accuracy"), run.get("training.probe.task")
    if not curve or task is None:
        return None
    figure = canvas(f"Linear probe on {task} over training", 230)
    axes = figure.subplots()
    lines = {
        teacher_word(run): (run.get("training.probe.teacher"), TEACHER_COLOUR),
        "majority class": (run.get("training.probe.majority"), MUTED),
    }
    axes.plot(*zip(*curve, strict=True), color=STUDENT_COLOUR, marker="o", markersize=3.5, label="student")
    known = {name: (value, colour) for name, (value, colour) in lines.items() if value is not None}
    for name, (value, colour) in known.items():
        axes.axhline(value, color=colour, linestyle=(0, (4, 3)), linewidth=1.2, label=name)
    axes.margins(y=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel("accuracy")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(loc="outside lower left", ncols=3, borderaxespad=0.2)
    beside = "".join(f"; {name} {decimal(value)}" for name, (value, _) in known.items())
    said = f"Accuracy of the probe: student from {decimal(curve[0][1])} to {decimal(curve[-1][1])}{beside}."
    rows, words = run.get("training.probe.train_rows"), "A logistic regression on frozen features of the last layer"
    note = f"{words}, learnt from {rows:,} rows and scored on {run.get('training.probe.scored_rows'):,} others."
    return picture(figure, "probe", said, note)
