"""Running the command line on the tiny recipe: in this process (fast) or as a process of its own (killable)."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from pippin import files
from pippin.cli import main
from pippin.pipeline import Graph, read_metrics

TINY = Path(__file__).with_name("tiny.py")
REPOSITORY = TINY.parents[1]
MEASURED = {"tokens_per_s", "step_s", "mfu", "data_wait_s", "checkpoint_stall_s", "memory_bytes"}


class Outcome(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def command(*arguments: str | Path, stdin: bytes = b"") -> Outcome:
    """`pippin ARGUMENTS` in this process; whatever is not a clean exit is raised."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["pippin", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 1 if leave.code else 0
    return Outcome(code, out.getvalue(), err.getvalue())


def one_line_error(outcome: Outcome) -> str:
    """The error that a command ended with, checked to be one clear line; the note about foreign recipes is no error."""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("note: ")]
    assert outcome.code == 2, outcome
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: "), outcome.err
    return lines[0]


def process(*arguments: str | Path) -> list[str]:
    """The command line of `pippin ARGUMENTS` as a process of its own."""
    return [sys.executable, "-m", "pippin.cli", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """One thread, so that runs are comparable bit by bit, on an 80-column screen."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", **changes}


def finish(*arguments: str | Path, timeout_s: float = 240) -> Outcome:
    """`pippin ARGUMENTS` as a process of its own, to its end."""
    done = subprocess.run(
        process(*arguments), capture_output=True, text=True, timeout=timeout_s, env=environment(), cwd=REPOSITORY
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def graph(runs: Path, *overrides: str) -> Graph:
    """The tiny recipe's graph over a directory of runs."""
    from pippin.config import override
    from tests.tiny import PARAMS, tiny

    return Graph(tiny(override(PARAMS, overrides)), runs)


def directory(runs: Path, stage: str) -> Path:
    """The one run directory of a stage."""
    (found,) = runs.glob(f"{stage}-????????")
    return found


def manifest(stage: Path) -> dict[str, str]:
    """Digest by file of a finished stage, each checked against the file itself."""
    listed = {name: digest for name, (_, digest) in files.read_json(stage / "DONE")["files"].items()}
    assert {name: files.digest(stage / name) for name in listed} == listed
    return listed


def artifacts(runs: Path) -> dict[str, str]:
    """Digest of every file of every finished stage; a report that holds times is left out."""
    found = {}
    for done in sorted(runs.glob("*/DONE")):
        if not done.parent.name.startswith("evaluate"):
            found.update({f"{done.parent.name}/{name}": digest for name, digest in manifest(done.parent).items()})
    return found


def record(runs: Path, stage: str) -> dict[str, Any]:
    """A stage's stage.json."""
    return dict(files.read_json(directory(runs, stage) / "stage.json"))


def metrics(stage: Path) -> list[dict[str, Any]]:
    """A stage's metrics without what a clock or the machine's memory measured."""
    entries = read_metrics(stage / "metrics.jsonl")
    return [{k: v for k, v in entry.items() if k not in MEASURED} for entry in entries]


def litter(runs: Path) -> list[str]:
    """Temporary files that were left behind."""
    return sorted(str(path.relative_to(runs)) for path in runs.rglob("*.tmp"))
