"""What the figures say, in sentences."""

from __future__ import annotations

from typing import Any

from distil_nlp.report.read import Run, pick
from distil_nlp.report.scores import MAJORITY, NO_DISTILLATION, headline_score, metric_name, retention
from distil_nlp.report.units import count, percent, plain, plural, points, ratio, times

SMALL_SPEED_UP = 1.05
"""Below this, a speed-up is called none."""


def subject(run: Run) -> str:
    """Teacher, task and what was scored, in one line."""
    teacher = run.get("teacher", "name") or run.get("recipe", "teacher", "name")
    student = run.get("student", "name") or run.get("recipe", "student", "name")
    parts = [f"teacher {teacher}" if teacher else "", f"student from {student}" if student else "", f"task {run.task}"]
    splits = [f"{split} ({plural(rows, 'row')})" for split, rows in run.evaluation_rows.items()]
    return " · ".join([*filter(None, parts), *([f"scored on {', '.join(splits)}"] if splits else [])])


def lead(run: Run) -> str:
    """What the student keeps, at what size and speed."""
    size, speed = _size(run), _speed(run)
    kept = _kept(run) or ("A student" if size else "No scores were recorded")
    return ", ".join(filter(None, [f"{kept} {size}".rstrip(), speed])) + "."


def _kept(run: Run) -> str:
    student, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    metric = metric_name(run.metric, run.kind)
    seeds = f" (median of {len(student.values)} seeds)" if student and len(student.values) > 1 else ""
    kept = retention(run)
    if kept is not None:
        return f"{'Keeps' if kept < 1 else 'Reaches'} {percent(kept)} of the teacher’s {metric}{seeds}"
    if student is None:
        return ""
    against = f" against the teacher’s {plain(teacher.median)}" if teacher else ""
    return f"Reaches {metric} {plain(student.median)}{seeds}{against}"


def _size(run: Run) -> str:
    whole, encoder = (
        ratio(run.get("student", key), run.get("teacher", key)) for key in ("parameters", "encoder_parameters")
    )
    if whole is None:
        return ""
    text = f"with {percent(whole, 0)} of the parameters"
    return text if encoder is None else f"{text} ({percent(encoder, 0)} of the encoder’s)"


def _speed(run: Run) -> str:
    batch, value = speed_up(run)
    if value is None:
        return ""
    told = "no faster"
    if value >= SMALL_SPEED_UP:
        told = f"{times(value)} as fast"
    elif value <= 1 / SMALL_SPEED_UP:
        told = f"{times(1 / value)} as slow"
    return f"{told} at batch {batch}"


def speed_up(run: Run) -> tuple[str, float | None]:
    """(batch, teacher's latency ÷ student's), at the largest batch measured."""
    found = {batch: value for batch, value in (run.get("efficiency", "speed_up") or {}).items() if value}
    batch = max(found, key=int, default="")
    return batch, found.get(batch)


def worth(run: Run) -> str:
    """Whether distillation paid, against the same student trained on labels alone."""
    gain = run.get("baselines", NO_DISTILLATION, "gain")
    if pick(gain, "mean") is None:
        lacking = "gain over a student trained on labels alone was measured"
        if not run.get("baselines", NO_DISTILLATION):
            lacking = "student was trained on labels alone"
        return f"Whether distillation was worth it is not known: no {lacking}."
    verb = "adds" if gain["mean"] >= 0 else "costs"
    told = f"Distillation {verb} {points(abs(gain['mean']))} points of {metric_name(run.metric, run.kind)}"
    rows, labelled = run.get("rows", "train"), run.get("rows", "labelled")
    few = f" ({labelled:,} of {rows:,} rows have one)" if rows and labelled and labelled < rows else ""
    return f"{told} over the same student trained on labels alone{few}{_interval(gain)}"


def _interval(gain: dict[str, Any]) -> str:
    inside = is_noise(gain)
    if inside is None:
        return "."
    over = [plural(gain[what], what.rstrip("s")) for what in ("rows", "seeds") if gain.get(what)]
    ends = (gain["low"], gain["high"]) if gain["mean"] >= 0 else (-gain["high"], -gain["low"])  # of what it costs
    low, high = map(points, ends)
    text = f" ({percent(gain.get('level', 0.95), 0)} interval {low} to {high}, paired bootstrap"
    text += f" over {' and '.join(over)})" if over else ")"
    noise = "the noise of the rows (one seed: that of seeds is unknown)" if gain.get("seeds") == 1 else "the noise"
    return f"{text}: within {noise}, the interval includes 0." if inside else f"{text}: outside {noise}."


def is_noise(gain: dict[str, Any] | None) -> bool | None:
    """Whether a gain's interval includes 0; None without an interval."""
    low, high = pick(gain, "low"), pick(gain, "high")
    return None if low is None or high is None else low <= 0 <= high


def floor(run: Run) -> str:
    """How much of the retention a guess would have as well."""
    score, teacher = headline_score(run, MAJORITY), headline_score(run, "teacher")
    above = run.get("retention_above_majority")
    if score is None or teacher is None or above is None or min(score.median, teacher.median) <= 0:
        return ""
    name = {"mlm": "Guessing by token frequency", "regression": "Always giving the mean"}
    guess = name.get(run.kind, "Giving one class to all")
    text = f"{guess} has {percent(score.median / teacher.median)} of the teacher’s {metric_name(run.metric, run.kind)}"
    if above <= 0:
        return f"{text}; the student does not get above that."
    return f"{text}; of what the teacher has above that, the student keeps {percent(above)}."


def fidelity(run: Run) -> list[str]:
    """How alike teacher and student are; one sentence per thing looked at."""
    return [sentence for sentence in (_predictions(run), _outputs(run), _calibration(run), _layers(run)) if sentence]


def _predictions(run: Run) -> str:
    agreement, kl = run.get("fidelity", "agreement"), run.get("fidelity", "kl")
    tokens, rows = run.get("fidelity", "tokens"), run.get("fidelity", "rows")
    looked_at = f"{count(tokens)} masked tokens" if tokens else plural(rows, "row") if rows else "the rows"
    thing = "token" if run.kind == "mlm" else "class"
    said = f"Teacher and student predict the same {thing} for {percent(agreement)} of {looked_at}"
    distance = f"the teacher’s distribution is {plain(kl)} nats from the student’s on average"
    if agreement is None:
        return "" if kl is None else f"{distance[0].upper()}{distance[1:]}."
    return f"{said}." if kl is None else f"{said}; {distance}."


def _outputs(run: Run) -> str:
    pearson, distance = run.get("fidelity", "pearson"), run.get("fidelity", "mean_absolute_difference")
    parts = [
        f"correlate at {plain(pearson)}" if pearson is not None else "",
        f"differ by {plain(distance)} on average" if distance is not None else "",
    ]
    told = " and ".join(filter(None, parts))
    return f"The outputs of teacher and student {told}." if told else ""


def _calibration(run: Run) -> str:
    teacher, student = (run.get("fidelity", "ece", who) for who in ("teacher", "student"))
    if teacher is None or student is None:
        return ""
    return f"Confidence is off by {percent(student)} on average for the student, by {percent(teacher)} for the teacher."


def last_layer_cka(run: Run) -> float | None:
    """CKA of the last hidden states of both."""
    values = run.get("fidelity", "cka", "values")
    return values[-1][-1] if values and values[-1] else None


def _layers(run: Run) -> str:
    value = last_layer_cka(run)
    if value is None:
        return ""
    return f"The last layers’ hidden states have a CKA of {plain(value, 2)}."
