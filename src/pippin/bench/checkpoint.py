"""What saving a checkpoint costs the training, and what damage on the disk does at the next load, beside DCP.

One process trains (matrix products on every core) and saves a state of float32 tensors. Stall: how long the call keeps
the loop waiting. Until durable: from the call until every byte has been flushed. Speed meanwhile: the loop's steps in
that time, against the loop alone. Lost: the training time that one save costs, the stall and what the writing takes
from the steps. Everything is per GiB of state. The systems take turns; their files go before the next one's turn.

Damage: a bit or a page of a file of tensors is changed, then the checkpoint is loaded. Silent: it loads, and a tensor
is another one.
"""

from __future__ import annotations

import logging
import random
import shutil
import statistics
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse

from pippin.bench.result import Result, cores
from pippin.errors import UserError
from pippin.progress import Screen
from pippin.training.checkpoint import Checkpoints
from pippin.training.checkpoint_files import MANIFEST, step_directory

OURS, SYNC, ASYNC, STAGED = "Pippin", "DCP save", "DCP async_save", "DCP async_save, staged in a thread"
HF = "DCP, Hugging Face storage"
PAGE = 4096
_ELEMENTS = 4 << 20  # of a tensor: 16 MiB


@dataclass(frozen=True)
class Params:
    """Settings: GiB of state, rounds over all systems, faults of each kind; `runs` is where the files go."""

    gib: float = 0.25
    rounds: int = 7
    faults: int = 100
    matrix: int = 1024
    runs: str = "runs"


@dataclass(frozen=True)
class Save:
    """Seconds per GiB of one save, and the loop's speed while it was written, 1 for full speed."""

    stall: float
    durable: float
    speed: float

    @property
    def lost(self) -> float:
        return self.stall + (self.durable - self.stall) * (1 - self.speed)


class System:
    """Saves a state; `begin` returns when the loop may change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def begin(self, state: dict[str, Tensor], number: int) -> None: ...

    @abstractmethod
    def writing(self) -> bool: ...

    def end(self) -> None:
        """Wait, and remove the files."""

    def close(self) -> None:
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class Ours(System):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._checkpoints = Checkpoints(folder, keep_last=1)

    def begin(self, state: dict[str, Tensor], number: int) -> None:
        self._checkpoints.save(number, state, {})

    def writing(self) -> bool:
        return self._checkpoints.saving

    def end(self) -> None:
        self._checkpoints.wait()
        for step in self.folder.glob("step-*"):
            shutil.rmtree(step)

    def close(self) -> None:
        self._checkpoints.close()
        super().close()


class DcpSave(System):
    """DCP's default writer: each tensor with torch's own pickle format, flushed."""

    def begin(self, state: dict[str, Tensor], number: int) -> None:
        dcp.save(dict(state), checkpoint_id=self.folder / str(number), no_dist=True)

    def writing(self) -> bool:
        return False

    def end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class DcpAsync(System):
    """`dcp.async_save`: as it is called without options, or with a stager that copies in a thread, waited for."""

    def __init__(self, folder: Path, staged: bool) -> None:
        super().__init__(folder)
        options = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=True, use_non_blocking_copy=False
        )
        self._stager = DefaultStager(options) if staged else None
        self._done: Callable[[], bool] = lambda: True

    def begin(self, state: dict[str, Tensor], number: int) -> None:
        response = dcp.async_save(dict(state), checkpoint_id=self.folder / str(number), async_stager=self._stager)
        if isinstance(response, AsyncSaveResponse):  # what it is with a stager
            response.staging_completion.result()
            response = response.upload_completion
        self._done = response.done

    def writing(self) -> bool:
        return not self._done()

    def end(self) -> None:
        while self.writing():
            time.sleep(0.01)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        super().close()
        if self._stager is not None:
            self._stager.close()


def run(params: Params = Params(), quick: bool = False) -> Result:
    """Measure; about a minute and a gigabyte of disk, if nothing else writes to it.

    Args:
        quick: megabytes, one round, few faults: shows that it runs.
    """
    if quick:
        params = Params(1 / 64, 1, 3, 128, params.runs)
    if params.gib <= 0 or params.rounds < 1 or params.faults < 1:
        raise UserError(f"gib={params.gib}, rounds={params.rounds}, faults={params.faults}: must be above 0")
    result = Result("checkpoint")
    folder = Path(params.runs) / "bench-checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        with one_process_group(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)  # DCP logs the damage that it finds
            _costs(params, folder, result)
            _damage(params, folder, result)
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)
        shutil.rmtree(folder, ignore_errors=True)
    return result


@contextmanager
def one_process_group(folder: Path) -> Iterator[None]:
    """The group of one process that `dcp.async_save` asks for."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 1), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _costs(params: Params, folder: Path, result: Result) -> None:
    count = max(1, round(params.gib * 2**30 / 4 / _ELEMENTS))
    elements = min(_ELEMENTS, int(params.gib * 2**28))
    state = {f"parameter.{i}": torch.randn(elements) for i in range(count)}
    gib = count * elements * 4 / 2**30
    case = f"{gib:.3g} GiB of state, one process"
    a = torch.randn(params.matrix, params.matrix)

    def work() -> None:
        torch.mm(a, a)

    systems: dict[str, System] = {
        OURS: Ours(folder / "ours"),
        SYNC: DcpSave(folder / "sync"),
        ASYNC: DcpAsync(folder / "async", staged=False),
        STAGED: DcpAsync(folder / "staged", staged=True),
    }
    found: dict[str, list[Save]] = {name: [] for name in systems}
    rounds = params.rounds + 1  # the first allocates buffers
    with Screen().track(rounds * len(systems), "checkpoint") as bar:
        for number in range(rounds):
            for name, system in systems.items():
                found[name].append(_measure(system, state, number, work, gib))
                bar.advance(1)
    for system in systems.values():
        system.close()
    for name, (first, *saves) in found.items():
        result.row(case, name, "stall of the first save", first.stall, "s/GiB")
        for metric, of in (
            ("stall", lambda save: save.stall),
            ("until durable", lambda save: save.durable),
            ("training time lost", lambda save: save.lost),
        ):
            values = [of(save) for save in saves]
            result.row(case, name, metric, statistics.median(values), "s/GiB", min(values), max(values))
        speeds = [save.speed for save in saves]
        result.row(case, name, "speed meanwhile", statistics.median(speeds), "1", min(speeds), max(speeds))
    pairs = [theirs.stall / ours.stall for ours, theirs in zip(found[OURS][1:], found[SYNC][1:], strict=True)]
    result.ratio(case, "times less stall", SYNC, statistics.median(pairs), ">=", 5)


