"""Loading of all that a tree learns from and is compared with: a run's rows, its teacher's outputs, its students'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distil_nlp.data import TransferSet
from distil_nlp.data.fingerprint import hash_json
from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import Metrics
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.kept_outputs import OUTPUTS, read_outputs
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.plan import DISTILLED, RunPlan, sources
from distil_nlp.pipeline.provenance import provenance_of
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.recipe import Recipe
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED, Provenance
from distil_nlp.tree.pooled_states import keep_pooled_states
from distil_nlp.tree.teacher_file import TeacherFile
from distil_nlp.utils.files import read_json
from distil_nlp.utils.hub_connection import use_cache_without_network
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

TRAIN = "train"
"""Name of the training rows among the splits that the teacher is run on."""


@dataclass(frozen=True)
class TreeData:
    """Rows of a run with the outputs of its teacher and students.

    Attributes:
        task: name in the metrics table.
        labels: names of the classes, in the order of their ids.
        teacher_name: as the recipe has it.
        texts: `train` and each evaluation split → its texts, a tuple of one or two for each row.
        row_numbers: evaluation split → numbers of its rows in the data, from 0.
        train: outputs of the teacher on the training rows; labels are −100 where a row has none.
        teacher: evaluation split → outputs of the teacher.
        states: as `texts`, the states that the teacher's output layer reads, (rows, width); {} where none are wanted.
        students: seed → evaluation split → outputs of the run's own students; {} for a recipe.
        majority: metrics of the majority class.
        shows_rows: whether texts may be shown.
    """

    task: str
    labels: list[str]
    teacher_name: str
    texts: dict[str, list[tuple[str, ...]]]
    row_numbers: dict[str, list[int]]
    train: Outputs
    teacher: dict[str, Outputs]
    states: dict[str, np.ndarray]
    students: dict[int, dict[str, Outputs]]
    majority: Metrics
    shows_rows: bool

    @property
    def first_split(self) -> str:
        """The evaluation split that intervals, agreement and examples are of."""
        return next(iter(self.teacher))


def load_tree_data(recipe: Recipe, recipe_name: str, run: Path | None, output: Path, with_states: bool) -> TreeData:
    """Load rows, and run the teacher on them unless an earlier start has left its outputs in the folder `output`.

    Args:
        recipe: of the run.
        recipe_name: name of the recipe or the run.
        run: folder of the run; None for a recipe, where no student is looked for.
        output: folder of the tree.
        with_states: whether the pooled states of the teacher are wanted.

    Raises:
        UserError: for a task without classes, for training rows that are not the data's own, for a run whose rows or
            teacher have changed since, and for all that a run would refuse.
    """
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, recipe_name)
    _check_task(plan)
    if run is None:
        preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    tokenizers, data = load_data(plan)
    provenance = provenance_of(plan.recipe, data, tokenizers.student)
    if run is not None:
        provenance.validate(read_json(run / PROVENANCE, UNCOMPARED), run)
    pipeline = Pipeline(plan, tokenizers.student, data, provenance, TeacherLoader(plan, tokenizers, data))
    majority = pipeline.majority()
    teacher, states = _teacher_outputs(pipeline, majority, TeacherFile(output, _key(plan, provenance)), with_states)
    return TreeData(
        task=data.task,
        labels=_labels(data),
        teacher_name=plan.recipe.teacher.name,
        texts={TRAIN: _texts(data.split.train_texts)} | {name: _texts(one) for name, one in data.split.texts.items()},
        row_numbers=data.split.row_numbers,
        train=teacher.pop(TRAIN),
        teacher=teacher,
        states=states,
        students={} if run is None else _students(plan, data),
        majority=majority,
        shows_rows=plan.recipe.evaluation.show_rows,
    )


def _check_task(plan: RunPlan) -> None:
    kind = plan.task.kind
    if plan.recipe.teacher.answers is not None:
        raise UserError(
            "teacher.columns",
            "a teacher that is a model, for a tree",
            "answers in the data's columns",
            why="the tree asks the teacher itself",
            fix="make the tree of a run whose teacher is a model",
        )
    if kind.level != "sequence" or kind.output != "distribution":
        raise UserError(
            "data.task",
            "a task of texts and classes",
            plan.task.name,
            why="a leaf of the tree is a distribution over the classes of a text",
            fix="take a recipe of one, such as own_data",
        )
    if plan.recipe.data.augmentation.replacement is not None:
        raise UserError(
            "data.augmentation.replacement",
            "the data's own training rows",
            "copies with replaced words",
            why="these are made as tokens, and a tree reads texts",
            fix="give the recipe with data.augmentation.replacement=null",
        )


def _key(plan: RunPlan, provenance: Provenance) -> str:
    """Return a hash of all that the teacher's outputs on the rows depend on."""
    rows = [provenance.training_rows, provenance.evaluation_rows, provenance.teacher, provenance.tokenizer]
    return hash_json([*rows, plan.recipe.teacher.model_dump(mode="json"), plan.args.seed])


def _labels(data: TransferSet) -> list[str]:
    return list(data.head.labels or map(str, range(data.head.num_labels or 0)))


def _texts(rows: Any) -> list[tuple[str, ...]]:
    return list(zip(*([str(text or "") for text in rows[name]] for name in rows.column_names), strict=True))


def _students(plan: RunPlan, data: TransferSet) -> dict[int, dict[str, Outputs]]:
    """Return the outputs of the run's students, as far as they were kept."""
    planned = [student for student in plan.students if student.name == DISTILLED]
    outputs = {student.seed: read_outputs(student.folder / OUTPUTS, data.split.evaluation) for student in planned}
    found = {seed: one for seed, one in outputs.items() if one is not None}
    if not found:
        logger.info(f"{plan.folder} has no outputs of its student, which is left out")
    return found


def _teacher_outputs(
    pipeline: Pipeline, majority: Metrics, file: TeacherFile, with_states: bool
) -> tuple[dict[str, Outputs], dict[str, np.ndarray]]:
    """Return the teacher's outputs and states on the training rows and all evaluation splits."""
    if (kept := file.read(with_states)) is not None:
        logger.info(f"the teacher's outputs are those of an earlier start, in {file.path}")
        return kept
    plan, data = pipeline.plan, pipeline.data
    scores = RunScores(data.task, majority)
    run = pipeline.student_run(plan.main, scores)
    teacher = pipeline.teacher_of(plan.main, run, scores)
    outputs, states, data = {}, {}, data.read_by()
    logger.info(f"running the teacher on {len(data.split.train):,} training rows")
    for name, rows in {TRAIN: data.split.train, **data.split.evaluation}.items():
        if name in data.split.evaluation and not with_states:
            outputs[name] = next(iter(scores.teacher.values()))[name]
            continue
        rows, order = _longest_first(rows)
        with keep_pooled_states(teacher, with_states) as kept_states:
            found = predict(
                teacher,
                data.kind,
                {name: rows},
                data.scored_by,
                batch_size=plan.args.per_device_eval_batch_size,
                device=plan.args.device,
                bf16=plan.args.bf16,
            )[name]
        back = np.argsort(order)
        outputs[name] = Outputs(found.predictions[back], found.labels[back])
        if with_states:
            states[name] = kept_states(len(rows))[back]
    file.write(outputs, states)
    return outputs, states


def _longest_first(rows: Any) -> tuple[Any, np.ndarray]:
    """Return (rows in the order in which `predict` runs them, their numbers)."""
    order = np.argsort(-np.asarray(rows["length"]), kind="stable")
    return rows.select(order), order
