"""`DistillationTrainer`: a `transformers.Trainer` whose loss is an `Objective`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState
from accelerate.utils import extract_model_from_parallel
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import PARTNER, SHARE, Mixup, MixupCollator
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.data.sampling import EpochRows, EpochSampler, EpochStream, training_order
from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import MaskedAccuracy
from distil_nlp.objective import ROWS_PER_PROCESS, ModelShape, OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import PROJECTIONS
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.source import TeacherSource, teacher_source
from distil_nlp.training.balancing import BalancingCallback
from distil_nlp.training.checkpoints import CheckpointGuard
from distil_nlp.training.checks import (
    set_required_arguments,
    validate_arguments,
    validate_augmentation,
    validate_balancing_precision,
    validate_cache_support,
    validate_checkpointing,
    validate_double_backward,
    validate_sharding,
)
from distil_nlp.training.compile import compile_blocks, restore_blocks
from distil_nlp.training.gradient_probe import GradientProbe
from distil_nlp.training.meter import Meter
from distil_nlp.training.preemption import PreemptionCallback
from distil_nlp.training.progress import TermProgressCallback
from distil_nlp.training.teacher_student import TeacherStudent

_CHUNK_BYTES = {"cpu": 2**24, "gpu": 2**29}
"""Of one model's logits in fp32, which the vocabulary's losses hold at a time."""


class DistillationTrainer(Trainer):
    """Trains a student to match a teacher, by the terms of an objective.

    ```python
    trainer = DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective([SoftTargetKL(5.0), HiddenCosine(1.0)], "mlm"),
        args=TrainingArguments("runs/mine"),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer),
    )
    trainer.train()
    trainer.detach().save_pretrained("runs/mine/student")
    ```

    The loss of an optimiser step is Σ_terms weight · (Σ rows ÷ the term's rows in the whole step, over all
    micro-batches and processes), so that 8×1, 4×2 and two processes give the same gradient. Each term is
    logged by its own name, in training and evaluation, unweighted.

    Args:
        model: the student, with the head that the objective's kind needs.
        teacher: a model: frozen, in eval mode and in its own dtype; moved to the device, never wrapped, trained or
            saved; or a `TeacherSource`. May be None if no term needs it.
        cache: where the teacher's answers about the training rows are kept. They are read from there, or asked for
            first; the teacher itself then runs in evaluation alone.
        objective: the terms; bound to the two models here.
        data_collator: any; it is wrapped to draw the rows that the terms look at. Columns that neither
            model knows do not reach it.
        cutoff, mixup: what becomes of the training rows of a task each time they are read; teacher and student see the
            same. Needs rows with a length, and no `cache`.
        gradients_every: steps between two looks at how the terms pull (`GradientProbe`); none if None.
        **kwargs: `Trainer`'s own.

    Raises:
        UserError: for several GPUs without a launcher, for arguments that would change the objective unseen
            (label smoothing, NEFTune, Liger), and whatever `Objective.bind` finds.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        objective: Objective,
        teacher: PreTrainedModel | TeacherSource | None = None,
        data_collator: Callable | None = None,
        cache: CacheConfig | None = None,
        gradients_every: int | None = None,
        cutoff: Cutoff | None = None,
        mixup: Mixup | None = None,
        **kwargs: Any,
    ):
        validate_arguments(args)
        validate_cache_support(objective, cache)
        validate_augmentation(objective, {"cutoff": cutoff, "mixup": mixup}, cache)
        validate_balancing_precision(objective, args)
        set_required_arguments(args)
        self.source = teacher_source(teacher if objective.needs_teacher else None, cache)
        teacher = self.source.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)  # the same projections in every process and every run
            objective.bind(self.source.shape, ModelShape.of(model.config))
        wanted = objective.request("student")
        if not wanted.logits and args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = True  # the head gets no gradient
        validate_checkpointing(args, wanted)
        validate_double_backward(args, wanted)
        self.objective, self.teacher, self.cutoff, self.mixup = objective, teacher, cutoff, mixup
        self.teacher_student = TeacherStudent(model, self.source, objective, mixes=mixup is not None)
        if args.deepspeed_plugin is not None:
            AcceleratorState._reset_state()  # accelerate refuses DeepSpeed to a second trainer, even after the first
        super().__init__(model=_unprepared(model), args=args, data_collator=data_collator, **kwargs)
        validate_sharding(wanted, self.is_fsdp_enabled, args.deepspeed_plugin)
        if args.torch_compile:
            compile_blocks([model, *([teacher] if teacher is not None else [])], args, self.accelerator)
        self.model_accepts_loss_kwargs = True  # transformers < 5.20: the loss is scaled for accumulation here
        known = self.teacher_student.inputs | {"labels", "label", "label_ids", "word_ids"}
        self.data_collator = RowCollator(
            self.data_collator if mixup is None else MixupCollator(self.data_collator),
            objective.row_sets(_chunk(model, args) if objective.kind.predicts_words else None),
            known if mixup is None else known | {PARTNER, SHARE},
            seed=args.seed,
        )
        self.source.to(args.device)
        self._train_meter = Meter(len(objective.terms), args.device)
        self._eval_meter: Meter | None = None
        self.tokens_seen = 0
        self.spent_before = {"seconds": 0.0, "tokens": 0}
        self._sampler: EpochSampler | None = None
        self.last_terms: dict[str, float] = {}
        self._read: dict[str, float] = {}
        balance = objective.balance
        if balance is not None and balance.kind == "gradient_norm":
            gradients_every = balance.every
        self.probe = GradientProbe(gradients_every) if gradients_every else None
        self._rebalances = BalancingCallback(self, len(objective.terms), args.device) if balance is not None else None
        self._stop = PreemptionCallback(self)
        if self._rebalances is not None:
            self.add_callback(self._rebalances)
        self.add_callback(CheckpointGuard(self))
        self.add_callback(self._stop)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TermProgressCallback())

    def detach(self) -> PreTrainedModel:
        """Takes everything that training added off both models, and returns the plain student."""
        self.teacher_student.remove_hooks()
        student = _unprepared(self.accelerator.unwrap_model(self.model))
        for model in (student, self.teacher):
            if model is not None:
                restore_blocks(model)
        return student

    def student_state(self) -> dict[str, Tensor]:
        """The student's weights, whole on the main process whatever sharded them; every process must call it."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name: value for name, value in state.items() if not name.startswith(PROJECTIONS)}

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """`Trainer.train`, which SIGTERM ends with a checkpoint.

        Raises:
            Preempted: once that is saved.
        """
        with self._stop.listening():
            return super().train(*args, **kwargs)

    # The loss ----------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """The micro-batches of one optimiser step and the row counts of its terms over all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self.tokens_seen += sum(batch["tokens"] for batch in batches)
        if self.accelerator.num_processes > 1:
            self._share_row_counts(batches)
        counts = torch.tensor([self.objective.counts(batch["rows"]) for batch in batches], dtype=torch.float32)
        counts = counts.sum(0) if batches else torch.zeros(len(self.objective.terms))
        if device.type == "cuda":
            counts = counts.pin_memory()
        counts = self.accelerator.reduce(counts.to(device, non_blocking=True), "sum")
        self._train_meter.begin_step(counts)
        return batches, counts

    def _share_row_counts(self, batches: list[dict[str, Any]]) -> None:
        """For terms that compare rows: how many there are in each process, micro-batch by micro-batch. The one thing of
        a step that the host waits for."""
        names = self.objective.gathered_sets()
        if not names or not batches:
            return
        own = [[batch["rows"][name].numel() for name in names] for batch in batches]
        sizes = self.accelerator.gather(torch.tensor([own], device=self.args.device)).permute(1, 2, 0).tolist()
        for batch, found in zip(batches, sizes, strict=True):
            batch[ROWS_PER_PROCESS] = dict(zip(names, found, strict=True))
            batch["rows"]["batch"] = torch.arange(int(sum(found[0]) > 1))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Σ weight · sum ÷ count of this micro-batch, times the number of processes, over which DDP averages.

        `num_items_in_batch` is what `get_batch_samples` counted, (terms,); without it (a caller's own loop)
        the batch is taken for the whole step.
        """
        counts = num_items_in_batch
        if counts is None:
            counts = torch.tensor(self.objective.counts(inputs["rows"]), dtype=torch.float32, device=self.args.device)
            self._train_meter.begin_step(counts)
        factors = self.objective.row_weights(self._progress, counts)
        if self.probe is not None and self.probe.is_due(self.state.global_step):
            self._look_at_gradients(model, inputs, factors)
        loss, sums, student = self.teacher_student.compute(model, inputs, self._progress, factors)
        values = sums / counts.clamp_min(1)
        self._train_meter.add(values)
        if self._rebalances is not None:
            self._rebalances.add(values, counts)
        loss = loss * self.accelerator.num_processes
        return (loss, {"logits": student.logits}) if return_outputs else loss

    def _look_at_gradients(self, model: torch.nn.Module, inputs: dict[str, Any], factors: Tensor) -> None:
        def forward(chosen: Tensor) -> Tensor:
            return self.teacher_student.compute(model, inputs, self._progress, chosen)[0]

        with self.accelerator.no_sync(model):
            self.probe.measure(
                self.state.global_step, self.objective.names, factors, self.teacher_student.recorder, forward
            )

    @property
    def _progress(self) -> float:
        """Where schedules stand: 0 at the first step, 1 at the last."""
        return self.progress_at(self.state.global_step)

    def progress_at(self, step: int) -> float:
        """Where schedules stand at a step."""
        return step / max(self.state.max_steps - 1, 1)

    # Logging -----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the terms (means per step since the last log), scheduled weights and speed to the training log.

        Raises:
            UserError: if a term was not finite since the last log.
        """
        if "loss" in logs:
            logs = {**logs, **self.read_terms()}
            done = self.progress_at(self.state.global_step - 1)  # the weights that the last step was taken with
            logs |= self._weights(done)
            logs["tokens_per_second"] = self._speed()
            logs |= self.probe.read() if self.probe is not None else {}
        super().log(logs, start_time)

    def _weights(self, done: float) -> dict[str, float]:
        """Those that change: scheduled ones, or all where they are balanced."""
        terms, balanced = self.objective.terms, self._rebalances is not None
        shares = self._rebalances.shares.tolist() if balanced else [1.0] * len(terms)
        return {
            f"{term.name}_weight": term.weight(done) * share
            for term, share in zip(terms, shares, strict=True)
            if balanced or term.weight.changes
        }

    def start_meter(self, step: int) -> None:
        """Training begins (or begins again, with another batch size) at this step."""
        self._train_meter.start(step)
        if self._rebalances is not None:
            self._rebalances.start()
        if self.probe is not None:
            self.probe.start()
        self.tokens_seen, self._began = 0, time.monotonic()
        self._logged = self.spent_before

    def spent(self) -> dict[str, float]:
        """Seconds and tokens (of all processes, without padding) that training took, earlier legs included."""
        tokens = torch.tensor(float(self.tokens_seen), device=self.args.device)
        tokens = int(self.accelerator.reduce(tokens, "sum").item())
        return {
            "seconds": self.spent_before["seconds"] + time.monotonic() - self._began,
            "tokens": self.spent_before["tokens"] + tokens,
        }

    def _speed(self) -> float:
        """Tokens per second since the last log, of all processes, without padding."""
        now, last = self.spent(), self._logged
        self._logged = now
        return (now["tokens"] - last["tokens"]) / max(now["seconds"] - last["seconds"], 1e-9)

    def read_terms(self) -> dict[str, float]:
        """Means of the terms over the steps since they were last read, each over those that had a row of it; a term
        that no step had is left out. `last_terms` keeps the latest of each."""
        if self._train_meter.last_step < self.state.global_step:
            means = self._train_meter.read(self.accelerator, self.state.global_step)
            found = zip(self.objective.names, means, strict=True)
            self._read = {name: mean for name, mean in found if not math.isnan(mean)}
            self.last_terms = self.last_terms | self._read
        return self._read

    def raise_if_not_finite(self) -> None:
        """Raises UserError naming the terms that were NaN or infinite since the last log; called before a save."""
        bad = self._train_meter.not_finite(self.accelerator, self.objective.names)
        if bad:
            last = self.state.global_step
            raise UserError(
                None,
                "a finite loss",
                f"NaN or infinity in {', '.join(bad)} by step {last}",
                why=(
                    "training would go on with a broken student, so it stopped; checkpoints up to the last log are good"
                ),
                fix=("lower training.learning_rate, set training.max_grad_norm=1, or use bf16 instead of fp16"),
            )

    # Evaluation --------------------------------------------------------------------------------------------

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor | None, Tensor | None]:
        """Adds the batch to the exact sums; hands on logits and labels except for language modelling."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            factors = torch.zeros(len(self.objective.terms), device=self.args.device)
            _, sums, student = self.teacher_student.compute(model, inputs, 1.0, factors, self._evaluation_terms)
        counts = [
            *self.objective.counts(inputs["rows"]),
            *(len(inputs["rows"][one.counted_rows()]) for one in self._evaluation_terms),
        ]
        self._eval_meter.add(sums, sums.new_tensor(counts))
        if self.objective.kind.level == "token" or prediction_loss_only or student.logits is None:
            return None, None, None
        labels = inputs.get("labels")
        return None, student.logits.detach(), labels if labels is not None else _no_labels(student.logits)

    @property
    def _evaluation_terms(self) -> list[OutputTerm]:
        """What evaluation counts besides the terms: right guesses of masked tokens, where a term looks at those."""
        has_labels = "hard_label" in self.objective.names
        return [MaskedAccuracy()] if self.objective.kind.predicts_words and has_labels else []

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        *args: Any,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> EvalLoopOutput:
        """`Trainer`'s loop with the exact loss and terms: Σ ÷ rows over all batches and processes."""
        size = len(self.objective.terms) + len(self._evaluation_terms)
        self._eval_meter = Meter(size, self.args.device, counted=True)
        self.source.to(self.args.device)
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        means = self._eval_meter.read(self.accelerator)
        terms = dict(zip(self.objective.names, means, strict=False))
        weights = self.objective.weights(1.0)  # where schedules end, so that all evaluations compare
        weighed = [weight * value for weight, value in zip(weights, terms.values(), strict=True)]
        loss = sum(value for value in weighed if not math.isnan(value))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in terms.items()}
        if self._evaluation_terms:
            metrics[f"{metric_key_prefix}_perplexity"] = math.exp(min(terms["hard_label"], 700.0))
            metrics[f"{metric_key_prefix}_accuracy"] = means[-1]
        output.metrics.update(metrics, **{f"{metric_key_prefix}_loss": loss})
        return output

    # Data --------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Shuffled by (seed, epoch) alone; the last batch is filled up with rows of weight 0."""
        if self.train_dataset is None:
            raise ValueError("Trainer: training requires a train_dataset.")
        rows = self.train_dataset
        self.source.prepare(
            rows,
            self.data_collator,
            device=self.args.device,
            batch_size=self.args.eval_batch_size,
            workers=self.args.dataloader_num_workers,
            keep_model=self.eval_dataset is not None,
        )
        if isinstance(rows, IterableDataset):
            return self._stream_dataloader(rows)
        return self._get_dataloader(
            EpochRows(rows, self.source.cached_epochs, self.cutoff, self.mixup),
            "Training",
            self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _stream_dataloader(self, rows: IterableDataset) -> DataLoader:
        """A stream without end: passes follow each other, each process reads its own part."""
        args = self.args
        if self.cutoff is not None or self.mixup is not None:
            raise UserError(
                "data.augmentation",
                "training rows with a length",
                "a stream",
                why="its rows have no numbers, by which draws are the same after a resume",
                fix="take a dataset that is no stream, or leave it out",
            )
        loader = DataLoader(
            EpochStream(rows, args.process_index, args.world_size),
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        # one process of one, since the stream is split already; dispatching would cut the rows to the batch size
        alone = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
        return prepare_data_loader(loader, device=args.device, put_on_device=True, **alone)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """In order; rows that only fill up the last batch belong to no row set."""
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if rows is None or isinstance(rows, IterableDataset):
            return super().get_eval_dataloader(rows)
        size, sampler = self.args.eval_batch_size, self._get_eval_sampler
        return self._get_dataloader(EpochRows(rows), "Evaluation", size, sampler_fn=sampler)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return self.get_eval_dataloader(test_dataset)

    def _get_train_sampler(self, train_dataset: EpochRows | None = None) -> Sampler:
        rows, args = train_dataset.rows, self.args
        order = training_order(rows, args)
        fill = 1 if args.dataloader_drop_last else self._train_batch_size * args.world_size
        self._sampler = EpochSampler(len(rows), fill, order)
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: EpochRows) -> Sampler:
        return EpochSampler(len(eval_dataset), self.args.eval_batch_size * self.args.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Tells the sampler which epoch begins; called by the guard, whatever wraps the loader."""
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)


def _unprepared(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it was before accelerate prepared it, for an evaluation say: a prepared one would not be wrapped in
    DDP again, and train without exchanging gradients."""
    model = extract_model_from_parallel(model, keep_fp32_wrapper=False)
    model.__dict__.pop("_is_accelerate_prepared", None)
    return model


def _chunk(model: PreTrainedModel, args: TrainingArguments) -> int:
    """How many rows of the vocabulary's logits are looked at at a time."""
    held = _CHUNK_BYTES["cpu" if args.device.type == "cpu" else "gpu"]
    return max(held // (4 * model.config.vocab_size), 1)


def _no_labels(logits: Tensor) -> Tensor:
    return torch.full((logits.shape[0],), -100, device=logits.device)
