"""Models and tokenizers from a folder or the Hub, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distil_nlp.console import quiet_transformers
from distil_nlp.errors import UserError
from distil_nlp.models.checks import check_labels
from distil_nlp.tasks import Kind

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_POSITIONS_FROM_TWO = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families whose first position has number 2, after the padding's."""


@dataclass(frozen=True)
class Head:
    """The head that a job needs.

    Attributes:
        kind: language modelling, classification or regression.
        labels: class names in the order of the data's ids; None if the data does not name its classes.
        num_labels: classes, or 1 for regression; None for language modelling.
    """

    kind: Kind
    labels: tuple[str, ...] | None = None
    num_labels: int | None = None

    def config(self) -> dict[str, Any]:
        """What a model's configuration must say for a new head of this kind."""
        if self.kind == "mlm":
            return {}
        names = self.labels or tuple(f"LABEL_{i}" for i in range(self.num_labels))
        problem = "regression" if self.kind == "regression" else "single_label_classification"
        return {
            "num_labels": self.num_labels,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "problem_type": problem,
        }


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with no truncation or padding left over in its file.

    Raises:
        UserError: if there is none at that name.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise UserError(
            f"expected a tokenizer in {name} / got none of {', '.join(_TOKENIZER_FILES)} / every word would be "
            "unknown / save the teacher's tokenizer into its folder"
        )
    tokenizer = fetch("tokenizer", name, AutoTokenizer.from_pretrained, name, revision=revision)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def load_model(name: str, head: Head, *, new_head: bool = False, revision: str | None = None) -> PreTrainedModel:
    """A model with the head that the job needs, in float32 and eval mode; weights as safetensors only.

    Args:
        name: a folder, or a name on the Hub.
        head: what it must predict.
        new_head: whether a missing head may start untrained, because it will be trained next.

    Raises:
        UserError: if the model cannot be had, has no trained head of this kind, or names other labels.
    """
    return load_and_tell(name, head, new_head=new_head, revision=revision)[0]


def load_and_tell(
    name: str, head: Head, *, new_head: bool = False, revision: str | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """`load_model`, with the names of the parameters that start untrained."""
    auto = AutoModelForMaskedLM if head.kind == "mlm" else AutoModelForSequenceClassification
    options: dict[str, Any] = {"revision": revision, "dtype": torch.float32, "use_safetensors": True}
    load = auto.from_pretrained
    model, info = fetch("model", name, load, name, output_loading_info=True, **options)
    if model.config.is_encoder_decoder:
        raise UserError(f"expected an encoder such as BERT / got {type(model).__name__} in {name}, which also decodes")
    missing = sorted(info["missing_keys"])
    _check_weights(model, name)
    if missing and not new_head:
        raise UserError(
            f"expected a trained {_head_name(head)} head in {name} / got none ({', '.join(missing[:3])} "
            f"{'and more ' if len(missing) > 3 else ''}missing) / its outputs would be noise, and the student "
            "would learn noise / set teacher.finetune={} to train the teacher on this data first, or name a "
            "teacher that has the head"
        )
    if missing and head.kind != "mlm":
        model = fetch("model", name, load, name, ignore_mismatched_sizes=True, **options, **head.config())
    elif head.kind != "mlm":
        check_labels(model.config, head.labels, head.num_labels, name)
    return model.eval(), missing


def _check_weights(model: PreTrainedModel, name: str) -> None:
    bad = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise UserError(
            f"expected finite weights in {name} / got NaN or infinity in {', '.join(bad[:3])}"
            f"{' and more' if len(bad) > 3 else ''} / its outputs would be no numbers / take a checkpoint from before "
            "its training broke"
        )


def max_positions(name: str, revision: str | None = None) -> int:
    """The longest input, in tokens, that a model has position embeddings for; read from its configuration alone."""
    return usable_positions(load_config(name, revision))


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration of a model, without its weights."""
    return fetch("model", name, AutoConfig.from_pretrained, name, revision=revision)


def usable_positions(config: PretrainedConfig) -> int:
    """Positions that a model of this configuration can number."""
    positions = getattr(config, "max_position_embeddings", None) or 10**6
    return positions - (2 if config.model_type in _POSITIONS_FROM_TWO else 0)


def _head_name(head: Head) -> str:
    return "masked-LM" if head.kind == "mlm" else head.kind


def fetch(what: str, name: str, load: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls a `from_pretrained`, and turns what it throws at a wrong name or a dead network into one message.

    No Python code that comes with a model is run; transformers by itself would ask on a terminal whether to.
    """
    if (Path(name).is_absolute() or name.startswith((".", "~"))) and not Path(name).expanduser().is_dir():
        raise UserError(f"expected a {what} folder / got {name}, which does not exist / check the path")
    try:
        with quiet_transformers():
            return load(*args, trust_remote_code=False, **kwargs)
    except Exception as error:  # whatever a broken file leads to
        reason = next(iter(str(error).strip().splitlines()), "")
        if isinstance(error, LookupError | AttributeError | TypeError | AssertionError | StrictDataclassError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"expected a {what} at {name!r}, a folder or a name on the Hub / got: {reason} / nothing can be "
            f"distilled without it / {_remedy(Path(name).expanduser(), reason)}"
        ) from error


def _remedy(folder: Path, reason: str) -> str:
    if "custom code" in reason:
        return "Python code that comes with a model is never run here: take one of a class that transformers has"
    if not folder.is_dir():
        return (
            "check the name, the network (or HF_HUB_OFFLINE) and, for private models, HF_TOKEN; weights must be "
            "model.safetensors"
        )
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return (
            "its weights are a pickle, which can run code when it is read: if you trust it, load it with transformers' "
            f"class and call save_pretrained({str(folder)!r}), which writes model.safetensors"
        )
    return "check its files; weights must be model.safetensors, whole and as config.json says"
