"""Loading of models and tokenizers from a folder or the Hub, with errors that name the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, cached_file

from distil_nlp.errors import UserError
from distil_nlp.models.compatibility import check_labels
from distil_nlp.tasks import Head
from distil_nlp.utils.logging import quiet_transformers

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_POSITIONS_FROM_TWO = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families whose first position has number 2, after the padding's."""


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Truncation and padding left over in its file are reset. Chat templates are dropped: their names would become those
    of files.

    Raises:
        UserError: if there is none at that name.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise UserError(
            None,
            f"a tokenizer in {name}",
            f"none of {', '.join(_TOKENIZER_FILES)}",
            why="every word would be unknown",
            fix="save the teacher's tokenizer into its folder",
        )
    tokenizer = load_pretrained("tokenizer", name, AutoTokenizer.from_pretrained, revision=revision)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.chat_template = None
    return tokenizer


def load_model(name: str, head: Head, *, new_head: bool = False, revision: str | None = None) -> PreTrainedModel:
    """Load a model with the head that the task needs, in float32 and eval mode; weights as safetensors only.

    Args:
        name: a folder, or a name on the Hub.
        head: what it must predict.
        new_head: whether a missing head may start untrained, because it will be trained next.

    Raises:
        UserError: if the model cannot be had, has no trained head of this kind, or names other labels.
    """
    return load_with_missing_keys(name, head, new_head=new_head, revision=revision)[0]


def load_with_missing_keys(
    name: str, head: Head, *, new_head: bool = False, revision: str | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """`load_model`, with the names of the parameters that start untrained."""
    auto = getattr(transformers, head.kind.auto_model)
    options: dict[str, Any] = {"revision": revision, "dtype": torch.float32, "use_safetensors": True}
    load = auto.from_pretrained
    model, info = load_pretrained("model", name, load, output_loading_info=True, **options)
    if model.config.is_encoder_decoder:
        raise UserError(
            None,
            "an encoder such as BERT",
            f"{type(model).__name__} in {name}, which also decodes",
        )
    missing = sorted(info["missing_keys"])
    _check_weights(model, name)
    if missing and not new_head:
        raise UserError(
            None,
            f"a trained {head.kind.head_name} head in {name}",
            f"none ({', '.join(missing[:3])} {'and more ' if len(missing) > 3 else ''}missing)",
            why="its outputs would be noise, and the student would learn noise",
            fix="set teacher.finetune={} to train the teacher on this data first, or name a teacher that has the head",
        )
    if missing and head.kind.has_labels:
        model = load_pretrained("model", name, load, ignore_mismatched_sizes=True, **options, **head.config())
    elif head.kind.has_labels:
        check_labels(model.config, head.labels, head.num_labels, name)
    return model.eval(), missing


def _check_weights(model: PreTrainedModel, name: str) -> None:
    bad = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise UserError(
            None,
            f"finite weights in {name}",
            f"NaN or infinity in {', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''}",
            why="its outputs would be no numbers",
            fix="take a checkpoint from before its training broke",
        )


def max_positions(name: str, revision: str | None = None) -> int:
    """Return the longest input, in tokens, that a model has position embeddings for, by its configuration."""
    return usable_positions(load_config(name, revision))


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """Return the configuration of a model, without loading its weights."""
    return load_pretrained("model", name, AutoConfig.from_pretrained, revision=revision)


def usable_positions(config: PretrainedConfig) -> int:
    """Return the number of positions that a model of this configuration can embed."""
    positions = getattr(config, "max_position_embeddings", None) or 10**6
    return positions - (2 if config.model_type in _POSITIONS_FROM_TWO else 0)


def commit_of(name: str, revision: str | None = None) -> str | None:
    """Return the commit at which a model on the Hub was last loaded, by this revision; None for a folder."""
    if Path(name).expanduser().is_dir():
        return None
    path = try_to_load_from_cache(name, CONFIG_NAME, revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def load_pretrained(what: str, name: str, load: Callable, **kwargs: Any) -> Any:
    """Call a `from_pretrained`, and turn any error of a wrong name or a missing network into one message.

    Python code that comes with a model is never run; transformers by default would ask for consent on a terminal.

    Raises:
        UserError: if nothing could be loaded.
    """
    folder = Path(name).expanduser()
    if (folder.is_absolute() or name.startswith((".", "~"))) and not folder.is_dir():
        raise UserError(
            None,
            f"a {what} folder",
            f"{name}, which does not exist",
            fix="check the path",
        )
    try:
        with quiet_transformers():
            place = str(folder) if folder.is_dir() else name
            if kwargs.get("use_safetensors"):
                _refuse_other_weights(place, kwargs.get("revision"))
            return load(place, trust_remote_code=False, **kwargs)
    except Exception as error:  # whatever a broken file leads to
        reason = next(iter(str(error).strip().splitlines()), "")
        if isinstance(error, LookupError | AttributeError | TypeError | AssertionError | StrictDataclassError):
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            None,
            f"a {what} at {name!r}, a folder or a name on the Hub",
            reason,
            why="nothing can be distilled without it",
            fix=_remedy(folder, reason),
        ) from error


def _refuse_other_weights(name: str, revision: str | None) -> None:
    """Raise if the model's files name weights that are not safetensors in its own folder.

    A configuration or an index of safetensors may name a pickle, which transformers would then read, or a file
    outside the model's folder.

    Raises:
        ValueError: if so, with the name.
    """
    weights = PretrainedConfig.get_config_dict(name, revision=revision)[0].get("transformers_weights")
    index = cached_file(
        name,
        SAFE_WEIGHTS_INDEX_NAME,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    shards = json.loads(Path(index).read_text(encoding="utf-8")).get("weight_map", {}) if index else {}
    for file in map(str, [*shards.values(), *filter(None, [weights])]):
        if not file.endswith(".safetensors") or re.search(r"[/\\]", file):
            raise ValueError(f"the weights are in {file!r}, which is no safetensors file beside config.json")


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
