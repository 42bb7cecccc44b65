"""`fit`: train from the last complete checkpoint on, and save the model as a whole or not at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.models import SentenceEncoder, save_sentence_encoder
from distil_nlp.models.segments import tells_segments
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED, Provenance
from distil_nlp.training.checkpoints import last_complete_checkpoint, read_spent, warn_about_changed_processes
from distil_nlp.training.compile import compiled_graphs
from distil_nlp.training.downstream_probe import PROBE_ACCURACY
from distil_nlp.training.energy import energy_used
from distil_nlp.training.term_logging import FURTHER_FLOPS
from distil_nlp.training.token_counter import TOKENS_BACKWARD, TOKENS_FORWARD
from distil_nlp.training.trainer import DistillationTrainer
from distil_nlp.utils.environment import peak_memory_mib
from distil_nlp.utils.failures import enough_memory
from distil_nlp.utils.files import atomic_folder, read_json, weight_checksums, write_atomically
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass
class Finished:
    """What is saved of a training.

    Attributes:
        student: the model.
        further: name of a folder beside the student's → another plain model.
        record: further keys of the training's record.
    """

    student: PreTrainedModel
    further: dict[str, PreTrainedModel] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


KEPT_BESIDE = ("provenance", "weights")
"""Keys of the record's file that tell whose record it is: what the model was made of, and its files' checksums."""
_NOT_IN_HISTORY = (
    "train_",
    "total_flos",
    "tokens_per_second",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
)


def fit(
    trainer: DistillationTrainer,
    model_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    title: str | None = None,
    section: str = "training",
    memory_remedy: str | None = None,
    record_file: Path | None = None,
    provenance: Provenance | None = None,
    finish: Callable[[PreTrainedModel], Finished] = Finished,
) -> dict[str, Any]:
    """Train, save the plain model and its tokenizer, and return the record of the training.

    Args:
        trainer: its `output_dir` holds the checkpoints.
        model_folder: written as a whole or not at all, by the main process.
        tokenizer: saved beside the weights.
        title: logged before the first step.
        section: recipe section that sets the batch size, for the error when memory runs out.
        memory_remedy: advice for that error where no recipe sets the batch size.
        record_file: file for the record; written before the model's folder appears, so that every saved model has
            one.
        provenance: what the model is made of; kept in each checkpoint and in the record, and compared with that of a
            checkpoint that training carries on from.
        finish: the trained model, without hooks → what is saved; called in every process.

    Raises:
        UserError: if memory runs out, a term or the weights are not finite, or a checkpoint is of something else.
        Preempted: on SIGTERM, once a checkpoint is saved.
    """
    record = train_to_end(trainer, title=title, section=section, memory_remedy=memory_remedy, provenance=provenance)
    state = trainer.student_state()
    model = trainer.detach()
    finished = finish(model)
    record |= finished.record
    if trainer.args.should_save:
        for name, further in finished.further.items():
            with atomic_folder(model_folder.parent / name) as partial:
                _save(further, further.state_dict(), tokenizer, partial)
        own = state if finished.student is model else finished.student.state_dict()
        save_with_record(finished.student, own, tokenizer, model_folder, record_file, record, provenance)
    trainer.accelerator.wait_for_everyone()
    return record


def train_to_end(
    trainer: DistillationTrainer,
    *,
    title: str | None = None,
    section: str = "training",
    memory_remedy: str | None = None,
    provenance: Provenance | None = None,
) -> dict[str, Any]:
    """Train, from the last complete checkpoint on, and return the record of the training; see `fit`."""
    args = trainer.args
    checkpoint = last_complete_checkpoint(str(args.output_dir))
    if title:
        logger.info(f"{title}{f', from {checkpoint.name} on' if checkpoint else ''}")
    graphs = compiled_graphs()
    if args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer.spent_before, trainer.provenance = read_spent(checkpoint), provenance
    if checkpoint and provenance:
        provenance.validate(read_json(checkpoint / PROVENANCE, UNCOMPARED), checkpoint)
    if checkpoint:
        warn_about_changed_processes(checkpoint, args)
    with enough_memory(args, section, memory_remedy):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    record = _record(trainer, checkpoint)
    if args.torch_compile:
        record["compiled_graphs"] = compiled_graphs() - graphs
    return record


def save_with_record(
    model: PreTrainedModel,
    state: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    record_file: Path | None,
    record: dict[str, Any],
    provenance: Provenance | None,
) -> None:
    """Write a plain model and its tokenizer into a folder, as a whole or not at all, and the record before that."""
    beside = {"provenance": provenance and provenance.to_dict()}
    with atomic_folder(folder) as partial:
        _save(model, state, tokenizer, partial)
        if record_file is not None:
            write_atomically(record_file, json.dumps(record | beside | {"weights": weight_checksums(partial)}))


def _record(trainer: DistillationTrainer, checkpoint: Path | None) -> dict[str, Any]:
    spent, best = trainer.spent(), trainer.state.best_model_checkpoint
    return {
        "seconds": round(spent["seconds"], 2),
        "tokens": spent["tokens"],
        TOKENS_FORWARD: spent.get(TOKENS_FORWARD),
        TOKENS_BACKWARD: spent.get(TOKENS_BACKWARD),
        "flops": _flops(spent),
        "energy": None if checkpoint else energy_used(trainer),  # of an earlier leg nothing is known
        "tokens_per_second": round(spent["tokens"] / spent["seconds"], 1),
        "steps": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "resumed_from": checkpoint.name if checkpoint else None,
        "peak_memory_mib": peak_memory_mib(trainer.args.device),
        "final_terms": trainer.last_terms,
        "best_checkpoint": best and Path(best).name,
        "history": _history(trainer.state.log_history),
    }


def _flops(spent: dict[str, float]) -> float | None:
    """Return the operations of a training; None where they could not be counted."""
    per_token = spent.get("flops_per_token")
    return per_token and per_token * spent["tokens"] + spent.get(FURTHER_FLOPS, 0.0)


def _history(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Return the log entries of training, evaluation and probe: step, loss, terms, changing weights, metrics."""
    entries = [entry for entry in log if not entry.keys().isdisjoint(("loss", "eval_loss", PROBE_ACCURACY))]
    return [{name: value for name, value in entry.items() if not name.startswith(_NOT_IN_HISTORY)} for entry in entries]


def _save(
    model: PreTrainedModel, state: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    if isinstance(model, SentenceEncoder):
        save_sentence_encoder(model, state, folder)
    else:
        model.save_pretrained(folder, state_dict=state)
    _tokenizer_for(model, tokenizer).save_pretrained(folder)


def _tokenizer_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the tokenizer; without `token_type_ids` for a model that does not take them, or not those of pairs."""
    tokenizer = copy.deepcopy(tokenizer)
    if not tells_segments(model.config):
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer
