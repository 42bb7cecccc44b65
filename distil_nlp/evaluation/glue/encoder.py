"""`Encoder`: a model without its head, from which every fine-tuning starts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from distil_nlp.data.fingerprint import hash_tensors
from distil_nlp.models.loading import load_weights
from distil_nlp.models.weights import check_missing
from distil_nlp.tasks import Head


@dataclass(frozen=True)
class Encoder:
    """A trained encoder without the head of its checkpoint, so that all tasks start alike.

    A student distilled on MRPC is fine-tuned on RTE in the same way as a student distilled on text.

    Attributes:
        name: folder or name on the Hub.
        config: of the checkpoint.
        weights: of the encoder; those that the checkpoint lacks are left out.
    """

    name: str
    config: PretrainedConfig
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, name: str) -> Encoder:
        """Load an encoder from a folder or the Hub, in float32.

        Raises:
            UserError: if there is no such model, it also decodes, or its weights are not those of its configuration.
        """
        model, missing = load_weights(name, AutoModel)
        weights = {key: value for key, value in model.state_dict().items() if key not in missing}
        return cls(name, model.config, weights)

    def with_head(self, head: Head) -> PreTrainedModel:
        """Return a model with these weights and an untrained head, drawn from torch's global random state.

        Raises:
            UserError: if the checkpoint lacked weights of the encoder itself. (An untrained pooler counts as head.)
        """
        config = copy.deepcopy(self.config)
        config.update(head.config())
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        loaded = model.base_model.load_state_dict(self.weights, strict=False)
        check_missing(model.base_model, loaded.missing_keys, self.weights, self.name)
        return model

    @cached_property
    def sha256(self) -> str:
        """Hash of names and weights, which identifies the model wherever it is stored."""
        return hash_tensors(self.weights)
