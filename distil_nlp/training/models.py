"""The models of a trainer: loaded where they are names, and checked; the kind of task that their head is for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel, TrainingArguments

from distil_nlp.errors import UserError, quoted
from distil_nlp.models import class_names, load_config, load_model, start_from_checkpoint
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import Head, TaskKind
from distil_nlp.tasks.kinds import KINDS
from distil_nlp.teachers.source import TeacherSource

_OTHER_HEADS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForQuestionAnswering")
_OWN_CLASSES = {"embedding": "SentenceEncoder"}
"""Output of a kind of task → the class of this package that its models have, where transformers has none."""
_OBJECTIVE_FIX = "pass objective=Objective([SoftTargetKL(1.0), HardLabel(1.0)]), with the terms that you want"
_FIX = "name them: DistillationTrainer(model=…, teacher=…, objective=…, args=…)"


def prepare_models(
    model: Any, args: Any, objective: Any, teacher: Any, model_init: Any = None
) -> tuple[PreTrainedModel, PreTrainedModel | TeacherSource | None]:
    """Return student and teacher, loaded where they are names; an objective without a kind gets the student's.

    Raises:
        UserError: for arguments that are not what their places are for, models without the head that the objective
            needs, and names at which there is no such model.
    """
    validate_places(model, args, objective, teacher, model_init)
    if objective.kind is None:
        objective.set_kind(_kind_for(model, teacher))
    kind = objective.kind
    teacher = _loaded_teacher(teacher, kind) if isinstance(teacher, str) else teacher
    model = _loaded_student(model, kind, teacher) if isinstance(model, str) else model
    _validate_head("model", model, kind)
    if isinstance(teacher, torch.nn.Module):
        _validate_head("teacher", teacher, kind)
    return model, teacher


def validate_places(model: Any, args: Any, objective: Any, teacher: Any, model_init: Any = None) -> None:
    """Raise UserError for arguments of a trainer that are not what their places are for."""
    for name, value, expected in (("objective", objective, Objective), ("args", args, TrainingArguments)):
        if not isinstance(value, expected):
            is_plain = name == "objective" and (value is None or isinstance(value, list | tuple | dict))
            fix = _OBJECTIVE_FIX if is_plain else _FIX
            raise UserError(name, f"a value of {expected.__name__}", type(value).__name__, fix=fix)
    if model_init is not None or model is None:
        raise UserError(
            "model",
            "a student",
            "none" if model_init is None else "model_init, which makes one anew for each trial",
            why="the hooks and layers of one student are bound to the teacher when the trainer is built",
            fix="pass model=…; to search hyperparameters, build a trainer for each trial",
        )
    for name, value, others in (("model", model, ()), ("teacher", teacher, (TeacherSource, type(None)))):
        if not isinstance(value, (torch.nn.Module, str, *others)):
            raise UserError(name, "a model, or the name of one", type(value).__name__, fix=_FIX)


def _kind_for(model: Any, teacher: Any) -> TaskKind:
    """Return the kind of task of the student's head; of the teacher's, where the student is a name."""
    model = teacher if isinstance(model, str) and isinstance(teacher, (str, torch.nn.Module)) else model
    if isinstance(model, str):
        config = load_config(model)
        return _kind_of(config.architectures or ["no class"], config, model)
    return _kind_of(
        [base.__name__ for base in type(model).__mro__], getattr(model, "config", None), type(model).__name__
    )


def _kind_of(classes: Iterable[str], config: PretrainedConfig | None, name: str) -> TaskKind:
    """Return the kind of task that a model's class is for; of several, the one that its configuration tells.

    As in transformers, a classifier of one output is for regression where `problem_type` does not say more.

    Raises:
        UserError: if there is none.
    """
    names = {*classes}
    fitting = [kind for kind in KINDS.values() if not _classes_of(kind).isdisjoint(names)]
    if len(fitting) > 1:
        found, count = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
        by_count = [kind for kind in fitting if kind.num_labels == count] or [k for k in fitting if not k.num_labels]
        fitting = [kind for kind in fitting if kind.problem_type == found] if found else by_count
    if fitting:
        return fitting[0]
    raise UserError(
        "objective",
        f"a kind of task, or a model of a class that tells it ({', '.join(dict.fromkeys(_auto_models()))})",
        f"none with {quoted(name)}",
        why="terms differ between kinds",
        fix="give it: Objective(terms, kind=…), one of " + ", ".join(KINDS),
    )


def _auto_models() -> list[str]:
    return [kind.auto_model for kind in KINDS.values()]


def _loaded_teacher(name: str, kind: TaskKind) -> torch.nn.Module:
    return load_model(name, Head(kind, None, load_config(name).num_labels))


def _loaded_student(name: str, kind: TaskKind, teacher: Any) -> torch.nn.Module:
    """Return a student in train mode with the teacher's classes; a head that it lacks is new."""
    config = getattr(teacher, "config", None) or load_config(name)
    names = class_names(config) if kind.has_labels else None
    return start_from_checkpoint(name, Head(kind, tuple(names) if names else None, config.num_labels))[0]


def _validate_head(name: str, model: torch.nn.Module, kind: TaskKind) -> None:
    """Raise UserError for a class of transformers that is known to have another head than the kind of task needs."""
    found = type(model).__name__
    own = _OWN_CLASSES.get(kind.output)
    if own is not None and own not in [base.__name__ for base in type(model).__mro__]:
        raise UserError(
            name,
            f"a model with a {kind.head_name} head",
            found,
            why="terms compare the vectors of texts, which a plain class does not give",
            fix=f'give its name, or load it with distil_nlp.models.load_model(name, Head("{kind}"))',
        )
    fitting = [other for other in KINDS.values() if found in _classes_of(other)]
    is_other = fitting or any(found in _classes(auto) for auto in _OTHER_HEADS)
    if kind in fitting or found in _classes(kind.auto_model) or not is_other:
        return
    kinds = " or ".join(f'Objective(terms, "{other.name}")' for other in fitting)
    raise UserError(
        name,
        f"a model with a {kind.head_name} head ({kind.auto_model}), as the objective is for {kind.title}",
        found,
        why="the terms would compare something else",
        fix=f"write {kinds}, or take another model" if kinds else f"load it with {kind.auto_model}",
    )


def _classes_of(kind: TaskKind) -> set[str]:
    """Return the names of the classes that a model of a kind of task has."""
    own = _OWN_CLASSES.get(kind.output)
    return {own} if own else _classes(kind.auto_model)


def _classes(auto_model: str) -> set[str]:
    """Return the names of the classes that an auto class of transformers loads."""
    names = getattr(transformers, auto_model)._model_mapping._model_mapping.values()
    return {name for entry in names for name in ([entry] if isinstance(entry, str) else entry)}
