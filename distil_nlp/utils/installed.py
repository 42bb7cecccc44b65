"""Versions of installed packages, told without importing them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence


def package_versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of installed packages; None for one that is not."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
