"""What the sandbox says of programs, that nothing is left behind, and that it refuses where it cannot isolate."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pippin.errors import UserError
from pippin.safety import seccomp
from pippin.safety.sandbox import Limits, Program, Sandbox

# Orphans and zombies of the jobs would become children of this process: then it finds one at the end.
CAMPAIGN = """
import ctypes, os, sys
from pippin.safety.sandbox import Limits, Program, Sandbox

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
leaving = "import os, time\\nfor _ in range(3):\\n if os.fork() == 0:\\n  time.sleep(60)\\nprint(2)"
bomb = "import os\\nfor _ in range(8):\\n try: os.fork()\\n except OSError: pass\\nwhile True: pass"
ending = {
    "print(1)": "ok",
    leaving: "ok",
    "raise SystemExit(3)": "error",
    "while True: print('x' * 9999)": "output",
    "x = bytearray(1 << 40)": "memory",
    "import ctypes; ctypes.string_at(0)": "killed",
    "print(3)": "ok",
}
endless = {"import time; time.sleep(60)": "time", bomb: "time", "while True: pass": "time"}


def run(programs, sandbox):
    outcomes = sandbox.run_many([Program({"main.py": text}) for text in programs], workers=2)
    assert [outcome.status for outcome in outcomes] == list(programs.values())


patient, short = Sandbox(Limits(seconds=60)), Sandbox(Limits(seconds=0.3))
run({"print(1)": "ok"}, patient)
opened = len(os.listdir("/proc/self/fd"))
for _ in range(int(sys.argv[1]) // 10):
    run(ending, patient)
    run(endless, short)
assert len(os.listdir("/proc/self/fd")) == opened, os.listdir("/proc/self/fd")
try:
    left = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nothing left")
else:
    raise AssertionError(f"left behind: {left}")
"""


def campaign(jobs: int) -> None:
    done = subprocess.run([sys.executable, "-c", CAMPAIGN, str(jobs)], capture_output=True, text=True)
    assert done.stdout == "nothing left\n", done.stderr


def test_twenty_jobs_leave_nothing(sandbox: Sandbox) -> None:
    campaign(20)


@pytest.mark.slow
def test_two_hundred_jobs_leave_nothing(sandbox: Sandbox) -> None:
    campaign(200)


def test_a_program_dies_with_a_killed_parent(sandbox: Sandbox) -> None:
    parent = """
import os, threading, time
from pippin.safety.sandbox import Limits, Sandbox
sandbox = Sandbox(Limits(seconds=60))
threading.Thread(target=sandbox.run, args=({"main.py": "while True: pass"},)).start()


def below(pid):
    tasks = os.listdir(f"/proc/{pid}/task")
    children = [int(child) for task in tasks for child in open(f"/proc/{pid}/task/{task}/children").read().split()]
    return [pid, *(one for child in children for one in below(child))]


name = ""
while not name.startswith("python"):  # bubblewrap at its very start does not yet end with us
    time.sleep(0.1)
    try:
        found = below(os.getpid())[:3]  # ourselves, bubblewrap, the program
        name = open(f"/proc/{found[2]}/comm").read()
    except (FileNotFoundError, IndexError):
        continue
print(*found, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = process.stdout.readline().split()
    process.kill()
    process.communicate()
    assert len(pids) == 3
    while any(
        Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids
    ):
        time.sleep(0.05)  # for ever where they live on: pytest's time limit tells


def test_an_outcome(sandbox: Sandbox) -> None:
    files: dict[str, str | bytes] = {
        "main.py": """
import sys
from parts import part
print(part.twice(sys.stdin.read()), sys.argv)
print('e', file=sys.stderr)
""",
        "parts/part.py": "def twice(x: str) -> bytes: return x + x + open('raw', 'rb').read().hex()",
        "raw": b"\x00\xff",
    }
    outcome = sandbox.run(files, arguments=["one", "two words"], stdin="ä\n")
    assert (outcome.status, outcome.stderr) == ("ok", "e\n")
    assert outcome.stdout == "ä\nä\n00ff ['main.py', 'one', 'two words']\n"
    assert outcome.seconds > 0


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('x')", "ok"),
        ("raise SystemExit", "ok"),
        ("raise SystemExit(1)", "error"),
        ("raise ValueError", "error"),
        ("not python", "error"),
        ("import os; os.abort()", "killed"),
    ],
)
def test_how_a_program_ended(sandbox: Sandbox, program: str, status: str) -> None:
    assert sandbox.run({"main.py": program}).status == status


def test_much_input_and_output_do_not_wait_for_each_other(sandbox: Sandbox) -> None:
    text = "x" * 600_000
    outcome = sandbox.run({"main.py": "import sys\nfor line in sys.stdin: sys.stdout.write(line)"}, stdin=text)
    assert (outcome.status, outcome.stdout) == ("ok", text)


def test_sets_have_the_same_order_in_every_run(sandbox: Sandbox) -> None:
    program = {"main.py": "print(list({str(i) for i in range(50)}))"}
    assert sandbox.run(program).stdout == sandbox.run(program).stdout


def test_runs_share_nothing(sandbox: Sandbox) -> None:
    assert sandbox.run({"main.py": "open('left', 'w').close()"}).status == "ok"
    assert sandbox.run({"main.py": "import os; print(os.listdir())"}).stdout == "['main.py']\n"


def test_many_come_in_their_order(sandbox: Sandbox) -> None:
    programs = [Program({"main.py": f"import time; time.sleep({0.2 if n == 0 else 0}); print({n})"}) for n in range(4)]
    assert [outcome.stdout for outcome in sandbox.run_many(programs, workers=2)] == ["0\n", "1\n", "2\n", "3\n"]


def test_refuses_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"bubblewrap .* not installed.* not run without isolation; .*apt-get"):
        Sandbox()


def test_refuses_where_bubblewrap_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    for folder in fake.parents[:4]:  # another user has to reach it
        folder.chmod(folder.stat().st_mode | 0o055)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        UserError, match=r"does not work here \(.*(No permissions|denied).*\): .*; allow user namespaces"
    ) as told:
        Sandbox()
    assert "\n" not in str(told.value)


def test_refuses_machines_without_a_filter() -> None:
    with pytest.raises(UserError, match="x86_64 and aarch64, not riscv64"):
        seccomp.program("riscv64")


def test_unsafe_is_only_by_name_and_says_so() -> None:
    with pytest.raises(TypeError):
        Sandbox(Limits(), True)  # type: ignore[misc]
    with pytest.warns(RuntimeWarning, match="WITHOUT ISOLATION"):
        bare = Sandbox(Limits(seconds=0.3), unsafe=True)
    assert not bare.isolated
    assert bare.run({"main.py": "print(1)"}, limits=Limits()).stdout == "1\n"
    # A child that holds the pipes open does not hold up the caller.
    assert bare.run({"main.py": "import os, time\nif os.fork() == 0: time.sleep(60)\nprint(2)"}).stdout == "2\n"
    # Nor does one that closed them.
    assert bare.run({"main.py": "import os, time\nos.close(1); os.close(2)\ntime.sleep(60)"}).status == "time"
