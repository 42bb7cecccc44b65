"""Construction of a student from its teacher: the choice of layers and classes, and the copying of weights.

Initialisation is the largest single factor in DistilBERT's ablation (−3.69 GLUE points with random weights).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.models.architecture import stack_prefixes
from distil_nlp.models.config_fields import set_for_building
from distil_nlp.models.deepening import Repetition, added_blocks, repeated_layers, silence_blocks
from distil_nlp.models.distilbert import (
    _distilbert_class,
    _distilbert_config,
    _distilbert_origins,
    _distilbert_sources,
)
from distil_nlp.models.loading import commit_of, load_with_missing_keys
from distil_nlp.models.modernbert import first_block_tensors
from distil_nlp.models.trial import logit_difference, run_plainly, trial_batch, undisturbed
from distil_nlp.models.vocabulary.factorisation import embedding_field, factorised_tensors
from distil_nlp.models.widening import OF_A_HEAD, check_heads, has_dropout, is_wider, starts_apart, widened
from distil_nlp.tasks import Head

LayerChoice = Literal["every_other", "first", "last", "important", "random"] | Repetition | Sequence[int]


@dataclass
class StudentReport:
    """The origin of the student's parameters.

    Attributes:
        layers: the teacher's block for each of the student's, or None if no block was copied.
        copied, new: names of the parameters that were copied, and of those that were newly initialised.
        dropped: names of the teacher's parameters that found no place, other than those of blocks left out by plan.
        source: the checkpoint the student started from, if it was not made of the teacher.
        revision: its commit, if it is on the Hub.
        widened: names of the parameters among `copied` that are larger than the teacher's.
        logit_difference: of a student that is deeper or wider than its teacher, the largest difference of the two
            models' logits on a few tokens, before training; None for others.
        pruning: what was kept of the teacher's parts, and how, if it was pruned; see `PrunedStart` of `results.json`.
        embeddings: of factorised ones, their features (`size`) and the share of variance that they keep (`variance`).
        start: a sentence on whether that student starts as its teacher, and why not; None for others.
    """

    layers: list[int] | None
    copied: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    source: str | None = None
    revision: str | None = None
    widened: list[str] = field(default_factory=list)
    logit_difference: float | None = None
    start: str | None = None
    pruning: dict[str, Any] | None = None
    embeddings: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        start = {"checkpoint": self.source, "revision": self.revision}
        return {
            "teacher_layers": self.layers,
            "copied": len(self.copied),
            "new": self.new,
            "dropped": self.dropped,
            **start,
            "widened": len(self.widened),
            "logit_difference": self.logit_difference,
            "start": self.start,
            **({"pruning": self.pruning} if self.pruning else {}),
            **({"embeddings": self.embeddings} if self.embeddings else {}),
        }

    def __str__(self) -> str:
        source = f"from {self.source or 'no teacher layer'}"
        if self.layers is not None:
            source = f"from teacher layers {self.layers}"
        counts = f"{len(self.copied)} tensors copied, {len(self.new)} new{_examples(self.new)}"
        dropped = f"; {len(self.dropped)} of the teacher's found no place of their own{_examples(self.dropped)}"
        wider = f"; {len(self.widened)} widened by copies of their neurons" if self.widened else ""
        start = f"; it {self.start}" if self.start else ""
        return f"student {source}: {counts}{wider}{dropped if self.dropped else ''}{start}"


def _examples(names: list[str]) -> str:
    return f" ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})" if names else ""


def choose_layers(choice: LayerChoice, teacher_layers: int, num_layers: int | None) -> list[int] | None:
    """Return the teacher block (0-based) for each student block; None for random weights.

    `every_other` takes the upper one of each group: [1, 3, 5] of 6, ⌊(i + 1) · T / S⌋ − 1 in general. `stack` and
    `interpolate` repeat blocks, for a student deeper than its teacher (`repeated_layers`). Half the teacher's depth is
    the default of `num_layers`. A list is taken as it is.

    Raises:
        UserError: if the student is deeper than the teacher and the choice is not one that repeats blocks, if it is
            shallower and the choice is, or a number is out of range.
    """
    if choice in ("stack", "interpolate"):
        return repeated_layers(choice, teacher_layers, num_layers)
    if choice == "important":
        raise UserError(
            "student.layers",
            "numbers of layers, or a way to choose them by number",
            "important",
            why="importance is measured on rows, which are not there",
            fix="choose them by distil_nlp.models.pruning.measure_importance, and pass their numbers",
        )
    is_list = not isinstance(choice, str)
    depth = num_layers or (len(choice) if is_list else max(teacher_layers // 2, 1))
    if is_list and len(choice) != depth:
        raise UserError(
            None,
            f"as many student.layers as student.num_layers={depth}",
            str(list(choice)),
            why="the depth is ambiguous",
            fix="leave student.num_layers out",
        )
    if depth > teacher_layers and choice in ("every_other", "first", "last"):
        raise UserError(
            "student.layers",
            f"stack or interpolate for a student of {depth} layers, or at most the teacher's {teacher_layers} layers",
            str(choice),
            why="the teacher has too few to choose from",
            fix="set student.layers=interpolate, which repeats each layer next to itself, or lower student.num_layers",
        )
    if not isinstance(choice, str):
        wrong = [layer for layer in choice if not 0 <= layer < teacher_layers]
        if wrong:
            raise UserError(
                "student.layers",
                f"numbers from 0 to {teacher_layers - 1}",
                f"{wrong} in {list(choice)}",
                why="the teacher has no such layer",
                fix="blocks count from 0",
            )
        return list(choice)
    return {
        "every_other": [(i + 1) * teacher_layers // depth - 1 for i in range(depth)],
        "first": list(range(depth)),
        "last": list(range(teacher_layers - depth, teacher_layers)),
        "random": None,
    }[choice]


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
        raise _not_in_distilbert(f"{depth} layers of {teacher_depth}")
    narrower = {} if embedding_size is None else embedding_field(teacher.config, embedding_size)
    student = _empty(teacher, depth, layers, architecture, config_changes or {}, narrower)
    report = StudentReport(layers)
    if layers is None:
        report.new = [name for name, _ in student.named_parameters()]
        return student, report
    if architecture == "distilbert":
        _copy(student, _without_parts(_distilbert_sources(teacher, student, layers), student, fresh), report)
        used = _distilbert_origins(student, layers)
    else:
        prefixes, state = stack_prefixes(teacher), teacher.state_dict()
        origins = _origins(student, prefixes, layers, state.keys())
        tensors = {name: state[origin] for name, origin in origins.items()}
        tensors |= first_block_tensors(state, prefixes[0], layers)
        sources = widened(tensors, teacher, student)
        if narrower:
            factors, kept = factorised_tensors(teacher, student)
            report.embeddings = {"size": embedding_size, "variance": kept}
            sources |= factors
        _copy(student, _without_parts(sources, student, fresh), report)
        used = {origins[name] for name in report.copied if name in origins}
        report.widened = [
            name for name in report.copied if name in tensors and _size(student, name) > tensors[name].numel()
        ]
    report.dropped = _without_place(teacher, layers, used)
    if depth > teacher_depth or is_wider(teacher.config, student.config):
        _start_larger(teacher, student, report)
    return student, report


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


_NOT_TO_CHANGE = (
    "num_hidden_layers", "n_layers", "n_layer", "num_layers", "vocab_size", "num_labels", "id2label", "label2id",
    "layer_types",
)  # fmt: skip
_EMBEDDINGS = re.compile(r"(^|\.)\w*embeddings?(_\w+)?\.")
"""Names of embeddings: of words, positions and segments, relative ones too, and their projection to the width."""
_PER_LAYER = re.compile("layer|window")
"""Part of the names of lists with a value for each layer: `layer_types`, `attn_layers`, `attention_window`."""
_OF_EQUAL_WIDTH = ("pooler_hidden_size", "embedding_size", "true_hidden_size", "word_embed_proj_dim")
"""Fields that go with `hidden_size` where they equal it, and the student does not run otherwise."""

IMPOSSIBLE = (ValueError, TypeError, RuntimeError, KeyError, ArithmeticError, AssertionError, StrictDataclassError)


def _empty(
    teacher: PreTrainedModel,
    depth: int,
    layers: list[int] | None,
    architecture: str,
    changes: dict[str, Any],
    narrower: dict[str, int],
) -> PreTrainedModel:
    """Return the student with random weights.

    Args:
        narrower: the field of narrower embeddings, which some configurations do not have until it is set.
    """
    config = set_for_building(copy.deepcopy(teacher.config))
    if architecture == "distilbert":
        config, cls = _distilbert_config(teacher), _distilbert_class(teacher)
    else:
        cls = type(teacher)
    set_depth(config, depth, layers)
    unknown = [name for name in changes if not hasattr(config, name)]
    if unknown:
        raise UserError(
            "student.config",
            f"fields of {type(config).__name__}",
            listed(unknown),
            why="they would have no effect",
            fix="see the fields in the teacher's config.json",
        )
    fixed = [name for name in changes if name in _NOT_TO_CHANGE]
    if fixed:
        raise UserError(
            "student.config",
            "fields of its shape",
            listed(fixed),
            why="depth, words and labels come from student.num_layers, the teacher and the data",
            fix="leave them out",
        )
    if layers is not None:
        _check_growth(config, changes, architecture)
    changes = changes | narrower
    try:
        return _model_of(cls, config, changes)
    except (UserError, *IMPOSSIBLE) as error:
        following = followers(config, changes)
        if following:
            try:
                return _model_of(cls, config, following | changes)
            except (UserError, *IMPOSSIBLE):
                pass  # the first error is that of the configuration as it was asked for
        reason = error.got if isinstance(error, UserError) else " ".join(str(error).split())
        width = _of_old_width(config, changes)
        raise UserError(
            "student.config" if changes else "student",
            "a possible configuration",
            f"{quoted(changes)}: {reason}" if changes else f"{type(config).__name__} of {depth} layers: {reason}",
            why=f"{', '.join(width)} are those of the teacher's width still" if width else None,
            fix=f"set {' and '.join(f'student.config.{name}' for name in width)} too" if width else None,
        ) from error


def _check_growth(config: PretrainedConfig, changes: dict[str, Any], architecture: str) -> None:
    """Raise UserError for a wider student that the teacher's weights cannot be copied into."""
    wanted = copy.deepcopy(config)
    try:
        for name, value in changes.items():
            setattr(wanted, name, value)
        wider = is_wider(config, wanted)
    except IMPOSSIBLE:
        return  # building the model tells why
    if wider and architecture == "distilbert":
        raise _not_in_distilbert(quoted(changes))
    check_heads(config, wanted)


