"""Data loaders of `DistillationTrainer`: rows in an order that depends on (seed, epoch) alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, IterableDataset, Sampler

from distil_nlp.data.sampling import (
    EpochRows,
    EpochSampler,
    EpochStream,
    grouped_order,
    packed_rows,
    training_order,
)
from distil_nlp.errors import UserError

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
    from transformers import TrainingArguments

    from distil_nlp.data.augmentation.cutoff import Cutoff
    from distil_nlp.data.augmentation.mixup import Mixup
    from distil_nlp.teachers.source import TeacherSource
    from distil_nlp.training.extension import RunningExtensions
    from distil_nlp.training.preemption import PreemptionCallback
else:
    _Trainer = object  # a mixin, of a trainer for a type checker alone


def rows_per_step(args: TrainingArguments) -> int:
    """Return the rows of one step of the optimiser, over all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


class EpochDataLoaders(_Trainer):
    """A mixin for `transformers.Trainer` with resumable data loaders.

    It reads `source`, `cutoff`, `mixup`, `extensions`, `runs_teacher` and `_preemption` of the trainer.
    """

    source: TeacherSource
    cutoff: Cutoff | None
    mixup: Mixup | None
    extensions: RunningExtensions
    runs_teacher: bool
    data_collator: Any
    eval_dataset: Any
    _preemption: PreemptionCallback
    _sampler: EpochSampler | None = None

    def get_train_dataloader(self) -> DataLoader:
        """Return batches shuffled by (seed, epoch) alone; rows of weight 0 fill up the last one."""
        rows = self.prepare_teacher()
        if isinstance(rows, IterableDataset):
            return self._stream_dataloader(rows)
        return self._get_dataloader(
            self.epoch_rows(),
            "Training",
            self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def prepare_teacher(self) -> Any:
        """Prepare the teacher for the training rows, and return these."""
        if self.train_dataset is None:
            raise ValueError("Trainer: training requires a train_dataset.")
        rows = self.train_dataset
        self.source.prepare(
            rows,
            self.data_collator,
            device=self.args.device,
            batch_size=self.args.eval_batch_size,
            workers=self.args.dataloader_num_workers,
            keep_model=self.eval_dataset is not None or self.runs_teacher,
            is_told_to_stop=self._preemption.got_sigterm,
        )
        self._preemption.stop_if_told()
        for one in self.extensions:
            one.to(self.args.device)  # from which another trainer may have taken it
        return rows

    def epoch_rows(self) -> EpochRows:
        """Return the training rows as an `EpochSampler` reads them, once the teacher is prepared."""
        columns = self.source.cached_epochs, self.cutoff, self.mixup, self.source.reads_row_numbers
        return EpochRows(self.train_dataset, *columns)

    def epoch_sampler(self, rows: EpochRows) -> EpochSampler:
        """Return the sampler of the training rows."""
        return self._get_train_sampler(rows)

    def _stream_dataloader(self, rows: IterableDataset) -> DataLoader:
        """Return batches of an endless stream, pass after pass; each process reads its own part.

        Raises:
            UserError: if rows are to be augmented, since that needs their numbers.
        """
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
        moving = {"device": args.device, "put_on_device": True, "non_blocking": args.dataloader_pin_memory}
        return prepare_data_loader(loader, **moving, **alone)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Return batches in the order of the rows; fillers of the last batch belong to no row set.

        Where the documents of queries are ranked, each batch has whole queries, and fillers.
        """
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if rows is None or isinstance(rows, IterableDataset):
            return super().get_eval_dataloader(rows)
        size, sampler = self.args.eval_batch_size, self._get_eval_sampler
        read = packed_rows(rows, size) if self.data_collator.group_size else EpochRows(rows)
        return self._get_dataloader(read, "Evaluation", size, sampler_fn=sampler)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Return batches of a test set, as for evaluation."""
        return self.get_eval_dataloader(test_dataset)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        rows, args = train_dataset.rows, self.args
        size = self.data_collator.group_size
        if size:
            grouped = grouped_order(rows, args, size)
            multiple = self._train_batch_size * args.world_size
            self._sampler = EpochSampler(grouped.num_slots, multiple, grouped, first_filler=len(rows))
            return self._sampler
        order = training_order(rows, args)
        multiple = 1 if args.dataloader_drop_last else self._train_batch_size * args.world_size
        self._sampler = EpochSampler(len(rows), multiple, order)
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler:
        return EpochSampler(len(eval_dataset), self.args.eval_batch_size * self.args.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the sampler's epoch. `CheckpointGuard` calls this, whatever wraps the loader."""
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
