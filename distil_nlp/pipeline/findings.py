"""`Findings`: all figures of a run whose students are trained, as `results.json` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from distil_nlp.data import TransferSet
from distil_nlp.evaluation.breakdown import breakdown
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.fidelity import CKA_ROWS, compare_models, compare_outputs
from distil_nlp.evaluation.fidelity.other_tokens import OtherTokens
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.latency import PLANS
from distil_nlp.evaluation.mean_outputs import mean_outputs
from distil_nlp.evaluation.metrics import headline_metric, metrics_of
from distil_nlp.hub import teacher_metadata
from distil_nlp.models import (
    class_names,
    load_model,
    size_of,
)
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.linear_layers import count_zeros
from distil_nlp.pipeline.answers import answers_block, answers_title
from distil_nlp.pipeline.compute import total_compute
from distil_nlp.pipeline.joint.base import JOINT
from distil_nlp.pipeline.joint.exits import EXITS, exit_folder, exit_name, load_exits
from distil_nlp.pipeline.links import Link
from distil_nlp.pipeline.other_tokens import tokens_block, vocabulary_block
from distil_nlp.pipeline.plan import DISTILLED, EQUAL_COMPUTE, PLAIN, RunPlan
from distil_nlp.pipeline.predictions import prediction_columns
from distil_nlp.pipeline.run_folder import STUDENT
from distil_nlp.pipeline.schemes import schemes_of
from distil_nlp.pipeline.scores import RunScores
from distil_nlp.pipeline.stages import Stages
from distil_nlp.pipeline.students import TrainedStudent
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.results.predictions import write_predictions
from distil_nlp.training.dataloaders import rows_per_step
from distil_nlp.training.sparsity import SPARSITY
from distil_nlp.utils.environment import environment

_OTHER_TOKENS = "teacher and student read other tokens, which have no common states"


@dataclass
class Findings:
    """The figures of a run, on the main process, without communication.

    Attributes:
        plan: the resolved recipe.
        data: rows and collator.
        teachers: loads and checks the teachers.
        teacher: of the run's own student.
        links: runs whose students taught.
        stages: numbers them for people.
        scores: outputs and scores of all models.
    """

    plan: RunPlan
    data: TransferSet
    teachers: TeacherLoader
    teacher: PreTrainedModel
    links: Sequence[Link]
    stages: Stages
    scores: RunScores

    def results(self, initialisation: dict[str, Any]) -> dict[str, Any]:
        """Return the content of `results.json` without its version.

        Args:
            initialisation: which tensors were copied into the run's own student.
        """
        recipe, split, scores = self.plan.recipe, self.data.split, self.scores
        student = load_model(str(self.plan.folder / STUDENT), self.data.head)
        own = next(iter(scores.students[DISTILLED].values()))
        exits = load_exits(self.plan.folder, own.training, self.data.head)
        costs, fidelity = self.costs(student, exits), self.fidelity(student)
        labels = class_names(student.config) if self.data.kind.has_classes else None
        self.write_predictions(labels)
        student_scores, teacher_scores = scores.student_scores(), scores.teacher_scores()
        return {
            "recipe": recipe.model_dump(mode="json"),
            "own_code": [plugin.to_dict() for plugin in recipe.imported] or None,
            "environment": environment(self.plan.args.seed, self.plan.args.device, self.plan.args.world_size),
            "task": scores.task,
            "headline": headline_metric(scores.task),
            "labels": labels,
            "rows": {
                "train": len(split.train) if hasattr(split.train, "__len__") else None,
                "labelled": self.data.num_labelled,
                "evaluation": split.scored,
                "in_training": split.repeated,
                "held_out": split.held_out,
            },
            "data": {"revision": self.data.revision},
            **tokens_block(self.plan, self.data),
            **vocabulary_block(self.plan),
            "teacher": {**self.teacher_results(costs), **teacher_scores},
            "student": {
                **size_of(student).to_dict(),
                **costs.get("student", {}),
                "metrics": student_scores["metrics"],
                "initialisation": initialisation,
                **({"sparsity": count_zeros(student, SPARSITY)} if recipe.student.sparsity else {}),
            },
            **self.exit_results(exits, costs),
            **{key: found for key, found in own.training.get(JOINT, {}).items() if key != EXITS},
            "seeds": student_scores["seeds"],
            "baselines": scores.baselines(),
            "intervals": scores.intervals(),
            **scores.calibration(),
            **scores.thresholds(split.selection),
            **self.breakdown(labels),
            **self.retention(student_scores, teacher_scores),
            **({} if fidelity is None else {"fidelity": fidelity}),
            "efficiency": costs.get("efficiency"),
            "training": {name: value for name, value in own.training.items() if name != JOINT},
            **self.schemes(own),
        }

    def teacher_results(self, costs: dict[str, Any]) -> dict[str, Any]:
        """Return the teacher's origin, and its size and costs if it is a model."""
        section = self.plan.recipe.teacher
        origin = {
            "name": section.name,
            "ensemble": [member.name or answers_title(member.columns) for member in section.ensemble or ()] or None,
            **self.teachers.members(self.teacher, self.scores),
            "revisions": {name: commit for name, commit in self.teachers.revisions.items() if commit},
            "card": teacher_metadata(section.name, section.revision),
            **self.teachers.classes(),
        }
        if section.answers is not None:
            origin["answers"] = answers_block(section.answers, self.data)
        if section.columns is not None:
            return origin
        return origin | size_of(self.teacher).to_dict() | costs.get("teacher", {})

    def schemes(self, own: TrainedStudent) -> dict[str, Any]:
        """Return the training schemes in words, the links with their scores, and what all stages took together."""
        recipe = self.plan.recipe
        schemes = schemes_of(recipe)
        if not schemes:
            return {}
        finished = [link.to_dict() for link in self.links]
        compute = {"all_stages": total_compute([own.training, *finished])}
        for name in (PLAIN, EQUAL_COMPUTE):
            if name in self.scores.students:
                first = next(iter(self.scores.students[name].values()))
                compute[name] = total_compute([first.training])
        used = [scheme.to_dict(recipe) for scheme in schemes]
        block: dict[str, Any] = {"used": used, "links": finished, "compute": compute}
        if self.scores.train_loss is not None:
            block["train_loss"] = self.scores.train_loss
        if recipe.student.generations > 1 and self.data.kind.has_row_outputs:
            generations = [*(link.outputs for link in self.links), own.outputs]
            block["mean_of_generations"] = metrics_of(self.scores.task, mean_outputs(generations, self.data.kind))
        return {"schemes": block}

    def exit_results(self, exits: dict[int, PreTrainedModel], costs: dict[str, Any]) -> dict[str, Any]:
        """Return size, costs and scores of the student's exits, from the first; {} without any."""
        found = [
            {
                "layers": blocks,
                "folder": exit_folder(blocks),
                **size_of(model).to_dict(),
                **costs.get(exit_name(blocks), {}),
                **self.scores.exit_scores(blocks),
            }
            for blocks, model in exits.items()
        ]
        return {"exits": found} if found else {}

    def retention(self, student: dict[str, Any], teacher: dict[str, Any]) -> dict[str, float | None]:
        """Return the retention; None where the models predict words of unlike vocabularies, some easier than others."""
        found = self.scores.retention(student, teacher)
        return dict.fromkeys(found) if self.data.split.cut and self.data.kind.predicts_words else found

    def breakdown(self, labels: list[str] | None) -> dict[str, Any]:
        """Return the scores by class and length on the first evaluation split, if the kind of task has any."""
        split, rows = next(iter(self.data.split.evaluation.items()))
        teacher, student = self.scores.first_outputs()
        if teacher is None:
            return {}
        lengths = rows["length"][:] if "length" in rows.column_names else []
        found = breakdown(self.data.kind, teacher[split], student[split], lengths, labels)
        return {"breakdown": found} if found else {}

    def write_predictions(self, labels: list[str] | None) -> None:
        """Write `predictions.parquet`, if the kind of task has a prediction for each row."""
        has_texts = self.plan.recipe.evaluation.show_rows
        models = self.scores.first_outputs()
        columns = prediction_columns(evaluator_of(self.data.kind), self.data.split, *models, labels, has_texts)
        if columns:
            write_predictions(self.plan.folder, columns)

    def costs(self, student: PreTrainedModel, exits: dict[int, PreTrainedModel]) -> dict[str, dict[str, Any]]:
        """Return operations, memory and latency of teacher, student and exits; {} if the recipe wants none.

        A teacher that is no model has none.
        """
        plan = PLANS.get(self.plan.recipe.evaluation.efficiency)
        if plan is None:
            return {}
        self.stages.begin(self.stages.costs)
        return measure_efficiency(
            ({} if self.plan.has_answers else {"teacher": self.teacher})
            | {"student": student}
            | {exit_name(blocks): model for blocks, model in exits.items()},
            next(iter(self.data.split.evaluation.values())),
            self.data.scored_by,
            plan=plan,
            max_length=self.plan.recipe.data.max_length,
            device=self.plan.args.device,
            bf16=self.plan.args.bf16,
            encodings={"teacher": self.data.encoding_of()},
        )

    def fidelity(self, student: PreTrainedModel) -> dict[str, Any] | None:
        """Return the agreement of teacher and student on the first evaluation split, from the outputs scored there.

        Outputs of tokens, where the teacher has others, are those of words that are one token in both.

        Layers are compared on no more rows than the student was trained on, so that a try of two steps is short. Of
        answers in the data there are outputs alone; None if they were not scored.
        """
        self.stages.begin(self.stages.fidelity)
        has_other_tokens = bool(self.data.encoding_of()) and self.data.kind.level == "token"
        if self.plan.has_answers:
            answers, own_outputs = self.scores.first_outputs()
            if answers is None:
                return None
            split = next(iter(answers))
            return compare_outputs(answers[split], own_outputs[split], self.data.kind)
        split, rows = next(iter(self.data.split.evaluation.items()))
        if not self.plan.recipe.evaluation.compare_layers and self.data.kind.has_row_outputs:
            theirs, own_outputs = self.scores.first_outputs()
            return theirs and compare_outputs(theirs[split], own_outputs[split], self.data.kind)
        seed, own = next(iter(self.scores.students[DISTILLED].items()))
        teacher = self.scores.teacher.get(seed) or next(iter(self.scores.teacher.values()))
        fidelity = compare_models(
            self.teacher if not self.data.split.cut else ensemble_members(self.teacher)[0],  # the layers are its own
            student,
            self.data.kind,
            rows,
            self.data.scored_by,
            outputs=(teacher[split], own.outputs[split]),
            cka_rows=min(CKA_ROWS, own.training["steps"] * rows_per_step(self.plan.args)),
            batch_size=self.plan.args.per_device_eval_batch_size,
            device=self.plan.args.device,
            bf16=self.plan.args.bf16,
            no_cka=_OTHER_TOKENS if self.data.encoding_of() else None,
            other_tokens=OtherTokens(self.data.kind, self.data.encoding_of(), self.data.vocabulary)
            if has_other_tokens
            else None,
        )
        return fidelity if "rows" in fidelity else None  # no word is one token in both
