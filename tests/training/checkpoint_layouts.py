"""What checkpoints promise under a process group; for the one spawn of the parallel tests, on 2 or 4 processes.

`prepare(directory)` in the parent, `check(rank, directory)` on every rank with the group up, `finish(directory)` in
the parent when the ranks are gone. Each raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import Placement

from pippin.errors import UserError
from pippin.training import checkpoint_files
from pippin.training.checkpoint import Checkpoints


def whole(step: int) -> dict[str, Tensor]:
    """The state after `step` steps; no two elements of a tensor are alike, no dimension divides well."""

    def numbered(*shape: int) -> Tensor:
        return torch.arange(float(torch.Size(shape).numel())).view(shape) + step / 4

    return {
        "a": numbered(13, 6),
        "b": numbered(3, 5).bfloat16(),
        "c": numbered(4, 3, 5),
        "large": numbered(64, 32),
        "large too": -numbered(64, 32),
        "tiny": numbered(1, 2),  # fewer rows than ranks
        "step": torch.tensor(float(step)),
    }


def cut(tensors: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The same under a layout: "plain", "fsdp" (rows), "tensor" (columns), "replicated", or "2d" on four ranks."""
    if layout == "plain":
        return dict(tensors)
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, 2) if layout == "2d" else (world,))
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.ndim:
            found[name] = tensor  # as the optimizer keeps its count of steps
        else:
            last = tensor.ndim - 1
            places: Sequence[Placement] = {
                "fsdp": [Shard(0)], "tensor": [Shard(last)], "replicated": [Replicate()], "2d": [Shard(last), Shard(0)]
            }[layout]  # fmt: skip
            found[name] = distribute_tensor(tensor, mesh, places)
    return found


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    gathered = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in found.items()}
    return all(torch.equal(gathered[name], tensor) for name, tensor in expected.items())


def layouts() -> list[str]:
    return ["plain", "fsdp", "tensor", "replicated"] + (["2d"] if dist.get_world_size() == 4 else [])


def prepare(directory: Path) -> None:
    """A checkpoint of one process, for many to read."""
    with Checkpoints(directory / "alone") as checkpoints:
        checkpoints.save(8, whole(8), {"applied": 8})


def check(rank: int, directory: Path) -> None:
    _every_layout_reads_every_other(directory)
    _replicas_are_written_once_by_all(directory / "replicas")
    _dcp_reads_the_shards(rank, directory / "fsdp")
    _strided_shards(directory / "strided")
    _all_ranks_fall_back_alike(rank, directory / "damaged")
    _one_rank_fails_and_all_say_so(rank, directory / "full")
    _another_process_is_kept_out(directory / "locked")
    _a_disk_of_its_own_is_noticed(directory / f"of {rank}")


def finish(directory: Path) -> None:
    """What many wrote, read by one process."""
    for written in ("fsdp", "tensor"):
        found = {name: torch.zeros_like(tensor) for name, tensor in whole(0).items()}
        with Checkpoints(directory / written) as checkpoints:
            state, _ = checkpoints.restore(found)
        assert state is not None
        assert state.step == 4
        assert same(found, whole(4))


def _every_layout_reads_every_other(directory: Path) -> None:
    for written in layouts():
        with Checkpoints(directory / written) as checkpoints:
            for step in (2, 4):
                checkpoints.save(step, cut(whole(step), written), {"applied": step})
    for written, step in [*((name, 4) for name in layouts()), ("alone", 8)]:
        with Checkpoints(directory / written) as checkpoints:
            for read in layouts():
                found = cut(whole(0), read)
                state, set_aside = checkpoints.restore(found)
                assert state is not None
                assert (state.step, state.meta, set_aside) == (step, {"applied": step}, {})
                assert same(found, whole(step)), f"{written} read as {read}"


