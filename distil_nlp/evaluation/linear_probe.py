"""`LinearProbe`: how much a linear classifier makes of a model's frozen features, on a small labelled set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedModel

from distil_nlp.models.sentence_encoder import pooled
from distil_nlp.models.trial import undisturbed
from distil_nlp.signals.types import forward_arguments

STRENGTH = 0.01
"""C of the logistic regression on standardised features: small, as there are about as many rows as features."""


@dataclass(frozen=True)
class LinearProbe:
    """A logistic regression on the pooled states of a model's last layer, which is not trained by it.

    Attributes:
        name: of the task, in logs and reports.
        train: tokenised rows with `labels` that the regression learns from.
        test: rows that it is scored on.
        collator: makes batches of rows.
        pooling: how the states of a text's tokens become its features: `mean`, or `cls` for those of the first token.
        batch_size: rows of a forward.
    """

    name: str
    train: Any
    test: Any
    collator: Callable
    pooling: str = "mean"
    batch_size: int = 32

    def accuracy(self, model: PreTrainedModel) -> float | None:
        """Return the accuracy on the test rows; None where the model's features are not finite.

        The model runs in this process alone, on its own device, and stays as it is; so does the random state.
        """
        with undisturbed(model):
            train, test = (self._features(model, rows) for rows in (self.train, self.test))
            if not (np.isfinite(train).all() and np.isfinite(test).all()):
                return None
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
            return float(classifier.fit(train, self.train["labels"][:]).score(test, self.test["labels"][:]))

    @property
    def majority(self) -> float:
        """Accuracy of the most frequent class of the rows that are learnt from."""
        classes, counts = np.unique(self.train["labels"][:], return_counts=True)
        return float(np.mean(np.asarray(self.test["labels"][:]) == classes[counts.argmax()]))

    def to_dict(self) -> dict[str, Any]:
        """Return what the probe is, as `results.json` has it."""
        sizes = {"train_rows": len(self.train), "scored_rows": len(self.test)}
        return {"task": self.name, **sizes, "pooling": self.pooling, "majority": self.majority}

    def _features(self, model: PreTrainedModel, rows: Any) -> np.ndarray:
        """Return the pooled states of each row, (rows, width), in the order of the rows."""
        order = np.argsort(rows["length"][:], kind="stable")
        parts = np.array_split(order, -(-len(order) // self.batch_size))
        found = np.concatenate([self._pooled(model, [rows[int(i)] for i in part]) for part in parts])
        return found[np.argsort(order)]

    def _pooled(self, model: PreTrainedModel, rows: list[dict[str, Any]]) -> np.ndarray:
        batch, known = self.collator(rows), forward_arguments(model.base_model)
        inputs = {name: value.to(model.device) for name, value in batch.items() if name in known}
        with torch.compiler.set_stance("force_eager"):  # other shapes than training's would be compiled too
            states = model.base_model(**inputs)[0]
        return pooled(states, inputs.get("attention_mask"), self.pooling).cpu().numpy()
