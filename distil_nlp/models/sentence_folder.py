"""The files of a sentence-transformers folder: how the states of a text's tokens become its vector; read and written.

Written is the layout that sentence-transformers has read since version 2: `modules.json`, a folder for the pooling and
one for a Dense layer, beside the files of the plain encoder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.tasks import Head

MODULES = "modules.json"
"""The file by which sentence-transformers knows a folder of its own."""
POOLINGS = ("mean", "cls", "max")
_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Key of a pooling's file up to version 5 → value of `pooling_mode` since."""
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class VectorSettings:
    """How the states of a text's tokens become its vector.

    Attributes:
        pooling: `mean` over the tokens, `cls` for the first one's state, `max` over the tokens, number by number.
        normalize: whether vectors have length 1.
        dense: whether a Dense layer follows the pooling.
        bias: whether that has a bias.
        activation: the class in `torch.nn` of its activation function.
        dimension: length of a vector; None for the width of the encoder.
        has_pooler: whether the file has the weights of the encoder's own pooler, which sentence vectors do not read.
        max_seq_length: tokens at which sentence-transformers cuts a text; None for the tokenizer's limit.
        prompts: texts that may be put in front of others, by name.
    """

    pooling: str = "mean"
    normalize: bool = True
    dense: bool = False
    bias: bool = True
    activation: str = "Identity"
    dimension: int | None = None
    has_pooler: bool = False
    max_seq_length: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, for a model's configuration."""
        return asdict(self)


def read_settings(name: str, revision: str | None, head: Head) -> tuple[VectorSettings, str | None]:
    """Return a model's settings, and the path of its Dense layer, if any.

    A folder without `modules.json` has those of the recipe: by default the mean over tokens, normalised.

    Raises:
        UserError: for modules that cannot be distilled, or a recipe that contradicts the folder.
    """
    modules = _read(name, MODULES, revision)
    if modules is None:
        return VectorSettings(head.pooling or "mean", head.normalize is not False), None
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    paths = dict(zip(kinds, (module["path"] for module in modules), strict=True))
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Dense"], ["Normalize"], [*_KNOWN[2:]]):
        raise UserError(
            f"{MODULES} of {name}",
            "Transformer and Pooling, then at most one Dense and a Normalize",
            listed(kinds),
            why="the student would be taught other vectors than the teacher's",
            fix="take a teacher of these modules",
        )
    settings = VectorSettings(
        pooling=_pooling(_read(name, f"{paths['Pooling']}/config.json", revision) or {}, name),
        normalize="Normalize" in kinds,
        **_texts(name, revision),
    )
    _check_recipe(settings, head, name)
    if "Dense" in kinds:
        return _with_dense(settings, _read(name, f"{paths['Dense']}/config.json", revision) or {}, name), paths["Dense"]
    return settings, None


