"""One run, stage by stage: data, teacher, student, baselines, scores, report. Finished stages are not repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError
from distil_nlp.evaluation.breakdown import breakdown
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.fidelity import CKA_ROWS, compare_models
from distil_nlp.evaluation.kinds import Metrics, evaluator_of
from distil_nlp.evaluation.latency import PLANS
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.hub import push, push_command, teacher_metadata, write_card
from distil_nlp.models import (
    StudentReport,
    class_names,
    load_model,
    load_tokenizer,
    size_of,
)
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.pipeline import builders, preflight
from distil_nlp.pipeline.joint.base import JOINT
from distil_nlp.pipeline.joint.exits import EXITS, exit_folder, exit_name
from distil_nlp.pipeline.links import Link, chain_of, mean_outputs
from distil_nlp.pipeline.plan import DISTILLED, EQUAL_COMPUTE, NO_DISTILLATION, PLAIN, RunPlan, StudentPlan, sources
from distil_nlp.pipeline.predictions import prediction_columns
from distil_nlp.pipeline.provenance import changed_sources, fingerprint_of_recipe, provenance_of
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT, RunState, claim, run_state, validate_folder
from distil_nlp.pipeline.schemes import schemes_of, total_compute, total_flops
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.stages import COSTS, FIDELITY, Stages
from distil_nlp.pipeline.students import OUTPUTS, StudentRun, TrainedStudent, altered_student, save_outputs
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.pipeline.trial import try_models
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.formatting import plural
from distil_nlp.reporting.report import write_report
from distil_nlp.reporting.summary import summary_table
from distil_nlp.reporting.verdicts import stop_verdict, verdict_lines, verdicts
from distil_nlp.results import RunResults, drop_non_finite, read_results, read_runs, write_results
from distil_nlp.results.predictions import write_predictions
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED, Provenance
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.mixing import Mix, Mixing
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.utils.environment import environment
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
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, recipe_name)
    preflight.validate_plan(plan)
    plan = plan.with_trained_teacher()
    validate_folder(plan.folder)
    with claimed(plan.folder):
        return _distil(plan)


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
        if should_save and not all((folder / name).is_file() for name in (_CARD, _REPORT)):
            _show(folder, read_results(folder / RESULTS))  # the run was stopped before these were written
        return _publish(plan)
    tokenizer = load_tokenizer(plan.recipe.teacher.name, plan.recipe.teacher.revision)
    with plan.args.main_process_first(desc="data"):
        data = builders.transfer_set(plan.recipe, plan.task, tokenizer, plan.args)
    if NO_DISTILLATION in plan.recipe.evaluation.baselines:
        data.labelled()  # raises now rather than after hours
    provenance = provenance_of(plan.recipe, data, tokenizer)
    if state == "unfinished":
        provenance.validate(read_json(folder / PROVENANCE, UNCOMPARED), folder)
    teachers = TeacherLoader(plan, tokenizer, data)
    results = Pipeline(plan, tokenizer, data, provenance, teachers).run(is_new=state == "new")
    if should_save:
        write_results(folder / RESULTS, results)
        _show(folder, results, is_link)
    return _publish(plan)


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


def _show(folder: Path, results: dict[str, Any], is_link: bool = False) -> None:
    """Write card and report, and log the table at the end, the places and, last, what matters most."""
    logger.info(summary_table(results))
    write_card(results, folder / STUDENT)
    report = write_report([folder])
    if is_link:
        return
    logger.info(f"student: {folder / STUDENT}\nreport:  {report}\n")
    run = RunResults(folder.name, folder, drop_non_finite(results))
    logger.info(verdict_lines(verdicts(run)))  # the path of the results follows


def _publish(plan: RunPlan) -> Path:
    """Push the student to the Hub if the recipe says so; return the path of `results.json`.

    A student that is no better than a guess stays here: whoever wants it there all the same pushes it by hand.
    """
    hub = plan.recipe.hub
    if hub.push and plan.args.should_save:
        repo_id = str(hub.repo_id)
        if reason := stop_verdict(read_runs([plan.folder])[0]):
            command = push_command(plan.folder, repo_id, hub.private)
            logger.warning(f"not pushed to {repo_id}: {reason}\nTo upload it all the same: {command}")
        else:
            logger.info(f"pushed: {push(plan.folder, repo_id, private=hub.private)}")
    return plan.folder / RESULTS


@dataclass
class Pipeline:
    """The stages of one run.

    Attributes:
        plan: the resolved recipe.
        tokenizer: the teacher's.
        data: rows and collator.
        provenance: of recipe, rows and models.
        teachers: loads and checks the teachers.
        teacher: the teacher of the student that is trained now; None before the first.
        guide: what teaches in its place where there are links; None until it is needed.
    """

    plan: RunPlan
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    provenance: Provenance
    teachers: TeacherLoader
    teacher: PreTrainedModel | None = None
    guide: PreTrainedModel | None = None

    def __post_init__(self) -> None:
        self.stages, self.links = Stages(self.plan), chain_of(self.plan.recipe)

    @property
    def args(self) -> TrainingArguments:
        """Training arguments of the run's own student."""
        return self.plan.args

    def run(self, is_new: bool) -> dict[str, Any]:
        """Train and score every student; return the results on the main process, {} on others.

        Args:
            is_new: whether nothing of an earlier start is in the folder.
        """
        main, *others = self.plan.students
        self.stages.begin(self.stages.teacher)
        scores = RunScores(self.data.task, self.majority())
        initialisation = self.main_student(main, scores, is_new)
        for student in others:
            self.stages.begin(self.stages.student(student), self.seconds_of(student, scores))
            scores.students.setdefault(student.name, {})[student.seed] = self.further_student(student, scores)
        # the main student's teacher again, where each seed has its own
        self.teacher_of(main, self.student_run(main, scores), scores)
        return self.results(scores, initialisation) if self.args.should_save else {}

    def majority(self) -> Metrics:
        """Return the scores of the majority-class baseline; for text, those of token frequencies."""
        split = self.data.split
        rows = next(iter(split.evaluation.values()))
        return evaluator_of(self.data.kind).majority(self.data.task, split.train, rows, self.data.scored_by)

    def main_student(self, student_plan: StudentPlan, scores: RunScores, is_new: bool) -> dict[str, Any]:
        """Train and score the run's own student; return which tensors were copied into it."""
        run = self.student_run(student_plan, scores)
        teacher = self.teacher_of(student_plan, run, scores)
        self.stages.begin(self.stages.student(student_plan))
        student, report = run.build(teacher)
        logger.info(str(report))
        builders.check_student(student, self.plan.recipe, self.tokenizer)
        guide = self.guide_of(student_plan, teacher)
        try_models(guide, student, self.plan.objective_of(student_plan), self.plan.recipe)
        scores.copied = run.predict(student, "copy")
        training = None if is_new else run.saved_record()
        if training is None:
            training = run.train(student, guide, before=self.claim)
        else:
            self.claim()
        scores.students[DISTILLED] = {student_plan.seed: run.score_saved(training)}
        scores.exits = {
            blocks: run.predict(model, f"exit after {plural(blocks, 'block')}")
            for blocks, model in self.exits(training).items()
        }
        if self.args.should_save:
            save_outputs(self.plan.folder / OUTPUTS, scores.students[DISTILLED][student_plan.seed].outputs)
        return _initialisation(report, training)

    def exits(self, training: dict[str, Any]) -> dict[int, PreTrainedModel]:
        """Return the plain models of the student's exits, by their depths; none for a student without any."""
        saved = training.get(JOINT, {}).get(EXITS, [])
        return {one["layers"]: load_model(str(self.plan.folder / one["folder"]), self.data.head) for one in saved}

    def further_student(self, student_plan: StudentPlan, scores: RunScores) -> TrainedStudent:
        """Train and score another seed's student, or a baseline's."""
        run = self.student_run(student_plan, scores)
        teacher = self.teacher_of(student_plan, run, scores)
        return run.train_and_score(teacher, self.guide_of(student_plan, teacher))

    def guide_of(self, student_plan: StudentPlan, teacher: PreTrainedModel) -> PreTrainedModel:
        """Return the model that a student learns from: the teacher, the last link's student, or all of them."""
        if student_plan.is_plain:
            return ensemble_members(teacher)[0]
        if not self.links:
            return teacher
        if self.guide is None and self.plan.recipe.teacher.guided == "dense":
            students = [load_model(link.student, self.data.head) for link in reversed(self.links)]
            mix: Mix = "probabilities" if self.data.kind.output == "distribution" else "logits"
            guide: Any = Ensemble([*students, teacher], Mixing((1.0,) * (1 + len(students)), mix))  # used as a model
            self.guide = guide
        elif self.guide is None:
            self.guide = load_model(self.links[-1].student, self.data.head)
        return self.guide

    def seconds_of(self, student_plan: StudentPlan, scores: RunScores) -> float | None:
        """Return the seconds that a distilled student's training took before; None for another objective or teacher."""
        own = scores.students[DISTILLED].get(self.args.seed)
        is_alike = student_plan.name != NO_DISTILLATION and not self.plan.recipe.teacher.reseed
        return own.training["seconds"] if own and is_alike else None

    def student_run(self, student_plan: StudentPlan, scores: RunScores) -> StudentRun:
        """Return the `StudentRun` that trains and scores a student."""
        own = scores.students.get(DISTILLED, {}).get(self.args.seed)
        steps = self.steps_of(student_plan, own, scores) if own else None
        recipe = student_plan.recipe(self.plan.recipe, steps)
        args = self.args
        if not student_plan.is_main:
            args = builders.training_arguments(recipe.training, student_plan.folder, recipe)
        objective = self.plan.objective_of(student_plan)
        provenance = replace(self.provenance, recipe=fingerprint_of_recipe(recipe))
        place = (student_plan.folder, args, self.tokenizer, self.data, provenance, student_plan.is_main)
        return StudentRun(recipe, objective, *place)

    def steps_of(self, student_plan: StudentPlan, own: TrainedStudent, scores: RunScores) -> int:
        """Return the steps of a baseline: those of the run's own student, or as many as take the same operations.

        Raises:
            UserError: if operations cannot be counted.
        """
        steps = own.training["max_steps"]
        if student_plan.name != EQUAL_COMPUTE:
            return steps
        spent = total_flops([own.training, *(link.to_dict() for link in self.links)])
        plain = total_flops([scores.students[PLAIN][student_plan.seed].training])
        if not spent or not plain:
            raise UserError(
                "evaluation.baselines",
                "a run whose operations are counted, for equal_compute",
                "torch_compile, FSDP or DeepSpeed, or a run of an older version",
                why="it is not known how many steps take as many",
                fix="leave equal_compute out",
            )
        return max(round(steps * spent / plain), 1)

    def teacher_of(self, student_plan: StudentPlan, run: StudentRun, scores: RunScores) -> PreTrainedModel:
        """Return the teacher of all students, or the seed's own; it is scored once."""
        reseeds = self.plan.recipe.teacher.reseed
        if self.teacher is None or reseeds:
            self.teacher = self.teachers.load(run.recipe)
        is_scored = student_plan.seed in scores.teacher if reseeds else scores.teacher
        if not is_scored:
            scores.teacher[student_plan.seed], members = self.teachers.predict(self.teacher, run)
            scores.members[student_plan.seed] = members
            if self.plan.asks_teacher:
                self.teachers.check(run, members, scores.majority)
        run.reference = scores.teacher.get(student_plan.seed) or next(iter(scores.teacher.values()))
        return self.teacher

    def claim(self) -> None:
        """Claim the output folder for this run."""
        if self.args.should_save:
            claim(self.plan.folder, self.plan.recipe, self.provenance)

    def results(self, scores: RunScores, initialisation: dict[str, Any]) -> dict[str, Any]:
        """Return the content of `results.json` without its version; runs on the main process, without communication."""
        assert self.teacher is not None  # its scores are among these
        recipe, split = self.plan.recipe, self.data.split
        student = load_model(str(self.plan.folder / STUDENT), self.data.head)
        own = next(iter(scores.students[DISTILLED].values()))
        exits = self.exits(own.training)
        costs, fidelity = self.costs(student, exits), self.fidelity(student, scores)
        labels = class_names(student.config) if (self.data.head.num_labels or 0) > 1 else None
        self.write_predictions(scores, labels)
        student_scores, teacher_scores = scores.student_scores(), scores.teacher_scores()
        return {
            "recipe": recipe.model_dump(mode="json"),
            "own_code": [plugin.to_dict() for plugin in recipe.imported] or None,
            "environment": environment(self.args.seed, self.args.device, self.args.world_size),
            "task": scores.task,
            "headline": headline_metric(scores.task),
            "labels": labels,
            "rows": {
                "train": len(split.train) if hasattr(split.train, "__len__") else None,
                "labelled": self.data.num_labelled,
                "evaluation": {name: len(rows) for name, rows in split.evaluation.items()},
                "in_training": split.repeated,
                "held_out": split.held_out,
            },
            "data": {"revision": self.data.revision},
            "teacher": {
                "name": recipe.teacher.name,
                "ensemble": [member.name for member in recipe.teacher.ensemble or ()] or None,
                **self.teachers.members(self.teacher, scores),
                "revisions": {name: commit for name, commit in self.teachers.revisions.items() if commit},
                "card": teacher_metadata(recipe.teacher.name, recipe.teacher.revision),
                **self.teachers.classes(),
                **size_of(self.teacher).to_dict(),
                **costs.get("teacher", {}),
                **teacher_scores,
            },
            "student": {
                **size_of(student).to_dict(),
                **costs.get("student", {}),
                "metrics": student_scores["metrics"],
                "initialisation": initialisation,
            },
            **self.exit_results(exits, costs, scores),
            **{key: found for key, found in own.training.get(JOINT, {}).items() if key != EXITS},
            "seeds": student_scores["seeds"],
            "baselines": scores.baselines(),
            "intervals": scores.intervals(),
            **scores.calibration(),
            **self.breakdown(scores, labels),
            **scores.retention(student_scores, teacher_scores),
            "fidelity": fidelity,
            "efficiency": costs.get("efficiency"),
            "training": {name: value for name, value in own.training.items() if name != JOINT},
            **self.schemes(own, scores),
        }

    def schemes(self, own: TrainedStudent, scores: RunScores) -> dict[str, Any]:
        """Return the training schemes in words, the links with their scores, and what all stages took together."""
        recipe = self.plan.recipe
        schemes = schemes_of(recipe)
        if not schemes:
            return {}
        finished = [link.to_dict() for link in self.links]
        compute = {"all_stages": total_compute([own.training, *finished])}
        for name in (PLAIN, EQUAL_COMPUTE):
            if name in scores.students:
                first = next(iter(scores.students[name].values()))
                compute[name] = total_compute([first.training])
        used = [scheme.to_dict(recipe) for scheme in schemes]
        block: dict[str, Any] = {"used": used, "links": finished, "compute": compute}
        if recipe.student.generations > 1 and self.data.kind.level == "sequence":
            generations = [*(link.outputs for link in self.links), own.outputs]
            block["mean_of_generations"] = metrics_of(scores.task, mean_outputs(generations, self.data.kind))
        return {"schemes": block}

    def exit_results(
        self, exits: dict[int, PreTrainedModel], costs: dict[str, Any], scores: RunScores
    ) -> dict[str, Any]:
        """Return size, costs and scores of the student's exits, from the first; {} without any."""
        found = [
            {
                "layers": blocks,
                "folder": exit_folder(blocks),
                **size_of(model).to_dict(),
                **costs.get(exit_name(blocks), {}),
                "metrics": metrics_of(scores.task, scores.exits[blocks]),
            }
            for blocks, model in exits.items()
        ]
        return {"exits": found} if found else {}

    def breakdown(self, scores: RunScores, labels: list[str] | None) -> dict[str, Any]:
        """Return the scores by class and length on the first evaluation split, if the kind of task has any."""
        split, rows = next(iter(self.data.split.evaluation.items()))
        teacher, student = (outputs[split] for outputs in scores.first_outputs())
        lengths = rows["length"][:] if "length" in rows.column_names else []
        found = breakdown(evaluator_of(self.data.kind), teacher, student, lengths, labels)
        return {"breakdown": found} if found else {}

    def write_predictions(self, scores: RunScores, labels: list[str] | None) -> None:
        """Write `predictions.parquet`, if the kind of task has a prediction for each row."""
        has_texts = self.plan.recipe.evaluation.show_rows
        models = scores.first_outputs()
        columns = prediction_columns(evaluator_of(self.data.kind), self.data.split, *models, labels, has_texts)
        if columns:
            write_predictions(self.plan.folder, columns)

    def costs(self, student: PreTrainedModel, exits: dict[int, PreTrainedModel]) -> dict[str, dict[str, Any]]:
        """Return operations, memory and latency of teacher, student and exits; {} if the recipe wants none."""
        plan = PLANS.get(self.plan.recipe.evaluation.efficiency)
        if plan is None:
            return {}
        assert self.teacher is not None
        self.stages.begin(COSTS)
        return measure_efficiency(
            {"teacher": self.teacher, "student": student}
            | {exit_name(blocks): model for blocks, model in exits.items()},
            next(iter(self.data.split.evaluation.values())),
            self.data.scored_by,
            plan=plan,
            max_length=self.plan.recipe.data.max_length,
            device=self.args.device,
            bf16=self.args.bf16,
        )

    def fidelity(self, student: PreTrainedModel, scores: RunScores) -> dict[str, Any]:
        """Return the agreement of teacher and student on the first evaluation split, from the outputs scored there.

        Layers are compared on no more rows than the student was trained on, so that a try of two steps is short.
        """
        assert self.teacher is not None
        self.stages.begin(FIDELITY)
        split, rows = next(iter(self.data.split.evaluation.items()))
        seed, own = next(iter(scores.students[DISTILLED].items()))
        teacher = scores.teacher.get(seed) or next(iter(scores.teacher.values()))
        return compare_models(
            self.teacher,
            student,
            self.data.kind,
            rows,
            self.data.scored_by,
            outputs=(teacher[split], own.outputs[split]),
            cka_rows=min(CKA_ROWS, own.training["steps"] * rows_per_step(self.args)),
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            bf16=self.args.bf16,
        )


def _initialisation(report: StudentReport, training: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of the student's parameters; of several that trained together, that of the one that is kept."""
    kept = report.to_dict()
    for found in training.get(JOINT, {}).values():
        if isinstance(found, dict):
            found["members"][0]["initialisation"] = kept
            return found["members"][found["exported"] - 1]["initialisation"]
    return kept