def _not_in_distilbert(got: str) -> UserError:
    return UserError(
        "student.architecture=distilbert",
        "a student no deeper or wider than its teacher",
        got,
        why="a larger one keeps the teacher's classes, so that it can start as the teacher",
        fix="use student.architecture=same",
    )


def _model_of(cls: type[PreTrainedModel], config: PretrainedConfig, changes: dict[str, Any]) -> PreTrainedModel:
    """Return a model with random weights; one whose shape was changed is tried on a few tokens.

    Raises:
        UserError: if it does not run.
    """
    config = copy.deepcopy(config)
    for name, value in changes.items():
        setattr(config, name, value)
    config.validate()  # as it would be when it is saved
    student = cls._from_config(config, dtype=torch.float32).train()
    if changes:
        with undisturbed(student):
            run_plainly(student, trial_batch(student))
    return student


def set_depth(config: PretrainedConfig, depth: int, layers: list[int] | None) -> None:
    """Set the number of layers; lists with a value for each layer keep those of the chosen ones.

    Raises:
        UserError: if the family's depth is no single number (Funnel).
    """
    before = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == before and _PER_LAYER.search(name):
            setattr(config, name, [value[i] for i in layers or (i % before for i in range(depth))])
    if getattr(config, "num_hidden_groups", 1) > depth:
        config.num_hidden_groups = depth  # ALBERT: no group without a layer
    try:
        config.num_hidden_layers = depth
    except NotImplementedError as error:
        raise UserError(
            "student",
            "a teacher whose depth is a number of layers",
            f"{type(config).__name__}: {error}",
            why="a shallower student cannot be made of it",
            fix="name a smaller model with the same vocabulary by student.name",
        ) from error


