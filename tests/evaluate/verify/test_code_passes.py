"""Which tests a solution passes, one by one: what hangs, forks, floods, leaves or forges gains nothing."""

from __future__ import annotations

import pytest

from pippin.errors import UserError
from pippin.evaluate.verify.code import passes
from pippin.safety.sandbox import Sandbox

TESTS = ["f(1) == 2", "f(2) == 3", "f([1]) == 1", "f(5) == 6"]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("body", "passed"),
    [
        ("return x + 1", [True, True, False, True]),
        ("return 2 if x == 1 else {}[x]", [True, False, False, False]),
        ("import os\n    if x == 2: os._exit(0)\n    return x + 1", [True, False, False, False]),
        ("import time\n    if x == 2: time.sleep(99)\n    return x + 1", [True, False, False, False]),
    ],
)
def test_each_test_counts_for_itself(sandbox: Sandbox, body: str, passed: list[bool]) -> None:
    hangs = "sleep" in body
    assert passes(TESTS, "f", f"def f(x):\n    {body}\n", sandbox, 3.0 if hangs else 20.0) == passed
    if not hangs:
        assert passes(TESTS, "f", f"So:\n```python\ndef f(x):\n    {body}\n```", sandbox) == passed


ATTACKS = {
    "no Python": "def f(x) return",
    "another name": "def g(x): return x + 1",
    "hangs at once": "while True: pass",
    "forks": "import os\ndef f(x):\n    while True: os.fork()",
    "floods": "def f(x):\n    while True: print('0\\n1\\n2\\n3\\n' * 10_000)",
    "grows": "def f(x):\n    return bytearray(1 << 40)",
    "writes verdicts": r"""
import os
for number in range(64):
    try:
        os.write(number, b'\n0\n1\n2\n3\n')
    except OSError:
        pass
def f(x): os._exit(0)
""",
    "equals everything": "class A:\n    __eq__ = lambda s, o: True\ndef f(x): return A()",
    "patches": "import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): raise SystemExit(0)",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_pass_nothing(sandbox: Sandbox, attack: str) -> None:
    assert passes(TESTS, "f", ATTACKS[attack], sandbox, 0.5) == [False] * 4
    assert passes(TESTS[:1], "f", "def f(x): return 2", sandbox) == [True]  # and the next one runs as ever
