"""The table at the end of a run."""

from typing import Any


def summary_table(results: dict[str, Any], task: str) -> str:
    """Teacher, student and floors side by side: headline metric, parameters, MB, retention."""
    name = results["headline"]
    rows = [("", name, "parameters", "encoder", "MB", "retention")]
    for label, part in (
        ("teacher", results["teacher"]),
        ("student", results["student"]),
        ("student, untrained copy", results["baselines"]["copied_only"]),
        ("without a model" if task == "mlm" else "one class for all", results["baselines"]["majority"]),
    ):
        rows.append((label, _number(part["metrics"].get(name)), *_size(part), _retention(results, label)))
    if task == "mlm":
        rows = [(*row[:2], cell, *row[2:]) for row, cell in zip(rows, _perplexities(results), strict=True)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_cell(row[i], widths[i], i == 0) for i in range(len(row))).rstrip() for row in rows]
    return "\n".join([f"\n{task}", lines[0], "─" * max(map(len, lines)), *lines[1:], ""])


def _size(part: dict[str, Any]) -> tuple[str, str, str]:
    if "parameters" not in part:
        return ("", "", "")
    return (
        f"{part['parameters'] / 1e6:.1f} M",
        f"{part['encoder_parameters'] / 1e6:.1f} M",
        f"{part['size_mb']:.1f}",
    )


def _retention(results: dict[str, Any], label: str) -> str:
    if label != "student" or results["retention"] is None:
        return ""
    return f"{results['retention']:.1%}"


def _perplexities(results: dict[str, Any]) -> list[str]:
    parts = (
        results["teacher"],
        results["student"],
        *(results["baselines"][n] for n in ("copied_only", "majority")),
    )
    return ["perplexity", *(_number(part["metrics"].get("perplexity"), 1) for part in parts)]


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def _cell(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)
