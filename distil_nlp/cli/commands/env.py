"""`distil-nlp env`: versions and hardware, for a bug report."""

from __future__ import annotations

import os
import platform
from argparse import ArgumentParser, Namespace
from pathlib import Path

from distil_nlp.cli.commands.base import Command
from distil_nlp.redaction import redact
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

_VARIABLES = (
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TOKENIZERS_PARALLELISM",
    "PYTORCH_ALLOC_CONF",
)
"""Environment variables that change how a run goes; none of them holds a secret."""


def add_arguments(parser: ArgumentParser) -> None:
    pass


def run(options: Namespace) -> None:
    facts = _facts()
    width = max(map(len, facts))
    logger.info("\n".join(redact(f"{name:<{width}}  {value}") for name, value in facts.items()))


def _facts() -> dict[str, str]:
    """Return name → value of all that a bug report should have: versions, as in results.json, and the machine."""
    import torch

    from distil_nlp.utils.environment import REPORTED_PACKAGES, commit_of_checkout, cpu_cores
    from distil_nlp.utils.installed import package_versions

    versions = package_versions((*REPORTED_PACKAGES, "huggingface-hub", "tokenizers", "safetensors", "pydantic"))
    commit = commit_of_checkout()
    return {
        **{name: version or "not installed" for name, version in versions.items()},
        **({"commit": commit} if commit else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "CPU": f"{platform.processor() or platform.machine()}, {cpu_cores()} cores, {torch.get_num_threads()} threads",
        "GPU": _gpus(),
        "accelerate config": _accelerate_config(),
        **{name: value for name in _VARIABLES if (value := os.environ.get(name)) is not None},
    }


def _gpus() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{', '.join(names)}; CUDA {torch.version.cuda}"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "none"


def _accelerate_config() -> str:
    """Return what the user's configuration of accelerate says, if there is one."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if not Path(default_config_file).is_file():
        return "none"
    config = load_config_from_file(None).to_dict()
    kept = ("distributed_type", "num_processes", "num_machines", "mixed_precision", "use_cpu")
    return ", ".join(f"{key} {config[key]}" for key in kept if key in config)


COMMAND = Command(
    name="env",
    summary="show versions and hardware, for a bug report",
    description="Show versions and hardware, for a bug report.",
    example="distil-nlp env",
    add_arguments=add_arguments,
    run=run,
)
