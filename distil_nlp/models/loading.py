"""Loading of models and tokenizers from a folder or the Hub, with errors that name the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME

from distil_nlp.errors import UserError
from distil_nlp.models.checkpoint import Shapes, check_counts, check_sizes, tensors_of
from distil_nlp.models.classes import arrange_classes, check_meaning
from distil_nlp.models.config_fields import clean_fields, set_for_building
from distil_nlp.models.positions import usable_positions
from distil_nlp.models.sentence_encoder import AutoSentenceEncoder
from distil_nlp.models.weights import weigh
from distil_nlp.tasks import Head
from distil_nlp.utils.logging import get_logger, quiet_transformers
from distil_nlp.utils.names import why_no_path

logger = get_logger(__name__)

_LOADERS: dict[str, Any] = {"embedding": AutoSentenceEncoder}
"""Output of a kind of task → what loads its models, where no class of transformers has the head."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


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
            fix=_remedy_of_layout(folder) or "save the teacher's tokenizer into its folder",
        )
    load = AutoTokenizer.from_pretrained
    try:
        tokenizer = load_pretrained("tokenizer", name, load, revision=revision)
    except UserError:  # it reads config.json too, whose faults are named or mended first
        config = load_config(name, revision)
        tokenizer = load_pretrained("tokenizer", name, load, revision=revision, config=config)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.chat_template = None
    return tokenizer


def load_model(
    name: str,
    head: Head,
    *,
    new_head: bool = False,
    revision: str | None = None,
    label_names: Sequence[str] | None = None,
) -> PreTrainedModel:
    """Load a model with the head that the task needs, in float32 and eval mode; weights as safetensors only.

    Its outputs are in the order of the data's classes, whatever their order in the checkpoint.

    Args:
        name: a folder, or a name on the Hub.
        head: what it must predict.
        new_head: whether a missing head may start untrained, because it will be trained next.
        revision: commit, branch or tag on the Hub.
        label_names: the data's names in the order of the checkpoint's classes, where its own do not tell the order.

    Raises:
        UserError: if the model cannot be had, has no trained head of this kind, or classes that are not the data's.
    """
    return load_with_missing_keys(name, head, new_head=new_head, revision=revision, label_names=label_names)[0]


