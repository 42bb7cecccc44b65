"""A dry run: everything is resolved, loaded and tried, a few steps are timed, and nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.linear_probe import LinearProbe
from distil_nlp.models import size_of
from distil_nlp.objective.layer_terms import LayerTerm
from distil_nlp.objective.term import LossTerm
from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.answers import answers_sentence, check_answers
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.data_summary import classes_sentence, lengths_sentence, rows_sentence
from distil_nlp.pipeline.distill import check_alone
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.pipeline.labels import check_labels
from distil_nlp.pipeline.links import chain_of
from distil_nlp.pipeline.other_tokens import load_data, tokens_sentence
from distil_nlp.pipeline.plan import RunPlan, sources
from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.batches import steps_of
from distil_nlp.pipeline.planning.estimate import estimate_run
from distil_nlp.pipeline.planning.lines import cost_lines
from distil_nlp.pipeline.planning.prepared import PreparedRun, untrained_teacher
from distil_nlp.pipeline.run_folder import run_state
from distil_nlp.pipeline.schemes import extensions_of
from distil_nlp.pipeline.trial import try_models
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.formatting import large
from distil_nlp.signals.types import EMBEDDINGS
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.utils.hub_connection import use_cache_without_network

Line = tuple[str, str]
"""What a line is about, and its text."""


def dry_run(recipe: Recipe, recipe_name: str) -> Iterator[Line]:
    """Yield what a run would do, line by line, as soon as it is known.

    Raises:
        UserError: for every problem that the run would meet before its first step.
    """
    begin = time.perf_counter()
    check_alone(recipe)
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, recipe_name)
    preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    yield "folder", f"{plan.folder}: {_STATES[run_state(plan.folder, plan.recipe)]}"
    yield from plan_lines(plan, begin)


def plan_lines(plan: RunPlan, begin: float) -> Generator[Line, None, tuple[RunTokenizers, TransferSet]]:
    """Yield what a run in its folder would do, and return its tokenizers and rows.

    For a task of several, steps and costs are left out, which are those of all tasks together.

    Args:
        plan: of the run.
        begin: when loading began, by `time.perf_counter`.
    """
    tokenizers, data = load_data(plan)
    check_labels(plan.recipe, data, plan.objective)
    tokenizer = tokenizers.student
    yield "data", rows_sentence(plan, data)
    if data.kind.has_classes:
        yield "classes", classes_sentence(data)
    probe = builders.probe_of(plan.recipe, tokenizer, plan.args)
    if probe is not None:
        yield "probe", _probe(probe, plan)
    if plan.task.kind.has_labels:
        yield "lengths", lengths_sentence(plan, tokenizer)
    if data.split.cut:
        yield "tokens", tokens_sentence(plan, data)
    for link in chain_of(plan.recipe):
        yield (
            "first",
            f"{link.title}, a run of its own in {link.folder}: {_STATES[run_state(link.folder, link.recipe)]}",
        )
    teacher, state = untrained_teacher(plan, data, tokenizers)
    if plan.recipe.teacher.answers is not None:
        check_answers(plan.recipe, data, plan.objective)
        yield "teacher" if plan.has_answers else "answers", answers_sentence(plan.recipe, data)
    yield "start" if plan.has_answers else "teacher", f"{plan.recipe.teacher.name}, {_size(teacher)}; {state}"
    prepared = PreparedRun(plan, tokenizers, data, teacher, probe=probe)
    student, report = prepared.built
    builders.check_student(student, plan.recipe, tokenizer)
    yield "student", f"{_size(student)}; {str(report).removeprefix('student ')}"
    guide = prepared.guide_of(plan.main)
    yield from ((scheme.key, extension.sentence) for scheme, extension in extensions_of(plan.recipe, guide).items())
    objective = plan.objective_of(plan.main)
    try_models(guide, student, objective, plan.recipe)
    objective = scheme_of(plan.recipe).extend(objective, student, guide, plan.args.seed)
    yield from (("term", _term(term)) for term in objective.terms)
    if plan.recipe.multitask.tasks:
        return tokenizers, data
    yield "steps", _steps(plan, steps_of(plan.args, prepared.run.training_rows, data.group_size))
    yield from cost_lines(estimate_run(prepared, Basis(), time.perf_counter() - begin), Basis())
    return tokenizers, data


_STATES = {
    "new": "a new run",
    "unfinished": "an unfinished run of this recipe, which would be carried on",
    "finished": "a finished run of this recipe: nothing would be trained",
}


def _probe(probe: LinearProbe, plan: RunPlan) -> str:
    """Return the probe's rows, and when it scores the student."""
    section: Any = plan.recipe.evaluation.probe
    return (
        f"{probe.name}, {len(probe.train):,} rows to learn from and {len(probe.test):,} to score, every "
        f"{section.every:,} steps; the majority class has {probe.majority:.3f}"
    )


def _size(model: PreTrainedModel) -> str:
    layers, size = model.config.num_hidden_layers, size_of(model)
    return (
        f"{layers} layers, {large(size.parameters)} parameters, {large(size.encoder_parameters)} of them in the encoder"
    )


def _term(term: LossTerm) -> str:
    """Return a term's name and weight, and its layers."""
    weight = f"{term.weight.start:g}" if term.weight.end is None else f"{term.weight.start:g} to {term.weight.end:g}"
    text = f"{term.name}, weight {weight}"
    pairs = ", ".join(f"{_layer(one)} → {_layer(other)}" for one, other in getattr(term, "pairs", ()))
    return f"{text}; teacher layer → student layer: {pairs}" if isinstance(term, LayerTerm) else text


def _layer(number: int) -> str:
    return "embeddings" if number == EMBEDDINGS else str(number)


def _steps(plan: RunPlan, steps: int) -> str:
    rows = rows_per_step(plan.args)
    students = [str(student) for student in plan.students]
    return f"{steps:,} of {rows} rows, for {len(students)} student{'s' * (len(students) > 1)}: {'; '.join(students)}"
