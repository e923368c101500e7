"""The processes of one run: how they find each other, what they tell each other, and what happens when one is lost."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from pippin.errors import Stopped, UserError
from pippin.training.plan import Plan

_POLL_S = 0.02
_STDERR = 2


class Team:
    """The processes that run a recipe together; one that runs it alone is a team of one.

    Rank 0 does everything that is not training; the others wait for it meanwhile, without a limit.

    Attributes:
        plan: how training is spread.
        rank, size: this process, and how many there are.
        device: where this process computes.
        mesh: kept here by `pippin.training.parallel`, so that all stages use one.
    """

    mesh: Any = None

    def __init__(self, plan: Plan, rank: int = 0, size: int = 1, store: dist.Store | None = None) -> None:
        self.plan, self.rank, self.size = plan, rank, size
        self._store = store
        self._stop = False
        local = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @property
    def main(self) -> bool:
        """Whether this process writes, and speaks to the user."""
        return self.rank == 0

    def tell(self, key: str, text: str) -> None:
        """Let the others `hear` something."""
        if self._store is not None:
            self._store.set(f"told/{key}", text)

    def hear(self, key: str) -> str:
        """What rank 0 tells under a key: waits for it, or for the end of rank 0.

        Raises:
            Stopped: rank 0 has ended.
        """
        assert self._store is not None
        while True:
            if self._store.check([f"told/{key}"]):
                return self._store.get(f"told/{key}").decode()
            if self._store.check(["told/end"]):
                raise Stopped(f"rank {self.rank}: rank 0 has ended")
            time.sleep(_POLL_S)

    def end(self, wait_s: float = 5.0) -> bool:
        """Say that this process ends by an error; whether it is the one to tell the user.

        Rank 0 is. Another is if rank 0 does not end within some seconds: what is wrong is then its own matter.
        """
        if self._store is None:
            return True
        try:
            if self.main:
                self._store.set("told/end", "")
                return True
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline:
                if self._store.check(["told/end"]):
                    return False
                time.sleep(_POLL_S)
        except RuntimeError:  # the store is gone, and with it rank 0
            return False
        return True

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Around a whole run: an error is told the user once, by the process that it is of, and ends all.

        Raises:
            SystemExit: in the processes that have nothing to tell.
        """
        try:
            yield
        except Exception as error:
            if not self.end():
                raise SystemExit(1) from error
            raise
        if self.size > 1:
            dist.destroy_process_group()

    def total(self, *values: float) -> list[float]:
        """Sums over all processes, on the host; exact for whole numbers."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    @property
    def stopping(self) -> bool:
        """Whether this process was asked to end (inside `training`)."""
        return self._stop

    def alive(self) -> None:
        """Start the clock of the watchdog anew (inside `training`).

        A process that does not come by for `timeout_s` (and a little: an exchange shall say so first) prints its stacks
        and ends, whatever it hangs in: the launcher then ends the others or starts all again.
        """
        if self.size > 1:
            faulthandler.dump_traceback_later(self.plan.timeout_s + 2, exit=True, file=_STDERR)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around steps: SIGTERM is noted instead of ending the process, and lost processes are one clear line.

        Raises:
            UserError: another process went away or did not answer.
        """
        self._stop = False

        def note(_: int, __: FrameType | None) -> None:
            self._stop = True

        before = None
        with suppress(ValueError):  # not the main thread: whoever runs it there handles signals
            before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_network(error):
                raise
            faulthandler.dump_traceback(all_threads=True, file=_STDERR)
            first = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"rank {self.rank} of {self.size}: another process went away or did not answer within timeout_s="
                f"{self.plan.timeout_s} ({first}); the same command goes on from the last checkpoint"
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()
            if before is not None:
                signal.signal(signal.SIGTERM, before)


def _is_of_network(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "NCCL", "Connection", "timeout"))


def join(line: str | None) -> Team:
    """The team that this process belongs to: started by torchrun, or alone.

    Args:
        line: the plan; None shares everything over all processes ("fsdp=auto").

    Raises:
        UserError: the plan is not for this number of processes.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    try:
        plan = Plan.parse("fsdp=auto" if line is None else line, size)
    except UserError:
        if rank:  # all have the same to say: one does
            raise SystemExit(2) from None
        raise
    if size == 1:
        return Team(plan)
    timeout = timedelta(seconds=plan.timeout_s)
    base, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timeout))
    store = dist.PrefixStore(meet(base, rank, size), base)
    team = Team(plan, rank, size, store)
    backend = "cpu:gloo,cuda:nccl" if team.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return team


def meet(store: dist.Store, rank: int, size: int) -> str:
    """A name for this attempt that exactly these processes agree on.

    A launcher that starts all processes again may keep the store, and with it the addresses of the dead: without a new
    name the living connect to those. The number of restarts will not do, each host counts its own. So every process
    says a new word, rank 0 calls the words out until all have heard the same call, and only then says go.
    """
    word = uuid.uuid4().hex
    store.set(f"meet/word/{rank}", word)
    keys = [f"meet/word/{other}" for other in range(size)]
    heard = [f"meet/heard/{other}" for other in range(1, size)]
    while True:
        if rank == 0:
            call = " ".join(store.get(key).decode() for key in keys)
            store.set("meet/call", call)
            if store.check(heard) and all(store.get(key).decode() == call for key in heard):
                store.set("meet/go", call)
                return call.partition(" ")[0]
        else:
            call = store.get("meet/call").decode()
            if word in call.split():
                store.set(f"meet/heard/{rank}", call)
                if store.check(["meet/go"]) and store.get("meet/go").decode() == call:
                    return call.partition(" ")[0]
        time.sleep(_POLL_S)
