"""A progress bar with the terms below it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from itertools import zip_longest
from typing import Any

from transformers import ProgressCallback

_GAP = "\u00a0"
"""Stands between a name and its value, where a line is not to be broken."""
_NOT_TERMS = (
    "learning_rate",
    "grad_norm",
    "epoch",
    "step",
    "tokens_per_second",
    "train_",
    "eval_",
    "total_flos",
    "gradient_",
)


class TermProgressCallback(ProgressCallback):
    """`Trainer`'s progress bar with loss, terms and speed below it, instead of a printed dict for each log.

    On a terminal they have lines of their own, so that the bar keeps its length whatever the number of terms; in a file
    or a notebook they follow the bar.
    """

    training_bar: Any

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Show an empty bar."""
        super().on_train_begin(args, state, control, **kwargs)
        self.lines: list[Any] = []

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs) -> None:
        """Show the logged terms."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            terms = {k: v for k, v in logs.items() if not k.startswith(_NOT_TERMS) and isinstance(v, float)}
            parts = [f"{name} {value:.3g}" for name, value in terms.items()]
            self._show([*parts, f"{logs['tokens_per_second']:,.0f} tokens/s"])

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Leave the bar and its lines as they are."""
        super().on_train_end(args, state, control, **kwargs)
        for line in self.lines:
            line.close()

    def _show(self, parts: list[str]) -> None:
        if not sys.stderr.isatty():
            self.training_bar.set_postfix_str("  ".join(parts))
            return
        width = shutil.get_terminal_size().columns - 1
        texts = textwrap.wrap("  ".join(part.replace(" ", _GAP) for part in parts), width, break_on_hyphens=False)
        while len(self.lines) < len(texts):
            place = len(self.lines) + 1
            self.lines.append(type(self.training_bar)(total=0, position=place, bar_format="{desc}", leave=True))
        no_text: Any = ""
        for line, text in zip_longest(self.lines, texts, fillvalue=no_text):
            line.set_description_str(text.replace(_GAP, " "))