def _replicas_are_written_once_by_all(directory: Path) -> None:
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, cut(whole(2), "replicated"), {})
    manifest = checkpoint_files.read_manifest(directory / "step-00000002")
    held = [list(shard.pieces) for shard in manifest.shards.values()]
    assert sorted(name for names in held for name in names) == sorted(whole(2))
    assert len(held) >= 2
    assert not any({"large", "large too"} <= set(names) for names in held)


def _dcp_reads_the_shards(rank: int, directory: Path) -> None:
    if rank == 0:
        step = directory / "step-00000004"
        expected = whole(4)
        found = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
        dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(step)), no_dist=True)
        assert same(found, expected)
        with safe_open(step / checkpoint_files.shard_name(2), framework="pt") as handle:
            rows = handle.get_tensor("large")
        first = 64 // dist.get_world_size()
        assert torch.equal(rows, expected["large"][first : 2 * first])
    dist.barrier()


def _strided_shards(directory: Path) -> None:
    """FSDP over tensor parallel: both cut the rows of one matrix."""

    def built(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 10), nn.Linear(10, 6))
        mesh = init_device_mesh("cpu", (dist.get_world_size() // 2, 2), mesh_dim_names=("fsdp", "tensor"))
        parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
        fully_shard(model, mesh=mesh["fsdp"])
        return dict(model.named_parameters())

    saved, found = built(1), built(2)
    assert not same(found, {name: t.full_tensor() for name, t in saved.items() if isinstance(t, DTensor)})
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, saved, {})
        checkpoints.wait()
        checkpoints.restore(found)
    assert same(found, {name: t.full_tensor() for name, t in saved.items() if isinstance(t, DTensor)})
    plain = {name: torch.zeros(tensor.shape) for name, tensor in saved.items()}
    with Checkpoints(directory) as checkpoints:
        checkpoints.restore(plain)
    assert same(found, plain)


def _all_ranks_fall_back_alike(rank: int, directory: Path) -> None:
    """Whichever rank's file is damaged, and whichever rank finds it."""
    for number in range(dist.get_world_size()):
        with Checkpoints(directory / str(number)) as checkpoints:
            for step in (2, 4):
                checkpoints.save(step, cut(whole(step), "fsdp"), {})
        if rank == 0:
            file = directory / str(number) / "step-00000004" / checkpoint_files.shard_name(number + 1)
            data = bytearray(file.read_bytes())
            data[-1] ^= 16
            file.write_bytes(data)
        dist.barrier()
        found = cut(whole(0), "tensor")
        with Checkpoints(directory / str(number)) as checkpoints:
            state, set_aside = checkpoints.restore(found)
        assert state is not None
        assert state.step == 2
        assert [path.name for path in set_aside] == ["damaged-step-00000004"]
        assert same(found, whole(2))


def _one_rank_fails_and_all_say_so(rank: int, directory: Path) -> None:

    def full(*_: object) -> checkpoint_files.Shard:
        raise UserError("no space left")

    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, cut(whole(2), "fsdp"), {})
        checkpoints.wait()
        with mock.patch.object(checkpoint_files, "write_shard", full if rank == 1 else checkpoint_files.write_shard):
            checkpoints.save(4, cut(whole(4), "fsdp"), {})
            with pytest.raises(UserError, match="no space left"):
                checkpoints.wait()
        assert checkpoint_files.steps_in(directory) == [2]
        found = cut(whole(0), "tensor")
        state, _ = checkpoints.restore(found)
        assert state is not None
        assert same(found, whole(2))


def _another_process_is_kept_out(directory: Path) -> None:
    with Checkpoints(directory):
        with pytest.raises(UserError, match="another process writes checkpoints here"):
            Checkpoints(directory)


def _a_disk_of_its_own_is_noticed(directory: Path) -> None:
    """As on several hosts without a shared one: found at the first save, not when it is needed."""
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(2, cut(whole(2), "fsdp"), {})
        with pytest.raises(UserError, match="rank 1 writes to another disk"):
            checkpoints.wait()
    assert checkpoint_files.steps_in(directory) == []
