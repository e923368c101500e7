"""One of the four processes of test_parallel.py: `python -m tests.training.parallel_ranks DIRECTORY RANK PORT`."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tests.training import checkpoint_layouts
from tests.training.parallel_cases import train

from pippin.training.plan import Plan
from pippin.training.processes import Team

# Four processes, then each half by itself.
TOGETHER = [
    ("fsdp=2 tensor=2 recompute=block", "dropped"), ("fsdp=2 tensor=2", "adapter"), ("context=2 tensor=2", "distill"),
    ("fsdp=2 context=2", "prune"), ("replica=2 fsdp=2", "untied"), ("replica=2 tensor=2", "kl"),
]  # fmt: skip
HALVES = [
    [
        ("fsdp=2", "plain"), ("fsdp=2 micro_batch=1", "dropped"), ("fsdp=2", "adapter"), ("fsdp=2", "prune"),
        ("fsdp=2", "distill"), ("replica=2", "plain"), ("replica=2", "adapter"),
    ],
    [
        ("tensor=2", "plain"), ("tensor=2", "untied"), ("tensor=2", "prune"), ("tensor=2", "adapter"),
        ("tensor=2", "distill"), ("context=2", "dropped"), ("context=2", "kl"),
    ],
]  # fmt: skip


def main(directory: Path, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 4, rank == 0, timeout=timedelta(seconds=120))
    group(rank, 4, dist.PrefixStore("four", store))
    for line, case in TOGETHER:
        saved = directory / "saved" / f"{line} {case}"
        report(directory, line, case, train(Team(Plan.parse(line, 4), rank, 4), case, save=saved))
    checkpoint_layouts.check(rank, directory / "checkpoints")
    half, own = divmod(rank, 2)
    dist.destroy_process_group()
    group(own, 2, dist.PrefixStore(f"half{half}", store))
    for line, case in HALVES[half]:
        report(directory, line, case, train(Team(Plan.parse(line, 2), own, 2), case))
    dist.destroy_process_group()
    store.add("gone", 1)
    if rank == 0:  # the store lives here
        while store.add("gone", 0) < 4:
            pass


def group(rank: int, size: int, store: dist.Store) -> None:
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=120))


def report(directory: Path, line: str, case: str, found: dict[str, Any]) -> None:
    if dist.get_rank():
        return
    place = directory / f"{line} {case}"
    place.mkdir()
    save_file({name: t.contiguous() for name, t in found["gradients"].items()}, place / "gradients.safetensors")
    state = found["module"].state_dict()
    save_file({name: t.detach().clone().contiguous() for name, t in state.items()}, place / "module.safetensors")
    save_file({name: t.contiguous() for name, t in found["state"].items()}, place / "state.safetensors")
    kept = {key: found[key] for key in ("losses", "norms", "look", "after", "alike", "held", "filled")}
    (place / "found.json").write_text(json.dumps(kept | {"class": type(found["module"]).__name__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
