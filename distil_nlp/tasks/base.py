"""`Task`: columns, labels, splits and headline metric of a task; `Head`: the head that it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distil_nlp.tasks.embedding import SENTENCE_EMBEDDING, TEXTS
from distil_nlp.tasks.kind import TaskKind
from distil_nlp.tasks.kinds import KINDS, task_kind


@dataclass(frozen=True)
class Task:
    """A task, in the layout of `nyu-mll/glue`.

    Attributes:
        name: name in GLUE and of the dataset's configuration; or the kind of task, for a custom dataset.
        text_columns: one column, or two for a pair.
        labels: class names in the order of their ids; empty if they are read from the data, and for regression.
        headline: the metric that retention is computed from.
        kind: a kind of task, or its name.
        evaluation_splits: the labelled splits that scores are reported on. GLUE's test labels are not public.
        label_column: the column of labels.
    """

    name: str
    text_columns: tuple[str, ...]
    labels: tuple[str, ...] = ()
    headline: str = "accuracy"
    kind: TaskKind = KINDS["classification"]
    evaluation_splits: tuple[str, ...] = ("validation",)
    label_column: str = "label"

    if TYPE_CHECKING:  # the constructor takes names of kinds too

        def __init__(
            self,
            name: str,
            text_columns: tuple[str, ...],
            labels: tuple[str, ...] = (),
            headline: str = "accuracy",
            kind: TaskKind | str = "classification",
            evaluation_splits: tuple[str, ...] = ("validation",),
            label_column: str = "label",
        ) -> None: ...

    def __post_init__(self) -> None:
        """Replace the name of the kind by the kind."""
        object.__setattr__(self, "kind", task_kind(self.kind))


CUSTOM_TASKS = {
    kind.name: Task(kind.name, ("text",), (), kind.headline, kind, kind.evaluation_splits) for kind in KINDS.values()
} | {TEXTS: Task(TEXTS, ("text",), (), "teacher_cosine", SENTENCE_EMBEDDING, SENTENCE_EMBEDDING.evaluation_splits)}
"""Tasks on custom datasets, whose columns the recipe names; scores are reported on the first split that exists."""
CUSTOM_TASKS["tags"] = replace(CUSTOM_TASKS["tokens"], name="tags", headline="accuracy")
"""Tags of words that make no entities, such as parts of speech: data.task=tokens is scored like this where tags have no
prefixes."""
CUSTOM_TASKS["qa"] = replace(CUSTOM_TASKS["qa"], text_columns=("question", "context"), label_column="answers")
CUSTOM_TASKS["qa_v2"] = replace(CUSTOM_TASKS["qa"], name="qa_v2")
"""Questions of which some have no answer in their context: data.task=qa is scored like this where answers are empty."""


OTHER_KINDS_REMEDY = (
    "for any other task, distil the encoder with "
    "data.task=mlm and fine-tune the student (docs/recipes.md, “Other tasks”)"
)
"""What can be done for a task of none of the kinds."""


@dataclass(frozen=True)
class Head:
    """The head that a task needs.

    Attributes:
        kind: a kind of task, or its name.
        labels: class names in the order of the data's ids; None if the data does not name its classes.
        num_labels: classes, or 1 for regression; None for language modelling and embeddings.
        are_named_by_recipe: True if `labels` are `data.label_names`, which then names the data's numbers, and tells
            nothing of the order of a model's classes.
        pooling: for embeddings, how the states of a text's tokens become a vector, where the model's folder does not
            tell; None for the default.
        normalize: likewise, whether vectors have length 1.
    """

    kind: TaskKind
    labels: tuple[str, ...] | None = None
    num_labels: int | None = None
    are_named_by_recipe: bool = False
    pooling: str | None = None
    normalize: bool | None = None

    if TYPE_CHECKING:  # the constructor takes names of kinds too

        def __init__(
            self,
            kind: TaskKind | str,
            labels: tuple[str, ...] | None = None,
            num_labels: int | None = None,
            are_named_by_recipe: bool = False,
            pooling: str | None = None,
            normalize: bool | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Replace the name of the kind by the kind."""
        object.__setattr__(self, "kind", task_kind(self.kind))

    def config(self) -> dict[str, Any]:
        """Return the fields of a model's configuration for a new head of this kind."""
        if not self.kind.has_labels:
            return {}
        names = self.labels or tuple(f"LABEL_{i}" for i in range(self.num_labels or 0))
        return {
            "num_labels": self.num_labels,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": self.kind.problem_type,
        }
