"""`NoSync`: a mode in which operators that synchronise the device raise."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class NoSync(TorchDispatchMode):
    """Raises for operators that read a value from the device, or whose shape depends on values."""

    names = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in self.names, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))