def followers(config: PretrainedConfig, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that may have to go with a changed width, and their values."""
    width, heads = (_changed(config, changes, name) for name in ("hidden_size", "num_attention_heads"))
    if not isinstance(width, int) or not heads or width % heads:
        return {}
    head = config.hidden_size // config.num_attention_heads
    equal = {name: width for name in _OF_EQUAL_WIDTH if getattr(config, name, None) == config.hidden_size}
    return equal | {name: width // heads for name in OF_A_HEAD if getattr(config, name, None) == head}


def _of_old_width(config: PretrainedConfig, changes: dict[str, Any]) -> list[str]:
    """Return the names of fields that equal the teacher's width, if the student's is another."""
    if _changed(config, changes, "hidden_size") == config.hidden_size:
        return []
    own = {config.attribute_map.get(name, name) for name in ("hidden_size", "vocab_size", *changes)}
    equal = [name for name, value in vars(config).items() if type(value) is int and value == config.hidden_size]
    return [name for name in equal if name not in own and re.search("size|dim|width", name)]


def _changed(config: PretrainedConfig, changes: dict[str, Any], field: str) -> Any:
    """Return the student's value of a field, whichever of its names `changes` has."""
    names = {config.attribute_map.get(name, name): value for name, value in changes.items()}
    return names.get(config.attribute_map.get(field, field), getattr(config, field))


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


def part_of(name: str, model: PreTrainedModel) -> str:
    """Return the part of a model that a parameter is in: `embeddings`, `layers` or `head`.

    The pooler belongs to the head; relative positions and norms of all blocks together to the layers.
    """
    is_within = model.base_model is model or name.startswith(f"{model.base_model_prefix}.")
    if not is_within or "pooler" in name.split("."):
        return "head"
    return "embeddings" if _EMBEDDINGS.search(name) else "layers"


def split_name(name: str, prefixes: list[str]) -> tuple[str, int | None, str]:
    """Split a parameter's name at the number of its block; the number is None if it is in no block."""
    for prefix in prefixes:
        if name.startswith(prefix):
            number, dot, rest = name.removeprefix(prefix).partition(".")
            return prefix, int(number), f"{dot}{rest}"
    return name, None, ""


def _without_place(teacher: PreTrainedModel, layers: list[int], used: Collection[str]) -> list[str]:
    """Return the names of the teacher's parameters that are not `used`, but for those of blocks left out by plan."""
    prefixes, names = stack_prefixes(teacher), [name for name, _ in teacher.named_parameters()]
    numbers = {name: split_name(name, prefixes)[1] for name in names}
    return [name for name in names if name not in used and numbers[name] in {None, *layers}]
