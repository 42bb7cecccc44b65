"""A check of the teacher before a student learns from it: better than a guess, and classes in the data's order."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from distil_nlp.errors import UserError
from distil_nlp.evaluation.class_search import ClassesFound, find_classes
from distil_nlp.evaluation.kinds import Metrics
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.models import ClassMapping
from distil_nlp.recipe import dump_yaml
from distil_nlp.tasks import TaskKind
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class TeacherCheck:
    """The scores of a teacher that tell whether it can teach.

    Attributes:
        name: of the teacher.
        kind: kind of task.
        task: name in the table of metrics.
        outputs: split → outputs of the teacher.
        majority: metrics of the baseline without a model on the first split.
        mapping: the order of the teacher's classes; None where the run trained it on the data's own, or it has none.
        is_finetuned: whether the run trained it.
        is_answers: whether it is answers in the data, and no model.
    """

    name: str
    kind: TaskKind
    task: str
    outputs: dict[str, Outputs]
    majority: Metrics
    mapping: ClassMapping | None
    is_finetuned: bool
    is_answers: bool = False

    @property
    def score(self) -> float:
        """The headline metric on the first split."""
        return metrics_of(self.task, self.outputs)[headline_metric(self.task)]

    @property
    def floor(self) -> float:
        """The headline metric without a model; 0 where that has none, such as the correlation of a constant."""
        floor = self.majority.get(headline_metric(self.task))
        return floor if floor is not None and math.isfinite(floor) else 0.0

    @property
    def is_weak(self) -> bool:
        """True if the teacher is no better than a guess. Where a guess is always right, the rows cannot tell."""
        return not self.score > self.floor and self.floor < 1

    def run(self, accepts_weak: bool) -> None:
        """Log what speaks against this teacher.

        Args:
            accepts_weak: whether a teacher that is no better than a guess is taken all the same.

        Raises:
            UserError: for such a teacher of labels, unless it is taken. What a language model knows of text shows less
                in a comparison with token frequencies, so that is a warning.
        """
        found = find_classes(self.kind, self.task, self.outputs, self.mapping) if self.mapping else None
        if not self.is_weak:
            if found:
                logger.warning(f"warning: {found.remark(self.name)}; if that is right, set {_setting(found)}")
            return
        error = self._weakness(found)
        if self.kind.has_labels and not accepts_weak:
            raise error
        logger.warning(f"warning: {error}")

    def _weakness(self, found: ClassesFound | None) -> UserError:
        why = "there is nothing to learn from a teacher that knows no more than this"
        fix = "take another teacher, or set teacher.finetune={} to train it on this data first"
        if not self.kind.learns_labels:
            fix = "take another teacher"
        if self.is_finetuned:
            fix = "train it longer or with another learning rate (teacher.finetune), or take another teacher"
        if self.is_answers:
            fix = "name the columns by class, so that none stands for another, or take better answers"
        if found:
            why, fix = found.remark(self.name), f"set {_setting(found)} if that is right"
        return UserError(
            "teacher",
            f"{headline_metric(self.task)} above {self.floor:.3f} on {next(iter(self.outputs))}, which the baseline "
            f"{self.kind.majority_name} has",
            f"{self.score:.3f} of {'the answers' if self.is_answers else self.name}",
            why=why,
            fix=f"{fix}; run.accept_weak_teacher=true takes it as it is",
        )


def _setting(found: ClassesFound) -> str:
    """Return the override that says an order, as it is typed in a shell."""
    return shlex.quote(f"data.label_names={dump_yaml(list(found.names)).strip()}")
