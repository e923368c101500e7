"""kill -9 at any moment, then the same command: it ends with the same bits as the run that nothing disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import REPOSITORY, TINY, artifacts, directory, environment, finish, litter, metrics, process, record
from tests.tiny import tiny

TRAINED = ("core", "prune", "distill", "continued", "lengthen", "sft", "summary", "recover", "control")
Moment = Callable[[], bool]


def kill_at(moment: Moment, arguments: list[str]) -> bool:
    """Start a process, kill it as soon as `moment()` holds; whether it was killed before it ended."""
    child = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(), cwd=REPOSITORY
    )
    try:
        deadline = time.monotonic() + 200
        while child.poll() is None and not moment():
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.001)
    finally:
        child.kill()
        _, err = child.communicate()
    assert child.returncode in (0, -signal.SIGKILL), err.decode()
    return child.returncode != 0


def begun(runs: Path, stage: str) -> Moment:
    """The stage has a directory of its own."""
    return lambda: any(runs.glob(f"{stage}-????????"))


def after(moment: Moment, delay_s: float) -> Moment:
    """Some time after another moment."""
    since: list[float] = []

    def holds() -> bool:
        if not since and moment():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= delay_s

    return holds


def checkpointed(runs: Path, stage: str) -> Moment:
    """The stage has a checkpoint."""
    return lambda: any(runs.glob(f"{stage}-????????/checkpoint/step-*"))


def same_as_undisturbed(runs: Path, finished: Path) -> None:
    """Every artifact, result and metric; the evaluation is left out, it has times among its results."""
    assert artifacts(runs) == artifacts(finished)
    assert litter(runs) == []
    for name in (name for name in tiny() if name != "evaluate"):
        mine, theirs = record(runs, name), record(finished, name)
        assert mine["id"] == theirs["id"]
        assert mine["results"] == theirs["results"], name
    for name in TRAINED:
        assert metrics(directory(runs, name)) == metrics(directory(finished, name)), name


def resumed(runs: Path) -> list[str]:
    return [log.parent.name for log in runs.glob("*/log") if "resumed at step" in log.read_text(encoding="utf-8")]


def test_killed_runs_end_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    command = ["run", TINY, "summary", "recover", "control", "--runs", tmp_path]
    chance = random.Random(7)
    moments = [
        after(begun(tmp_path, chance.choice(["curate", "tokenizer", "tokens"])), chance.uniform(0, 0.3)),
        checkpointed(tmp_path, chance.choice(["core", "distill", "sft"])),
        after(begun(tmp_path, chance.choice(["summary", "compress", "recover", "control"])), chance.uniform(0, 0.3)),
    ]
    assert [kill_at(moment, process(*command)) for moment in moments] == [True, True, True]
    assert finish(*command).code == 0
    same_as_undisturbed(tmp_path, finished)
    assert resumed(tmp_path)


# A process that kills itself at the n-th call of a function, before or after the call: the moments that no clock hits.
SELF_KILL = """
import itertools, os, pkgutil, signal, sys

module, name, n, when = sys.argv[1:5]
sys.argv = ["pippin", *sys.argv[5:]]
from pippin.cli import main

owner = pkgutil.resolve_name(module)
real, calls = getattr(owner, name), itertools.count(1)

def killing(*arguments, **named):
    last = next(calls) == int(n)
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if last and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killing)
main()
"""


def self_kill(function: str, n: int, when: str, runs: Path) -> bool:
    """Run until the n-th call of `function`; whether it came to that."""
    module, _, name = function.rpartition(".")
    arguments = [sys.executable, "-c", SELF_KILL, module, name, str(n), when, "run", str(TINY), "--runs", str(runs)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, env=environment(), cwd=REPOSITORY)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_campaign_of_kills(finished: Path, tmp_path: Path) -> None:
    """25 kills: at file operations counted from each start, in each kind of stage, and at random times."""
    chance = random.Random(11)
    kills = 0
    at_calls = [
        ("os.replace", 3, "before"),  # in curate: the first files
        ("os.replace", 12, "after"),
        ("pippin.stages.tokenize.train_tokenizer", 1, "after"),
        ("pippin.files.write_json", 4, "before"),  # in tokenize: the index
        ("pippin.training.checkpoint_files.write_shard", 1, "after"),  # in a checkpoint that is not named yet
        ("pippin.training.checkpoint_files.write_shard", 2, "before"),
        ("os.rename", 1, "before"),
        ("os.rename", 1, "after"),
        ("pippin.pipeline._manifest", 1, "before"),  # all done but DONE
        ("pippin.pipeline._manifest", 1, "after"),
        ("shutil.rmtree", 3, "before"),
        ("pippin.training.checkpoint.Checkpoints.save", 1, "after"),
        ("pippin.interop.hf.save_file", 1, "after"),
        ("pippin.pipeline.Context.log", 5, "after"),
        ("pippin.interop.peft.save_file", 1, "before"),
    ]
    for function, n, when in at_calls:
        kills += self_kill(function, n, when, tmp_path)
        assert not [d for d in tmp_path.iterdir() if (d / "DONE").exists() and not (d / "stage.json").exists()]
    run = process("run", TINY, "--runs", tmp_path)
    for name in [name for name in tiny() if not list(tmp_path.glob(f"{name}-*/DONE"))]:
        spent_s = record(finished, name)["seconds"]
        for _ in range(2):
            kills += kill_at(after(begun(tmp_path, name), chance.uniform(0, spent_s)), run)
    assert kills >= 25, kills
    assert finish("run", TINY, "--runs", tmp_path).code == 0
    same_as_undisturbed(tmp_path, finished)
    assert len(resumed(tmp_path)) >= 3, resumed(tmp_path)
