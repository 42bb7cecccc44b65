"""What happens in which order: data, teacher, student, baselines, scores, report. What is done is not done again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from distil_nlp.data import labelled_rows
from distil_nlp.evaluation.baselines import majority_metrics, unigram_metrics
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.evaluation.metrics import Metrics, headline_metric
from distil_nlp.hub import push, teacher_metadata, write_card
from distil_nlp.models import check_vocabulary, commit_of, load_model, load_tokenizer, size_of
from distil_nlp.objective import ModelShape
from distil_nlp.pipeline import builders as build
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.builders.data import TransferSet
from distil_nlp.pipeline.plan import (
    DISTILLED,
    NO_DISTILLATION,
    StudentPlan,
    output_folder,
    student_plans,
    with_first_seed,
)
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT, claim, run_state
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.students import StudentRun, TrainedStudent
from distil_nlp.pipeline.teacher import finetuned_teacher
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.report import write_report
from distil_nlp.reporting.summary import summary_table
from distil_nlp.results import read_results, write_results
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.utils.environment import environment
from distil_nlp.utils.logging import say

_CARD, _REPORT = Path(STUDENT, "README.md"), Path("report", "report.html")


def distil(recipe: Recipe, recipe_name: str) -> Path:
    """A whole run, or the rest of one: returns the path of `results.json`.

    Raises:
        UserError: for everything the user can mend.
    """
    recipe = with_first_seed(recipe)
    folder = output_folder(recipe, recipe_name)
    args = build.training_arguments(recipe.training, folder, recipe)
    preflight.check(recipe, folder, args)
    state = run_state(folder, recipe)
    if state == "finished":
        say(f"{folder}: this run is finished; run.overwrite=true would start it again")
        if args.should_save and not all((folder / name).is_file() for name in (_CARD, _REPORT)):
            _show(folder, read_results(folder / RESULTS))  # it was stopped there
        return _published(recipe, folder, args)
    tokenizer = load_tokenizer(recipe.teacher.name, recipe.teacher.revision)
    with args.main_process_first(desc="data"):
        data = build.transfer_set(recipe, tokenizer, args)
    if NO_DISTILLATION in recipe.evaluation.baselines:
        data.labelled()  # complains now rather than after hours
    run = Pipeline(recipe, folder, args, tokenizer, data)
    main, *others = student_plans(recipe, folder)
    findings = RunScores(data.task, run.floor())
    initialisation = run.main(main, findings, is_new=state == "new")
    for number, variant in enumerate(others, start=2):
        say(f"student {number} of {len(others) + 1}: {variant}")
        findings.students.setdefault(variant.name, {})[variant.seed] = run.further(variant, findings)
    run.teacher_of(main, run.workshop(main, findings), findings)  # its own again, where each seed has one
    if args.should_save:
        results = run.results(findings, initialisation)
        write_results(folder / RESULTS, results)
        _show(folder, results)
    return _published(recipe, folder, args)


def _show(folder: Path, results: dict[str, Any]) -> None:
    """Card, report and the table at the end."""
    say(summary_table(results))
    write_card(results, folder / STUDENT)
    report = write_report([folder])
    say(f"student: {folder / STUDENT}\nreport:  {report}\nresults: {folder / RESULTS}")


def _published(recipe: Recipe, folder: Path, args: TrainingArguments) -> Path:
    """`results.json`, once the student is on the Hub, if that is asked for."""
    if recipe.hub.push and args.should_save:
        say(f"pushed: {push(folder, recipe.hub.repo_id, private=recipe.hub.private)}")
    return folder / RESULTS


@dataclass
class Pipeline:
    """The parts of one run.

    Attributes:
        revisions: a teacher's name → its commit on the Hub, or None for a folder.
    """

    recipe: Recipe
    folder: Path
    args: TrainingArguments
    tokenizer: PreTrainedTokenizerBase
    data: TransferSet
    teacher: PreTrainedModel | None = None
    revisions: dict[str, str | None] = field(default_factory=dict)

    def floor(self) -> Metrics:
        """What one gets without a model: the commonest class, or token frequencies."""
        split = self.data.split
        rows = next(iter(split.evaluation.values()))
        if self.data.head.kind == "mlm":
            return unigram_metrics(split.train, rows, self.data.collator)
        return majority_metrics(self.data.task, split.train["labels"], rows["labels"])

    def main(self, variant: StudentPlan, findings: RunScores, is_new: bool) -> dict[str, Any]:
        """The run's own student: trained and scored into `findings`; returns what was copied into it."""
        workshop = self.workshop(variant, findings)
        teacher = self.teacher_of(variant, workshop, findings)
        student, report = workshop.student(teacher)
        say(str(report))
        build.check_student(student, self.recipe, self.tokenizer)
        objective = build.objective_from(self.recipe, self.data.head.kind)
        objective.bind(
            ModelShape.of(teacher.config), ModelShape.of(student.config)
        )  # what does not fit is said before scoring
        findings.copied = workshop.predict(student, "copy")
        training = None if is_new else workshop.saved_record()
        if training is None:
            training = workshop.train(student, teacher, before=self.claim)
        else:
            self.claim()
        findings.students[DISTILLED] = {variant.seed: workshop.scored(training)}
        return report.to_dict()

    def further(self, variant: StudentPlan, findings: RunScores) -> TrainedStudent:
        """Another seed's student, or a baseline's."""
        workshop = self.workshop(variant, findings)
        return workshop.train_and_score(self.teacher_of(variant, workshop, findings))

    def workshop(self, variant: StudentPlan, findings: RunScores) -> StudentRun:
        own = findings.students.get(DISTILLED, {}).get(self.args.seed)
        recipe = variant.recipe(self.recipe, own and own.training["max_steps"])
        args = self.args if variant.is_main else build.training_arguments(recipe.training, variant.folder, recipe)
        return StudentRun(recipe, variant.folder, args, self.tokenizer, self.data)

    def teacher_of(self, variant: StudentPlan, workshop: StudentRun, findings: RunScores) -> PreTrainedModel:
        """The one teacher of all students, or each seed's own; scored once."""
        if self.teacher is None or self.recipe.teacher.reseed:
            self.teacher = self._load_teacher(workshop.recipe)
        is_scored = variant.seed in findings.teacher if self.recipe.teacher.reseed else findings.teacher
        if not is_scored:
            findings.teacher[variant.seed] = workshop.predict(self.teacher, "teacher")
        return self.teacher

    def _load_teacher(self, recipe: Recipe) -> PreTrainedModel | Ensemble:
        """The teacher, or all that speak as one."""
        found = [self._load_one(one) for one in build.single_teachers(recipe)]
        return Ensemble(found) if len(found) > 1 else found[0]

    def _load_one(self, recipe: Recipe) -> PreTrainedModel:
        """A teacher: fine-tuned first if the recipe says so, else as it is."""
        name = recipe.teacher.name
        if name != self.recipe.teacher.name:
            check_vocabulary(self.tokenizer, load_tokenizer(name))
        if recipe.teacher.finetune is None:
            teacher = load_model(name, self.data.head, revision=recipe.teacher.revision)
            self.revisions[name] = commit_of(name, recipe.teacher.revision)
            return teacher
        teacher, is_new, self.revisions[name] = finetuned_teacher(recipe, self.data, self.tokenizer)
        say(f"teacher: {name}, {'fine-tuned now' if is_new else 'fine-tuned by an earlier run'}")
        return teacher

    def claim(self) -> None:
        if self.args.should_save:
            claim(self.folder, self.recipe)

    def results(self, findings: RunScores, initialisation: dict[str, Any]) -> dict[str, Any]:
        """`results.json`, but for its version. One process does it, without talking to others."""
        student, split = load_model(str(self.folder / STUDENT), self.data.head), self.data.split
        costs, alike = self.costs(student), self.fidelity(student)
        own = next(iter(findings.students[DISTILLED].values()))
        scores, taught = findings.student_scores(), findings.teacher_scores()
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "environment": environment(self.args.seed, self.args.device, self.args.world_size),
            "task": findings.task,
            "headline": headline_metric(findings.task),
            "labels": self.data.head.labels,
            "rows": {
                "train": len(split.train) if hasattr(split.train, "__len__") else None,
                "labelled": None if findings.task == "mlm" else len(labelled_rows(split.train)),
                "evaluation": {name: len(rows) for name, rows in split.evaluation.items()},
            },
            "data": {"revision": self.data.revision},
            "teacher": {
                "name": self.recipe.teacher.name,
                "ensemble": self.recipe.teacher.ensemble,
                "revisions": {name: commit for name, commit in self.revisions.items() if commit},
                "card": teacher_metadata(self.recipe.teacher.name, self.recipe.teacher.revision),
                **size_of(self.teacher).to_dict(),
                **costs["teacher"],
                **taught,
            },
            "student": {
                **size_of(student).to_dict(),
                **costs["student"],
                "metrics": scores["metrics"],
                "initialisation": initialisation,
            },
            "seeds": scores["seeds"],
            "baselines": findings.baselines(),
            **findings.retention(scores, taught),
            "fidelity": alike,
            "efficiency": costs["efficiency"],
            "training": own.training,
        }

    def costs(self, student: PreTrainedModel) -> dict[str, dict[str, Any]]:
        say("measuring time and memory of teacher and student")
        return measure_efficiency(self.teacher, student, device=self.args.device, bf16=self.args.bf16)

    def fidelity(self, student: PreTrainedModel) -> dict[str, Any]:
        """On the first evaluation split."""
        say("comparing the student with the teacher, layer by layer")
        return compare_models(
            self.teacher,
            student,
            self.data.head.kind,
            next(iter(self.data.split.evaluation.values())),
            self.data.collator,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            bf16=self.args.bf16,
        )
