"""Problems of ours with reference solutions, in HumanEval's form: each solution passes, a stub and any other fail.

HumanEval's own 164 solutions are run by test_code.py where the file is at hand.
"""

from __future__ import annotations

from typing import Any

import pytest

from pippin.errors import UserError
from pippin.evaluate.verify.code import check
from pippin.safety.sandbox import Sandbox

# Signature, body, and arguments with what is expected of them.
PROBLEMS: list[tuple[str, str, list[tuple[str, object]]]] = [
    ("gaps(xs)", "return [b - a for a, b in zip(xs, xs[1:])]", [("[1, 4, 9]", [3, 5]), ("[7]", [])]),
    ("longest(words)", "return max(words, key=len, default='')", [("['a', 'bcd', 'ef']", "bcd"), ("[]", "")]),
    ("digits(n)", "return sum(map(int, str(abs(n))))", [("-407", 11), ("0", 0)]),
    ("title(text)", "return ' '.join(w[:1].upper() + w[1:] for w in text.split(' '))", [("'it is'", "It Is")]),
    ("runs(text)", "import itertools\n    return [(k, len(list(g))) for k, g in itertools.groupby(text)]",
     [("'aab'", [("a", 2), ("b", 1)]), ("''", [])]),
    ("prime(n)", "return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))",
     [("97", True), ("91", False), ("1", False)]),
    ("merge(a, b)", "return sorted(a + b)", [("[1, 5], [2, 9]", [1, 2, 5, 9])]),
    ("roman(n)", "out = ''\n    for v, r in ((10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n"
     "        out += r * (n // v)\n        n %= v\n    return out", [("29", "XXIX"), ("4", "IV")]),
    ("flat(xs)", "return sum((flat(x) if isinstance(x, list) else [x] for x in xs), [])",
     [("[1, [2, [3, []]], 4]", [1, 2, 3, 4])]),
    ("caesar(text, k)", "return ''.join(chr((ord(c) - 97 + k) % 26 + 97) if c.islower() else c for c in text)",
     [("'abz!', 2", "cdb!")]),
    ("transpose(rows)", "return [list(column) for column in zip(*rows)]", [("[[1, 2], [3, 4]]", [[1, 3], [2, 4]])]),
    ("steps(n)", "a, b = 1, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a", [("5", 8), ("0", 1)]),
    ("balanced(text)", "depth = 0\n    for c in text:\n        depth += (c == '(') - (c == ')')\n"
     "        if depth < 0:\n            return False\n    return depth == 0",
     [("'(()())'", True), ("')('", False), ("'(('", False)]),
    ("common(a, b)", "return sorted(set(a) & set(b))", [("[3, 1, 2], [2, 3, 4]", [2, 3])]),
    ("mode(xs)", "return min(set(xs), key=lambda x: (-xs.count(x), x))", [("[2, 1, 2, 1, 3]", 1)]),
    ("binary(n)", "return format(n, 'b')", [("10", "1010"), ("0", "0")]),
    ("chunks(xs, n)", "return [xs[i : i + n] for i in range(0, len(xs), n)]",
     [("[1, 2, 3], 2", [[1, 2], [3]])]),
    ("mean(xs)", "return sum(xs) / len(xs) if xs else None", [("[1, 2]", 1.5), ("[]", None)]),
    ("palindrome(text)", "kept = [c.lower() for c in text if c.isalnum()]\n    return kept == kept[::-1]",
     [("'A man, a plan, a canal: Panama'", True), ("'ab'", False)]),
    ("running(xs)", "import itertools\n    return list(itertools.accumulate(xs, max))",
     [("[1, 3, 2, 5]", [1, 3, 3, 5])]),
]  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox()
    except UserError as error:
        pytest.skip(str(error))


def problem(number: int) -> dict[str, Any]:
    signature, _, cases = PROBLEMS[number]
    name = signature.partition("(")[0]
    checks = "".join(f"    assert candidate({given}) == {expected!r}\n" for given, expected in cases)
    return {
        "task_id": f"Own/{number}", "prompt": f"def {signature}:\n", "entry_point": name,
        "test": f"def check(candidate):\n{checks}",
    }  # fmt: skip


def test_reference_solutions_pass_and_stubs_and_other_solutions_fail(sandbox: Sandbox) -> None:
    verdicts: dict[str, list[bool]] = {"own": [], "stub": [], "other": []}
    for number, (_, body, _) in enumerate(PROBLEMS):
        signature, other, _ = PROBLEMS[number - 1]
        parameters = signature.partition("(")[2]
        renamed = f"def {problem(number)['entry_point']}({parameters}:\n    {other}\n"
        for kind, completion in (("own", f"    {body}\n"), ("stub", "    return\n"), ("other", renamed)):
            verdicts[kind].append(check(problem(number), completion, sandbox).correct)
    assert verdicts == {"own": [True] * 20, "stub": [False] * 20, "other": [False] * 20}
