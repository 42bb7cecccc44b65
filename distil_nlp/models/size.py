"""The size of a model."""

from dataclasses import asdict, dataclass

from torch import nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import all_layers, ensemble_members


@dataclass(frozen=True)
class ModelSize:
    """Parameters (tied ones once) and megabytes of 10⁶ bytes in the model's dtype.

    The encoder is counted separately, because half the parameters of a 3-layer MiniLM are embeddings.
    """

    parameters: int
    encoder_parameters: int
    embedding_parameters: int
    size_mb: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def size_of(model: PreTrainedModel) -> ModelSize:
    """Return the size of a model, or of all members of an ensemble.

    Where the blocks cannot be found (Funnel), all of the base model but its tables counts as the encoder.
    """
    embeddings = _count(nn.ModuleList(m for m in model.modules() if isinstance(m, nn.Embedding)))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    try:
        encoder = _count(nn.ModuleList(all_layers(model)))
    except UserError:
        encoder = sum(_count(member.base_model) for member in ensemble_members(model)) - embeddings
    return ModelSize(_count(model), encoder, embeddings, round(size / 1e6, 2))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
