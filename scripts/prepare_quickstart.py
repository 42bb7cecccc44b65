"""Write `<out>/all-MiniLM-L6-v2` and `<out>/library-docs`, the input of the quickstart recipe; done once.

Needs no network: `python scripts/prepare_quickstart.py --out build/quickstart`.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distil_nlp.errors import UserError
from distil_nlp.quickstart import build_once
from distil_nlp.quickstart.docs_dataset import DocsParameters, fingerprint, write_docs
from distil_nlp.quickstart.teacher import WEIGHTS_SHA256, write_teacher


def main() -> None:
    """Prepare both folders, and print for each whether it was written now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/quickstart"), help="default: %(default)s")
    out = parser.parse_args().out
    parameters = DocsParameters()
    parts: dict[str, tuple[Any, Callable[[Path], object]]] = {
        "all-MiniLM-L6-v2": ({"sha256": WEIGHTS_SHA256}, write_teacher),
        "library-docs": (fingerprint(parameters), lambda folder: write_docs(folder, parameters)),
    }
    for name, (made_of, build) in parts.items():
        is_new = build_once(out / name, made_of, build)
        print(f"{name}: {out / name} ({'written' if is_new else 'already there'})")


if __name__ == "__main__":
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # three bars for three small files
    try:
        main()
    except UserError as error:
        print(f"error: {error.for_terminal()}", file=sys.stderr)
        sys.exit(2)
