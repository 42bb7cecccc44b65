"""Outputs of a run's models on its evaluation rows: computed once, and kept for other runs that ask the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, TrainingArguments

from distil_nlp.data import TransferSet
from distil_nlp.data.fingerprint import hash_json, hash_model, hash_values
from distil_nlp.errors import UserError
from distil_nlp.evaluation.kinds import evaluator_of
from distil_nlp.evaluation.predict import Outputs, predict
from distil_nlp.pipeline.kept_outputs import read_outputs, save_outputs
from distil_nlp.pipeline.underfitting import mean_loss, sample_of_training_rows
from distil_nlp.recipe import Recipe
from distil_nlp.tasks import TaskKind
from distil_nlp.utils.installed import package_versions
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_SELECTION = "selection"


@dataclass
class Predictor:
    """Runs models on a run's evaluation rows.

    Attributes:
        recipe: that of the run, or of one of its students.
        args: batch size, device and precision.
        data: the rows, as the models read them.
        reference: the teacher's outputs on the evaluation rows; None before there are any.
    """

    recipe: Recipe
    args: TrainingArguments
    data: TransferSet
    reference: dict[str, Outputs] | None = None

    def read_by(self, teacher: int = 0) -> Predictor:
        """Return the predictor with its rows as a teacher reads them, by its number, to score that teacher."""
        return replace(self, data=self.data.read_by(teacher))

    def predict(self, model: PreTrainedModel, role: str, is_kept: bool = False) -> dict[str, Outputs]:
        """Return a model's outputs on the evaluation rows.

        Args:
            model: any.
            role: what it is, for the log.
            is_kept: whether other runs may ask the same, so that outputs go through `run.outputs_folder`.

        Raises:
            UserError: if an output is not finite.
        """
        outputs = self._predict(model, role, self.data.split.evaluation, is_kept)
        if evaluator_of(self.data.kind).has_threshold(self.data.task):
            outputs = self._with_threshold(outputs, self._predict_selection(model, role, is_kept))
        return outputs if self.reference is None else beside_teacher(self.data.kind, outputs, self.reference)

    def predict_selection(self, model: PreTrainedModel, role: str) -> dict[str, Outputs] | None:
        """Return a model's outputs on the rows that checkpoints are chosen by; None without any."""
        outputs = self._predict_selection(model, role)
        if outputs is None or not evaluator_of(self.data.kind).has_threshold(self.data.task):
            return outputs
        return self._with_threshold(outputs, outputs)

    def _predict_selection(self, model: PreTrainedModel, role: str, is_kept: bool = False) -> dict[str, Outputs] | None:
        rows = self.data.split.selection
        return None if rows is None else self._predict(model, role, {_SELECTION: rows}, is_kept)

    def _with_threshold(self, outputs: dict[str, Outputs], selection: dict[str, Outputs] | None) -> dict[str, Outputs]:
        """Return outputs with the threshold that is best for the model on the rows to choose by."""
        evaluator, chosen_on = evaluator_of(self.data.kind), selection and selection[_SELECTION]
        return {split: evaluator.with_threshold(one, chosen_on) for split, one in outputs.items()}

    def train_loss(self, model: PreTrainedModel, role: str) -> dict[str, float] | None:
        """Return a model's mean loss on labelled training rows, and their number; None where there are none to ask."""
        rows = sample_of_training_rows(self.data)
        loss = None if rows is None else mean_loss(self.data.task, self._predict(model, role, {"train": rows})["train"])
        return None if loss is None else {"rows": len(rows), "loss": loss}

    def _predict(
        self, model: PreTrainedModel, role: str, splits: Mapping[str, Any], is_kept: bool = False
    ) -> dict[str, Outputs]:
        file = self._kept_file(model, splits) if is_kept else None
        if file is not None and (kept := read_outputs(file, splits)):
            return kept
        logger.info(f"scoring the {role} on {', '.join(splits)}")
        outputs = predict(
            model,
            self.data.kind,
            splits,
            self.data.scored_by,
            batch_size=self.args.per_device_eval_batch_size,
            device=self.args.device,
            bf16=self.args.bf16,
        )
        for split, predicted in outputs.items():
            broken = int((~np.isfinite(predicted.predictions)).any(-1).sum())
            if broken:
                raise UserError(
                    None,
                    f"finite outputs of the {role} on {split}",
                    f"NaN or infinity in {broken} of {len(predicted.predictions)} rows",
                    why="nothing can be learnt from them, or scored by them",
                    fix="take another checkpoint, or float32 instead of bf16 or fp16",
                )
        if file is not None and self.args.should_save:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_outputs(file, outputs)
        return outputs

    def _kept_file(self, model: PreTrainedModel, splits: Mapping[str, Any]) -> Path | None:
        """Return the file of a model's outputs that runs share, named by all that they depend on; None without one."""
        folder = self.recipe.run.outputs_folder
        if folder is None or not self.data.kind.has_row_outputs or self.data.encoding_of():
            return None
        key = {
            "model": hash_model(model),
            "rows": {name: hash_values(rows) for name, rows in splits.items()},
            "data": self.recipe.data.model_dump(mode="json", include={"task", "pad_to_multiple_of", "pooling"}),
            "computed": [str(model.dtype), self.args.bf16, self.args.device.type, self.args.per_device_eval_batch_size],
            "versions": package_versions(("distil-nlp", "torch", "transformers")),
        }
        return Path(folder) / f"{hash_json(key)[:20]}.npz"


def beside_teacher(
    kind: TaskKind, outputs: Mapping[str, Outputs], teacher: Mapping[str, Outputs]
) -> dict[str, Outputs]:
    """Return a model's outputs with what of the teacher's its scores are taken against, by split."""
    evaluator = evaluator_of(kind)
    return {split: evaluator.beside_teacher(one, teacher[split]) for split, one in outputs.items()}
