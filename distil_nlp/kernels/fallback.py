"""What all kernels have in common: whether Triton runs here, and that a kernel that fails is given up once, aloud."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import ClassVar, Literal, TypeVar

import torch

from distil_nlp.errors import UserError
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

Kernels = Literal["auto", "triton", "torch"]
"""Whose kernels are used: Triton's where it is there, Triton's or an error, torch's alone."""
Result = TypeVar("Result")
AnyKernel = TypeVar("AnyKernel", bound="TritonKernel")


class TritonKernel:
    """A kernel, as long as it works: where it cannot be compiled, one warning says so, and torch goes on.

    Args:
        is_required: whether a kernel that fails is an error.

    Attributes:
        what: it is, for messages.
        works: False once it has failed.
    """

    what: ClassVar[str]

    def __init__(self, is_required: bool = False):
        self.is_required, self.works = is_required, True

    def attempt(self, launch: Callable[[], Result]) -> Result | None:
        """Return what the kernel does; None where it does not work.

        Raises:
            UserError: in place of None, if the kernel is required.
        """
        if not self.works:
            return None
        try:
            return launch()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever Triton, its compiler or the driver raise
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        """Let torch do the work from now on, with one warning."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if self.is_required:
            raise UserError(
                "run.kernels",
                f"Triton to run the {self.what}",
                reason,
                fix="set run.kernels=auto, which goes on without it",
            ) from error
        self.works = False
        logger.warning(f"run.kernels: Triton's {self.what} failed, torch goes on: {reason}")


def kernel_for(kind: type[AnyKernel], kernels: Kernels, device: torch.device) -> AnyKernel | None:
    """Return a kernel for a device; None where torch does the work.

    Raises:
        UserError: if Triton is asked for and is not there, or the device is none of its.
    """
    if kernels == "torch":
        return None
    missing = why_not_triton(device)
    if missing is None:
        return kind(is_required=kernels == "triton")
    if kernels == "triton":
        raise UserError("run.kernels", "Triton on a GPU", missing, fix="set run.kernels=auto or torch")
    return None


def why_not_triton(device: torch.device) -> str | None:
    """Return why Triton's kernels do not run on a device; None if they do."""
    if device.type not in ("cuda", "xpu") and not is_interpreted():
        return f"device {device.type}"
    return None if _has_triton() else "no package triton, which torch's CUDA builds bring along"


def is_interpreted() -> bool:
    """Return whether Triton interprets its kernels, on any device, as tests have it."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
