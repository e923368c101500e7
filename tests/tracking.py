"""Counting the bytes of tensors: real ones, or fake ones, which have shapes and types and no memory."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Bytes of all storages that operations have made and that are still alive: `now`, at the `peak`, the `largest`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._alive: set[int] = set()

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone() -> None:
            self._alive.discard(key)
            self.now -= size

        self._alive.add(key)
        weakref.finalize(storage, gone)
        self.now += size
        self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return out
