"""The training of the student: its log, its tokens, time and energy."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ConfigDict, model_validator

from distil_nlp.results.schema.base import Block, MetricValues, Number, Term, described


class HistoryEntry(Block):
    """One log entry of training (`loss`), of an evaluation during training (`eval_loss`), or of the probe.

    Further keys, by the names of the objective's terms and the task's metrics: `<term>`, the mean of a term per step
    since the last entry, before its weight; `<term>_weight`, where weights change; `replacing_rate`, where
    `student.replacing` is set: the probability with which a student's layer ran itself in the last step; `wider_loss`,
    where `student.augment` is set: mean loss of the wider net over its steps since the last entry, before its weight;
    `pruned_share`, where `student.sparsity` is set: fraction of the weights of the blocks' linear layers that are zero;
    `gradient_norm/<term>` and `gradient_cosine/<term>/<term>`, where `run.gradients_every` is set: norms of the
    weighted terms' gradients at the student's last hidden state, and cosines between them; `eval_<metric>` and
    `eval_<term>` in an evaluation.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: MetricValues

    step: int = described("Optimiser step.")
    epoch: float = described("Epochs so far.", absent="if the length is not known")
    loss: Number = described("Mean loss since the last entry.", absent="in an evaluation, or of the probe")
    grad_norm: Number = described(
        "Norm of the gradient of all parameters before clipping.", absent="in an evaluation, or if it is not clipped"
    )
    learning_rate: float = described("Learning rate.", absent="in an evaluation")
    eval_loss: Number = described("Loss on the selection split.", absent="outside of evaluations")
    probe_accuracy: Number = described(
        "Accuracy of the linear probe, a fraction; at step 0 of the initialised student.", absent="in other entries"
    )

    @model_validator(mode="after")
    def _names_are_documented(self) -> HistoryEntry:
        unknown = [name for name in self.__pydantic_extra__ if not _HISTORY_KEY.fullmatch(name)]
        if unknown:
            raise ValueError(f"expected names of terms, weights, gradients and metrics, got {', '.join(unknown)}")
        return self


_HISTORY_KEY = re.compile(r"\w+|gradient_norm/\w+|gradient_cosine/\w+/\w+")


class Probe(Block):
    """A linear probe of the run's own student while it trained (`evaluation.probe`); its scores are in `history`."""

    task: str = described("A GLUE task, or `classification`.")
    train_rows: int = described("Rows that the logistic regression learns from.")
    scored_rows: int = described("Rows that it is scored on.")
    pooling: Literal["mean", "cls"] = described("How the states of a text's tokens become its features.")
    majority: float = described("Accuracy of the most frequent class, a fraction.")
    teacher: Number = described("Accuracy on features of the teacher, the first of several.")


class Energy(Block):
    """Energy of a training, as codecarbon measured it, or estimated it where the machine does not tell.

    It is of the whole machine of the main process, other programs included, while the run's own student trained.
    """

    kwh: float = described("Kilowatt-hours: of CPU, GPUs and memory together.")
    cpu_kwh: float = described("Those of the CPU.")
    gpu_kwh: float = described("Those of the GPUs.")
    ram_kwh: float = described("Those of the memory.")
    co2_kg: float | None = described(
        "Kilograms of CO₂ equivalent, by the mean of the country's electricity.", null="if the country is not known"
    )
    country: str | None = described("Its ISO code, of three letters.", null="if it is not known")
    codecarbon: str = described("Version of codecarbon.")


class Training(Block):
    """Training of the run's own student."""

    seconds: float = described("Wall-clock seconds, interrupted legs included.")
    tokens: int = described("Tokens of all processes, without padding, each row once each time it is drawn.")
    tokens_forward: int | None = described(
        "Tokens that went forward through models, without padding, each time that one read them: the student in all "
        "its passes, teachers where they ran, and models that trained together; parts of a model count as their share "
        "of the student's blocks. Evaluations and the filling of a cache are left out.",
        absent="in files of older versions",
        null="if resumed from a checkpoint of an older version",
    )
    tokens_backward: int | None = described(
        "Those of them that went backward too, once each.",
        absent="in files of older versions",
        null="as `tokens_forward`",
    )
    flops: float | None = described(
        "Floating-point operations of the matrix products of all models, forwards and backwards: those of the first "
        "micro-batch per token, times `tokens`; those of the wider nets of `student.augment` by their own tokens.",
        absent="in files of older versions",
        null="where they cannot be counted: `torch_compile`, FSDP, DeepSpeed, the term `input_gradient`",
    )
    energy: Energy | None = described(
        "Energy and carbon.",
        absent="in files of older versions",
        null="unless `training.report_to` has codecarbon, and where training carried on from a checkpoint",
    )
    tokens_per_second: Number = described("Tokens per second.")
    steps: int = described("Optimiser steps taken.")
    max_steps: int = described("Optimiser steps planned; early stopping may take fewer.")
    resumed_from: str | None = described("Checkpoint that training carried on from.", null="if not interrupted")
    peak_memory_mib: float = described(
        "Peak memory of the main process in MiB: allocated on the GPU, or resident on the CPU."
    )
    compiled_graphs: int = described("Graphs that torch.compile made.", absent="unless `torch_compile` is set")
    final_terms: dict[Term, Number] = described("Each term of the loss at the last log, before its weight.")
    best_checkpoint: str | None = described(
        "Checkpoint with the best selection metric.", null="if checkpoints were not compared (`load_best_model_at_end`)"
    )
    probe: Probe = described("The linear probe.", absent="unless `evaluation.probe` is set")
    history: list[HistoryEntry] = described("Log entries in order.")
