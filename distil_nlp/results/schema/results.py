"""The whole of `results.json`, and what in a file does not match it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from distil_nlp.results.schema.base import Block, Metric, described
from distil_nlp.results.schema.costs import Efficiency
from distil_nlp.results.schema.data import Data, Rows, SmallerVocabulary, Tokenizers
from distil_nlp.results.schema.environment import Environment, OwnCode
from distil_nlp.results.schema.export import ExportResults
from distil_nlp.results.schema.fidelity import Fidelity
from distil_nlp.results.schema.schemes import Schemes
from distil_nlp.results.schema.scores import (
    Baselines,
    Breakdown,
    ModelCalibration,
    ScoreInterval,
    SeedSummary,
    Thresholds,
)
from distil_nlp.results.schema.student import Exit, Student, TrainedTogether
from distil_nlp.results.schema.teacher import Teacher
from distil_nlp.results.schema.training import Training

SCHEMA_VERSION = 2


class Results(Block):
    """All figures of a finished run."""

    schema_version: Literal[2] = described("Version of this schema.")
    recipe: dict[str, Any] = described("The recipe with its defaults; see [recipes](recipes.md).")
    own_code: list[OwnCode] | None = described(
        "Code of the user's own (`plugins`).", absent="in files of older versions", null="without any"
    )
    environment: Environment = described("Software and hardware.")
    task: str = described("A GLUE task, `classification`, `multilabel`, `regression`, `ranking` or `mlm`.")
    headline: str = described("The headline metric, which retention and gains are taken on.")
    labels: list[str] | None = described(
        "Class names in the order of their ids, as the student has them.", null="if it has none but LABEL_0 and so on"
    )
    rows: Rows = described("Sizes of the data.")
    data: Data = described("Version of the data.")
    tokenizers: Tokenizers = described(
        "Tokenizers of teacher and student, and how alike their texts are.",
        absent="where teacher and student have one vocabulary",
    )
    vocabulary: SmallerVocabulary = described(
        "The student's vocabulary.", absent="unless `student.vocabulary` makes it smaller"
    )
    teacher: Teacher = described("The teacher; its scores are the first seed's where each seed has one.")
    student: Student = described("The run's own student, of the first seed.")
    exits: list[Exit] = described(
        "Exits of the run's own student, from the first; their latencies are in `efficiency`, as `exit_<layers>`.",
        absent="unless `student.exits` has some",
    )
    peers: TrainedTogether = described("The run's own student and its peers.", absent="unless `student.peers` has some")
    branches: TrainedTogether = described(
        "The run's own student, as each of its branches makes it.", absent="unless `student.branches` has some"
    )
    seeds: dict[Metric, SeedSummary] = described("Each metric of the distilled student over all seeds.")
    baselines: Baselines = described("Baselines.")
    intervals: dict[Annotated[str, "model"], ScoreInterval] = described(
        "Score of `teacher`, `student` and each baseline that is a model, with its interval.",
        absent="in files of older versions",
    )
    calibration: dict[Annotated[str, "model"], ModelCalibration] = described(
        "Calibration of `teacher`, `student` and each baseline that is a model.",
        absent="unless classification has labelled rows, and in files of older versions",
    )
    thresholds: Thresholds = described(
        "Thresholds of predictions.", absent="unless the task is `multilabel` or `qa_v2`"
    )
    breakdown: Breakdown = described(
        "Scores of parts of the first evaluation split.", absent="for `mlm`, and in files of older versions"
    )
    retention: float | None = described(
        "Median student ÷ median teacher on the headline metric, a fraction.",
        null="unless the teacher's is above 0, and where the two predict words of unlike vocabularies",
    )
    retention_above_majority: float | None = described(
        "(student − majority) ÷ (teacher − majority) on the headline metric, medians over seeds.",
        null="unless the teacher is above the majority baseline",
    )
    fidelity: Fidelity = described(
        "Similarity of the student to the teacher.", absent="for answers in the data's columns that were not scored"
    )
    efficiency: Efficiency | None = described(
        "Latencies, and the conditions of the cost measurement.", null="if `evaluation.efficiency` is `off`"
    )
    export: ExportResults = described("The exported student.", absent="unless it was exported")
    training: Training = described("Training of the run's own student.")
    schemes: Schemes = described("The training schemes.", absent="for plain distillation")


def schema_mismatches(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each place at which `results` (as JSON has them) differs from the schema."""
    try:
        Results.model_validate(results)
    except ValidationError as error:
        return [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors(include_url=False)]
    return []
