"""Sentences about the results of a run."""

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
from distil_nlp.reporting.latency import headline_setting, speed_up
from distil_nlp.reporting.scores import (
    LABELS_ONLY,
    MAJORITY,
    headline_name,
    headline_score,
    is_within_noise,
    majority_name,
    teacher_word,
)
from distil_nlp.results import RunResults, get_nested

SMALL_SPEED_UP = 1.05
"""Smallest speed-up that is reported as one."""


def join_parts(*parts: str | None, by: str = " ") -> str:
    """Return the parts that are not empty, joined."""
    return by.join(part for part in parts if part)


def headline(run: RunResults) -> str:
    """Return the main finding: retention, size and speed of the student."""
    parameters, encoder = (ratio(*reversed(run.both(key))) for key in ("parameters", "encoder_parameters"))
    layers = f" ({percent(encoder, 0)} of the encoder’s)" if encoder is not None else ""
    size = f"with {percent(parameters, 0)} of the parameters{layers}" if parameters is not None else ""
    quality = _quality(run) or ("A student" if size else "No scores were recorded")
    return f"{join_parts(join_parts(quality, size), _speed(run), by=', ')}."


def _quality(run: RunResults) -> str:
    """Return the student's retention, or its score where there is no retention."""
    student, teacher = headline_score(run, "student"), headline_score(run, "teacher")
    metric, retention = headline_name(run), run.get("retention")
    seeds = f" (median of {len(student.values)} seeds)" if student and len(student.values) > 1 else ""
    if retention is not None:
        verb = "keeps" if retention < 1 else "reaches"
        return f"The student {verb} {percent(retention)} of the {teacher_word(run)}’s {metric}{seeds}"
    if student is None:
        return ""
    against = f" against the {teacher_word(run)}’s {decimal(teacher.median)}" if teacher else ""
    return f"The student reaches {metric} {decimal(student.median)}{seeds}{against}"


def _speed(run: RunResults) -> str:
    """Return the student's speed relative to the teacher's, and the setting in which it was measured."""
    setting = headline_setting(run)
    value = speed_up(run, setting)
    if value is None:
        return ""
    speed = "no faster"
    if value >= SMALL_SPEED_UP:
        speed = f"{times(value)} as fast"
    elif value <= 1 / SMALL_SPEED_UP:
        speed = f"{times(1 / value)} as slow"
    return f"{speed} ({setting})"


def distillation_gain(run: RunResults) -> str:
    """Return the gain of distillation over the same student trained on labels only."""
    gain = run.get(f"{LABELS_ONLY}.gain")
    if not run.kind.learns_labels:
        return ""
    if get_nested(gain, "mean") is None:
        missing = "student was trained on labels only"
        if run.get(LABELS_ONLY):
            missing = "gain over a student trained on labels only was measured"
        return f"The gain of distillation is not known: no {missing}."
    verb = "adds" if gain["mean"] >= 0 else "costs"
    effect = f"Distillation {verb} {points(abs(gain['mean']))} points of {headline_name(run)}"
    rows, labelled = run.get("rows.train"), run.get("rows.labelled")
    few = f", which {labelled:,} of {rows:,} rows have" if rows and labelled and labelled < rows else ""
    return f"{effect} over the same student trained on labels only{few}{_interval(gain, run.kind.drawn)}"


def _interval(gain: dict[str, Any], drawn: str) -> str:
    """Return the end of a sentence about a gain: its bootstrap interval, and if that includes 0.

    Args:
        drawn: noun for what the bootstrap draws.
    """
    includes_zero = is_within_noise(gain)
    if includes_zero is None:
        return "."
    over = [plural(gain[unit], word) for unit, word in (("rows", drawn), ("seeds", "seed")) if gain.get(unit)]
    ends = (gain["low"], gain["high"]) if gain["mean"] >= 0 else (-gain["high"], -gain["low"])  # of the cost
    low, high = map(points, ends)
    text = f" ({percent(gain.get('level', 0.95), 0)} interval {low} to {high}, paired bootstrap"
    text += f" over {' and '.join(over)})" if over else ")"
    verdict = "within the noise, the interval includes 0." if includes_zero else "outside the noise."
    one_seed = " That is the noise of the rows; seeds add their own, which one seed cannot show."
    return f"{text}: {verdict}{one_seed if gain.get('seeds') == 1 else ''}"


def majority_note(run: RunResults) -> str:
    """Return the retention of the majority-class baseline, and the student's retention above it."""
    score, teacher = headline_score(run, MAJORITY), headline_score(run, "teacher")
    above = run.get("retention_above_majority")
    if score is None or teacher is None or above is None or min(score.median, teacher.median) <= 0:
        return ""
    fraction, word = percent(score.median / teacher.median), teacher_word(run)
    text = f"Without a model, the {majority_name(run)} would reach {fraction} of the {word}’s {headline_name(run)}"
    if above <= 0:
        return f"{text}; the student does not get above that."
    return f"{text}; of what the {word} has above that, the student keeps {percent(above)}."


