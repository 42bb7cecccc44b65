"""The packages that an export needs besides those of every run."""

from __future__ import annotations

from distil_nlp.errors import UserError
from distil_nlp.utils.installed import package_versions

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `export`."""
_RECORDED = (*PACKAGES, "torch", "transformers")


def require_export_packages() -> None:
    """Raise UserError unless the packages of the extra `export` are installed."""
    missing = [name for name, version in package_versions(PACKAGES).items() if version is None]
    if missing:
        raise UserError(
            "export",
            f"{', '.join(PACKAGES)} to be installed",
            f"no {', '.join(missing)}",
            why="they trace, quantise and run the exported student",
            fix="pip install 'distil-nlp[export]', or leave the export out",
        )


def export_versions() -> dict[str, str | None]:
    """Return the versions of the packages that make the files."""
    return package_versions(_RECORDED)
