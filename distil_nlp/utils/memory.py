"""CPU memory: keeping freed memory in the process, and counting the bytes of live tensors."""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's numbers of the parameters of `mallopt`."""


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory, so that the next step does not ask the system for it again.

    By default glibc returns every large tensor at once, and the system hands out zeroed pages for the next: on a CPU a
    sixth of a training step. The process then holds its peak until it ends, and for its largest tensors up to seven
    spare places, which glibc does not join at first. Returns whether it could be set: only glibc has it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(*setting) == 1 for setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    )


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live storages that operators return, and their peak.

    Not counted: scratch space inside an operator, libraries, memory that an allocator keeps in reserve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return tree_map_only(Tensor, self.see, func(*args, **(kwargs or {})))

    def see(self, tensor: Tensor) -> Tensor:
        """Count an existing tensor; the parts of a sparse tensor are counted by themselves."""
        if tensor.layout != torch.strided:
            return tensor
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self._change(storage.nbytes())
            weakref.finalize(storage, self._change, -storage.nbytes())
        return tensor

    def see_all(self) -> None:
        """Count every tensor that Python knows: weights, gradients, the optimiser's state."""
        for obj in gc.get_objects():
            if issubclass(type(obj), Tensor):  # isinstance would ask lazy objects for their class
                self.see(obj)
                if obj.is_leaf and obj.grad is not None:
                    self.see(obj.grad)

    def _change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)
