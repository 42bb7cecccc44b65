"""One run of a recipe: its folder is claimed, its links come first, and what is finished is not repeated."""

from __future__ import annotations

from pathlib import Path

from accelerate import PartialState

from distil_nlp.errors import UserError, listed
from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.answers import answers_sentence, check_answers
from distil_nlp.pipeline.labels import check_labels
from distil_nlp.pipeline.links import Link, chain_of
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.plan import NO_DISTILLATION, RunPlan, sources
from distil_nlp.pipeline.provenance import changed_sources, provenance_of
from distil_nlp.pipeline.publication import publish_run, show_run
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT, RunState, run_state, validate_folder
from distil_nlp.pipeline.students import altered_student
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.recipe import Recipe
from distil_nlp.results import read_results, write_results
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED
from distil_nlp.utils.files import read_json
from distil_nlp.utils.hub_connection import use_cache_without_network
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_CARD, _REPORT = Path(STUDENT, "README.md"), Path("report", "report.html")


def distil(recipe: Recipe, recipe_name: str) -> Path:
    """Run a recipe, or the rest of a run; return the path of `results.json`.

    Raises:
        UserError: for every problem that the user can fix.
    """
    check_alone(recipe)
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, recipe_name)
    preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    validate_folder(plan.folder)
    with claimed(plan.folder):
        return _distil(plan)


def check_alone(recipe: Recipe) -> None:
    """Raise UserError for the recipe of one task of several: its student is trained with the others'."""
    if recipe.multitask.tasks:
        raise UserError(
            "multitask.tasks",
            "the recipe of a whole run",
            f"that of {recipe.multitask.task}, one of {listed(recipe.multitask.tasks, 20)}",
            why="its student was trained together with those of the other tasks",
            fix="run the recipe.yaml in the folder above, or leave multitask out to distil this task alone",
        )


def _distil(plan: RunPlan) -> Path:
    """Run a plan, or the rest of it, in its own folder; return the path of `results.json`."""
    state = _state_of(plan)
    if state != "finished":
        for link in chain_of(plan.recipe):
            _run_link(link)
    return _run(plan, state)


def _run_link(link: Link) -> None:
    """Run a link, or the rest of it, in its own folder; one that another run is at is waited for."""
    plan = RunPlan.of(link.recipe, link.title).with_trained_teacher()
    validate_folder(plan.folder)
    with claimed(plan.folder, wait_for=f"the {link.title}"):
        PartialState().wait_for_everyone()  # until the main process holds the folder
        state = _state_of(plan)
        if state == "finished":
            logger.info(f"{link.title}: from an earlier run, {plan.folder}")
            return
        logger.info(f"\n{link.title}: trained first, as a run of its own in {plan.folder}")
        _run(plan, state, is_link=True)
        PartialState().wait_for_everyone()  # until its results are written


def _state_of(plan: RunPlan) -> RunState:
    """Return the state of the run in a plan's folder, which the main process has claimed."""
    with plan.args.main_process_first(desc="the run's folder"):
        return run_state(plan.folder, plan.recipe)


def _run(plan: RunPlan, state: RunState, is_link: bool = False) -> Path:
    """Do what is left of a run whose links are finished; return the path of `results.json`.

    Args:
        is_link: whether it is a link of another run, which needs no words on what it is worth.
    """
    folder, should_save = plan.folder, plan.args.should_save
    if state == "finished":
        logger.info(f"{folder}: this run is finished; run.overwrite=true would start it again")
        _say_what_changed(plan)
        shown = (_CARD, *([_REPORT] if plan.recipe.run.report else []))
        if should_save and not all((folder / name).is_file() for name in shown):
            show_run(folder, read_results(folder / RESULTS))  # the run was stopped before these were written
        _export(plan)
        return publish_run(plan)
    with plan.args.main_process_first(desc="data"):
        tokenizers, data = load_data(plan)
        probe = builders.probe_of(plan.recipe, tokenizers.student, plan.args)
    check_answers(plan.recipe, data, plan.objective)
    check_labels(plan.recipe, data, plan.objective)
    if plan.recipe.teacher.answers is not None:
        logger.info(answers_sentence(plan.recipe, data))
    if NO_DISTILLATION in plan.recipe.evaluation.baselines:
        data.labelled()  # raises now rather than after hours
    provenance = provenance_of(plan.recipe, data, tokenizers.student)
    if state == "unfinished":
        provenance.validate(read_json(folder / PROVENANCE, UNCOMPARED), folder)
    teachers = TeacherLoader(plan, tokenizers, data)
    results = Pipeline(plan, tokenizers.student, data, provenance, teachers, probe).run(is_new=state == "new")
    if should_save:
        write_results(folder / RESULTS, results)
        show_run(folder, results, is_link)
    if not is_link:
        _export(plan)
    return publish_run(plan)


def _export(plan: RunPlan) -> None:
    """Export the student, unless that is done or not asked for."""
    if not plan.recipe.export.onnx or not plan.args.should_save or "export" in read_results(plan.folder / RESULTS):
        return
    from distil_nlp.pipeline.export import export_claimed  # needs the packages of the extra `export`

    export_claimed(plan.folder, plan.recipe)


def _say_what_changed(plan: RunPlan) -> None:
    """Log which files have changed since a finished run was made.

    Raises:
        UserError: if the student that would be pushed is not the one that was scored.
    """
    before = read_json(plan.folder / PROVENANCE, UNCOMPARED) or {}
    if changed := changed_sources(plan.recipe, before):
        logger.info(f"{plan.folder}: {' and '.join(changed)} changed since, its figures are of what was there before")
    altered = altered_student(plan.folder)
    if altered and plan.recipe.hub.push:
        raise UserError(
            str(plan.folder / STUDENT),
            "the student that was scored",
            f"another {', '.join(altered)}",
            why="it would be published with the scores of another",
            fix="set run.overwrite=true to train it again",
        )
    if altered:
        logger.info(f"{plan.folder / STUDENT}: {', '.join(altered)} is not what was scored")
