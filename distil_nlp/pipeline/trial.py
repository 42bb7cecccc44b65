"""A trial of teacher and student on a few tokens, before anything is trained: what would fail hours later fails now."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.evaluation.efficiency import longest_inputs, measure_efficiency
from distil_nlp.evaluation.latency import LatencyPlan
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.trial import keeping_random_state, run_plainly, trial_batch, undisturbed
from distil_nlp.objective import ModelShape, Role
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import builders
from distil_nlp.pipeline.joint import scheme_of
from distil_nlp.recipe import Recipe
from distil_nlp.signals.recorder import Recorder
from distil_nlp.tasks import Head
from distil_nlp.teachers.cache.contents import validate_attention
from distil_nlp.training.checks import validate_dropout

_TOKENS = 16
_ONCE = LatencyPlan((1,), ("max_length",), seconds=0, forwards=(1, 1), warm_up=0)


def try_teacher(
    teacher: PreTrainedModel, recipe: Recipe, objective: Objective, tokenizer: PreTrainedTokenizerBase, head: Head
) -> None:
    """Build a student of the teacher as it is before its fine-tuning, and try both.

    Args:
        teacher: keeps its weights and modes, as random states do.
        recipe: the student's.
        objective: unbound; it is bound here.
        tokenizer: the teacher's.
        head: of both models.

    Raises:
        UserError: see `try_models`, or if there can be no such student.
    """
    with keeping_random_state(teacher.device):
        student, _ = builders.student_from(recipe, teacher, tokenizer, head)
    builders.check_student(student, recipe, tokenizer)
    try_models(teacher, student, objective, recipe)


def try_models(teacher: PreTrainedModel, student: PreTrainedModel, objective: Objective, recipe: Recipe) -> None:
    """Run both models, capture all signals that the objective needs, and measure costs if they are to be at the end.

    Args:
        teacher: model or ensemble; keeps its weights and modes, as random states do.
        student: likewise.
        objective: unbound; its terms are bound here.
        recipe: its lengths are tried, and what trains together with the student.

    Raises:
        UserError: if a model does not run, does not show what a term looks at, or lacks the dropout that one needs.
    """
    validate_dropout(objective, student)
    inputs = longest_inputs([teacher, student], recipe.data.max_length)
    for model in (*ensemble_members(teacher), student):
        try_alone(model)
        with undisturbed(model):
            run_plainly(model, {name: value.to(model.device) for name, value in inputs.items()})
    source = teacher if recipe.teacher.self is None else student
    with keeping_random_state(teacher.device):
        objective = scheme_of(recipe).extend(objective, student, source, seed=0)
        objective.bind(ModelShape.of(source.config), ModelShape.of(student.config))
        if objective.kind.level == "sequence":
            _run_in_train_mode(student, recipe.data.pad_to_multiple_of or 1)
        on_tokens = objective.kind.level == "token"
        roles: tuple[tuple[Role, PreTrainedModel], ...] = (("teacher", source), ("student", student))
        for role, model in roles:
            recorder = Recorder(model, objective.request(role), head_rows=on_tokens)
            try:
                if role == "teacher" and recipe.teacher.cache is not None:
                    validate_attention(recorder, inputs)
            finally:
                recorder.remove()
        if recipe.evaluation.efficiency != "off":
            models = {"teacher": teacher, "student": student}
            measure_efficiency(models, None, dict, plan=_ONCE, max_length=_TOKENS, device=teacher.device)


def try_alone(model: PreTrainedModel) -> None:
    """Run a model on a few tokens.

    Raises:
        UserError: if it does not run.
    """
    with undisturbed(model):
        run_plainly(model, trial_batch(model))


@torch.no_grad()
def _run_in_train_mode(model: PreTrainedModel, multiple: int) -> None:
    """Run a model as training does: some families (Reformer) take certain lengths only, in train mode alone."""
    before = [buffer.clone() for buffer in model.buffers()]
    with undisturbed(model):
        run_plainly(model.train(), trial_batch(model, multiple))
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
