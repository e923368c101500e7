"""torchrun and `pippin run`: the same command line, lost and stopped processes, signals, and what a user got wrong."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.running import (
    REPOSITORY,
    TINY,
    artifacts,
    command,
    directory,
    environment,
    metrics,
    one_line_error,
    record,
)

from pippin.data.loader import Batch, Loader
from pippin.model.cross_entropy import Loss
from pippin.model.transformer import Transformer
from pippin.stages import training

LONG = ("core.steps=40", "core.compute=float32", "core.lr=0.001")


def launch(*arguments: str | Path, processes: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """`torchrun ... pippin run TINY core ARGUMENTS`, in a process group of its own."""
    line = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
        "--max-restarts", str(restarts), "-m", "pippin.cli", "run", str(TINY), "core", *map(str, arguments),
    ]  # fmt: skip
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=REPOSITORY,
        start_new_session=True,
    )  # fmt: skip


def ended(child: subprocess.Popen[str], timeout_s: float = 200) -> tuple[int, str]:
    try:
        out, _ = child.communicate(timeout=timeout_s)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return child.returncode, out


def workers(launcher: int) -> list[int]:
    """The processes that a launcher has started, in the order of their ranks."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True, check=False)
    pids = [int(word) for word in found.stdout.split()]
    ranks = {}
    for pid in pids:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks.update({int(word[5:]): pid for word in words if word.startswith(b"RANK=")})
    return [ranks[rank] for rank in sorted(ranks)]


def wait_until(moment: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not moment():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.005)


def saved(runs: Path, after: int) -> Callable[[], bool]:
    """A checkpoint of at least this step is there."""
    return lambda: any(int(p.name[5:]) >= after for p in runs.glob("core-????????/checkpoint/step-*"))


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Path:
    """Runs in which everything before training is done."""
    runs = tmp_path / "runs"
    runs.mkdir()
    for stage in ("curate", "tokenizer", "tokens"):
        done = directory(finished, stage)
        shutil.copytree(done, runs / done.name)
    return runs


@pytest.fixture(scope="module")
def undisturbed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LONG on two processes, to its end."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    for stage in ("curate", "tokenizer", "tokens"):
        done = directory(finished, stage)
        shutil.copytree(done, runs / done.name)
    code, out = ended(launch(*LONG, "--runs", runs))
    assert code == 0, out
    return runs


def test_sigterm_saves_and_the_same_command_goes_on(
    finished: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Loader.rows

    def rows_and_signal(self: Loader, step: int, start: int, stop: int) -> Batch:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return rows(self, step, start, stop)

    with mock.patch.object(Loader, "rows", rows_and_signal):
        outcome = command("run", TINY, "core", "--runs", begun)
    assert outcome.code == 128 + signal.SIGTERM
    assert "asked to end after 3 steps; they are saved; the same command goes on from here" in outcome.err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    outcome = command("run", TINY, "core", "--runs", begun)
    assert outcome.code == 0, outcome
    core = directory(begun, "core")
    assert "resumed at step 3" in (core / "log").read_text()
    expected = {name: digest for name, digest in artifacts(finished).items() if name.startswith(core.name)}
    assert expected
    assert {name: digest for name, digest in artifacts(begun).items() if name.startswith("core")} == expected
    assert metrics(core) == metrics(directory(finished, "core"))


def test_bad_steps_name_their_batch(begun: Path) -> None:
    def loss_without_a_number(model: Transformer, z_loss: float, batch: Batch, step: int, **more: Any) -> Loss:
        loss = training.next_token_loss_before(model, z_loss, batch, step, **more)
        factor = float("nan") if step == 1 else 1.0
        return Loss(loss.total * factor, loss.nll * factor, loss.count)

    with (
        mock.patch.object(training, "next_token_loss_before", training.next_token_loss, create=True),
        mock.patch.object(training, "next_token_loss", loss_without_a_number),
    ):
        assert command("run", TINY, "core", "core.steps=3", "--runs", begun).code == 0
    lines = (directory(begun, "core") / "log").read_text().splitlines()
    batch = r"batch: seed 0, step 1, rows 2\.\.3 \((1 of stories, 1 of tasks|2 of \w+)\)"
    assert any(
        re.fullmatch(rf"step 1 skipped: gradient norm nan; nothing was changed; {batch}", line) for line in lines
    )
    assert any(re.fullmatch(rf"step 1: loss is nan; {batch}", line) for line in lines)
    assert sum("step 0" in line or "step 2" in line for line in lines) == 0
    assert record(begun, "core")["results"]["skipped_steps"] == 1


def test_the_plan_is_no_part_of_the_result(finished: Path, begun: Path) -> None:
    outcome = command("run", TINY, "core", "--runs", begun, "--parallel", "micro_batch=1")
    assert outcome.code == 0, outcome
    mine, theirs = record(begun, "core"), record(finished, "core")
    assert mine["id"] == theirs["id"]
    assert mine["parallel"] == "micro_batch=1" and "parallel" not in theirs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fsdp=2", "needs 2 processes, there are 1"),
        ("micro_batch=3", "micro_batch=3 does not divide the 2 rows of a process"),
        ("fdsp=2", "'fdsp=2'"),
    ],
)
def test_a_bad_plan_ends_before_anything_runs(tmp_path: Path, line: str, message: str) -> None:
    error = one_line_error(command("run", TINY, "core", "--runs", tmp_path / "runs", "--parallel", line))
    assert message in error
    assert not (tmp_path / "runs").exists()