def threshold_sentences(run: RunResults) -> list[str]:
    """Return what the threshold of predictions is, and what chose it; [] for tasks without a threshold."""
    models, rows = run.get("thresholds.models") or {}, run.get("thresholds.rows")
    teacher, student = (models.get(role) for role in ("teacher", "student"))
    if student is None:
        return []
    if rows is None:
        return [
            f"{run.kind.threshold_rule.format(f'{student:g}')}, in all models: no rows chose a threshold "
            "(training.eval_strategy splits some off)."
        ]
    compared = f" ({_short(teacher)} for the teacher)" if teacher is not None else ""
    return [
        f"{run.kind.threshold_rule.format(_short(student))}{compared}: a model’s threshold is the one with the best "
        f"{run.kind.threshold_metric} on {plural(rows, run.kind.compared)} that scores are not of."
    ]


def _short(number: float) -> str:
    return f"{number:.3g}".replace("-", "−")


def fidelity_sentences(run: RunResults) -> list[str]:
    """Return sentences on the similarity of teacher and student: predictions, outputs, calibration, layers."""
    parts = (_predictions(run), _outputs(run), _vectors(run), _rankings(run), _calibration(run), _layers(run))
    return [sentence for sentence in parts if sentence]


def _predictions(run: RunResults) -> str:
    """Return agreement and KL of the predictions."""
    agreement, kl = run.get("fidelity.agreement"), run.get("fidelity.kl")
    tokens, rows = run.get("fidelity.tokens"), run.get("fidelity.rows")
    number = tokens or rows
    compared = plural(number, run.kind.compared) if number else f"the {run.kind.compared}s"
    compared += " that are one token in both" if tokens and run.get("tokenizers.others") else ""
    target = run.kind.predicted
    word, entity_f1 = teacher_word(run), run.get("fidelity.entity_f1")
    same = f"{word.capitalize()} and student predict the same {target} for {percent(agreement)} of {compared}."
    distance = f"KL({word} ‖ student) is {decimal(kl)} nats on average, at temperature 1."
    entities = f"Against the {word}’s entities, the student’s have an F1 of {decimal(entity_f1)}."
    return join_parts(
        same if agreement is not None else "",
        distance if kl is not None else "",
        entities if entity_f1 is not None else "",
    )


def _outputs(run: RunResults) -> str:
    """Return correlation and difference of regression outputs."""
    pearson, distance = run.get("fidelity.pearson"), run.get("fidelity.mean_absolute_difference")
    correlation = f"correlate at {decimal(pearson)} (Pearson)" if pearson is not None else ""
    difference = f"differ by {decimal(distance)} on average" if distance is not None else ""
    similarity = join_parts(correlation, difference, by=" and ")
    return f"The outputs of {teacher_word(run)} and student {similarity}." if similarity else ""


def _vectors(run: RunResults) -> str:
    """Return how alike the vectors of texts are."""
    mean, lowest, same = (run.get(f"fidelity.{name}") for name in ("cosine", "cosine_lowest", "same_neighbour"))
    if mean is None or lowest is None:
        return ""
    text = f"The vectors of student and teacher have a cosine of {decimal(mean)} on average"
    nearest = f"; {percent(same)} of the texts have the same nearest other text" if same is not None else ""
    return f"{text}, and below {decimal(lowest)} in the worst 5 % of the texts{nearest}."


def _rankings(run: RunResults) -> str:
    """Return how alike the documents of queries are ordered."""
    tau, same = (run.get(f"fidelity.{name}") for name in ("kendall_tau", "same_top"))
    if tau is None or same is None:
        return ""
    return (
        f"{teacher_word(run).capitalize()} and student put the same document first for {percent(same)} of the queries; "
        f"their orders of a query’s documents have a rank correlation (Kendall’s τ) of {decimal(tau)} on average."
    )


def _calibration(run: RunResults) -> str:
    """Return the calibration errors."""
    teacher, student = run.get("fidelity.ece.teacher"), run.get("fidelity.ece.student")
    if teacher is None or student is None:
        return ""
    error = "The expected calibration error (ECE, the mean gap between confidence and accuracy over 15 bins)"
    text = f"{error} is {percent(student)} for the student, {percent(teacher)} for the {teacher_word(run)}"
    nll = [run.get(f"fidelity.nll.{role}") for role in ("student", "teacher")]
    if None in nll:
        return f"{text}."
    return f"{text}; the negative log-likelihood of the labels {decimal(nll[0])} and {decimal(nll[1])} nats."


def _layers(run: RunResults) -> str:
    """Return the similarity of the last layers."""
    value, tokens, reason = last_layer_cka(run), run.get("fidelity.cka.tokens"), run.get("fidelity.cka_not_measured")
    if reason:
        return f"Layers were not compared: {reason}."
    over = f" over {count(tokens)} tokens" if tokens else ""
    return f"The last layers’ hidden states have a CKA of {decimal(value, 2)}{over}." if value is not None else ""


def last_layer_cka(run: RunResults) -> float | None:
    """Return the CKA of the last hidden states of student and teacher."""
    values = run.get("fidelity.cka.values")
    return values[-1][-1] if values and values[-1] else None
