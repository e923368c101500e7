"""Checkpoints of a training run: sharded, written while training goes on, loaded under any layout, never half right.

`step-00000100/` is written under a temporary name, every file flushed, the manifest last, and renamed when it is whole
(`checkpoint_files` has the layout). Nothing is ever overwritten in place. A step that is not what its manifest says is
set aside, and the one before is used, on every rank alike.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from pippin import files
from pippin.errors import UserError
from pippin.training import checkpoint_files as stored
from pippin.training.checkpoint_files import Damaged, Described, Layout, Manifest, Piece


@dataclass(frozen=True)
class State:
    """What was restored beside the tensors: the step and the trainer's `meta`."""

    step: int
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in one directory. Under a process group every rank makes the same calls.

    The directory must be one that all ranks see. Tensors are plain, equal on every rank, or DTensors of any layout;
    what several ranks hold is written by one of them, in turn so that all write about as much. A save takes a copy
    (one more copy of the state in memory) and returns; a thread hashes and writes it. At most one save is under way.

    Args:
        directory: of the steps; made if missing, locked against other processes until `close`.
        keep_last: the newest steps that are kept.
        keep_every: multiples of this step are kept too; 0: none.
        alone: this process saves by itself, whatever group it is in.
        timeout_s: how long a rank waits for another one's part of a save.
    Raises:
        UserError: another process uses the directory; a number is out of range.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int = 2,
        keep_every: int = 0,
        alone: bool = False,
        timeout_s: float = 1800,
    ) -> None:
        if keep_last < 1 or keep_every < 0:
            raise UserError(f"keep_last={keep_last}, keep_every={keep_every}: keep at least the last one")
        self.directory = Path(directory)
        self.keep_last, self.keep_every = keep_last, keep_every
        together = not alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        # Of our own: the thread's exchanges must not meet the training's, and need no accelerator.
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s)) if together else None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._planned: tuple[Any, Layout] | None = None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._lock: Any = None
        problem = None
        if self.rank == 0:
            try:
                self._open()
            except UserError as error:
                problem = str(error)
        self._agree(problem)

    def _open(self) -> None:
        """Lock the directory and remove what a killed process was writing."""
        with files.full_disk_is_one_line(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.directory / "lock", "w")  # noqa: SIM115 - closed in close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"{self.directory}: another process writes checkpoints here; stop it or wait") from None
        for stale in self.directory.glob(".*.tmp"):
            files.remove(stale)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # otherwise the first error is the one to see
                raise

    def close(self) -> None:
        """Wait for the save under way and let the directory go.

        Raises:
            UserError: that save failed.
        """
        try:
            self.wait()
        finally:
            if self._lock is not None:
                self._lock.close()

    @property
    def saving(self) -> bool:
        """Whether a save is under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return when the save under way is on the device.

        Raises:
            UserError: it failed, for want of space say; the steps before it are untouched.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def save(self, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Copy the state after `step` steps and begin to write it.

        Args:
            meta: JSON; the same on every rank.
        Raises:
            UserError: the save before failed.
            ValueError: `meta` is not JSON, or a tensor has a type that is not stored.
        """
        self.wait()
        told = json.loads(json.dumps(meta, allow_nan=False))
        described = _describe(tensors)
        layout = self._plan(tensors, described)
        on_device = any(tensor.is_cuda for tensor in tensors.values())
        if len(self._buffer) != layout.bytes:
            self._buffer = torch.empty(layout.bytes, dtype=torch.uint8, pin_memory=on_device)
        with torch.no_grad():
            for piece, place in layout.views(self._buffer):
                place.copy_(_local(tensors[piece.name]), non_blocking=True)
        if on_device:
            torch.cuda.current_stream().synchronize()
        manifest = Manifest(step, self.world_size, told, described)
        self._thread = threading.Thread(target=self._write, args=(manifest, layout), name="checkpoint", daemon=True)
        self._thread.start()

    def restore(self, tensors: Mapping[str, Tensor]) -> tuple[State | None, dict[Path, str]]:
        """Copy the newest good step into `tensors`, in place.

        Returns:
            What was found, None if no step is good; and the damaged steps, where they were set aside and why.
        Raises:
            UserError: the step is of another model, by another Pippin, or cannot be read to its end.
        """
        self.wait()
        described = _describe(tensors)
        wanted = [(piece, _local(tensors[piece.name]).detach()) for piece in _pieces(tensors)]
        set_aside: dict[Path, str] = {}
        unread: str | None = None
        for step in reversed(self._gather(stored.steps_in(self.directory))[0]):
            path = stored.step_directory(self.directory, step)
            manifest, problem = self._verified(path, described)
            if manifest is not None and problem is None:
                problem = unread = self._read(path, manifest, wanted)
                if problem is None:
                    return State(manifest.step, manifest.meta), set_aside
            set_aside[self._set_aside(path)] = str(problem)
        if unread is not None:  # the tensors hold a part of it
            raise UserError(f"{self.directory}: {unread}; no other step is left: start the command again")
        return None, set_aside

    def _verified(self, path: Path, described: Mapping[str, Described]) -> tuple[Manifest | None, str | None]:
        """The manifest of a step, and what any rank found wrong with it; each rank hashes its share of the files."""
        manifest, damage, other = None, None, None
        try:
            manifest = stored.read_manifest(path)
            if (found := stored.difference(described, manifest.tensors)) is not None:
                other = f"{path}: of another model: {found}; delete {self.directory} to begin anew"
            else:
                stored.check_coverage(manifest)
                for name in sorted(manifest.shards)[self.rank :: self.world_size]:
                    stored.verify_shard(path, name, manifest.shards[name])
        except UserError as error:
            other = str(error)
        except (Damaged, ValueError) as error:
            damage = str(error)
        self._agree(other)
        return manifest, next((each for each in self._gather(damage) if each is not None), None)

    def _read(self, path: Path, manifest: Manifest, wanted: list[tuple[Piece, Tensor]]) -> str | None:
        damage = None
        try:
            with torch.no_grad():
                stored.read_pieces(path, manifest, wanted)
        except Damaged as error:
            damage = str(error)
        return next((each for each in self._gather(damage) if each is not None), None)

    def _set_aside(self, path: Path) -> Path:
        aside = path.with_name(f"damaged-{path.name}")
        if self.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(path, aside)
        return aside

    def _plan(self, tensors: Mapping[str, Tensor], described: Mapping[str, Described]) -> Layout:
        """What this rank writes: each distinct piece goes to the holder with the least so far, the largest first."""
        cut = {n: (t.placements, t.device_mesh) for n, t in tensors.items() if isinstance(t, DTensor)}
        key = dict(described), cut
        if self._planned is None or self._planned[0] != key:
            holders: dict[Piece, list[int]] = defaultdict(list)
            for rank, pieces in enumerate(self._gather(_pieces(tensors))):
                for name, offsets, shape in pieces:
                    holders[Piece(name, tuple(offsets), tuple(shape))].append(rank)
            sizes = {piece: math.prod(piece.shape) * tensors[piece.name].dtype.itemsize for piece in holders}
            load = [0] * self.world_size
            mine = []
            for piece in sorted(holders, key=lambda piece: (-sizes[piece], piece)):
                owner = min(holders[piece], key=lambda rank: load[rank])
                load[owner] += sizes[piece]
                if owner == self.rank:
                    mine.append((piece, tensors[piece.name].dtype))
            self._planned = key, Layout(mine)
        return self._planned[1]

    def _write(self, manifest: Manifest, layout: Layout) -> None:
        """The thread: write this rank's shard; the first rank adds the manifest and gives the step its name."""
        final = stored.step_directory(self.directory, manifest.step)
        temporary = final.with_name(f".{final.name}.tmp")
        try:
            try:
                shard = self._write_own(temporary, layout)
                problem = None
            except Exception as error:
                shard, problem = None, _words(error)
            shards = self._gather(shard)
            self._agree(problem)
            if self.rank == 0:
                try:
                    for number, found in enumerate(shards, 1):
                        if found is not None:
                            name = stored.shard_name(number)
                            manifest.shards[name] = stored.Shard(*found)
                            if not (temporary / name).is_file():
                                raise UserError(
                                    f"{self.directory}: rank {number - 1} writes to another disk; use a shared one"
                                )
                    with files.full_disk_is_one_line(final):
                        manifest.write(temporary)
                        if final.exists():
                            stored.remove(final)
                        os.rename(temporary, final)
                        files.fsync_path(self.directory)
                    self._retire()
                except Exception as error:
                    problem = _words(error)
            self._agree(problem)
        except BaseException as error:
            self._failure = error
        finally:
            if self.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)

    def _write_own(self, temporary: Path, layout: Layout) -> list[Any] | None:
        with files.full_disk_is_one_line(temporary):
            temporary.mkdir(parents=True, exist_ok=True)
        if not layout.places:
            return None
        shard = stored.write_shard(temporary / stored.shard_name(self.rank + 1), layout, self._buffer)
        return [shard.bytes, shard.digest, shard.pieces]

    def _retire(self) -> None:
        for step in stored.steps_in(self.directory)[: -self.keep_last]:
            if not self.keep_every or step % self.keep_every:
                stored.remove(stored.step_directory(self.directory, step))

    def _agree(self, problem: str | None) -> None:
        """Raise the first rank's problem as a UserError, on every rank."""
        for each in self._gather(problem):
            if each is not None:
                raise UserError(each)

    def _gather(self, value: Any) -> list[Any]:
        """What each rank has, as JSON: nothing that travels is unpickled."""
        if self._group is None:
            return [json.loads(json.dumps(value))]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self._group)
        longest = int(max(sizes))
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, torch.nn.functional.pad(data, (0, longest - len(data))), group=self._group)
        return [json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"the checkpoint failed: {type(error).__name__}: {error}"


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, Described]:
    for name, tensor in tensors.items():
        if tensor.dtype not in stored.DTYPES:
            raise ValueError(f"{name}: type {tensor.dtype} cannot be stored in a checkpoint")
    return {name: Described(stored.DTYPES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}


def _local(tensor: Tensor) -> Tensor:
    """The part that this rank holds; it shares its memory with `tensor`."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _pieces(tensors: Mapping[str, Tensor]) -> list[Piece]:
    """The pieces that this rank holds, empty ones left out."""
    found = []
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            for chunk in tensor.__create_chunk_list__():  # what DCP itself asks a DTensor for
                found.append(Piece(name, tuple(chunk.offsets), tuple(chunk.sizes)))
        else:
            found.append(Piece(name, (0,) * tensor.ndim, tuple(tensor.shape)))
    return [piece for piece in found if math.prod(piece.shape)]
