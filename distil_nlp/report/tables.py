"""The table that only a report has: what training took."""

from __future__ import annotations

from distil_nlp.telling.numbers import count, duration, large, plain
from distil_nlp.telling.run import Run
from distil_nlp.telling.tables import Table, table


def training(run: Run) -> Table | None:
    """What the student's training took, and with what."""
    found, around = run("training") or {}, run("environment") or {}
    versions = [f"{name} {version}" for name, version in (around.get("versions") or {}).items() if version]
    rows = [
        ("steps", count(found.get("steps"))),
        ("time", duration(found.get("seconds"))),
        ("training rows", count(run("rows.train"))),
        ("tokens", large(found.get("tokens"))),
        ("tokens per second", count(found.get("tokens_per_second"))),
        ("peak memory of the process, MiB", plain(found.get("peak_memory_mib"))),
        ("device", around.get("device")),
        ("processes", count(around.get("processes"))),
        ("threads", count(around.get("threads"))),
        ("seed", "" if around.get("seed") is None else str(around["seed"])),
        ("resumed from", found.get("resumed_from")),
        ("best checkpoint", found.get("best_checkpoint")),
        ("versions", ", ".join(versions)),
        ("commit", (around.get("commit") or "")[:12]),
    ]
    return table("Training", ("", ""), rows)
