"""Checkpoints: a guard against broken ones, completion markers, and the search for the last complete one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil_nlp.errors import UserError
from distil_nlp.results.provenance import PROVENANCE
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.training.finite import broken_tensors_of, named
from distil_nlp.training.token_counter import TOKENS_BACKWARD, TOKENS_FORWARD
from distil_nlp.utils.files import checksum, load_json, read_json, write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

COMPLETE = "complete.json"
"""File with the checksum of every other file of a checkpoint, written last: what differs is half-written or damaged."""
SPENT = "spent.json"
"""File with the seconds and tokens of training so far, so that a resumed run adds to them, and the process layout."""
NOTHING_SPENT = {"seconds": 0.0, "tokens": 0, TOKENS_FORWARD: 0, TOKENS_BACKWARD: 0}
"""The content of `SPENT` before the first step; that of an older version lacks the last two."""


class CheckpointGuard(TrainerCallback):
    """A callback that prevents checkpoints after a non-finite term, and marks complete ones.

    It also sets the epoch of the training sampler.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.start_meter(state.global_step)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.set_epoch(int(state.epoch or 0))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.trainer.raise_if_not_finite()

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save:
            self.trainer.raise_if_not_finite()

    on_epoch_end = on_step_end

    def on_evaluate(self, args, state, control, **kwargs):
        self.trainer.raise_if_not_finite()

    def on_train_end(self, args, state, control, **kwargs):
        if state.global_step == 0:
            raise UserError(
                None,
                "at least one training step",
                "none",
                why="nothing was learnt",
                fix=(
                    "check training.max_steps, num_train_epochs, and dataloader_drop_last with a batch "
                    "larger than the data"
                ),
            )
        self.trainer.raise_if_broken()
        self.trainer.read_terms()

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.trainer.accelerator.wait_for_everyone()
        spent = self.trainer.spent() | _process_layout(args)
        if args.should_save and folder.is_dir():
            (folder / SPENT).write_text(json.dumps(spent))
            if self.trainer.provenance is not None:
                (folder / PROVENANCE).write_text(json.dumps(self.trainer.provenance.to_dict()))
            mark_as_complete(folder)


def read_spent(checkpoint: Path | None) -> dict[str, float]:
    """Return seconds and tokens of training up to a checkpoint; 0 without one, or where it does not say."""
    spent = checkpoint and read_json(checkpoint / SPENT, "no words on processes", seconds=int | float, tokens=int)
    if checkpoint and not spent:
        logger.info(f"{checkpoint.name} does not say what it has cost: seconds and tokens count from here on")
    return spent or dict(NOTHING_SPENT)


def warn_about_changed_processes(checkpoint: Path, args: TrainingArguments) -> None:
    """Log how a resumed run differs from an uninterrupted one, where the number of processes has changed."""
    now = _process_layout(args)
    then = read_json(checkpoint / SPENT, "its processes are unknown", processes=int, rows_per_step=int)
    if then is None or now["processes"] == then["processes"]:
        return
    text = f"{checkpoint.name} was written by {then['processes']} processes, this run has {now['processes']}: "
    if now["rows_per_step"] == then["rows_per_step"]:
        text += "each step takes the rows it would have taken; dropout and the split of a stream are drawn anew"
    else:
        text += (
            f"a step takes {now['rows_per_step']} rows, it took {then['rows_per_step']}, so what is left of this "
            f"epoch is other rows, and the schedule is stretched or cut; on {then['processes']} processes all "
            "would be as if nobody had stopped"
        )
    logger.info(text)


def _process_layout(args: TrainingArguments) -> dict[str, int]:
    return {"processes": args.world_size, "rows_per_step": rows_per_step(args)}


def mark_as_complete(folder: Path) -> None:
    """Write the completion marker of a checkpoint, with the checksums of its files."""
    (folder / COMPLETE).unlink(missing_ok=True)  # from an earlier save of the same step
    files = {str(file.relative_to(folder)): checksum(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    write_atomically(folder / COMPLETE, json.dumps(files, indent=1))


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest checkpoint whose files are all there as written and finite; log the ones that it skips."""
    checkpoints = [p for p in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if p.name.split("-")[-1].isdigit()]
    for folder in sorted(checkpoints, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        defect = _defect(folder)
        if defect is None:
            return folder
        logger.info(f"{folder}: {defect}; passed over")
    return None


def _defect(folder: Path) -> str | None:
    """Return the first defect of a checkpoint, or None."""
    try:
        files = load_json(folder / COMPLETE)
    except (OSError, ValueError):
        return "it was not written to the end"
    if not files:
        return f"{COMPLETE} lists no files"
    for name, expected in files.items():
        try:
            if checksum(folder / name) != expected:
                return f"{name} is damaged"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read ({getattr(error, 'strerror', error)})"
    broken = broken_tensors_of(folder)
    return f"NaN or infinity in {named(broken)}" if broken else None
