"""The origin of a model or a dataset, and the metadata of its own card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, constants, hf_hub_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from distil_nlp.utils.bounded_yaml import check_card

_KEPT = ("license", "license_name", "license_link", "language", "base_model")
_LONGEST = 500
"""Characters of a value of a card, which may be an address."""


def hub_id(name: str | None) -> str | None:
    """Return the name if it is one on the Hub, None for a path.

    A file or folder of that name on this disk wins over the Hub, as in transformers and datasets.
    """
    if not name or Path(name).expanduser().exists():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def teacher_metadata(name: str, revision: str | None = None) -> dict[str, Any]:
    """Return what a model's own card says of `license`, `license_name`, `license_link`, `language` and `base_model`.

    A name on the Hub is itself the `base_model`. Without a card, or without a network, there is nothing more.

    Args:
        name: a folder, whose README.md is read, or a name on the Hub.
        revision: a commit, branch or tag on the Hub.
    """
    on_hub = hub_id(name)
    try:
        path: Path | str = Path(name).expanduser() / constants.REPOCARD_NAME
        if on_hub:
            path = hf_hub_download(name, constants.REPOCARD_NAME, revision=revision)
        check_card(Path(path))
        card = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # missing, offline, gated, not YAML, not UTF-8: no card is worth a run
        card = {}
    metadata: dict[str, Any] = {key: value for key in _KEPT if (value := _texts(card.get(key)))}
    link = metadata.get("license_link")
    if link and "://" not in str(link):  # a file beside the teacher
        metadata["license_link"] = on_hub and f"https://huggingface.co/{on_hub}/blob/{revision or 'main'}/{link}"
    if on_hub:
        metadata["base_model"] = on_hub
    return {key: value for key, value in metadata.items() if value}


def _texts(value: Any) -> str | list[str] | None:
    """Return a text or a list of texts, as the Hub wants them; None for anything else, and in place of long ones.

    False is `no`: YAML 1.1 reads the language code of Norwegian so.
    """
    if isinstance(value, list):
        return [text for element in value if isinstance(text := _texts(element), str)]
    if value is False:
        return "no"
    return value if isinstance(value, str) and len(value) <= _LONGEST else None
