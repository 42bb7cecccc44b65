"""Logging of `DistillationTrainer`: means of terms, weights, tokens per second, and a check for NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from distil_nlp.results.provenance import Provenance
from distil_nlp.training.checkpoints import NOTHING_SPENT, last_complete_checkpoint
from distil_nlp.training.finite import NotFiniteError, broken_weights, has_broken_state, named
from distil_nlp.training.meter import Meter

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer

    from distil_nlp.objective.objective import Objective
    from distil_nlp.training.balancing import BalancingCallback
    from distil_nlp.training.extension import RunningExtensions
    from distil_nlp.training.further_passes import FurtherPasses
    from distil_nlp.training.gradient_probe import GradientProbe
    from distil_nlp.training.token_counter import TokenCounter
else:
    _Trainer = object  # a mixin, of a trainer for a type checker alone

FURTHER_FLOPS = "further_flops"
"""Key of what was spent: operations of further passes."""
_REMEDY = (
    "lower training.learning_rate, set training.max_grad_norm=1, or use bf16 instead of fp16, and start anew "
    "(run.overwrite=true)"
)


class TermLogging(_Trainer):
    """A mixin for `transformers.Trainer` that logs each term by its own name.

    It reads `objective`, `probe`, `extensions`, `further`, `token_counter`, `_balancing` and `progress_at` of the
    trainer.

    Attributes:
        last_terms: latest logged mean of each term.
        tokens_seen: tokens of this process since training started, without padding.
        spent_before: seconds and tokens before the checkpoint that training resumed from.
        flops_per_token: floating-point operations of the first micro-batch, of all models, per token that is no
            padding; None until then, and where they cannot be counted. Those of further passes come on top.
        provenance: what the student is made of, kept in each checkpoint; None if nobody said.
        log_groups: name in the last training log → its name on a dashboard, such as `terms/hidden_cosine`.
    """

    model: Any
    objective: Objective
    probe: GradientProbe | None
    token_counter: TokenCounter
    extensions: RunningExtensions
    further: FurtherPasses
    progress_at: Callable[[int], float]
    _balancing: BalancingCallback | None
    _start_time: float

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.last_terms: dict[str, float] = {}
        self.tokens_seen = 0
        self.spent_before: dict[str, float] = dict(NOTHING_SPENT)
        self.flops_per_token: float | None = None
        self.provenance: Provenance | None = None
        self.log_groups: dict[str, str] = {}
        self._train_meter = Meter(len(self.objective.terms), self.args.device)
        self._term_means: dict[str, float] = {}

    def start_meter(self, step: int) -> None:
        """Reset sums and clocks where training starts, or starts again with another batch size."""
        self._train_meter.start(step)
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        self.last_terms = {name: entry[name] for entry in logged for name in self.objective.names if name in entry}
        if self._balancing is not None:
            self._balancing.start()
        if self.probe is not None:
            self.probe.start()
        for one in self.extensions:
            one.start(step)
        self.further.start()
        self.tokens_seen, self._start_time = 0, time.monotonic()
        self.token_counter.start()
        self.flops_per_token = self.spent_before.get("flops_per_token")
        self._spent_at_last_log = self.spent_before

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the terms (means per step since the last log), changing weights and speed to the training log.

        Raises:
            UserError: if a term was not finite since the last log.
        """
        if "loss" in logs:
            progress = self.progress_at(self.state.global_step - 1)  # the weights that the last step was taken with
            terms, weights = self.read_terms(), self._changing_weights(progress)
            self.log_groups = {name: f"terms/{name}" for name in terms}
            self.log_groups |= {name: f"weights/{name.removesuffix('_weight')}" for name in weights}
            logs = {**logs, **terms, **weights}
            logs |= self.extensions.logs(self.accelerator, self.state.global_step, progress)
            logs["tokens_per_second"] = self._tokens_per_second()
            logs |= self.probe.read() if self.probe is not None else {}
        super().log(logs, start_time)

    def _changing_weights(self, progress: float) -> dict[str, float]:
        """Return the weights that have a schedule, or all where they are balanced."""
        terms, is_balanced = self.objective.terms, self._balancing is not None
        shares = self._balancing.shares.tolist() if self._balancing is not None else [1.0] * len(terms)
        return {
            f"{term.name}_weight": term.weight(progress) * share
            for term, share in zip(terms, shares, strict=True)
            if is_balanced or term.weight.changes
        }

    def spent(self) -> dict[str, float]:
        """Return seconds and tokens (of all processes, without padding) of training, earlier starts included.

        Tokens forward and backward are missing after a checkpoint of a version that did not count them.
        """
        own = {"tokens": self.tokens_seen, **self.token_counter.totals}
        totals = self.accelerator.reduce(torch.tensor([*own.values()], device=self.args.device), "sum").tolist()
        tokens = {name: total for name, total in zip(own, totals, strict=True) if name in self.spent_before}
        counted = {} if self.flops_per_token is None else {"flops_per_token": self.flops_per_token}
        return {
            "seconds": self.spent_before["seconds"] + time.monotonic() - self._start_time,
            **{name: self.spent_before[name] + total for name, total in tokens.items()},
            **counted,
            **self._spent_on_further(),
        }

    def _spent_on_further(self) -> dict[str, float]:
        """Return the operations of further passes (of all processes); {} where none are taken."""
        if not self.further.are_taken:
            return {}
        own = torch.tensor(self.further.flops, device=self.args.device)
        flops = self.accelerator.reduce(own, "sum").item()
        return {FURTHER_FLOPS: self.spent_before.get(FURTHER_FLOPS, 0.0) + flops}

    def _tokens_per_second(self) -> float:
        """Return tokens per second since the last log, of all processes, without padding."""
        now, last = self.spent(), self._spent_at_last_log
        self._spent_at_last_log = now
        return (now["tokens"] - last["tokens"]) / max(now["seconds"] - last["seconds"], 1e-9)

    def read_terms(self) -> dict[str, float]:
        """Return the means of the terms over the steps since the last log.

        Each mean is over the steps that had a row of the term; a term without any is left out.
        """
        if self._train_meter.last_step < self.state.global_step:
            means = self._train_meter.read(self.accelerator, self.state.global_step)
            means_by_name = zip(self.objective.names, means, strict=True)
            self._term_means = {name: mean for name, mean in means_by_name if not math.isnan(mean)}
            self.last_terms = self.last_terms | self._term_means
        return self._term_means

    def broken_terms(self) -> list[str]:
        """Return the names of terms that were NaN or infinite since training started, on any process."""
        return self._train_meter.not_finite(self.accelerator, self.objective.names)

    def raise_if_not_finite(self) -> None:
        """Raise an error if a term was NaN or infinite since the last log; called before a save.

        Raises:
            NotFiniteError: naming those terms.
        """
        bad = self.broken_terms()
        if bad:
            last = self.state.global_step
            raise NotFiniteError(
                None,
                "a finite loss",
                f"NaN or infinity in {', '.join(bad)} by step {last}",
                why=f"training would go on with a broken student, so it stopped; {self._last_good()}",
                fix=_REMEDY,
            )

    def raise_if_broken(self) -> None:
        """Raise an error if the student or its optimizer is not finite; called before anything is kept.

        A gradient may overflow while the terms are finite, and the weights are then broken before any term is.

        Raises:
            NotFiniteError: naming the tensors and the last good checkpoint.
        """
        self.raise_if_not_finite()
        bad = broken_weights(self.model, self.accelerator)
        if not bad and has_broken_state(self.optimizer, self.accelerator):
            bad = ["the optimizer's moments"]
        if bad:
            raise NotFiniteError(
                None,
                "finite weights",
                f"NaN or infinity in {named(bad)} by step {self.state.global_step}",
                why=f"a gradient overflowed and nothing is learnt any more, so it is not kept; {self._last_good()}",
                fix=_REMEDY,
            )

    def _last_good(self) -> str:
        """Return which checkpoint is the last whole and finite one, in words."""
        checkpoint = last_complete_checkpoint(str(self.args.output_dir))
        return f"the last good checkpoint is {checkpoint.name}" if checkpoint else "there is no good checkpoint"
