"""Which of several solutions is kept, and with which of the tests: from who passes what alone (afm 5.10).

The report keeps the solution with the most passes, above a threshold. Ours beside it, as it says nothing of it: tests
that every known wrong program passes say nothing and are left out first; tests that no solution passes, and others that
the kept one fails, are left out of the triplet, so that its own tests accept it. Those count against the threshold all
the same: without them a mistake that all solutions share would not be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Programs that solve nothing: a test that all of them pass is empty.
STUBS = ("None", "0", "True", "''", "[]", "args[0] if args else None")


class Selection(NamedTuple):
    """The outcome.

    Attributes:
        solution: the number of the kept one, or None.
        tests: the numbers of the tests that go with it, or that were counted where none is kept.
        share: of the counted tests that the best solution passes.
        reason: why none is kept; "".
        never, empty: the numbers of tests that no solution passes, and that every wrong program passes.
    """

    solution: int | None
    tests: tuple[int, ...]
    share: float
    reason: str
    never: tuple[int, ...]
    empty: tuple[int, ...]


def select(
    passed: Sequence[Sequence[bool]], wrong: Sequence[Sequence[bool]], threshold: float, min_tests: int
) -> Selection:
    """Choose among solutions.

    Args:
        passed: for each solution, whether it passes each test.
        wrong: the same for programs that are known to be wrong, such as `STUBS`.
        threshold: the least share of the counted tests that a solution passes.
        min_tests: the fewest tests that are counted, and that go with a solution.

    Equal solutions: the first is taken.
    """
    tests = range(len(passed[0]) if passed else 0)
    empty = tuple(t for t in tests if wrong and all(row[t] for row in wrong))
    counted = tuple(t for t in tests if t not in empty)
    never = tuple(t for t in counted if not any(row[t] for row in passed))
    if len(counted) < min_tests:
        return Selection(None, counted, 0.0, "too few tests", never, empty)
    best = max(range(len(passed)), key=lambda number: sum(passed[number][t] for t in counted))
    kept = tuple(t for t in counted if passed[best][t])
    share = len(kept) / len(counted)
    if share < threshold:
        return Selection(None, counted, share, "below the threshold", never, empty)
    if len(kept) < min_tests:
        return Selection(None, counted, share, "too few tests", never, empty)
    return Selection(best, kept, share, "", never, empty)


def stubs(prefix: str) -> str:
    """A program with the functions `<prefix>0`, `<prefix>1` ..., one for each of `STUBS`, of any arguments."""
    return "".join(f"def {prefix}{i}(*args, **kwargs):\n    return {value}\n\n" for i, value in enumerate(STUBS))
