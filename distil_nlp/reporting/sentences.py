"""What the figures say, in sentences."""

from __future__ import annotations

from typing import Any

from distil_nlp.reporting.formatting import (
    count,
    decimal,
    percent,
    plural,
    points,
    ratio,
    times,
)
from distil_nlp.reporting.scores import (
    LABELS_ONLY,
    MAJORITY,
    headline_name,
    headline_score,
    is_within_noise,
    majority_name,
)
from distil_nlp.results import RunResults, get_nested

SMALL_SPEED_UP = 1.05
"""Below this, a speed-up is called none."""


def join_parts(*parts: str | None, by: str = " ") -> str:
    """The parts that say something, as one text."""
    return by.join(part for part in parts if part)


def headline(run: RunResults) -> str:
    """What the student keeps, at what size and speed."""
    whole, encoder = (ratio(*reversed(run.both(key))) for key in ("parameters", "encoder_parameters"))
    layers = f" ({percent(encoder, 0)} of the encoder’s)" if encoder is not None else ""
    size = f"with {percent(whole, 0)} of the parameters{layers}" if whole is not None else ""
    kept = _kept(run) or ("A student" if size else "No scores were recorded")
    return f"{join_parts(join_parts(kept, size), _speed(run), by=', ')}."


def _kept(run: RunResults) -> str:
    student, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    metric, kept = headline_name(run), run.get("retention")
    seeds = f" (median of {len(student.values)} seeds)" if student and len(student.values) > 1 else ""
    if kept is not None:
        return f"The student {'keeps' if kept < 1 else 'reaches'} {percent(kept)} of the teacher’s {metric}{seeds}"
    if student is None:
        return ""
    against = f" against the teacher’s {decimal(teacher.median)}" if teacher else ""
    return f"The student reaches {metric} {decimal(student.median)}{seeds}{against}"


def _speed(run: RunResults) -> str:
    batch, value = speed_up(run)
    if value is None:
        return ""
    told = "no faster"
    if value >= SMALL_SPEED_UP:
        told = f"{times(value)} as fast"
    elif value <= 1 / SMALL_SPEED_UP:
        told = f"{times(1 / value)} as slow"
    return f"{told} at batch {batch}"


def speed_up(run: RunResults) -> tuple[str, float | None]:
    """(batch, teacher's latency ÷ student's), at the largest batch measured."""
    found = {batch: value for batch, value in (run.get("efficiency.speed_up") or {}).items() if value}
    batch = max(found, key=int, default="")
    return batch, found.get(batch)


def distillation_gain(run: RunResults) -> str:
    """Whether distillation paid, against the same student trained on labels alone."""
    gain = run.get(f"{LABELS_ONLY}.gain")
    if get_nested(gain, "mean") is None:
        lacking = "student was trained on labels alone"
        if run.get(LABELS_ONLY):
            lacking = "gain over a student trained on labels alone was measured"
        return f"Whether distillation was worth it is not known: no {lacking}."
    verb = "adds" if gain["mean"] >= 0 else "costs"
    told = f"Distillation {verb} {points(abs(gain['mean']))} points of {headline_name(run)}"
    rows, labelled = run.get("rows.train"), run.get("rows.labelled")
    few = f", which {labelled:,} of {rows:,} rows have" if rows and labelled and labelled < rows else ""
    return f"{told} over the same student trained on labels alone{few}{_interval(gain)}"


def _interval(gain: dict[str, Any]) -> str:
    inside = is_within_noise(gain)
    if inside is None:
        return "."
    over = [plural(gain[what], what.rstrip("s")) for what in ("rows", "seeds") if gain.get(what)]
    ends = (gain["low"], gain["high"]) if gain["mean"] >= 0 else (-gain["high"], -gain["low"])  # of what it costs
    low, high = map(points, ends)
    text = f" ({percent(gain.get('level', 0.95), 0)} interval {low} to {high}, paired bootstrap"
    text += f" over {' and '.join(over)})" if over else ")"
    noise = "the noise of the rows (one seed: that of seeds is unknown)" if gain.get("seeds") == 1 else "the noise"
    return f"{text}: within {noise}, the interval includes 0." if inside else f"{text}: outside {noise}."


def majority_note(run: RunResults) -> str:
    """How much of the retention one has without a model as well."""
    score, teacher = headline_score(run, MAJORITY), headline_score(run, "teacher")
    above = run.get("retention_above_majority")
    if score is None or teacher is None or above is None or min(score.median, teacher.median) <= 0:
        return ""
    share = percent(score.median / teacher.median)
    text = f"Without a model, {majority_name(run)} would reach {share} of the teacher’s {headline_name(run)}"
    if above <= 0:
        return f"{text}; the student does not get above that."
    return f"{text}; of what the teacher has above that, the student keeps {percent(above)}."


def fidelity_sentences(run: RunResults) -> list[str]:
    """How alike teacher and student are; one sentence per thing looked at."""
    return [sentence for sentence in (_predictions(run), _outputs(run), _calibration(run), _layers(run)) if sentence]


def _predictions(run: RunResults) -> str:
    agreement, kl = run.get("fidelity.agreement"), run.get("fidelity.kl")
    tokens, rows = run.get("fidelity.tokens"), run.get("fidelity.rows")
    looked_at = f"{count(tokens)} masked tokens" if tokens else plural(rows, "row") if rows else "the rows"
    thing = "token" if run.kind == "mlm" else "class"
    said = f"Teacher and student predict the same {thing} for {percent(agreement)} of {looked_at}."
    distance = f"KL(teacher ‖ student) is {decimal(kl)} nats on average, at temperature 1."
    return join_parts(said if agreement is not None else "", distance if kl is not None else "")


def _outputs(run: RunResults) -> str:
    pearson, distance = run.get("fidelity.pearson"), run.get("fidelity.mean_absolute_difference")
    correlation = f"correlate at {decimal(pearson)} (Pearson)" if pearson is not None else ""
    difference = f"differ by {decimal(distance)} on average" if distance is not None else ""
    told = join_parts(correlation, difference, by=" and ")
    return f"The outputs of teacher and student {told}." if told else ""


def _calibration(run: RunResults) -> str:
    teacher, student = run.get("fidelity.ece.teacher"), run.get("fidelity.ece.student")
    if teacher is None or student is None:
        return ""
    gap = "The mean gap between confidence and accuracy (ECE, 15 bins)"
    return f"{gap} is {percent(student)} for the student, {percent(teacher)} for the teacher."


def _layers(run: RunResults) -> str:
    value, tokens = last_layer_cka(run), run.get("fidelity.cka.tokens")
    over = f" over {count(tokens)} tokens" if tokens else ""
    return f"The last layers’ hidden states have a CKA of {decimal(value, 2)}{over}." if value is not None else ""


def last_layer_cka(run: RunResults) -> float | None:
    """CKA of the last hidden states of both."""
    values = run.get("fidelity.cka.values")
    return values[-1][-1] if values and values[-1] else None
