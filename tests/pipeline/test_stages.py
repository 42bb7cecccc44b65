"""The numbered stages of a run."""

import re

import pytest

from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.pipeline.stages import COSTS, FIDELITY, Stages
from distil_nlp.recipe import load_recipe
from tests.helpers import ROOT


def stages(*overrides):
    recipe = load_recipe(ROOT / "recipes/glue.yaml", ["data.task=mrpc", "training.use_cpu=true", *overrides])
    return Stages(plan := RunPlan.of(recipe, "glue")), plan


def test_each_stage_has_its_number(capsys):
    """Prevents a run of an hour that does not say how much of it is left."""
    numbered, plan = stages("evaluation.seeds=2", "evaluation.baselines=[no_distillation]")
    for name in numbered.names:
        numbered.begin(name)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [int(re.match(r"step (\d) of 7: ", line)[1]) for line in lines] == [*range(1, 8)]
    assert lines[0].endswith("fine-tuning and scoring the teacher")
    assert lines[2].endswith("student 2 of 4 (distilled, seed 43)")
    assert lines[4].endswith("student 4 of 4 (no distillation, seed 43)")
    assert len(plan.students) == 4


def test_a_run_of_one_student_has_no_numbers_of_students():
    """Prevents `student 1 of 1`, and a fine-tuning that is announced and does not happen."""
    numbered, plan = stages("teacher.finetune=null", "evaluation.baselines=[]")
    assert numbered.names == ["scoring the teacher", numbered.student(plan.main), COSTS, FIDELITY]
    assert numbered.student(plan.main) == "training and scoring the student"


@pytest.mark.parametrize(
    ("seconds", "ending"), [(None, "teacher"), (252.4, ", about 4\u00a0min 12\u00a0s of training")]
)
def test_a_time_is_shown_where_it_is_known(capsys, seconds, ending):
    """Prevents estimates that nothing was measured for."""
    numbered, _ = stages()
    numbered.begin(numbered.teacher, seconds)
    assert capsys.readouterr().out.endswith(f"{ending}\n")
