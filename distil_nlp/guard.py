"""What a trainer refuses, and what guards its checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from distil_nlp.console import say
from distil_nlp.errors import UserError
from distil_nlp.results import checksum, write_atomically
from distil_nlp.signals import Request

COMPLETE = "complete.json"
"""Written into a checkpoint last, with the checksum of every file: what differs is half-written or damaged."""
_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
SPENT = "spent.json"
"""In a checkpoint: seconds and tokens that training took so far, so that a resumed run adds to them; who took them."""


def refuse_arguments(args: TrainingArguments) -> None:
    """Names the arguments that would change the objective without anybody seeing it.

    Raises:
        UserError: for label smoothing, NEFTune or Liger, for CUDA graphs, for several GPUs without a launcher, and
            for launched processes that do not know of each other.
    """
    silent = {
        "label_smoothing_factor": "it would replace hard_label by another loss",
        "neftune_noise_alpha": "the noise would disturb the student's embeddings, which the terms compare",
        "use_liger_kernel": "it replaces the model's own loss and layers, which the signals read",
    }
    for name, consequence in silent.items():
        if getattr(args, name, None):
            raise UserError(
                f"training.{name}: expected it unset / got {getattr(args, name)} / {consequence} / leave it out"
            )
    if args.torch_compile and args.torch_compile_mode in _CUDA_GRAPHS:
        raise UserError(
            f"training.torch_compile_mode: expected a mode without CUDA graphs / got {args.torch_compile_mode} / a "
            "graph's output is overwritten by the next one, while terms still look at it / leave it out, or use "
            "max-autotune-no-cudagraphs"
        )
    if args.n_gpu > 1:
        raise UserError(
            f"expected one process per GPU / got one process for {args.n_gpu} GPUs / DataParallel would divide "
            "by the wrong row counts / start with `accelerate launch scripts/distill.py …`, or show one GPU "
            "only (CUDA_VISIBLE_DEVICES=0)"
        )

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise UserError(
            f"expected {launched} processes that train together, as they were launched / got processes that each take "
            "themselves for the only one / they would overwrite each other's results / on the CPU: set "
            "training.use_cpu=true"
        )


def refuse_augmentation(objective: Any, wanted: Mapping[str, Any], cache: Any) -> None:
    """Names what an objective can make nothing of; `wanted` maps `cutoff`, `mixup` and `replacement` to what is asked.

    Raises:
        UserError: for language modelling, for answers that are kept though what is asked about changes, and for rows
            without a label where nobody labels them.
    """
    found = {f"data.augmentation.{name}": name for name, part in wanted.items() if part is not None}
    changing = [key for key, name in found.items() if name != "replacement"]
    unlabelled = [key for key, name in found.items() if name != "cutoff"]
    if found and objective.kind == "mlm":
        raise UserError(
            f"{', '.join(found)}: expected a task (classification, regression) / got masked language modelling / its "
            "masks make another row of a text each epoch already / leave data.augmentation out"
        )
    if changing and cache is not None:
        raise UserError(
            f"teacher.cache: expected rows that stay as they are / got {', '.join(changing)} / each epoch shows other "
            "rows, of which the kept answers know nothing / leave one of the two out"
        )
    if unlabelled and not objective.needs_teacher:
        raise UserError(
            f"{', '.join(unlabelled)}: expected a term that learns from the teacher / got "
            f"{', '.join(objective.names)} / rows that were made have no label, so that nothing would be learnt from "
            "them / add soft_target_kl, say, or leave it out"
        )


def refuse_reentrant_checkpointing(args: TrainingArguments, request: Request) -> None:
    """Reentrant checkpointing runs the first forward without a graph: what is kept from within it has no gradient.

    Raises:
        UserError: if attention or activation terms would lose their gradient.
    """
    fields = [getattr(args, f"{name}_checkpointing_kwargs", None) for name in ("gradient", "activation")]
    if (request.attention or request.activations) and any(
        isinstance(one, dict) and one.get("use_reentrant") for one in fields
    ):
        raise UserError(
            "training.gradient_checkpointing_kwargs: expected use_reentrant=false / got true / attention and "
            "activation terms would have no gradient / leave it out"
        )


def refuse_second_backward(args: TrainingArguments, request: Request) -> None:
    """Raises UserError where the gradient of a gradient cannot be had."""
    fields = ("torch_compile", "gradient_checkpointing", "activation_checkpointing")
    named = [name for name in fields if getattr(args, name, None)]
    if request.input_gradient and named:
        raise UserError(
            f"training.{named[0]}: expected it unset with input_gradient / got {getattr(args, named[0])} / the term's "
            "gradient is that of a gradient, which it does not give / leave one of the two out"
        )


def refuse_sharding(request: Request, is_fsdp: bool, deepspeed: Any) -> None:
    """Raises UserError if terms look at parameters of which each process has a part, or go backward on their own where
    that is taken over. `deepspeed` is accelerate's plugin, or None."""
    if request.weights and (is_fsdp or (deepspeed is not None and deepspeed.zero_stage == 3)):
        raise UserError(
            "objective.weights_mse: expected whole weights in every process / got FSDP or ZeRO-3, which shard them / "
            "there would be nothing to compare / use DDP or ZeRO-2, or leave the term out"
        )
    if request.input_gradient and (is_fsdp or deepspeed is not None):
        raise UserError(
            "objective.input_gradient: expected one process or DDP / got FSDP or DeepSpeed / their backward cannot be "
            "differentiated once more / use DDP, or leave the term out"
        )


