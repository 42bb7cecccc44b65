"""A run of several tasks at once: one encoder, a head for each task, and an ordinary run's folder for each task.

The teachers come first, each as in a run of its own; then the students of all tasks train together, those of each seed
and baseline in one training; then each task is scored and told by the ordinary pipeline, which finds its students
trained.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, PreTrainedModel, TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.data.fingerprint import hash_json
from distil_nlp.data.sampling import draw_seed
from distil_nlp.data.task_sampling import TaskDraws
from distil_nlp.errors import UserError, listed
from distil_nlp.models import check_vocabulary, load_config
from distil_nlp.models.shared_encoder import share_encoder
from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.answers import answers_sentence, check_answers
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.distill import distil
from distil_nlp.pipeline.dry_run import Line, dry_run, plan_lines
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.pipeline import Pipeline
from distil_nlp.pipeline.plan import DISTILLED, NO_DISTILLATION, RunPlan, StudentPlan, output_folder, sources
from distil_nlp.pipeline.provenance import provenance_of
from distil_nlp.pipeline.publication import publish_run, show_run
from distil_nlp.pipeline.run_folder import (
    RECIPE,
    RESULTS,
    STUDENT,
    VARIANTS,
    RunState,
    move_to_previous,
    run_state,
    validate_folder,
)
from distil_nlp.pipeline.schemes.multitask import validate_kind
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.students import OUTPUTS, TRAINING, StudentRun, read_outputs
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.pipeline.trial import try_models
from distil_nlp.recipe import MultitaskRecipe, Recipe, dump_yaml, read_yaml
from distil_nlp.redaction import abbreviate_home
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.multitask import write_tasks
from distil_nlp.results import write_results
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED, Provenance
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.training.fit import save_with_record, train_to_end
from distil_nlp.training.multitask import MultitaskTrainer
from distil_nlp.utils.files import read_json, write_atomically
from distil_nlp.utils.hub_connection import use_cache_without_network
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def distil_any(recipe: Recipe | MultitaskRecipe, recipe_name: str) -> Path:
    """Run a recipe of one task or of several; return the path of its results, or of the table of all tasks."""
    return distil(recipe, recipe_name) if isinstance(recipe, Recipe) else distil_tasks(recipe, recipe_name)


def distil_tasks(recipe: MultitaskRecipe, recipe_name: str) -> Path:
    """Run a recipe of several tasks, or the rest of a run; return the path of the table of all tasks.

    Raises:
        UserError: for every problem that the user can fix.
    """
    use_cache_without_network([name for own in recipe.tasks.values() for name in sources(own)])
    folder, plans = plan_tasks(recipe, recipe_name)
    _check_folder_of_tasks(folder, recipe.first.run.overwrite)
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


def dry_run_any(recipe: Recipe | MultitaskRecipe, recipe_name: str) -> Iterator[Line]:
    """Yield what a run of one task or of several would do, line by line; see `dry_run`."""
    return dry_run(recipe, recipe_name) if isinstance(recipe, Recipe) else _dry_run_tasks(recipe, recipe_name)


def _dry_run_tasks(recipe: MultitaskRecipe, recipe_name: str) -> Iterator[Line]:
    use_cache_without_network([name for own in recipe.tasks.values() for name in sources(own)])
    folder, plans = plan_tasks(recipe, recipe_name)
    yield "folder", f"{folder}, with a folder for each of {plural(len(plans), 'task')}"
    loaded = {}
    for name, plan in plans.items():
        yield "task", name
        loaded[name] = yield from plan_lines(plan)
    _check_tokenizers({name: tokenizers for name, (tokenizers, _) in loaded.items()})
    first = next(iter(plans.values()))
    steps = TaskSteps({name: data for name, (_, data) in loaded.items()}, recipe.first.multitask.sampling_power)
    steps.validate(first.main, first.args)
    yield "steps", f"{steps.sentence(first.main, first.args)}; times are not estimated for several tasks at once"


def plan_tasks(recipe: MultitaskRecipe, recipe_name: str) -> tuple[Path, dict[str, RunPlan]]:
    """Return the folder of a run of several tasks, and the plan of each of them; its folder is within.

    Raises:
        UserError: for settings at which a run would fail later.
    """
    folder, plans = tasks_folder(recipe, recipe_name), {}
    for name, own in recipe.tasks.items():
        with _naming(name):
            validate_kind(own)
            plan = RunPlan.of(_recipe_of_task(own, name, folder), recipe_name)
            preflight.validate_plan(plan)
            plans[name] = plan.with_trained_teacher()
    _check_shapes(plans)
    return folder, plans


@contextmanager
def _naming(task: str) -> Iterator[None]:
    """Within this context, errors say which task they are of."""
    try:
        yield
    except UserError as error:
        if error.expected is None:
            raise
        where = f"task {task}, {error.where}" if error.where else f"task {task}"
        raise UserError(where, error.expected, error.got, error.why, error.fix) from error


_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
"""Fields of a configuration that the teachers of students with one encoder have in common."""


def _check_shapes(plans: Mapping[str, RunPlan]) -> None:
    """Raise UserError for students that are made of teachers of unlike shapes; what cannot be looked at passes."""
    if next(iter(plans.values())).recipe.student.name is not None:
        return
    known: dict[str, tuple[Any, ...]] = {}
    for name, plan in plans.items():
        with suppress(Exception):  # what is wrong with it is told where it is loaded
            config = load_config(plan.recipe.teacher.name, plan.recipe.teacher.revision)
            known[name] = tuple(getattr(config, key, None) for key in _SHAPE)
    for name, shape in known.items():
        first, expected = next(iter(known.items()))
        differing = [key for key, own, other in zip(_SHAPE, shape, expected, strict=True) if own != other]
        if differing:
            values = dict(zip(_SHAPE, zip(expected, shape, strict=True), strict=True))
            got = ", ".join(f"{key} {values[key][0]} and {values[key][1]}" for key in differing)
            raise UserError(
                "data.teacher.name",
                f"teachers of one shape for {first} and {name}",
                got,
                why="all tasks have one encoder, and their students are made of their teachers",
                fix="take teachers of one family, width and vocabulary, or name a checkpoint with student.name",
            )


def _check_folder_of_tasks(folder: Path, overwrites: bool) -> None:
    """Raise UserError for a folder that holds something else than a run of several tasks.

    Args:
        overwrites: whether what is there may be moved away.
    """
    validate_folder(folder)
    file = folder / RECIPE
    if file.is_file() and not overwrites and not isinstance(read_yaml(file).get("data"), list):
        raise UserError(
            "training.output_dir",
            "a folder of its own for several tasks",
            f"{folder}, a run of one task",
            why="their files would be mixed up",
            fix="name another folder, or set run.overwrite=true",
        )


def tasks_folder(recipe: MultitaskRecipe, recipe_name: str) -> Path:
    """Return `training.output_dir`, or `runs/<recipe>-<names of the tasks>-<seed>`."""
    if recipe.first.training.get("output_dir"):
        return Path(recipe.first.training["output_dir"])
    first = output_folder(recipe.first, recipe_name).name.rpartition("-")[2]
    return Path("runs") / f"{recipe_name}-{'-'.join(recipe.tasks)}-{first}"


def _recipe_of_task(recipe: Recipe, name: str, folder: Path) -> Recipe:
    """Return the recipe of a task with its own folder and repository."""
    own = recipe.model_copy(deep=True)
    own.training["output_dir"] = str(folder / name)
    own.run.overwrite = False  # the whole folder is moved
    if own.hub.repo_id:
        own.hub.repo_id += f"-{name}"
    return own


@dataclass
class TaskStudentRun(StudentRun):
    """A student whose encoder is shared with those of other tasks; it is trained with them.

    Attributes:
        start: gives the student of the first task as it starts; None for that itself.
    """

    start: Callable[[], PreTrainedModel] | None = None

    def build(self, teacher: PreTrainedModel) -> tuple[PreTrainedModel, Any]:
        """Return the student as it starts: the head of its own teacher, and the encoder of the first task's student."""
        student, report = super().build(teacher)
        if self.start is not None:
            share_encoder([self.start(), student], [_name_of(self.recipe, first=True), _name_of(self.recipe)])
        return student, report

    @property
    def is_trained(self) -> bool:
        """Whether the student is there as it was saved, or all that is kept of a further one."""
        if not self.is_main and read_outputs(self.folder / OUTPUTS, self.data.split.evaluation) is not None:
            return self._record() is not None
        return self.saved_record() is not None

    def train(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Raise RuntimeError: it has been trained together with others."""
        raise RuntimeError(f"{self.folder}: a student of several tasks is not trained alone")


def _name_of(recipe: Recipe, first: bool = False) -> str:
    """Return the name of a recipe's task, or of the first one of its run."""
    return recipe.multitask.tasks[0] if first else str(recipe.multitask.task)


@dataclass
class TaskPipeline(Pipeline):
    """The stages of one task of several.

    Attributes:
        steps: name of a student, its seed → its steps in the training of all tasks, and those of this task among them.
        start: student → the first task's student as it starts; None for the first task.
        scores: scores that need no student, once the teacher is scored.
    """

    steps: Callable[[StudentPlan], int] = lambda student: 0
    start: Callable[[StudentPlan], PreTrainedModel] | None = None
    scores: RunScores | None = field(default=None, init=False)

    def first_scores(self) -> RunScores:
        """Return the scores that need no student; the teacher is fine-tuned and scored when this is first called."""
        if self.scores is None:
            self.scores = super().first_scores()
            self.teacher_of(self.plan.main, self.student_run(self.plan.main, self.scores), self.scores)
        return self.scores

    def steps_of(self, student_plan: StudentPlan, scores: RunScores) -> int:
        """Return how many steps of a training of all tasks are of this one."""
        return self.steps(student_plan)

    def student_run(self, student_plan: StudentPlan, scores: RunScores) -> StudentRun:
        """Return the `StudentRun` that scores a student; one that is trained alone is trained by it too."""
        run = super().student_run(student_plan, scores)
        if student_plan.is_plain:
            return run
        start = None if self.start is None else (lambda: self.start(student_plan))  # type: ignore[misc]
        return TaskStudentRun(**{one.name: getattr(run, one.name) for one in dataclasses.fields(run)}, start=start)

    def joint_run(self, student_plan: StudentPlan) -> TaskStudentRun:
        """Return the `TaskStudentRun` of a student that trains together with those of other tasks."""
        run = self.student_run(student_plan, self.first_scores())
        assert isinstance(run, TaskStudentRun)
        run.reference = next(iter(self.first_scores().teacher.values()), None)
        return run

    @property
    def loaded_teacher(self) -> PreTrainedModel:
        """The teacher, once it is scored."""
        assert self.teacher is not None
        return self.teacher


@dataclass(frozen=True)
class TaskSteps:
    """The steps of a training of several tasks.

    Attributes:
        datasets: name of a task → its rows.
        power: see `TaskDraws`.
    """

    datasets: Mapping[str, TransferSet]
    power: float

    def by_task(self, plan: StudentPlan, args: TrainingArguments) -> dict[str, int]:
        """Return the steps of each task for the students of a seed or baseline.

        Args:
            args: their training arguments.
        """
        rows = [self._rows(data, plan) for data in self.datasets.values()]
        draws = TaskDraws(tuple(rows), self.power, draw_seed(args))
        return dict(zip(self.datasets, draws.steps(self._total(rows, args)), strict=True))

    def sentence(self, plan: StudentPlan, args: TrainingArguments) -> str:
        """Return the steps of all tasks and of each, in words."""
        steps = self.by_task(plan, args)
        shares = ", ".join(f"{count:,} of {name}" for name, count in steps.items())
        return f"{plural(sum(steps.values()), 'step')} of {rows_per_step(args)} rows, {shares}"

    def validate(self, plan: StudentPlan, args: TrainingArguments) -> None:
        """Raise UserError if no step would be of some task."""
        without = [name for name, count in self.by_task(plan, args).items() if not count]
        if without and not plan.is_plain:
            raise UserError(
                "training.max_steps",
                "a step of each task",
                f"none of {listed(without)} for {plan}",
                why="its student would learn nothing",
                fix="train for more steps, or lower multitask.sampling_power",
            )

    def _rows(self, data: TransferSet, plan: StudentPlan) -> int:
        """Return the rows that a student learns from: those with a label where nothing else teaches."""
        return len(data.labelled() if plan.name == NO_DISTILLATION else data.split.train)

    def _total(self, rows: Sequence[int], args: TrainingArguments) -> int:
        if args.max_steps > 0:
            return args.max_steps
        return math.ceil(args.num_train_epochs * sum(math.ceil(count / rows_per_step(args)) for count in rows))


@dataclass
class Together:
    """All tasks of a run, whose students are trained together.

    Attributes:
        folder: of the run.
        pipelines: that of each task.
        args: training arguments of the run's own students.
        steps: how many steps there are, and how many of each task.
    """

    folder: Path
    pipelines: Mapping[str, TaskPipeline]
    args: TrainingArguments
    steps: TaskSteps
    _made_args: dict[StudentPlan, TrainingArguments] = field(default_factory=dict, init=False)

    @property
    def first(self) -> TaskPipeline:
        """The pipeline of the first task, whose student's encoder is that of all."""
        return next(iter(self.pipelines.values()))

    def check_steps(self) -> None:
        """Raise UserError if no step of a training would be of some task."""
        for plan in self.first.plan.students:
            self.steps.validate(plan, self.args_of(plan))

    def _first_plan(self, plan: StudentPlan) -> StudentPlan:
        """Return the plan of the first task's student of the same name and seed."""
        return next(one for one in self.first.plan.students if (one.name, one.seed) == (plan.name, plan.seed))

    def train_missing(self, number: int) -> None:
        """Train the students of a seed, or of a baseline, unless all of them are trained.

        Args:
            number: of the student in the plan of each task.
        """
        plan = self.first.plan.students[number]
        if plan.is_plain:
            return
        runs = {name: own.joint_run(own.plan.students[number]) for name, own in self.pipelines.items()}
        if all(run.is_trained for run in runs.values()):
            return
        students = {name: run.build(self.pipelines[name].loaded_teacher)[0] for name, run in runs.items()}
        share_encoder(list(students.values()), list(students))
        self._train(plan, runs, students)

    def _train(
        self, plan: StudentPlan, runs: Mapping[str, TaskStudentRun], students: Mapping[str, PreTrainedModel]
    ) -> None:
        args = self.args_of(plan)
        parts = {name: run.trainer(students[name], self.pipelines[name].loaded_teacher) for name, run in runs.items()}
        recipe = self.first.plan.recipe
        patience = recipe.evaluation.early_stopping_patience if plan.name == DISTILLED else None
        stopping = [EarlyStoppingCallback(patience)] if patience else None
        trainer = MultitaskTrainer(parts, args, recipe.multitask.sampling_power, callbacks=stopping)
        for own in self.pipelines.values():
            own.claim()
        trainer.accelerator.wait_for_everyone()
        record = train_to_end(trainer, title=self._title(plan), provenance=self._provenance(runs))
        records = trainer.records(record)
        trainer.detach()
        if args.should_save:
            for name, run in runs.items():
                run.folder.mkdir(parents=True, exist_ok=True)
                state = students[name].state_dict()
                made = (self.first.tokenizer, run.folder / STUDENT, run.folder / TRAINING, records[name])
                save_with_record(students[name], state, *made, run.provenance)
        trainer.accelerator.wait_for_everyone()

    def args_of(self, plan: StudentPlan) -> TrainingArguments:
        """Return the training arguments of all students of a seed or baseline together.

        They are made once: to make some resets the state that trainers on the way have of accelerate.
        """
        if plan.is_main:
            return self.args
        if plan not in self._made_args:
            folder, recipe = self.folder / VARIANTS / plan.folder.name, self.first.plan.recipe
            fields = recipe.training | {"seed": plan.seed, "report_to": "none"}
            self._made_args[plan] = builders.training_arguments(fields, folder, recipe)
        return self._made_args[plan]

    def steps_of_task(self, name: str, plan: StudentPlan) -> int:
        """Return how many steps of a training are of a task."""
        own = self._first_plan(plan)
        return self.steps.by_task(own, self.args_of(own))[name]

    def start_of(self, plan: StudentPlan) -> PreTrainedModel:
        """Return the student of the first task as it starts.

        Args:
            plan: of the student of any task.
        """
        own = self._first_plan(plan)
        return self.first.joint_run(own).build(self.first.loaded_teacher)[0]

    def _title(self, plan: StudentPlan) -> str:
        which = "the students" if len(self.first.plan.students) == 1 else f"the students ({plan})"
        steps = self.steps.sentence(plan, self.args_of(plan))
        return f"\ntraining {which} of all tasks together: {steps}"

    def _provenance(self, runs: Mapping[str, TaskStudentRun]) -> Provenance:
        """Return the fingerprints of all students of a training together, for its checkpoints."""
        all_of = [run.provenance for run in runs.values()]
        return replace(
            all_of[0],
            recipe=hash_json([one.recipe for one in all_of]),
            evaluation_rows=hash_json([one.evaluation_rows for one in all_of]),
        )


def _run_tasks(
    recipe: MultitaskRecipe, folder: Path, plans: Mapping[str, RunPlan], states: Mapping[str, RunState]
) -> None:
    """Do what is left of a run of several tasks."""
    first = next(iter(plans.values()))
    loaded = {}
    for name, plan in plans.items():
        logger.info(f"\ntask {name}: loading the data")
        with _naming(name), plan.args.main_process_first(desc="data"):
            loaded[name] = load_data(plan)
        with _naming(name):
            _check_data(plan, loaded[name][1])
    _check_tokenizers({name: tokenizers for name, (tokenizers, _) in loaded.items()})
    made = {name: provenance_of(plans[name].recipe, data, one.student) for name, (one, data) in loaded.items()}
    provenances = {name: _of_all(name, made) for name in made}
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
        with _naming(name):
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


def _of_all(name: str, made: Mapping[str, Provenance]) -> Provenance:
    """Return the fingerprints of a task's student, which is also made of the other tasks' rows and teachers."""
    order = [made[name], *(one for other, one in made.items() if other != name)]
    return replace(
        made[name],
        training_rows=hash_json([one.training_rows for one in order]),
        teacher=hash_json([one.teacher for one in order]),
    )


def _try_student(pipeline: TaskPipeline) -> None:
    """Try teacher and student of a task on a few tokens, before anything is trained."""
    plan = pipeline.plan
    student, _ = pipeline.joint_run(plan.main).build(pipeline.loaded_teacher)
    builders.check_student(student, plan.recipe, pipeline.tokenizer)
    try_models(pipeline.loaded_teacher, student, plan.objective_of(plan.main), plan.recipe)


def _discard_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of further seeds and baselines, whose students are scored."""
    shutil.rmtree(folder / VARIANTS, ignore_errors=True)
