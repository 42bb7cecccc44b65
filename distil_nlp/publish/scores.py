"""The sections of a model card that hold figures: quality, size, speed. What a run did not measure is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distil_nlp.publish.facts import METRICS, Facts, joined, metric_label
from distil_nlp.publish.markdown import code, table

_BASELINES = {
    "no_distillation": "not distilled: labels alone, same steps",
    "random_init": "distilled from random weights",
    "copied_only": "copied layers, not trained",
}
_NO_MODEL = {"mlm": "token frequencies", "regression": "the mean for all", "classification": "one class for all"}


def quality(facts: Facts) -> str:
    """What was measured on what, the table, and what its comparisons say."""
    rows = [f"{code(name)}{f' ({count:,} rows)' if count else ''}" for name, count in facts.splits.items()]
    units = {
        "mlm": "Accuracy is top-1 on masked tokens; a lower perplexity is better.",
        "classification": "Metrics are fractions of 1.",
        "regression": "Correlations are fractions of 1; a lower mean squared error is better.",
    }
    where = f"Measured on {', '.join([facts.linked_dataset, *rows])}. {units[facts.kind]}"
    found = _quality_table(facts)
    return joined(where, found, _comparison(facts), _fidelity(facts), by="\n\n") if found else ""


def size_and_speed(facts: Facts) -> str:
    """Parameters, megabytes, milliseconds, memory: teacher, student, and how they compare."""
    rows = [
        _pair(facts, label, key, form, share=True)
        for label, key, form in (
            ("parameters", "parameters", _short),
            ("– in the layers", "encoder_parameters", _short),
            ("– in the embeddings", "embedding_parameters", _short),
            ("weights, MB", "size_mb", "{:.1f}".format),
            ("FLOPs per token", "flops_per_token", _short),
            ("peak memory, MiB", "peak_memory_mib", "{:,.0f}".format),
        )
    ]
    for batch in facts("student.latency_ms") or {}:
        factor, label = facts(f"efficiency.speed_up.{batch}"), f"milliseconds for a batch of {batch}, median"
        row = _pair(facts, label, f"latency_ms.{batch}.median", "{:,.1f}".format)
        rows.append([*row[:3], f"{factor:.2f}× as fast" if factor else ""])
    for batch in facts("student.tokens_per_second") or {}:
        label = f"tokens a second, batches of {batch}"
        rows.append(_pair(facts, label, f"tokens_per_second.{batch}", "{:,.0f}".format))
    where = [facts("efficiency.device"), facts("efficiency.dtype")]
    if facts("efficiency.threads"):
        where.append(f"{facts('efficiency.threads')} threads")
    if facts("efficiency.sequence_length"):
        where.append(f"{facts('efficiency.sequence_length')} tokens a sequence")
    note = f"Speed and memory: {joined(*where, by=', ')}." if any(where) else ""
    return joined(table(["", "teacher", "this model", "this model ÷ teacher"], rows), note, by="\n\n")


def floor_share(facts: Facts) -> tuple[float, str] | None:
    """(what one gets without a model ÷ the teacher's score, what that is): beside it, retention must be seen."""
    name = facts("headline")
    floor, teacher = (facts(f"{part}.metrics.{name}") for part in ("baselines.majority", "teacher"))
    return (floor / teacher, _NO_MODEL[facts.kind]) if floor is not None and teacher and teacher > 0 else None


def _quality_table(facts: Facts) -> str:
    """Teacher, student, its seeds and the baselines, and the distilled student's gain over each."""
    names, seeds, known = _metric_names(facts), facts.seeds, facts("baselines") or {}
    rows = [
        _row("teacher", facts("teacher") or {}, names),
        _row(f"**this model**{f' (seed {seeds[0]})' if seeds else ''}", facts("student") or {}, names),
    ]
    if len(seeds) > 1:
        rows.append(_row(f"distilled, median of {len(seeds)} seeds (range)", {"seeds": facts("seeds")}, names))
    order = [*_BASELINES, *(name for name in known if name not in (*_BASELINES, "majority")), "majority"]
    labels = {**_BASELINES, "majority": f"{_NO_MODEL[facts.kind]}, no model"}
    rows += [_row(labels.get(name, code(name)), known[name], names) for name in order if name in known]
    gained = facts.gains[0] if facts.gains else None
    last = f"gain in {metric_label(gained['metric'])} ({gained['level']:.0%} interval)" if gained else ""
    return table(["", *map(metric_label, names), last], rows)


def _metric_names(facts: Facts) -> list[str]:
    """Those a reader knows by name; with several splits, those of each split instead of the first one's twice."""
    known = [name for name in facts("student.metrics") or {} if name.rpartition("/")[2] in METRICS]
    return [name for name in known if "/" in name] or known


def _row(label: str, part: Mapping[str, Any], names: list[str]) -> list[str]:
    metrics, seeds = part.get("metrics") or {}, part.get("seeds") or {}
    cells = [_spread(seeds[name], name) if name in seeds else _number(metrics.get(name), name) for name in names]
    return [label, *cells, _gain(part.get("gain"))]


def _spread(found: Mapping[str, Any], name: str) -> str:
    """`median (minimum–maximum)`; the value alone where there is one."""
    median, low, high = (_number(found.get(key), name) for key in ("median", "minimum", "maximum"))
    return f"{median} ({low}–{high})" if low and len(found.get("values") or ()) > 1 else median


def _gain(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("mean") is None:
        return ""
    mean, low, high = (f"{found[key]:+.3f}".replace("-", "−") for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high}){'' if found.get('outside_noise') else ', within noise'}"


def _comparison(facts: Facts) -> str:
    """What retention and gains say, and how they were taken."""
    kept, above, sentences = facts("retention"), facts("retention_above_majority"), []
    if kept is not None:
        median = f" (median of {len(facts.seeds)} seeds)" if len(facts.seeds) > 1 else ""
        over = f"; of what the teacher has above {_NO_MODEL[facts.kind]}, {above:.1%}" if above is not None else ""
        score = metric_label(facts("headline"))
        sentences.append(f"Of the teacher's {score} the student keeps {kept:.1%}{median}{over}.")
    if facts.gains:
        found = facts.gains[0]
        over = "rows and seeds" if found["seeds"] > 1 else "rows"
        sentences.append(
            f"Gain: distilled minus that line, with an interval from a paired bootstrap over {over} "
            f"({found['resamples']:,} resamples, {found['rows']:,} rows); *within noise* where it holds 0."
        )
    return joined(*sentences)


def _fidelity(facts: Facts) -> str:
    """How far the student does what the teacher does."""
    said = {
        "agreement": "the same prediction on {:.1%}",
        "kl": "KL(teacher ‖ student) {:.3f} nats on average",
        "pearson": "Pearson correlation of the outputs {:.3f}",
        "mean_absolute_difference": "mean absolute difference {:.3f}",
        "ece.student": "expected calibration error {:.3f}",
        "ece.teacher": "the teacher's {:.3f}",
    }
    found = {name: facts(f"fidelity.{name}") for name in said}
    parts = [text.format(found[name]) for name, text in said.items() if found[name] is not None]
    rows = f" over {facts('fidelity.rows'):,} sequences" if facts("fidelity.rows") else ""
    return f"Agreement with the teacher{rows}: {', '.join(parts)}." if parts else ""


def _pair(facts: Facts, label: str, key: str, form: Callable[[Any], str], share: bool = False) -> list[str]:
    """A row of the teacher's number, the student's and, if asked for, student ÷ teacher."""
    teacher, student = facts(f"teacher.{key}"), facts(f"student.{key}")
    ratio = f"{student / teacher:.0%}" if share and teacher and student is not None else ""
    return [label, *("" if value is None else form(value) for value in (teacher, student)), ratio]


def _number(value: float | None, name: str) -> str:
    """A metric: three digits, or one for a perplexity."""
    if value is None:
        return ""
    return f"{value:,.1f}" if name.endswith("perplexity") else f"{value:.3f}".replace("-", "−")


def _short(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if count >= size / 10:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f}"
