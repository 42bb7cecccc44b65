"""The connection to the Hub: tried once, so that a run without a network says so at once, and uses what is cached.

Left alone, `huggingface_hub` tries each file six times within half a minute, and transformers asks for several files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import datasets
from huggingface_hub import constants, get_session

from distil_nlp.errors import quoted
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)


def use_cache_without_network(names: Iterable[str]) -> None:
    """Switch the libraries of the Hub to offline mode where it is needed and cannot be reached.

    One request, which waits as long as `HF_HUB_ETAG_TIMEOUT` says. Any answer of the Hub will do.

    Args:
        names: models and datasets; what exists on this machine needs no network.
    """
    remote = [name for name in names if not Path(name).expanduser().exists()]
    if not remote or constants.is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # each transport has exceptions of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.info(f"{constants.ENDPOINT} cannot be reached ({quoted(reason)}): using what is cached")
        _work_offline()


def _work_offline() -> None:
    """Set what `HF_HUB_OFFLINE=1` sets before the libraries are imported, for processes that are started later too."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
