"""The table at the end of a run."""

from typing import Any

_LABELS = {
    "no_distillation": "not distilled",
    "random_init": "from random weights",
    "copied_only": "copied, untrained",
    "majority": "one class for all",
}


def summary_table(results: dict[str, Any]) -> str:
    """Teacher, student and baselines side by side: headline metric (median and range of several seeds), retention,
    what the student gains over each, size and speed."""
    is_mlm, headline = results["task"] == "mlm", results["headline"]
    labels = _LABELS | ({"majority": "without a model"} if is_mlm else {})
    student = {**results["student"], "seeds": results["seeds"], "retention": results["retention"]}
    parts = {"teacher": results["teacher"], "student": student}
    parts |= {label: results["baselines"][name] for name, label in labels.items() if name in results["baselines"]}
    columns = {
        headline: lambda part: _score(part, headline, 3),
        **({"perplexity": lambda part: _score(part, "perplexity", 1)} if is_mlm else {}),
        "retention": lambda part: f"{part['retention']:.1%}" if part.get("retention") is not None else "",
        "student's gain": _gain,
        "parameters": lambda part: _millions(part, "parameters"),
        "encoder": lambda part: _millions(part, "encoder_parameters"),
        "MB": lambda part: f"{part['size_mb']:.1f}" if "size_mb" in part else "",
        "ms, batch 32": lambda part: f"{part['latency_ms']['32']['median']:.0f}" if "latency_ms" in part else "",
    }
    rows = [("", *columns), *((label, *(show(part) for show in columns.values())) for label, part in parts.items())]
    rows = [row for row in zip(*rows, strict=True) if any(row[1:])]  # columns that say something
    return _aligned(results["task"], list(zip(*rows, strict=True)))


def _score(part: dict[str, Any], name: str, digits: int) -> str:
    seeds = part.get("seeds", {}).get(name)
    if seeds and len(seeds["values"]) > 1:
        median, low, high = (_number(seeds[key], digits) for key in ("median", "minimum", "maximum"))
        return f"{median} ({low}–{high})"
    return _number(part["metrics"].get(name), digits)


def _gain(part: dict[str, Any]) -> str:
    gain = part.get("gain")
    if gain is None:
        return ""
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def _millions(part: dict[str, Any], key: str) -> str:
    return f"{part[key] / 1e6:.1f} M" if key in part else ""


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def _aligned(title: str, rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (zip(row, widths, strict=True) for row in rows)
    ]
    return "\n".join([f"\n{title}", lines[0], "─" * max(map(len, lines)), *lines[1:], ""])
