"""Export of a finished run's student: graphs, their scores and latencies, and all that tells of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from distil_nlp.data import TransferSet
from distil_nlp.errors import UserError
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.latency import EXPORT_PLANS
from distil_nlp.evaluation.metrics import retention
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.export.forwards import LogitsForward, graph_forward, student_forward
from distil_nlp.export.gates import gate_block
from distil_nlp.export.graph import GRAPH, QUANTIZED, GraphInfo, write_graph
from distil_nlp.export.packages import export_versions
from distil_nlp.export.quantization import Int8Settings, sums_saturate, write_int8
from distil_nlp.export.scoring import STUDENT_MODEL, GraphScore, ScoredRows, score_forwards
from distil_nlp.hub import is_written_card, write_card
from distil_nlp.hub.card import CARD_FILE
from distil_nlp.models import load_model
from distil_nlp.models.segments import fit_segments
from distil_nlp.pipeline.builders.tokenizers import RunTokenizers
from distil_nlp.pipeline.kept_outputs import OUTPUTS, read_outputs
from distil_nlp.pipeline.other_tokens import load_data
from distil_nlp.pipeline.plan import RunPlan, sources
from distil_nlp.pipeline.provenance import provenance_of
from distil_nlp.pipeline.run_folder import RESULTS, STUDENT
from distil_nlp.pipeline.students import altered_student
from distil_nlp.pipeline.teacher_loader import TeacherLoader
from distil_nlp.recipe import Recipe
from distil_nlp.reporting.export import export_summary
from distil_nlp.reporting.report import write_report
from distil_nlp.results import RunResults, drop_non_finite, read_run, write_results
from distil_nlp.results.provenance import PROVENANCE, UNCOMPARED
from distil_nlp.training.fake_quantization import QUANTIZATION
from distil_nlp.utils.files import checksum, read_json
from distil_nlp.utils.hub_connection import use_cache_without_network
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_ONNX, _INT8, _TEACHER = "onnx", "int8", "teacher"
_CALIBRATION_ROWS = 8
"""Rows of a batch of calibration."""


def export_run(folder: Path, recipe: Recipe) -> Path:
    """Export the student of a finished run, score and time what came of it, and write it down; return `results.json`.

    Args:
        folder: of the run.
        recipe: of the run; its section `export` says how.

    Raises:
        UserError: for every problem that the user can fix.
    """
    with claimed(folder):
        return export_claimed(folder, recipe)


def export_claimed(folder: Path, recipe: Recipe) -> Path:
    """Do the work of `export_run` in a folder that this process has claimed."""
    results = _results(folder)
    use_cache_without_network(sources(recipe))
    plan = RunPlan.of(recipe, folder.name).with_trained_teacher()
    tokenizers, data = load_data(plan)
    found = provenance_of(plan.recipe, data, tokenizers.student)
    found.validate(read_json(folder / PROVENANCE, UNCOMPARED), folder)
    block = Export(folder, plan, tokenizers, data, results).run()
    had_own_card = not is_written_card(results, folder / STUDENT)
    results |= {"export": block}
    write_results(folder / RESULTS, results)
    _show(folder, results, had_own_card)
    return folder / RESULTS


def _results(folder: Path) -> dict[str, Any]:
    """Return the results of a run whose student is as it was scored.

    Raises:
        UserError: for a run that is not finished, or whose student is another one.
    """
    results = read_run(folder)
    altered = altered_student(folder)
    if altered or not (folder / STUDENT / "config.json").is_file():
        raise UserError(
            str(folder / STUDENT),
            "the student that was scored",
            f"another {', '.join(altered)}" if altered else "none",
            why="the figures of the run would not be those of what is exported",
            fix="run the recipe again",
        )
    return results


def _show(folder: Path, results: dict[str, Any], had_own_card: bool) -> None:
    """Write card and report anew, and log the table of the exported models."""
    if had_own_card:
        card = folder / STUDENT / CARD_FILE
        logger.info(f"{card} was changed by hand, or by another version, and stays; delete it to have it written anew")
    else:
        write_card(results, folder / STUDENT)
    report = write_report([folder])
    logger.info(export_summary(RunResults(folder.name, folder, drop_non_finite(results))))
    logger.info(f"exported: {folder / STUDENT / GRAPH.parent}\nreport:   {report}\n")


@dataclass(frozen=True)
class Export:
    """The export of one run.

    Attributes:
        folder: of the run.
        plan: the resolved recipe.
        tokenizers: of the student and of all teachers.
        data: rows and collator.
        results: of the run, as `results.json` has them.
    """

    folder: Path
    plan: RunPlan
    tokenizers: RunTokenizers
    data: TransferSet
    results: dict[str, Any]

    def run(self) -> dict[str, Any]:
        """Write the graphs; return the block `export` of `results.json`."""
        section, student = self.plan.recipe.export, load_model(str(self.folder / STUDENT), self.data.head)
        logger.info("tracing the student into an ONNX graph; this takes half a minute or more")
        info = write_graph(student, self.tokenizers.student, self.data.kind, self._path(_ONNX))
        int8 = self._write_int8(student, info)
        graphs = [_ONNX] if int8 is None else [_ONNX, _INT8]
        forwards: dict[str, LogitsForward] = {STUDENT_MODEL: student_forward(student)}
        forwards |= {name: graph_forward(student, self.data.kind, self._path(name)) for name in graphs}
        logger.info(f"scoring the student and {' and '.join(graphs)} on {', '.join(self.data.split.evaluation)}")
        scores = score_forwards(forwards, self._rows(info))
        gate = None
        if int8 is not None:
            metrics = scores[_ONNX].metrics, scores[_INT8].metrics
            gate = gate_block(*metrics, self.data.task, section.gate)
        return {
            "settings": section.model_dump(mode="json"),
            "versions": export_versions(),
            "exporter": info.exporter,
            "inputs": info.inputs,
            "outputs": info.outputs,
            "difference": info.difference,
            "int8": int8,
            "gate": gate,
            "models": self._models(scores, graphs),
            "efficiency": self._latency(student, {name: forwards[name] for name in graphs}),
        }

    def _path(self, graph: str) -> Path:
        return self.folder / STUDENT / (GRAPH if graph == _ONNX else QUANTIZED)

    def _write_int8(self, student: PreTrainedModel, info: GraphInfo) -> dict[str, Any] | None:
        """Write the int8 graph; return how, None without one."""
        section, path = self.plan.recipe.export, self._path(_INT8)
        if section.int8 == "off":
            path.unlink(missing_ok=True)  # of an earlier export
            return None
        reduces = sums_saturate() if section.reduce_range is None else section.reduce_range
        settings = Int8Settings(section.int8, section.int8_layers, reduces)
        self._tell_other_bits(reduces)
        rows = self._calibration_rows() if section.int8 == "static" else None
        logger.info(f"making it int8, {section.int8}{f', calibrated on {len(rows)} training rows' if rows else ''}")
        batches = self._calibration(student, rows, info.inputs) if rows else ()
        write_int8(self._path(_ONNX), path, settings, student.config, batches)
        return {
            "method": section.int8,
            "layers": section.int8_layers,
            "reduce_range": reduces,
            "calibration_rows": None if rows is None else len(rows),
        }

    def _tell_other_bits(self, reduces: bool) -> None:
        """Log that a student was trained for weights of more bits than its int8 copy has."""
        trained = self.plan.recipe.student.quantization
        if trained is not None and reduces and not trained.reduce_range:
            logger.info(f"trained for weights of 8 bits, these are of 7: see {QUANTIZATION}.reduce_range")

    def _calibration_rows(self) -> list[dict[str, Any]]:
        """Return training rows, drawn with a fixed seed; of a stream the first ones."""
        train, count = self.data.split.train, self.plan.recipe.export.calibration_rows
        if not hasattr(train, "__len__"):
            return [row for row, _ in zip(train, range(count), strict=False)]
        drawn = np.random.default_rng(0).permutation(len(train))[:count]
        return [train[int(number)] for number in drawn]

    def _calibration(
        self, student: PreTrainedModel, rows: list[dict[str, Any]], names: list[str]
    ) -> Iterator[Mapping[str, Tensor]]:
        """Yield the graph's inputs of single rows: ranges are taken over tensors of one shape, without padding."""
        collate: Callable = self.data.scored_by
        for row in rows:
            batch = dict(collate([{key: value for key, value in row.items() if key in _columns(names, self.data)}]))
            batch.setdefault("attention_mask", (batch["input_ids"] * 0) + 1)
            batch.setdefault("token_type_ids", batch["input_ids"] * 0)
            yield fit_segments(student.config, {name: batch[name] for name in names})

    def _rows(self, info: GraphInfo) -> ScoredRows:
        evaluation = self.data.split.evaluation
        return ScoredRows(
            self.data.task,
            self.data.kind,
            evaluation,
            self.data.scored_by,
            frozenset(info.inputs),
            self._kept(evaluation),
            self.plan.args.per_device_eval_batch_size,
        )

    def _kept(self, evaluation: Mapping[str, Any]) -> dict[str, Outputs]:
        """Return the run's own outputs of the student."""
        kept = read_outputs(self.folder / OUTPUTS, evaluation)
        if kept is None:
            raise UserError(
                str(self.folder / OUTPUTS),
                "the outputs of the run's student",
                "none that can be read",
                why="thresholds and the teacher's vectors are taken from there",
                fix="run the recipe again",
            )
        return kept

    def _models(self, scores: Mapping[str, GraphScore], graphs: list[str]) -> dict[str, Any]:
        """Return sizes and scores of the teacher, the student and the graphs."""
        teacher = self.results["teacher"].get("metrics")
        found = {
            _TEACHER: {"size_mb": self.results["teacher"].get("size_mb"), "metrics": teacher},
            STUDENT_MODEL: {"size_mb": self.results["student"].get("size_mb")},
            **{name: self._file(name) for name in graphs},
        }
        for name, score in scores.items():
            likeness = {key: value for key, value in score.agreement.items() if isinstance(value, int | float | None)}
            found[name] |= {"metrics": score.metrics, "fidelity": likeness} if likeness else {"metrics": score.metrics}
            found[name]["retention"] = retention(score.metrics, teacher or {}, self.data.task)
        return {name: {key: value for key, value in one.items() if value is not None} for name, one in found.items()}

    def _file(self, graph: str) -> dict[str, Any]:
        path = self._path(graph)
        size = round(path.stat().st_size / 1e6, 2)
        return {"size_mb": size, "file": str(path.relative_to(self.folder / STUDENT)), "sha256": checksum(path)}

    def _latency(self, student: PreTrainedModel, graphs: Mapping[str, LogitsForward]) -> dict[str, Any] | None:
        """Return the latencies of teacher, student and graphs, which take turns on the CPU; None if not wanted."""
        section = self.plan.recipe.export
        if section.latency == "off":
            return None
        logger.info("timing the models on the CPU")
        models = {name: model for name, model in ((_TEACHER, self._teacher()), (STUDENT_MODEL, student)) if model}
        first = next(iter(self.data.split.evaluation.values()))
        return measure_efficiency(
            models,
            first,
            self.data.scored_by,
            plan=EXPORT_PLANS[section.latency],
            max_length=self.plan.recipe.data.max_length,
            device="cpu",
            encodings={_TEACHER: self.data.encoding_of()},
            further=graphs,
        )["efficiency"]

    def _teacher(self) -> PreTrainedModel | None:
        """Return the run's teacher; None where it is no model, or is not there any more: it is not trained again."""
        if self.plan.has_answers:
            return None
        try:
            loader = TeacherLoader(self.plan, self.tokenizers, self.data)
            if loader.is_at_hand(self.plan.recipe):
                return loader.load(self.plan.recipe)
            reason = "its fine-tuned weights are gone"
        except UserError as error:
            reason = str(error)
        logger.warning(f"the teacher is not timed: {reason}")
        return None


def _columns(names: list[str], data: TransferSet) -> frozenset[str]:
    return frozenset(names) | data.kind.columns