def read_dense(name: str, path: str, revision: str | None) -> dict[str, Tensor]:
    """Return the weights of a Dense layer, by their names in `nn.Linear`.

    Raises:
        UserError: if they are not in a safetensors file.
    """
    file = _file(name, f"{path}/model.safetensors", revision)
    if file is None:
        raise UserError(
            f"{path} of {name}",
            "model.safetensors",
            "none",
            why="a pickle can run code when it is read",
            fix="load it with sentence-transformers and save it anew",
        )
    with safe_open(file, "pt") as tensors:
        return {key.removeprefix("linear."): tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118


def write_modules(folder: Path, settings: VectorSettings, width: int, dense: dict[str, Tensor] | None) -> None:
    """Write what makes a folder with a plain encoder one of sentence-transformers.

    Args:
        folder: with the encoder.
        settings: of the vectors.
        width: of the encoder.
        dense: weights of the Dense layer, by their names in `nn.Linear`; None without one.
    """
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write(folder / "1_Pooling" / "config.json", _pooling_file(settings.pooling, width))
    if dense is not None:
        steps.append(("Dense", "2_Dense"))
        _write(folder / "2_Dense" / "config.json", _dense_file(settings, width))
        weights = {f"linear.{key}": weight.contiguous() for key, weight in dense.items()}
        save_file(weights, folder / "2_Dense" / "model.safetensors", metadata={"format": "pt"})
    if settings.normalize:
        steps.append(("Normalize", f"{len(steps)}_Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(steps)
    ]
    _write(folder / MODULES, modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": settings.max_seq_length, "do_lower_case": False})
    versions = {"transformers": transformers.__version__, "pytorch": torch.__version__}
    described = {"prompts": settings.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _write(folder / "config_sentence_transformers.json", {"__version__": versions, **described})


def activation_of(settings: VectorSettings) -> nn.Module:
    """Return the activation function of the Dense layer."""
    return getattr(nn, settings.activation)()


def _pooling(file: dict[str, Any], name: str) -> str:
    """Return the way of pooling that a file names, in the form of version 6 or of those before."""
    modes = file.get("pooling_mode") or [mode for key, mode in _LEGACY.items() if file.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(
            f"the pooling of {name}",
            " or ".join(POOLINGS),
            listed(modes),
            why="the student's vectors would be made in another way",
            fix="take a teacher with one of these",
        )
    return modes[0]


def _texts(name: str, revision: str | None) -> dict[str, Any]:
    """Return the settings of the texts that a model reads.

    Raises:
        UserError: if sentence-transformers changes each text before the tokenizer has it.
    """
    limits = _read(name, "sentence_bert_config.json", revision) or {}
    described = _read(name, "config_sentence_transformers.json", revision) or {}
    changes = {
        "do_lower_case": bool(limits.get("do_lower_case")),
        "default_prompt_name": described.get("default_prompt_name") is not None,
    }
    changing = [key for key, is_set in changes.items() if is_set]
    if changing:
        raise UserError(
            f"the sentence-transformers folder {name}",
            f"no {changing[0]}",
            quoted(described.get(changing[0], True)),
            why="sentence-transformers changes each text by it, which this tool does not",
            fix="leave it out of a copy of the folder, and write the texts of the data so",
        )
    return {"max_seq_length": limits.get("max_seq_length"), "prompts": described.get("prompts") or {}}


def _check_recipe(settings: VectorSettings, head: Head, name: str) -> None:
    """Raise UserError for a recipe that says otherwise than the teacher's folder."""
    for key in ("pooling", "normalize"):
        wanted, found = getattr(head, key), getattr(settings, key)
        if wanted is not None and wanted != found:
            raise UserError(
                f"data.{key}",
                f"{str(found).lower()}, as the folder of {name} says",
                str(wanted).lower(),
                why="the vectors would not be those that the model was trained for",
                fix="leave it out",
            )


def _with_dense(settings: VectorSettings, file: dict[str, Any], name: str) -> VectorSettings:
    """Return the settings with those of a Dense layer.

    Raises:
        UserError: for an activation function that is no class of torch without arguments.
    """
    package, _, activation = str(file.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")
    found = getattr(nn, activation, None)
    if not package.startswith("torch.nn.modules") or not isinstance(found, type) or not issubclass(found, nn.Module):
        raise UserError(
            f"the Dense layer of {name}",
            "an activation function of torch.nn",
            quoted(file.get("activation_function")),
            why="code that comes with a model is never run here",
        )
    options: dict[str, Any] = {
        "bias": bool(file.get("bias", True)),
        "activation": activation,
        "dimension": int(file["out_features"]),
    }
    return replace(settings, dense=True, **options)


def _pooling_file(pooling: str, width: int) -> dict[str, Any]:
    modes = {key: mode == pooling for key, mode in _LEGACY.items()}
    return {"word_embedding_dimension": width, **modes, "include_prompt": True}


def _dense_file(settings: VectorSettings, width: int) -> dict[str, Any]:
    activation: Any = type(activation_of(settings))
    return {
        "in_features": width,
        "out_features": settings.dimension,
        "bias": settings.bias,
        "activation_function": f"{activation.__module__}.{activation.__qualname__}",
    }


def _read(name: str, file: str, revision: str | None) -> Any:
    """Return the content of a JSON file of a model; None if there is no such file.

    Raises:
        UserError: if it is no JSON.
    """
    path = _file(name, file, revision)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "restore the file, or take another model"
        raise UserError(f"{file} of {name}", "JSON", " ".join(str(error).split())[:200], fix=fix) from error


def _file(name: str, file: str, revision: str | None) -> str | None:
    folder = Path(name).expanduser()
    return cached_file(
        str(folder) if folder.is_dir() else name,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
