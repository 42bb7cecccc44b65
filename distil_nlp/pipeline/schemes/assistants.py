"""Teaching assistants (TAKD; DGKD): smaller models come between teacher and student."""

from __future__ import annotations

from distil_nlp.pipeline.schemes.base import Scheme
from distil_nlp.pipeline.schemes.shapes import describe_shape
from distil_nlp.recipe import Recipe


def _assistants(recipe: Recipe) -> str:
    teacher, shapes = recipe.teacher, recipe.teacher.assistants or []
    drop = f", each of which is left out of a step with probability {teacher.drop:g}" if teacher.drop else ""
    taught = "by the last one alone" if teacher.guided == "last" else f"by the teacher and all of them{drop}"
    made = " Each is made of layers of the one before." if teacher.start == "assistant" else ""
    return (
        f"{len(shapes)} assistant{'s' * (len(shapes) > 1)} came between teacher and student "
        f"({'; '.join(map(describe_shape, shapes))}); the student was taught {taught}.{made}"
    )


_DETAILS = ("guided", "drop", "start")
ASSISTANTS = Scheme("teacher", "assistants", "teaching assistants", "1902.03393", _assistants, _DETAILS)
