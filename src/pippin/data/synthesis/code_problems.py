"""Programming questions without a model: parametrised problems with right and wrong solutions, and tests.

A problem has what a model would write: a question, tests (one of them with a wrong expectation and one that says
nothing, as models write them, too) and several solutions, of which some are wrong on purpose; which ones is not told to
the selection. Expectations come from a reference of its own, not from the solutions. All of it is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template as Text
from typing import Any, NamedTuple

from pippin.data.world_words import Draw

TESTS = 6  # drawn ones, beside the edge cases


@dataclass(frozen=True)
class Template:
    """A family of problems; "$k" in its texts stands for the number k that is drawn.

    Attributes:
        topic: of `code_topics.TOPICS`.
        signature: the first line of the function, without "def".
        question: what it shall do.
        numbers: the smallest and largest value of each number.
        reference: the answer, from the function's arguments and the numbers by name.
        arguments: the arguments of one test.
        edges: more of them that are always tested.
        right, wrong: bodies of the function.
    """

    topic: str
    signature: str
    question: str
    numbers: Mapping[str, tuple[int, int]]
    reference: Callable[..., Any]
    arguments: Callable[[Draw], tuple[Any, ...]]
    edges: tuple[tuple[Any, ...], ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def entry(self) -> str:
        return self.signature.partition("(")[0]


class Problem(NamedTuple):
    """A question with its tests and solutions.

    Attributes:
        tests: expressions that shall be true.
        solutions: whole programs, right and wrong ones mixed.
        right: the numbers of the right solutions; for reports and tests, never for the selection.
        planted: the numbers of the tests with a wrong expectation and without one; as `right`.
    """

    topic: str
    question: str
    signature: str
    tests: tuple[str, ...]
    solutions: tuple[str, ...]
    right: frozenset[int]
    planted: tuple[int, int]


def problem(template: Template, seed: int, index: int) -> Problem:
    """One problem of a template, a pure function of seed and index."""
    draw = Draw("code", template.topic, seed, index)
    numbers = {name: low + draw.below(high - low + 1) for name, (low, high) in template.numbers.items()}
    tests = []
    for arguments in (*template.edges, *(template.arguments(draw) for _ in range(TESTS))):
        expected = template.reference(*copy.deepcopy(arguments), **numbers)
        tests.append(f"{_call(template.entry, arguments)} == {expected!r}")
    tests = list(dict.fromkeys(tests))
    arguments = template.arguments(draw)
    expected = _spoilt(template.reference(*copy.deepcopy(arguments), **numbers))
    wrong_test = f"{_call(template.entry, arguments)} == {expected!r}"
    empty_test = f"isinstance({_call(template.entry, arguments)}, object)"
    tests = draw.some([*tests, wrong_test, empty_test], len(tests) + 2)
    written = [*((text, True) for text in template.right), *((text, False) for text in template.wrong)]
    written = draw.some(written, len(written))
    return Problem(
        template.topic,
        Text(template.question).substitute(numbers),
        template.signature,
        tuple(tests),
        tuple(Text(f"def {template.signature}:\n{_indented(body)}").substitute(numbers) for body, _ in written),
        frozenset(number for number, (_, right) in enumerate(written) if right),
        (tests.index(wrong_test), tests.index(empty_test)),
    )


def _call(entry: str, arguments: tuple[Any, ...]) -> str:
    return f"{entry}({', '.join(map(repr, arguments))})"


def _spoilt(value: Any) -> Any:
    """A value of the same kind that is another one, and that no usual mistake gives."""
    if isinstance(value, bool):
        return not value
    if value is None or isinstance(value, int | float):
        return (value or 0) + 1_000_003
    if isinstance(value, str):
        return value + "~"
    if isinstance(value, dict):
        return value | {"~": 0}
    return type(value)([*value, "~"])


def _indented(body: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in body.strip("\n").split("\n"))