HANGS = """
import time
from pippin.training.plan import Plan
from pippin.training.processes import Team

def hang():
    time.sleep(60)

team = Team(Plan(fsdp=2, timeout_s=1), 0, 2)
with team.training():
    team.alive()
    hang()
"""


def test_a_process_that_hangs_shows_its_stack_and_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, env=environment(), cwd=REPOSITORY, timeout=100
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in hang" in done.stderr


@pytest.mark.slow
def test_a_killed_rank_costs_nothing(undisturbed: Path, begun: Path) -> None:
    child = launch(*LONG, "--runs", begun, restarts=3)
    wait_until(saved(begun, 10), child)
    os.kill(workers(child.pid)[1], signal.SIGKILL)
    code, out = ended(child)
    assert code == 0, out
    core = directory(begun, "core")
    assert "resumed at step" in (core / "log").read_text()
    assert metrics(core) == metrics(directory(undisturbed, "core"))
    assert artifacts(begun) == artifacts(undisturbed)


@pytest.mark.slow
def test_a_stopped_rank_is_noticed(undisturbed: Path, begun: Path) -> None:
    child = launch(*LONG, "--runs", begun, "--parallel", "fsdp=2 timeout_s=5", restarts=3)
    wait_until(saved(begun, 10), child)
    os.kill(workers(child.pid)[1], signal.SIGSTOP)
    code, out = ended(child, 280)
    assert code == 0, out
    assert "did not answer within timeout_s=5" in out or "Timeout (0:00:07)!" in out
    assert re.search(r"(Thread|Current thread) 0x", out)  # where it waited
    assert metrics(directory(begun, "core")) == metrics(directory(undisturbed, "core"))


@pytest.mark.slow
def test_one_rank_that_is_told_to_end_ends_all(undisturbed: Path, begun: Path) -> None:
    child = launch(*LONG, "--runs", begun)
    wait_until(saved(begun, 10), child)
    os.kill(workers(child.pid)[1], signal.SIGTERM)
    code, out = ended(child)
    assert code != 0
    assert out.count("they are saved; the same command goes on from here") == 1, out
    code, out = ended(launch(*LONG, "--runs", begun))
    assert code == 0, out
    assert "resumed at step" in (directory(begun, "core") / "log").read_text()
    assert metrics(directory(begun, "core")) == metrics(directory(undisturbed, "core"))


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_batches(undisturbed: Path, begun: Path) -> None:
    child = launch(*LONG, "--runs", begun)
    wait_until(saved(begun, 10), child)
    os.kill(workers(child.pid)[0], signal.SIGTERM)
    ended(child)
    outcome = command("run", TINY, "core", *LONG, "--runs", begun)
    assert outcome.code == 0, outcome
    core = directory(begun, "core")
    assert "resumed at step" in (core / "log").read_text()
    for mine, theirs in zip(metrics(core), metrics(directory(undisturbed, "core")), strict=True):
        assert mine.keys() == theirs.keys()
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """On the tiny recipe, with heads that two processes can share; each command goes on where the last one ended."""
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ torchrun (.*)$", page, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.replace("quickstart", f"{TINY} shape.n_kv_heads=2"))
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *words, "--runs", str(tmp_path)],
            capture_output=True, text=True, env=environment(), cwd=REPOSITORY, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    plans = [str(record(tmp_path, stage)["parallel"]) for stage in ("core", "prune", "distill")]
    assert all(word in plan for word, plan in zip(("fsdp=2", "tensor=2", "context=2"), plans, strict=True))
    assert (directory(tmp_path, "distill") / "DONE").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "overrides", "message"),
    [
        ("tensor=2", (), "tensor=2 does not divide n_kv_heads=1"),
        ("fsdp=2", ("core.batch_size=1",), "2 processes, but a batch has batch_size=1 rows"),
        ("context=2", ("core.seq_len=62",), "seq_len=62 is not a multiple"),
        ("fsdp=2 tensor=2", (), "needs 4 processes, there are 2"),
    ],
)
def test_what_is_wrong_is_said_once(begun: Path, line: str, overrides: tuple[str, ...], message: str) -> None:
    code, out = ended(launch(*overrides, "--runs", begun, "--parallel", line))
    assert code != 0
    said = [each for each in out.splitlines() if "error: " in each and message in each]
    assert len(said) == 1, out
    assert not any(begun.glob("core-*"))
    assert "Traceback (most recent call last)" not in out.partition("ChildFailedError")[0].partition("E1")[0]
