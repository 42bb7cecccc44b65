"""`teacher.npz`: a teacher's outputs on all rows, so that another tree of the same teacher need not run it again."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distil_nlp.evaluation.predict import Outputs
from distil_nlp.utils.files import atomic_file

_Kept = tuple[dict[str, Outputs], dict[str, np.ndarray]]


@dataclass(frozen=True)
class TeacherFile:
    """The file of a tree's folder.

    Attributes:
        folder: of the tree.
        key: hash of rows and teacher; a file with another one is not read.
    """

    folder: Path
    key: str

    @property
    def path(self) -> Path:
        """Place of the file."""
        return self.folder / "teacher.npz"

    def read(self, with_states: bool) -> _Kept | None:
        """Return (split → outputs, split → states); None without a whole file of these rows and this teacher."""
        try:
            with np.load(self.path) as arrays:
                if str(arrays["key"]) != self.key:
                    return None
                splits = [str(name) for name in arrays["splits"]]
                outputs = {name: Outputs(arrays[f"predictions/{name}"], arrays[f"labels/{name}"]) for name in splits}
                states = {name: arrays[f"states/{name}"] for name in splits if with_states}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return outputs, states

    def write(self, outputs: dict[str, Outputs], states: dict[str, np.ndarray]) -> None:
        """Write the file, whole or not at all."""
        arrays: dict[str, Any] = {"key": np.asarray(self.key), "splits": np.asarray([*outputs])}
        arrays |= {f"predictions/{name}": one.predictions for name, one in outputs.items()}
        arrays |= {f"labels/{name}": one.labels for name, one in outputs.items()}
        arrays |= {f"states/{name}": one for name, one in states.items()}
        with atomic_file(self.path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)
