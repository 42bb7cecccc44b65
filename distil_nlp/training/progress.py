"""A progress bar that shows the terms."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback

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
    """`Trainer`'s progress bar with loss, terms and speed beside it, instead of a printed dict for each log."""

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs) -> None:
        """Show the logged terms beside the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            terms = {k: v for k, v in logs.items() if not k.startswith(_NOT_TERMS) and isinstance(v, float)}
            parts = [f"{name} {value:.3g}" for name, value in terms.items()]
            self.training_bar.set_postfix_str("  ".join([*parts, f"{logs['tokens_per_second']:,.0f} tokens/s"]))
