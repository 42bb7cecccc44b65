"""The plan of one recipe: everything is loaded, a few micro-batches are taken, and nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.plan import RunPlan, sources
from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.estimate import estimate_run
from distil_nlp.pipeline.planning.prepared import PreparedRun, untrained_teacher
from distil_nlp.pipeline.planning.stage import RunCosts
from distil_nlp.pipeline.trial import try_models
from distil_nlp.recipe import Recipe
from distil_nlp.utils.hub_connection import use_cache_without_network


def plan_recipe(
    recipe: Recipe,
    recipe_name: str,
    basis: Basis,
    *,
    known: set[Path] | None = None,
    begin: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> RunCosts:
    """Return what the run of a recipe will take.

    Args:
        recipe: of the run.
        recipe_name: names its folder where the recipe does not.
        basis: the machine that it is for.
        known: folders of teachers and links that are counted already; those of this run are added.
        begin: when loading began, by `time.perf_counter`; now if None.
        say: told what is going on.

    Raises:
        UserError: for every problem that the run would meet before its first step.
    """
    begin = time.perf_counter() if begin is None else begin
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, recipe_name)
    preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    say("loading rows and models")
    tokenizers, data = load_data(plan)
    probe = builders.probe_of(plan.recipe, tokenizers.student, plan.args)
    teacher, _ = untrained_teacher(plan, data, tokenizers)
    prepared = PreparedRun(plan, tokenizers, data, teacher, probe=probe)
    builders.check_student(prepared.student, plan.recipe, tokenizers.student)
    try_models(prepared.guide_of(plan.main), prepared.student, plan.objective_of(plan.main), plan.recipe)
    say(f"{'timing' if basis.is_timed else 'counting'} some steps")
    return estimate_run(prepared, basis, time.perf_counter() - begin, known)