def _measure(system: System, state: dict[str, Tensor], number: int, work: Callable[[], None], gib: float) -> Save:
    alone = _seconds_of_a_step(work)
    start = time.perf_counter()
    system.begin(state, number)
    stall = time.perf_counter() - start
    steps = 0
    while system.writing():
        work()
        steps += 1
    durable = time.perf_counter() - start
    system.end()
    meanwhile = durable - stall
    speed = min(1.0, steps * alone / meanwhile) if steps else 1.0
    return Save(stall / gib, durable / gib, speed)


def _seconds_of_a_step(work: Callable[[], None]) -> float:
    """Of the loop alone, right before the save; the first steps warm it up."""
    times = []
    for _ in range(25):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.mean(times[5:])


# --- damage


def _damage(params: Params, folder: Path, result: Result) -> None:
    state = {f"parameter.{i}": torch.rand(200, 100) + 0.5 for i in range(8)}
    writers: dict[str, tuple[Callable[[Path], None], Callable[[Path, dict[str, Tensor]], None]]] = {
        OURS: (lambda at: _save_ours(at, state), _load_ours),
        SYNC: (
            lambda at: dcp.save(dict(state), checkpoint_id=at, no_dist=True) and None,
            lambda at, found: dcp.load(found, checkpoint_id=at, no_dist=True),
        ),
        HF: (
            lambda at: (
                dcp.save(dict(state), storage_writer=dcp.HuggingFaceStorageWriter(str(at)), no_dist=True) and None
            ),
            lambda at, found: dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(at)), no_dist=True),
        ),
    }
    for name, (save, load) in writers.items():
        clean = folder / "clean"
        save(clean)
        for kind in ("bit flipped", "page zeroed"):
            chance = random.Random(1)
            silent = 0
            for _ in range(params.faults):
                shutil.rmtree(folder / "damaged", ignore_errors=True)
                damaged = Path(shutil.copytree(clean, folder / "damaged"))
                data_files = [f for f in sorted(damaged.rglob("*")) if f.suffix in (".safetensors", ".distcp")]
                _break(chance.choice(data_files), kind, chance)
                silent += _is_silent(damaged, state, load)
            result.row(f"{kind}, {params.faults} times", name, "silent loads", silent, "1")
            if name == OURS:
                result.ratio(f"{kind}, {params.faults} times", "silent loads", "none", silent, "<=", 0)
        shutil.rmtree(clean)


def _save_ours(at: Path, state: Mapping[str, Tensor]) -> None:
    with Checkpoints(at) as checkpoints:
        checkpoints.save(1, state, {})


def _load_ours(at: Path, found: dict[str, Tensor]) -> None:
    assert (step_directory(at, 1) / MANIFEST).is_file()
    with Checkpoints(at) as checkpoints:
        state, _ = checkpoints.restore(found)
    if state is None:
        raise UserError("set aside")


def _break(file: Path, kind: str, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if kind == "bit flipped":
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
    else:
        at = chance.randrange(0, len(data), PAGE)
        data[at : at + PAGE] = bytes(len(data[at : at + PAGE]))
    file.write_bytes(data)


def _is_silent(at: Path, state: Mapping[str, Tensor], load: Callable[[Path, dict[str, Tensor]], None]) -> bool:
    found = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    try:
        load(at, found)
    except (Exception, CheckpointException):  # the second is no Exception
        return False
    return not all(torch.equal(found[name], tensor) for name, tensor in state.items())