def load_with_missing_keys(
    name: str,
    head: Head,
    *,
    new_head: bool = False,
    revision: str | None = None,
    label_names: Sequence[str] | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """`load_model`, with the names of the parameters that start untrained."""
    auto: Any = getattr(transformers, head.kind.auto_model)
    if head.kind.output in _LOADERS:
        auto = _LOADERS[head.kind.output](name, revision, head)
    model, missing = load_weights(name, auto, revision)
    if missing and not new_head:
        raise UserError(
            None,
            f"a trained {head.kind.head_name} head in {name}",
            f"none ({', '.join(missing[:3])} {'and more ' if len(missing) > 3 else ''}missing)",
            why="its outputs would be noise, and the student would learn noise",
            fix="set teacher.finetune={} to train the teacher on this data first, or name a teacher that has the head",
        )
    if missing and head.kind.has_labels:
        model.config.update(head.config())
        model = load_pretrained("model", name, auto.from_pretrained, **_options(model.config, revision))
        if label_names:
            logger.info(f"{name}: data.label_names has no effect, since the head is new and has the data's order")
    elif head.kind.has_labels:
        check_meaning(model.config, head.kind, name, will_be_trained=new_head)
        remark = arrange_classes(model, head, name, label_names).remark(name)
        if remark:
            logger.info(remark)
    return model.eval(), missing


def load_weights(name: str, auto: Any, revision: str | None = None) -> tuple[PreTrainedModel, list[str]]:
    """Load a model of one of transformers' `Auto…` classes, and the names of the parameters of its head that are new.

    Raises:
        UserError: if the encoder has other weights than the file, decodes too, or is not finite.
    """
    config = load_config(name, revision)
    tensors = load_pretrained("model", name, tensors_of, revision=revision)
    check_sizes(config, tensors, name)
    options = _options(config, revision) | {"output_loading_info": True}
    model, info = load_pretrained("model", name, auto.from_pretrained, **options)
    if model.config.is_encoder_decoder:
        raise UserError(
            None,
            "an encoder such as BERT",
            f"{type(model).__name__} in {name}, which also decodes",
        )
    _zero_biases(model, info["missing_keys"])
    weigh(model, info, tensors, name)
    _check_weights(model, name)
    return model, sorted(info["missing_keys"])


@torch.no_grad()
def _zero_biases(model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Set new biases to 0 that belong to a head itself: transformers leaves Longformer's as the memory was."""
    for name in missing:
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        if last == "bias" and not type(module).__module__.startswith("torch."):
            module.get_parameter(last).zero_()


def _options(config: PretrainedConfig, revision: str | None) -> dict[str, Any]:
    """Return the arguments of `from_pretrained`: float32, safetensors only; sizes that differ are looked at later."""
    options = {"config": config, "revision": revision, "dtype": torch.float32}
    return options | {"use_safetensors": True, "ignore_mismatched_sizes": True}


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
    """Return the configuration of a model, without loading its weights; its fields as distilling needs them.

    Raises:
        UserError: if it cannot be had, or no model of its sizes is in the files beside it.
    """
    raw, tensors = load_pretrained("config.json", name, _raw_config, revision=revision)
    check_counts(raw, tensors, name)
    fields = clean_fields(raw, name)
    if fields is raw or raw.get("model_type") not in CONFIG_MAPPING:
        config = load_pretrained("config.json", name, AutoConfig.from_pretrained, revision=revision)
    else:
        config = load_pretrained("config.json", name, _config_of, fields=fields)
    return set_for_building(config)


def _raw_config(place: str, revision: str | None, **options: Any) -> tuple[dict[str, Any], Shapes]:
    """Return the fields of a model's `config.json`, and its tensors if they are on this machine already."""
    raw = PretrainedConfig.get_config_dict(place, revision=revision)[0]
    return raw, tensors_of(place, revision, cached_only=True)


def _config_of(place: str, fields: dict[str, Any], **options: Any) -> PretrainedConfig:
    """Return a configuration of these fields, as `AutoConfig.from_pretrained` would."""
    return CONFIG_MAPPING[fields["model_type"]].from_dict(fields, name_or_path=place)


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
            f"a folder with a {what}",
            f"{name}, which does not exist",
            why=why_no_path(name),
            fix="check the path",
        )
    try:
        with quiet_transformers():
            place = str(folder) if folder.is_dir() else name
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


def _remedy(folder: Path, reason: str) -> str:
    if "custom code" in reason:
        return "Python code that comes with a model is never run here: take one of a class that transformers has"
    if not folder.is_dir():
        return (
            "check the name, the network (or HF_HUB_OFFLINE) and, for private models, HF_TOKEN; weights must be "
            "model.safetensors"
        )
    if layout := _remedy_of_layout(folder):
        return layout
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return (
            "its weights are a pickle, which can run code when it is read: if you trust it, load it with transformers' "
            f"class and call save_pretrained({str(folder)!r}), which writes model.safetensors"
        )
    return "check its files; weights must be model.safetensors, whole and as config.json says"


def _remedy_of_layout(folder: Path) -> str | None:
    """Return what to do with a folder that holds no model itself; None if it has a configuration of its own."""
    if (folder / CONFIG_NAME).is_file():
        return None
    if (folder / "adapter_config.json").is_file():
        return (
            "merge the adapter into its base model and name that folder: with peft, "
            "AutoPeftModelFor….from_pretrained(folder).merge_and_unload().save_pretrained(…), and the tokenizer too"
        )
    inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_NAME}") if _is_model_config(path))
    return f"name the folder within it that holds the model: {folder / inner[0]}" if inner else None


def _is_model_config(path: Path) -> bool:
    return '"model_type"' in path.read_text(encoding="utf-8", errors="replace")
