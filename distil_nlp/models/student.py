"""Construction of a student from its teacher: the choice of layers and classes, and the copying of weights.

Initialisation is the largest single factor in DistilBERT's ablation (−3.69 GLUE points with random weights).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.errors import UserError, quoted
from distil_nlp.models.architecture import stack_prefixes
from distil_nlp.models.deepening import added_blocks, silence_blocks
from distil_nlp.models.distilbert import distilbert_origins, distilbert_sources
from distil_nlp.models.layer_choice import LayerChoice, choose_layers
from distil_nlp.models.loading import commit_of, load_with_missing_keys
from distil_nlp.models.modernbert import first_block_tensors
from distil_nlp.models.parameter_names import part_of, split_name
from distil_nlp.models.student_report import StudentReport
from distil_nlp.models.student_shape import empty_student, not_in_distilbert
from distil_nlp.models.trial import logit_difference
from distil_nlp.models.vocabulary.factorisation import embedding_field, factorised_tensors
from distil_nlp.models.widening import has_dropout, is_wider, starts_apart, widened
from distil_nlp.tasks import Head


def build_student(
    teacher: PreTrainedModel,
    layers: LayerChoice | None = "every_other",
    *,
    num_layers: int | None = None,
    architecture: Literal["same", "distilbert"] = "same",
    config_changes: dict[str, Any] | None = None,
    fresh: Collection[str] = (),
    embedding_size: int | None = None,
) -> tuple[PreTrainedModel, StudentReport]:
    """Return a student in float32 and train mode, and the report of its weights.

    Args:
        teacher: with the head that the student needs too.
        layers: the teacher block for each student block, or a way to choose them (`choose_layers`); `random` or None
            leaves all weights random.
        num_layers: the depth; by default the number of `layers` in a list, or half the teacher's.
        architecture: the teacher's own classes, or `distilbert` for a BERT (its segment 0 is folded into the
            position table: DistilBERT has no segments, and dropping them would shift every embedding).
        config_changes: fields of the student's configuration, such as another `hidden_size`. Weights of a wider student
            are copies of the teacher's (`distil_nlp.models.widening`), those that then do not fit newly initialised.
        fresh: parts that start from random weights: `embeddings`, `layers`, `head` (with the pooler).
        embedding_size: features of its embeddings, fewer than the teacher's, from which they are factorised.

    Raises:
        UserError: if the teacher is a name, the architecture cannot be had from it, or the configuration is impossible.
    """
    if isinstance(teacher, str):
        fix = "load it with AutoModelForSequenceClassification.from_pretrained, or the class of the head that you need"
        raise UserError("teacher", "a model", quoted(teacher), "a name does not tell which head the student needs", fix)
    teacher_depth = teacher.config.num_hidden_layers
    layers = None if layers is None else choose_layers(layers, teacher_depth, num_layers)
    depth = len(layers) if layers is not None else num_layers or max(teacher_depth // 2, 1)
    if architecture == "distilbert" and depth > teacher_depth:
        raise not_in_distilbert(f"{depth} layers of {teacher_depth}")
    narrower = {} if embedding_size is None else embedding_field(teacher.config, embedding_size)
    student = empty_student(teacher, depth, layers, architecture, config_changes or {}, narrower)
    report = StudentReport(layers)
    if layers is None:
        report.new = [name for name, _ in student.named_parameters()]
        return student, report
    if narrower:
        report.embeddings = {"size": embedding_size}
    fill = _fill_distilbert if architecture == "distilbert" else _fill_alike
    used = fill(teacher, student, layers, report, fresh)
    report.dropped = _without_place(teacher, layers, used)
    if depth > teacher_depth or is_wider(teacher.config, student.config):
        _start_larger(teacher, student, report)
    return student, report


def _fill_distilbert(
    teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int], report: StudentReport, fresh: Collection[str]
) -> set[str]:
    """Copy a BERT's tensors into DistilBERT's classes; return the names of those that found a place."""
    _copy(student, _without_parts(distilbert_sources(teacher, student, layers), student, fresh), report)
    return distilbert_origins(student, layers)


def _fill_alike(
    teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int], report: StudentReport, fresh: Collection[str]
) -> set[str]:
    """Copy the teacher's tensors into a student of its classes; return the names of those that found a place."""
    prefixes, state = stack_prefixes(teacher), teacher.state_dict()
    origins = _origins(student, prefixes, layers, state.keys())
    tensors = {name: state[origin] for name, origin in origins.items()}
    tensors |= first_block_tensors(state, prefixes[0], layers)
    sources = widened(tensors, teacher, student)
    if report.embeddings is not None:
        factors, report.embeddings["variance"] = factorised_tensors(teacher, student)
        sources |= factors
    _copy(student, _without_parts(sources, student, fresh), report)
    report.widened = [
        name for name in report.copied if name in tensors and _size(student, name) > tensors[name].numel()
    ]
    return {origins[name] for name in report.copied if name in origins}