class CheckpointGuard(TrainerCallback):
    """Lets no checkpoint be written after a non-finite term, and marks complete ones."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.start_meter(state.global_step)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.set_epoch(int(state.epoch or 0))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.trainer.stop_if_not_finite()

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save:
            self.trainer.stop_if_not_finite()

    on_epoch_end = on_step_end

    def on_evaluate(self, args, state, control, **kwargs):
        self.trainer.stop_if_not_finite()

    def on_train_end(self, args, state, control, **kwargs):
        if state.global_step == 0:
            raise UserError(
                "expected at least one training step / got none / nothing was learnt / check training.max_steps, "
                "num_train_epochs, and dataloader_drop_last with a batch larger than the data"
            )
        self.trainer.stop_if_not_finite()
        self.trainer.read_terms()

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        self.trainer.accelerator.wait_for_everyone()
        spent = self.trainer.spent() | _company(args)
        if args.should_save and folder.is_dir():
            (folder / SPENT).write_text(json.dumps(spent))
            mark_as_complete(folder)


def spent_until(checkpoint: Path | None) -> dict[str, float]:
    """Seconds and tokens that training had taken when a checkpoint was written."""
    return json.loads((checkpoint / SPENT).read_text()) if checkpoint else {"seconds": 0.0, "tokens": 0}


def say_what_changes(checkpoint: Path, args: TrainingArguments) -> None:
    """Tells, where other processes wrote a checkpoint, what of the rest is as if nobody had stopped and what is not."""
    now, then = _company(args), json.loads((checkpoint / SPENT).read_text())
    if now["processes"] == then["processes"]:
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
    say(text)


def _company(args: TrainingArguments) -> dict[str, int]:
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {"processes": args.world_size, "rows_per_step": rows}


def mark_as_complete(folder: Path) -> None:
    """Says of a checkpoint that it is written, and by what its files are known."""
    (folder / COMPLETE).unlink(missing_ok=True)  # of an earlier writing of the same step
    files = {str(file.relative_to(folder)): checksum(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    write_atomically(folder / COMPLETE, json.dumps(files, indent=1))


def last_complete_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest checkpoint whose files are all there as they were written; says which ones it passes over."""
    found = [p for p in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if p.name.split("-")[-1].isdigit()]
    for folder in sorted(found, key=lambda path: int(path.name.split("-")[-1]), reverse=True):
        problem = _problem(folder)
        if problem is None:
            return folder
        say(f"{folder}: {problem}; passed over")
    return None


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        files = json.loads((folder / COMPLETE).read_text())
    except (OSError, ValueError):
        return "it was not written to the end"
    for name, mark in files.items():
        try:
            if checksum(folder / name) != mark:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None
