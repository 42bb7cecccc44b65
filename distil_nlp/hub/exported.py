"""The files of an exported student that go up: those that are as they were scored, and passed their gate."""

from __future__ import annotations

from pathlib import Path

from distil_nlp.reporting.export import gate_failure, is_publishable
from distil_nlp.results import RunResults, get_nested
from distil_nlp.utils.files import checksum

_AGAIN = "distil-nlp export makes it anew"


def exported_files(run: RunResults) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the exported files of a run that may be uploaded, by their paths in the repository; and what may not.

    A file without figures, or another one than was scored, stays where it is.
    """
    student, known = run.folder / "student", run.get("export.models") or {}
    scored = {str(one["file"]): model for model, one in known.items() if one.get("file")}
    files, left_out = {}, []
    for path in sorted((student / "onnx").glob("*.onnx")):
        name = path.relative_to(student).as_posix()
        model = scored.get(name)
        if model is None or checksum(path) != get_nested(known, model, "sha256"):
            left_out.append(f"Not uploaded: {name}, of which no scores are known; {_AGAIN}.")
        elif not is_publishable(run, model):
            left_out.append(f"Not uploaded: {name}. {gate_failure(run)}")
        else:
            files[name] = path
    return files, tuple(left_out)
