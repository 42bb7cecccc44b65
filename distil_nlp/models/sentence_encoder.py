"""A sentence encoder: a plain encoder whose output is one vector for each text, as in sentence-transformers."""

from __future__ import annotations

import inspect
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from distil_nlp.models.checkpoint import tensors_of
from distil_nlp.models.sentence_folder import (
    VectorSettings,
    activation_of,
    read_dense,
    read_settings,
    write_modules,
)
from distil_nlp.tasks import Head

if TYPE_CHECKING:
    _Model = PreTrainedModel
else:
    _Model = object  # a mixin, of a family's base class

SETTINGS = "sentence_embedding"
"""The field of a configuration with the `VectorSettings`, while the model is in memory or in a checkpoint."""
_LEAST_WEIGHT = 1e-9


class SentenceEncoder(_Model):
    """An encoder with pooling, a Dense layer if any, and normalisation; its `logits` are the vectors of the texts.

    A Dense layer is there if the teacher has one, or if the encoder's width is not the length of a vector: a narrower
    student's vectors then have the teacher's length, and compare with it.

    Classes are made by `sentence_encoder_class`, one for each class of encoder.

    Attributes:
        encoder_class: class of the plain encoder.
        dense: the Dense layer; None without one.
    """

    encoder_class: type[PreTrainedModel]

    def __init__(self, config: PretrainedConfig):
        super().__init__(config)
        settings = self.settings
        length = settings.dimension or config.hidden_size
        keeps_pooler = settings.has_pooler or "add_pooling_layer" not in _arguments(self.encoder_class)
        encoder: Any = self.encoder_class
        setattr(self, self.base_model_prefix, encoder(config, **({} if keeps_pooler else {"add_pooling_layer": False})))
        needs_dense = settings.dense or length != config.hidden_size
        self.dense = nn.Linear(config.hidden_size, length, bias=settings.bias) if needs_dense else None
        self.activation = activation_of(settings)
        self.post_init()
        self._freeze_pooler()

    @property
    def settings(self) -> VectorSettings:
        """How vectors are made."""
        return VectorSettings(**getattr(self.config, SETTINGS))

    def forward(self, attention_mask: Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        """Return the vectors as `logits`, (texts, length); inputs are those of the encoder."""
        states = self.base_model(attention_mask=attention_mask, **inputs)[0]
        return SequenceClassifierOutput(logits=self.vectors(states, attention_mask))

    def vectors(self, states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the vectors of texts from the states of their tokens, (texts, length)."""
        vectors = pooled(states, attention_mask, self.settings.pooling)
        if self.dense is not None:
            vectors = self.activation(self.dense(vectors.to(self.dense.weight.dtype)))
        return F.normalize(vectors.float(), dim=-1) if self.settings.normalize else vectors

    def set_length(self, length: int) -> bool:
        """Let vectors have another length, by a new Dense layer without an activation; return whether it is new."""
        settings: dict[str, Any] = getattr(self.config, SETTINGS)
        if length == (settings["dimension"] or self.config.hidden_size):
            return False
        settings |= {"dimension": length, "dense": True, "bias": True, "activation": "Identity"}
        self.dense, self.activation = nn.Linear(self.config.hidden_size, length), nn.Identity()
        return True

    @property
    def length(self) -> int:
        """Numbers of a vector."""
        return self.settings.dimension or self.config.hidden_size

    def _freeze_pooler(self) -> None:
        """Freeze the encoder's own pooler, which no vector reads: it is kept so that plain classes load the file."""
        pooler = getattr(self.base_model, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)


@lru_cache
def sentence_encoder_class(encoder_class: type[PreTrainedModel]) -> type[Any]:
    """Return the class of sentence encoders around a class of plain encoders, such as `BertModel`.

    It is a class of the encoder's family, as transformers' own heads are: `BertForSentenceEmbedding`.
    """
    family = next(cls for cls in encoder_class.__mro__ if PreTrainedModel in cls.__bases__)

    def forward(self: Any, *args: Any, **inputs: Any) -> SequenceClassifierOutput:
        names = dict(zip(parameters, args, strict=False))
        return SentenceEncoder.forward(self, **names, **inputs)

    signature = inspect.signature(encoder_class.forward)
    parameters = [name for name in signature.parameters if name != "self"]
    forward.__signature__ = signature  # type: ignore[attr-defined]  # by which columns of a batch are chosen
    name = f"{encoder_class.__name__.removesuffix('Model')}ForSentenceEmbedding"
    fields = {"encoder_class": encoder_class, "forward": forward, "__module__": encoder_class.__module__}
    return type(name, (SentenceEncoder, family), fields)


class AutoSentenceEncoder:
    """Loads a sentence encoder, in the way of transformers' `Auto…` classes.

    Args:
        name: a folder, or a name on the Hub.
        revision: commit, branch or tag on the Hub.
        head: the settings of a model without a sentence-transformers folder.

    Raises:
        UserError: see `read_settings`.
    """

    def __init__(self, name: str, revision: str | None, head: Head):
        self.settings, self._dense = read_settings(name, revision, head)

    def from_pretrained(
        self, place: str, *, config: PretrainedConfig, revision: str | None, output_loading_info: bool, **options: Any
    ) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Return the model, and what of its weights was in the files."""
        has_pooler = any(".pooler." in f".{key}" for key in tensors_of(place, revision))
        settings = self.settings.to_dict() | {"has_pooler": has_pooler}
        settings["dimension"] = settings["dimension"] or config.hidden_size
        setattr(config, SETTINGS, settings)
        found: Any = AutoModel._model_mapping[type(config)]
        cls = sentence_encoder_class(found[0] if isinstance(found, tuple) else found)  # Funnel has several
        model, info = cls.from_pretrained(place, config=config, revision=revision, output_loading_info=True, **options)
        if self._dense is not None:
            model.dense.load_state_dict(read_dense(place, self._dense, revision))
        heads = {f"dense.{key}" for key in ("weight", "bias")}
        info["missing_keys"] = set(info["missing_keys"]) - (heads if self._dense is not None else set())
        return model, info


def match_length(student: PreTrainedModel, teacher: PreTrainedModel, report: Any) -> None:
    """Give a sentence encoder vectors of the teacher's length; what is new is noted in the report of the student."""
    if not (isinstance(student, SentenceEncoder) and isinstance(teacher, SentenceEncoder)):
        return
    if student.set_length(teacher.length):
        dense = [name for name, _ in student.named_parameters() if name.startswith("dense.")]
        report.new, report.copied = [*report.new, *dense], [name for name in report.copied if name not in dense]


def save_sentence_encoder(model: Any, state: dict[str, Tensor], folder: Path) -> None:
    """Save a sentence encoder as a plain encoder that is a sentence-transformers folder too.

    Args:
        model: a `SentenceEncoder`.
        state: its weights.
        folder: written into.
    """
    prefix, settings = f"{model.base_model_prefix}.", getattr(model.config, SETTINGS)
    encoder = {key.removeprefix(prefix): weight for key, weight in state.items() if key.startswith(prefix)}
    delattr(model.config, SETTINGS)
    try:
        model.base_model.save_pretrained(folder, state_dict=encoder)
    finally:
        setattr(model.config, SETTINGS, settings)
    dense = {key.removeprefix("dense."): weight for key, weight in state.items() if key.startswith("dense.")}
    write_modules(folder, VectorSettings(**settings), model.config.hidden_size, dense or None)


def _arguments(encoder_class: type[PreTrainedModel]) -> frozenset[str]:
    return frozenset(inspect.signature(encoder_class.__init__).parameters)


def pooled(states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Return a vector for each text from the states of its tokens, (texts, width), in fp32 or above.

    Args:
        states: (texts, tokens, width).
        mask: 1 for tokens, 0 for padding, (texts, tokens); None where no token is padding.
        pooling: see `VectorSettings`.
    """
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    if pooling == "cls":
        return states[:, 0]
    present = torch.ones_like(states[..., :1]) if mask is None else mask.unsqueeze(-1).to(states.dtype)
    if pooling == "max":
        return states.masked_fill(present == 0, torch.finfo(states.dtype).min).amax(1)
    return (states * present).sum(1) / present.sum(1).clamp_min(_LEAST_WEIGHT)
