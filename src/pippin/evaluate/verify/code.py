"""Verdicts on generated code by running its tests in a sandbox, and pass@k."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

from pippin.errors import UserError
from pippin.evaluate.verify.verdict import Verdict
from pippin.safety.sandbox import Outcome, Program, Sandbox

_INSIDE = Path(__file__).with_name("code_inside.py")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", flags=re.MULTILINE | re.DOTALL)
# Where a completion of a base model goes on with something else (the stop words of the HumanEval paper).
_BEYOND = re.compile(r"\n(?:class |def |#|if |print|```)")


def check(problem: Mapping[str, Any], completion: str, sandbox: Sandbox, timeout: float = 10.0) -> Verdict:
    """Run a problem's tests against a completion.

    The tests and the completion run in two sandboxes (`Sandbox.run_judged`); only plain data goes between them, and the
    verdict is a random token that the tests' side alone knows and prints after the last assertion.

    Args:
        problem: HumanEval's fields (`prompt`, `test` with a function `check`, `entry_point`; Chen et al. 2021), or
            MBPP's (`test_list`, optionally `test_setup_code` and `test_imports`; Austin et al. 2021).
        completion: the body that continues the prompt, or whole functions; in a Markdown fence or plain.
        timeout: seconds of the clock for all tests of the problem.

    Raises:
        UserError: the problem lacks a field.
    """
    context, tests, entry = _tests(problem)
    judged, played, whole = _run(context, tests, entry, sources(context, completion, entry), sandbox, timeout)
    if whole:
        return Verdict(True, None, "all tests passed")
    if judged.status == "time":
        return Verdict(False, None, f"time: more than {timeout:g} s")
    if played.status in ("time", "memory", "output"):
        return Verdict(False, None, f"{played.status}: the program used more than its limit")
    said = judged.stderr.strip().splitlines()
    return Verdict(False, None, said[-1] if said else f"{judged.status}: the tests did not reach their end")


def passes(tests: Sequence[str], entry: str, completion: str, sandbox: Sandbox, timeout: float = 10.0) -> list[bool]:
    """Which of several tests a completion passes, in one run; what it never came to is not passed.

    Args:
        tests: expressions that shall be true, each of the form of `data.synthesis.code_tests`: they run where the
            verdict is made.
        entry: the function under test.
        completion: whole functions; in a Markdown fence or plain.
        timeout: seconds of the clock for all tests.
    """
    lines = []
    for number, test in enumerate(tests):
        lines += ["try:", f"    assert {test}", f"    print({number}, flush=True)", "except Exception: pass"]
    judged, _, _ = _run("", "\n".join(lines), entry, sources("", completion, entry), sandbox, timeout)
    said = set(judged.stdout.split())  # the program cannot write there
    return [str(number) in said for number in range(len(tests))]


def _run(
    context: str, tests: str, entry: str, programs: list[str], sandbox: Sandbox, timeout: float
) -> tuple[Outcome, Outcome, bool]:
    """The outcomes of the side that judges and of the program, and whether the tests came to their end."""
    token = secrets.token_hex(16)
    inside = _INSIDE.read_text(encoding="utf-8")
    main = "import sys, code_inside\ncode_inside.{}({!r}, *map(int, sys.argv[-2:]))\n"
    judge = {
        "code_inside.py": inside,
        "main.py": main.format("judge", entry),
        "context.py": context,
        "tests.py": tests,
        "token": token,
    }
    player = {
        "code_inside.py": inside,
        "main.py": main.format("play", "sources.json"),
        "sources.json": json.dumps(programs),
    }
    limits = replace(sandbox.limits, seconds=timeout)
    judged, played = sandbox.run_judged(Program(judge), Program(player), limits)
    return judged, played, judged.status == "ok" and judged.stdout.endswith("\n" + token)


def _tests(problem: Mapping[str, Any]) -> tuple[str, str, str]:
    """Context that tests and program share, the tests' text, and the function under test ("" if they name it)."""
    name = problem.get("task_id", "without task_id")
    if "test_list" in problem:
        lines = [*problem.get("test_imports", ()), problem.get("test_setup_code", ""), *problem["test_list"]]
        return "", "\n".join(lines), ""
    missing = [key for key in ("prompt", "test", "entry_point") if not isinstance(problem.get(key), str)]
    if missing:
        raise UserError(
            f"code problem {name}: no text in the field {missing[0]}; it needs prompt, test and entry_point as in "
            "HumanEval, or test_list as in MBPP"
        )
    if not problem["entry_point"].isidentifier():
        raise UserError(f"code problem {name}: entry_point is {problem['entry_point']!r}; it must be a function's name")
    tests = f"{problem['test']}\n\ncheck({problem['entry_point']})\n"
    return problem["prompt"], tests, problem["entry_point"]


def sources(prompt: str, completion: str, entry: str) -> list[str]:
    """The programs that a completion may mean, likeliest first; the first that compiles is taken.

    A completion continues the prompt, or repeats its function whole, or is a body that lost its indentation. What a
    base model wrote beyond the function is cut off only where nothing compiles with it.
    """
    code = _without_fences(completion, entry)
    cut = _BEYOND.split(code, maxsplit=1)[0] if not code.startswith(("def ", "class ", "#")) else code
    texts = [code] if cut == code else [code, cut]
    if not prompt:
        return texts
    found = re.search(rf"^def {re.escape(entry)}\b", prompt, flags=re.MULTILINE)
    before = prompt[: found.start()] if found else ""
    programs = []
    for text in texts:
        indented = "\n".join("    " + line for line in text.split("\n"))
        programs += [prompt + text]
        if re.search(rf"^(?:async )?def {re.escape(entry)}\b", text, flags=re.MULTILINE):
            programs += [f"{before}\n{text}"]
        programs += [f"{prompt}    {text.lstrip()}", f"{prompt}\n{indented}"]
    return programs


def _without_fences(completion: str, entry: str) -> str:
    """The code of a Markdown answer: the block that defines the function, else the first; all where none is fenced."""
    blocks = [str(block) for block in _FENCE.findall(completion)]
    if not blocks:
        return completion
    own = re.compile(rf"^def {re.escape(entry)}\b", flags=re.MULTILINE)
    return next((block for block in blocks if entry and own.search(block)), blocks[0])


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the chance that one of k samples is right, from n of which c are (Chen et al. 2021).

    1 - C(n - c, k) / C(n, k), exact up to the last rounding.

    Raises:
        ValueError: not 0 <= c <= n or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))
