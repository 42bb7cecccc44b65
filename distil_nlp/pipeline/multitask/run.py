"""A run of several tasks at once: one encoder, a head for each task, and an ordinary run's folder for each task.

The teachers come first, each as in a run of its own; then the students of all tasks train together, those of each seed
and baseline in one training; then each task is scored and told by the ordinary pipeline, which finds its students
trained.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError
from distil_nlp.models import check_vocabulary
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.answers import answers_sentence, check_answers
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.dry_run import Line, plan_lines
from distil_nlp.pipeline.labels import check_labels
from distil_nlp.pipeline.multitask.plans import check_folder_of_tasks, naming, plan_tasks
from distil_nlp.pipeline.multitask.steps import TaskSteps
from distil_nlp.pipeline.multitask.students import TaskPipeline
from distil_nlp.pipeline.multitask.together import Together
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.plan import NO_DISTILLATION, RunPlan, sources
from distil_nlp.pipeline.provenance import beside_each_other, provenance_of
from distil_nlp.pipeline.publication import publish_run, show_run
from distil_nlp.pipeline.run_folder import (
    RECIPE,
    RESULTS,
    VARIANTS,
    RunState,
    move_to_previous,
    run_state,
)
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.pipeline.trial import try_models
from distil_nlp.recipe import MultitaskRecipe, dump_yaml
from distil_nlp.redaction import abbreviate_home
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.multitask import write_tasks
from distil_nlp.results import write_results
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED
from distil_nlp.utils.files import read_json, write_atomically
from distil_nlp.utils.hub_connection import use_cache_without_network
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def distil_tasks(recipe: MultitaskRecipe, recipe_name: str) -> Path:
    """Run a recipe of several tasks, or the rest of a run; return the path of the table of all tasks.

    Raises:
        UserError: for every problem that the user can fix.
    """
    use_cache_without_network([name for own in recipe.tasks.values() for name in sources(own)])
    folder, plans = plan_tasks(recipe, recipe_name)
    check_folder_of_tasks(folder, recipe.first.run.overwrite)
    with claimed(folder):
        first = next(iter(plans.values()))
        if recipe.first.run.overwrite and first.args.should_save and (folder / RECIPE).is_file():
            move_to_previous(folder)
        with first.args.main_process_first(desc="the folders of the tasks"):
            states = {name: run_state(plan.folder, plan.recipe) for name, plan in plans.items()}
        if all(state == "finished" for state in states.values()):
            logger.info(f"{folder}: this run is finished; run.overwrite=true would start it again")
        else:
            _run_tasks(recipe, folder, plans, states)
        for plan in plans.values():
            publish_run(plan)
        return write_tasks(folder, list(plans)) if first.args.should_save else folder


def dry_run_tasks(recipe: MultitaskRecipe, recipe_name: str) -> Iterator[Line]:
    use_cache_without_network([name for own in recipe.tasks.values() for name in sources(own)])
    folder, plans = plan_tasks(recipe, recipe_name)
    yield "folder", f"{folder}, with a folder for each of {plural(len(plans), 'task')}"
    loaded = {}
    for name, plan in plans.items():
        yield "task", name
        loaded[name] = yield from plan_lines(plan, time.perf_counter())
    _check_tokenizers({name: tokenizers for name, (tokenizers, _) in loaded.items()})
    first = next(iter(plans.values()))
    steps = TaskSteps({name: data for name, (_, data) in loaded.items()}, recipe.first.multitask.sampling_power)
    steps.validate(first.main, first.args)
    yield "steps", f"{steps.sentence(first.main, first.args)}; times are not estimated for several tasks at once"


def _run_tasks(
    recipe: MultitaskRecipe, folder: Path, plans: Mapping[str, RunPlan], states: Mapping[str, RunState]
) -> None:
    """Do what is left of a run of several tasks."""
    first = next(iter(plans.values()))
    loaded = {}
    for name, plan in plans.items():
        logger.info(f"\ntask {name}: loading the data")
        with naming(name), plan.args.main_process_first(desc="data"):
            loaded[name] = load_data(plan)
        with naming(name):
            _check_data(plan, loaded[name][1])
    _check_tokenizers({name: tokenizers for name, (tokenizers, _) in loaded.items()})
    made = {name: provenance_of(plans[name].recipe, data, one.student) for name, (one, data) in loaded.items()}
    provenances = beside_each_other(made)
    for name, state in states.items():
        if state != "new":
            place = plans[name].folder
            provenances[name].validate(read_json(place / PROVENANCE, UNCOMPARED), place)
    args = builders.training_arguments(first.recipe.training, folder, first.recipe)
    pipelines: dict[str, TaskPipeline] = {}
    steps = TaskSteps({name: data for name, (_, data) in loaded.items()}, first.recipe.multitask.sampling_power)
    together = Together(folder, pipelines, args, steps)
    for name, (tokenizers, data) in loaded.items():
        teachers = TeacherLoader(plans[name], tokenizers, data)
        pipelines[name] = TaskPipeline(
            plans[name], tokenizers.student, data, provenances[name], teachers,
            steps=partial(together.steps_of_task, name),
            start=together.start_of if pipelines else None,
        )  # fmt: skip
    together.check_steps()
    for name, pipeline in pipelines.items():
        logger.info(f"\ntask {name}")
        with naming(name):
            pipeline.first_scores()
            _try_student(pipeline)
    if args.should_save:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / RECIPE, dump_yaml(abbreviate_home(recipe.settings)))
    for number in range(len(first.students)):
        together.train_missing(number)
    for name, pipeline in pipelines.items():
        logger.info(f"\ntask {name}")
        results = pipeline.run(is_new=False)
        if args.should_save:
            write_results(plans[name].folder / RESULTS, results)
            show_run(plans[name].folder, results)
    if args.should_save:
        _discard_checkpoints(folder)


def _check_data(plan: RunPlan, data: TransferSet) -> None:
    """Raise UserError for what would fail after hours, and tell of answers in the data."""
    check_answers(plan.recipe, data, plan.objective)
    check_labels(plan.recipe, data, plan.objective)
    if plan.recipe.teacher.answers is not None:
        logger.info(answers_sentence(plan.recipe, data))
    if NO_DISTILLATION in plan.recipe.evaluation.baselines:
        data.labelled()


def _check_tokenizers(tokenizers: Mapping[str, RunTokenizers]) -> None:
    """Raise UserError unless the students of all tasks read the same tokens."""
    (first, own), *others = tokenizers.items()
    for name, other in others:
        try:
            check_vocabulary(other.student, own.student)
        except UserError as error:
            raise UserError(
                "data.teacher.name",
                f"one vocabulary for the students of {first} and {name}",
                "teachers of two, of which the students are made",
                why=f"all tasks have one encoder, with one table of words ({error})",
                fix="take teachers of one vocabulary, or name the student's checkpoint with student.name",
            ) from error


def _try_student(pipeline: TaskPipeline) -> None:
    """Try teacher and student of a task on a few tokens, before anything is trained."""
    plan = pipeline.plan
    student, _ = pipeline.joint_run(plan.main).build(pipeline.loaded_teacher)
    builders.check_student(student, plan.recipe, pipeline.tokenizer)
    try_models(pipeline.loaded_teacher, student, plan.objective_of(plan.main), plan.recipe)


def _discard_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of further seeds and baselines, whose students are scored."""
    shutil.rmtree(folder / VARIANTS, ignore_errors=True)
