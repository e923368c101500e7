"""One process of the training bench: JSON in, JSON out. For what needs a process of its own: memory, and scaling.

Several of them form a team through torchrun's variables; rank 0 speaks.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from pippin.bench.train_systems import SIZES, fresh, new_step, next_tokens
from pippin.errors import UserError
from pippin.model.cross_entropy import Targets
from pippin.model.host_memory import keep_freed_memory
from pippin.training.optimizer import RMSPropMomentum, param_groups
from pippin.training.parallel import Spread
from pippin.training.processes import join


def ask(request: dict[str, Any], processes: int = 1, threads: int = 1) -> dict[str, Any]:
    """Run a request in processes of their own with some threads each.

    Raises:
        UserError: a process failed; the last line that it said is in the message.
    """
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MASTER_ADDR="127.0.0.1", WORLD_SIZE=str(processes))
    if processes > 1:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment["MASTER_PORT"] = str(free.getsockname()[1])
    command = [sys.executable, "-m", "pippin.bench.train_worker", json.dumps(request)]
    team = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]  # fmt: skip
    try:
        said = [worker.communicate(timeout=1_800) for worker in team]
    finally:
        for worker in team:
            worker.kill()
    for worker, (_, errors) in zip(team, said, strict=True):
        if worker.returncode:
            last = (errors.strip().splitlines() or ["no word"])[-1]
            raise UserError(f"bench train: a process for {request['system']} ended with {worker.returncode}: {last}")
    return dict(json.loads(said[0][0].strip().splitlines()[-1]))


def _memory(request: dict[str, Any]) -> dict[str, float]:
    """How far the process grows over what it has after the imports, in three steps."""
    tokens_BT = _tokens(request)
    before = _peak_bytes(tokens_BT.device)
    step = new_step(request["system"], SIZES[request["size"]], tokens_BT, "eager")
    for _ in range(3):
        step()
    return {"peak_bytes": _peak_bytes(tokens_BT.device) - before}


def _scaling(request: dict[str, Any]) -> dict[str, float] | None:
    """Tokens a second of a team in which every process has as many rows as one alone."""
    keep_freed_memory()
    team = join(None)
    model = fresh(SIZES[request["size"]])
    spread = Spread(team, model)
    optimizer = RMSPropMomentum(param_groups(model), lr=1e-4)
    optimizer.copies = spread.copies
    tokens_BT = _tokens(request).to(team.device)
    targets = Targets(next_tokens(tokens_BT))
    walls: list[float] = []
    start = time.perf_counter()
    # As many steps on every process: the first three say how many there will be.
    steps = 3
    while len(walls) < steps:
        wall = time.perf_counter()
        loss = model(tokens_BT, targets=targets)
        (count,) = team.total(float(loss.count))
        (loss.total / (count / spread.averaged)).backward()
        spread.sum_gradients()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        walls.append(time.perf_counter() - wall)
        if len(walls) == 3:
            longest = team.total(time.perf_counter() - start)[0] / team.size
            steps += max(2, int(request["seconds"] / (longest / 3)))
    if not team.main:
        return None
    return {"tokens_per_s": tokens_BT.numel() * team.size / statistics.median(walls[3:])}


def _tokens(request: dict[str, Any]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(os.environ.get("RANK", 0)))
    vocab_size = SIZES[request["size"]].vocab_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randint(0, vocab_size, (request["rows"], request["seq_len"]), generator=generator).to(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            # Not ru_maxrss: that of a child starts at what its parent held.
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    found = {"memory": _memory, "scaling": _scaling}[asked["do"]](asked)
    if found is not None:
        print(json.dumps(found))