_ROUNDING = 1e-5
"""Largest difference, relative to logits above 1, of logits that differ by rounding."""


def _start_larger(teacher: PreTrainedModel, student: PreTrainedModel, report: StudentReport) -> None:
    """Let a student that is larger than its teacher start as it where that can be, and report whether it does."""
    added, depth = added_blocks(report.layers or [], teacher.config.num_hidden_layers), student.config.num_hidden_layers
    is_deeper, is_wide = depth > teacher.config.num_hidden_layers, is_wider(teacher.config, student.config)
    is_silent = bool(added) and silence_blocks(student, added)
    report.logit_difference, largest = logit_difference(teacher, student)
    remark = ""
    if report.widened and not has_dropout(student.config):
        remark = "; without dropout, copies of a neuron learn alike"
    if report.logit_difference <= _ROUNDING * max(largest, 1.0):
        report.start = f"starts as the teacher: logits differ by at most {report.logit_difference:.1g}{remark}"
        return
    reasons = [starts_apart(teacher.config, student.config)] if report.widened else []
    if is_wide and not report.widened:
        reasons.append(f"{len(report.new)} of its tensors are new")
    if is_deeper and not is_silent:
        reasons.append(
            "an added block cannot leave the states as they are where norms come after the sums"
            if added
            else f"the layers {report.layers} are not all of the teacher's in their order"
        )
    why = " and ".join(filter(None, reasons)) or "its family computes something else of repeated weights"
    report.start = (
        f"does not start as the teacher (logits differ by up to {report.logit_difference:.2g}): {why}{remark}"
    )


def _size(model: PreTrainedModel, name: str) -> int:
    return model.get_parameter(name).numel()


def start_from_checkpoint(name: str, head: Head, revision: str | None = None) -> tuple[PreTrainedModel, StudentReport]:
    """Return a student from an existing checkpoint, for instance one distilled on text, now meant for a task."""
    student, new = load_with_missing_keys(name, head, new_head=True, revision=revision)
    names = [key for key, _ in student.named_parameters()]
    copied, commit = [key for key in names if key not in new], commit_of(name, revision)
    return student.train(), StudentReport(None, copied, new, source=name, revision=commit)


def _copy(student: PreTrainedModel, sources: dict[str, Tensor], report: StudentReport) -> None:
    """Fill every parameter that has a source of its own shape."""
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            source = sources.get(name)
            fits = source is not None and source.shape == parameter.shape
            (report.copied if fits else report.new).append(name)
            if source is not None and fits:
                parameter.copy_(source)
    buffers = dict(student.named_buffers())
    for name in buffers.keys() & sources.keys():
        if buffers[name].shape == sources[name].shape:
            buffers[name].copy_(sources[name])
    student.tie_weights()


def _origins(student: PreTrainedModel, prefixes: list[str], layers: list[int], known: Iterable[str]) -> dict[str, str]:
    """Return student name → teacher name, for one and the same architecture.

    Whatever list of the blocks' parts a name is in, its number is that of the block.
    """
    known, origins = set(known), {}
    for name in student.state_dict():
        prefix, number, rest = split_name(name, prefixes)
        origin = name if number is None else f"{prefix}{layers[number]}{rest}"
        if origin in known:
            origins[name] = origin
    return origins


def _without_parts(sources: dict[str, Tensor], student: PreTrainedModel, fresh: Collection[str]) -> dict[str, Tensor]:
    """Return the sources of the parameters that are in none of some parts of the student."""
    return {name: source for name, source in sources.items() if part_of(name, student) not in fresh}


def _without_place(teacher: PreTrainedModel, layers: list[int], used: Collection[str]) -> list[str]:
    """Return the names of the teacher's parameters that are not `used`, but for those of blocks left out by plan."""
    prefixes, names = stack_prefixes(teacher), [name for name, _ in teacher.named_parameters()]
    numbers = {name: split_name(name, prefixes)[1] for name in names}
    return [name for name in names if name not in used and numbers[name] in {None, *layers}]
