"""`MultitaskTrainer`: one encoder, several tasks. Each step is of one task, and is taken by that task's own trainer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainingArguments

from distil_nlp.data.sampling import EpochRows, draw_seed
from distil_nlp.data.task_sampling import TASK, MultitaskCollator, TaskDraws, TaskRows, TaskSampler
from distil_nlp.models.shared_encoder import TaskModels
from distil_nlp.training.checkpoints import CheckpointGuard
from distil_nlp.training.checks import set_required_arguments
from distil_nlp.training.dashboards import group_terms
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.training.preemption import PreemptionCallback
from distil_nlp.training.progress import TermProgressCallback
from distil_nlp.training.token_counter import TOKENS_BACKWARD, TOKENS_FORWARD
from distil_nlp.training.trainer import DistillationTrainer

_SUMMED = ("tokens", TOKENS_FORWARD, TOKENS_BACKWARD)
_OF_TASKS = "tasks"
"""Key of `spent` with what each task has spent."""


class MultitaskTrainer(DistillationTrainer):
    """A trainer of several students that share an encoder (MT-DNN, arXiv:1901.11504; with teachers arXiv:1904.09482).

    One optimiser and one schedule are for all. Each step is of one task, drawn by `TaskDraws`: the task's own trainer
    collates, asks its teacher and computes the loss, as if it trained alone. A term is logged as `<task>/<term>`. An
    evaluation is of all tasks: `eval_<task>/<metric>`, and `eval_loss`, the mean of their losses.

    Args:
        parts: name of a task → its trainer, which is used up: its student shares the encoder with the others'
            (`share_encoder`), and its rows have a length.
        args: as those of the parts, but for the folder.
        power: see `TaskDraws`.
        **kwargs: `Trainer`'s own.

    Attributes:
        parts: likewise.
        draws: the task of each step.
    """

    def __init__(self, parts: Mapping[str, DistillationTrainer], args: TrainingArguments, power: float, **kwargs: Any):
        self.parts = dict(parts)
        self._ordered = list(self.parts.values())
        set_required_arguments(args)
        args.ddp_find_unused_parameters = True  # the heads of other tasks get no gradient
        datasets: list[Any] = [part.train_dataset for part in self._ordered]
        rows = tuple(map(len, datasets))
        self.draws = TaskDraws(rows, power, draw_seed(args))
        first = self._ordered[0]
        self.objective, self.source, self.teacher = first.objective, first.source, None
        self.models = TaskModels([part.teacher_student.student for part in self._ordered])
        self.probe = None
        self._balancing = self._changing_teacher = None
        super(DistillationTrainer, self).__init__(  # whose own constructor is for one task
            model=self.models,
            args=args,
            data_collator=MultitaskCollator([part.data_collator for part in self._ordered]),
            train_dataset=TaskRows([EpochRows(part.train_dataset) for part in self._ordered]),
            eval_dataset=first.eval_dataset,
            **kwargs,
        )
        group_terms(self)
        self.model_accepts_loss_kwargs = True  # transformers < 5.20, as in `DistillationTrainer`
        self._preemption = PreemptionCallback(self)
        for part in self._ordered:
            part.pop_callback(PreemptionCallback)
            part.add_callback(self._preemption)
            part._preemption = self._preemption
        self.add_callback(CheckpointGuard(self))
        self.add_callback(self._preemption)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TermProgressCallback())
        self._seconds = dict.fromkeys(self.parts, 0.0)
        self._now: str | None = None
        self._since = 0.0

    @property
    def students(self) -> dict[str, PreTrainedModel]:
        """The student of each task."""
        return {name: part.teacher_student.student for name, part in self.parts.items()}

    def detach(self) -> PreTrainedModel:
        """Remove everything that this training added to all models; return the student of the first task."""
        plain = [part.detach() for part in self._ordered]
        return plain[0]

    def _require_hooks(self) -> None:
        for part in self._ordered:
            part._require_hooks()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights of all students in one file, each shared tensor once, with what only training needs."""
        Trainer.save_model(self, output_dir, _internal_call)

    # Rows -----------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of one task each."""
        for part in self._ordered:
            part.prepare_teacher()
        rows = TaskRows([part.epoch_rows() for part in self._ordered])
        sampler = self._get_task_sampler
        return self._get_dataloader(rows, "Training", self._train_batch_size, sampler_fn=sampler, is_training=True)

    def _get_task_sampler(self, rows: Any) -> TaskSampler:
        own = [part.epoch_sampler(one) for part, one in zip(self._ordered, rows.tasks, strict=True)]
        sampler = TaskSampler(own, self.draws, rows_per_step(self.args))
        self._task_sampler = sampler
        return sampler

    def set_epoch(self, epoch: int) -> None:
        """Set the sampler's epoch."""
        self._task_sampler.set_epoch(epoch)

    # Steps ----------------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the micro-batches of one optimiser step, all of one task, and the row counts of its terms."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return [], torch.zeros(0, device=device)
        part = self._part_of(batches[0])
        self._charge([*self.parts][batches[0][TASK]])
        return part.get_batch_samples(iter(batches), len(batches), device)

    def _part_of(self, batch: Mapping[str, Any]) -> DistillationTrainer:
        """Return the trainer of a batch's task, at the step that training is at."""
        part = self._ordered[batch[TASK]]
        part.state = self.state
        return part

    def _charge(self, task: str | None) -> None:
        """Charge the seconds since the last call to the task of the step before; the next ones are those of `task`."""
        now = time.monotonic()
        if self._now is not None:
            self._seconds[self._now] += now - self._since
        self._now, self._since = task, now

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Take a micro-batch's forward and backward; the operations of each task's first one are counted."""
        step = partial(Trainer.training_step, self, model, inputs, *args, **kwargs)
        return self._part_of(inputs).counting_flops(inputs, step)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of a micro-batch as the trainer of its task computes it."""
        part, self.models.task = self._part_of(inputs), inputs[TASK]
        own = {name: value for name, value in inputs.items() if name != TASK}
        return part.compute_loss(model, own, return_outputs, num_items_in_batch)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the metrics of all tasks on the rows to choose a checkpoint by, and the mean of their losses."""
        self._charge(None)
        metrics: dict[str, float] = {}
        for name, part in self.parts.items():
            part.state = self.state
            losses_only = True if part.compute_metrics is None else None
            output = part.evaluation_loop(part.get_eval_dataloader(), "Evaluation", losses_only, ignore_keys)
            found = {key.removeprefix("eval_"): value for key, value in (output.metrics or {}).items()}
            found.pop("model_preparation_time", None)
            metrics |= {f"{metric_key_prefix}_{name}/{key}": value for key, value in found.items()}
        losses = [metrics[f"{metric_key_prefix}_{name}/loss"] for name in self.parts]
        metrics[f"{metric_key_prefix}_loss"] = sum(losses) / len(losses)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # The log --------------------------------------------------------------------------------------------------------

    def start_meter(self, step: int) -> None:
        """Reset sums and clocks of all tasks where training starts."""
        self._start_time, self._spent_at_last_log = time.monotonic(), self.spent_before
        before: Any = self.spent_before.get(_OF_TASKS, {})
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        self.last_terms, self._now = {}, None
        for name, part in self.parts.items():
            part.state, part.spent_before = self.state, {**part.spent_before, **before.get(name, {})}
            part.start_meter(step)
            self._seconds[name] = part.spent_before["seconds"]
            names = {f"{name}/{term}" for term in part.objective.names}
            self.last_terms |= {term: entry[term] for entry in logged for term in names if term in entry}

    def read_terms(self) -> dict[str, float]:
        """Return the mean of each task's terms over its steps since the last log."""
        found: dict[str, float] = {}
        for name, part in self.parts.items():
            part.state = self.state
            found |= {f"{name}/{term}": value for term, value in part.read_terms().items()}
        self.last_terms |= found
        return found

    def broken_terms(self) -> list[str]:
        """Return the names of terms that were NaN or infinite, of all tasks."""
        return [f"{name}/{term}" for name, part in self.parts.items() for term in part.broken_terms()]

    def _changing_weights(self, progress: float) -> dict[str, float]:
        parts = self.parts.items()
        return {
            f"{name}/{key}": value for name, part in parts for key, value in part._changing_weights(progress).items()
        }

    def spent(self) -> dict[str, Any]:
        """Return seconds and tokens of training, and those of each task as `tasks`."""
        self._charge(self._now)
        tasks = {name: {**part.spent(), "seconds": self._seconds[name]} for name, part in self.parts.items()}
        sums = {key: sum(one[key] for one in tasks.values()) for key in _SUMMED}
        seconds = self.spent_before["seconds"] + time.monotonic() - self._start_time
        return {"seconds": seconds, **sums, _OF_TASKS: tasks}

    def records(self, record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the record of each task's part in a training, in the form of that of a training alone.

        Args:
            record: of the training, see `train_to_end`.
        """
        spent, steps = self.spent()[_OF_TASKS], self.draws.steps(self.state.global_step)
        planned = self.draws.steps(self.state.max_steps)
        counts = zip(self.parts, steps, planned, strict=True)
        return {name: self._record_of(name, record, spent[name], *own) for name, *own in counts}

    def _record_of(
        self, name: str, record: Mapping[str, Any], spent: Mapping[str, float], steps: int, planned: int
    ) -> dict[str, Any]:
        per_token, seconds = spent.get("flops_per_token"), spent["seconds"]
        return {
            **record,
            **{key: spent.get(key) for key in _SUMMED},
            "seconds": round(seconds, 2),
            "flops": None if per_token is None else per_token * spent["tokens"],
            "tokens_per_second": round(spent["tokens"] / seconds, 1) if seconds else None,
            "steps": steps,
            "max_steps": planned,
            "final_terms": _of_task(name, record["final_terms"]),
            "history": [found for entry in record["history"] if (found := self._entry_of(name, entry))],
        }

    def _entry_of(self, name: str, entry: Mapping[str, float]) -> dict[str, float]:
        """Return a task's part of a log entry; {} if the task had no step since the one before."""
        shared = {key: entry[key] for key in ("step", "epoch", "learning_rate", "grad_norm") if key in entry}
        if "eval_loss" in entry:
            found = _of_task(f"eval_{name}", entry)
            return shared | {f"eval_{key}": value for key, value in found.items()}
        terms, objective = _of_task(name, entry), self.parts[name].objective
        weights = dict(zip(objective.names, objective.weights(self.progress_at(int(entry["step"]) - 1)), strict=True))
        values = [weight * terms[term] for term, weight in weights.items() if term in terms]
        return {**shared, "loss": sum(values), **terms} if values else {}


def _of_task(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a log entry is of a task, by its own names."""
    return {key.removeprefix(f"{name}/"): value for key, value in entry.items() if key.startswith(f"{name}/")}
