"""Arithmetic word problems with exact answers: drawn, put in other words, turned round, made harder.

A problem is a chain of steps "left operation right" on whole numbers, so its answer is exact and its solution can be
written down. Turned round (MetaMath, Yu et al. 2023) the answer is given and a number of the statement is asked for;
the steps are undone one by one, which shows that there is only one. The families are in `families`. All of it is ours.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from pippin.data.world_words import NAMES, Draw

LARGEST = 10_000  # of any value on the way
TRIES = 2_000
X = "x"

_COMPUTE: dict[str, Callable[[int, int], int]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv,
}  # fmt: skip
_UNDO = {"+": "-", "-": "+", "*": "/", "/": "*"}


class Step(NamedTuple):
    """One operation. Operands are names of numbers or of earlier steps, or digits.

    `says` is the sentence of the solution; {eq} in it stands for the equation.
    """

    name: str
    left: str
    sign: str
    right: str
    says: str


def step(name: str, formula: str, says: str) -> Step:
    """A step from its formula, such as "price * n"."""
    left, sign, right = formula.split()
    return Step(name, left, sign, right, says)


@dataclass(frozen=True)
class Family:
    """Problems of one structure.

    Attributes:
        name, topic: of the family; several share a topic.
        numbers: the smallest and largest value of each number that is stated.
        steps: the solution; the last one's value is the answer.
        wordings: statement and question, with slots for numbers, {who} and `slots`.
        asked: the answer as a noun phrase; {whose} is a person.
        unit: of the answer; "" for a count.
        slots: words to choose from.
    """

    name: str
    topic: str
    numbers: Mapping[str, tuple[int, int]]
    steps: tuple[Step, ...]
    wordings: tuple[tuple[str, str], ...]
    asked: str
    unit: str = ""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        family: where statement and first steps come from.
        wording: which of the family's.
        numbers, words: what its slots hold.
        steps: those of the family, and of what was added.
        extra: the sentences that were added, "" at first; `question` and `asked` go with them.
        hidden: the number that is asked for, "" unless it was turned round.
    """

    family: Family
    wording: int
    numbers: Mapping[str, int]
    words: Mapping[str, str]
    steps: tuple[Step, ...]
    extra: str = ""
    question: str = ""
    asked: str = ""
    hidden: str = ""

    def values(self, **changed: int) -> dict[str, int]:
        """Every number and every step's value, with some numbers changed.

        Raises:
            ValueError: a value is not a whole number from 2 to 10,000.
        """
        found = {**self.numbers, **changed}
        for each in self.steps:
            left, right = _value(each.left, found), _value(each.right, found)
            if each.sign == "/" and (right == 0 or left % right):
                raise ValueError(f"{each.name}: {left} / {right} is not whole")
            found[each.name] = _COMPUTE[each.sign](left, right)
            if not 2 <= found[each.name] <= LARGEST:
                raise ValueError(f"{each.name}: {found[each.name]} is out of range")
        return found

    @property
    def result(self) -> int:
        """The value of the last step."""
        return self.values()[self.steps[-1].name]

    @property
    def answer(self) -> int:
        """What is asked for."""
        return self.numbers[self.hidden] if self.hidden else self.result

    @property
    def text(self) -> str:
        """Statement and question."""
        statement, question = self.family.wordings[self.wording]
        shown = {name: X if name == self.hidden else str(value) for name, value in self.numbers.items()}
        filled = (statement + self.extra).format(**shown, **self.words)
        if self.hidden:
            fact = f"{_upper(self.asked)} is {self.result}{self.in_unit}."
            return f"{filled} {fact} What is {X}?"
        return f"{filled} {(self.question or question).format(**self.words)}"

    @property
    def in_unit(self) -> str:
        return f" {self.family.unit}" if self.family.unit else ""

    @property
    def solution(self) -> str:
        """The steps in words, and the answer at the end."""
        lines = self._undone() if self.hidden else self._said(self.steps)
        return " ".join([*lines, f"The answer is {self.answer}."])

    def _said(self, steps: Iterable[Step]) -> list[str]:
        values = self.values()
        lines = []
        for each in steps:
            left, right = _value(each.left, values), _value(each.right, values)
            equation = f"{left} {each.sign} {right} = {values[each.name]}"
            lines.append(_upper(each.says.format(eq=equation, **self.words)))
        return lines

    def _undone(self) -> list[str]:
        """First what does not need x, then from the result back to x."""
        values, path = self.values(), self._path(self.hidden)
        needs = {each.name for each, _ in path}
        lines = self._said(each for each in self.steps if each.name not in needs)
        for each, unknown in path:
            left_unknown = each.left == unknown
            other = _value(each.right if left_unknown else each.left, values)
            shown = X if unknown == self.hidden else unknown.replace("_", " ")
            known = values[each.name]
            equation = f"{shown} {each.sign} {other}" if left_unknown else f"{other} {each.sign} {shown}"
            if each.sign in "+*" or left_unknown:
                undone = f"{known} {_UNDO[each.sign]} {other}"
            else:  # other - x and other / x are undone by themselves
                undone = f"{other} {each.sign} {known}"
            lines.append(f"From {equation} = {known} follows {shown} = {undone} = {values[unknown]}.")
        return lines

    def _path(self, name: str) -> list[tuple[Step, str]]:
        """The way from the result back to a number: each step with the operand that leads on.

        Empty where the result does not need the number, or a step needs it in both operands.
        """
        needs, operands = {name}, {}
        for each in self.steps:
            found = [operand for operand in (each.left, each.right) if operand in needs]
            if len(found) == 2:
                return []
            if found:
                needs.add(each.name)
                operands[each.name] = (each, found[0])
        path, at = [], self.steps[-1].name
        while at in operands:
            path.append(operands[at])
            at = operands[at][1]
        return path

    def hideable(self) -> list[str]:
        """The numbers of the statement that the result and the others determine."""
        return [name for name in self.numbers if not self.hidden and self._path(name)]


def _value(operand: str, values: Mapping[str, int]) -> int:
    return int(operand) if operand.isdigit() else values[operand]


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def draw_problem(family: Family, draw: Draw) -> Problem:
    """A problem of a family; every value on the way is a whole number from 2 to 10,000.

    Raises:
        ValueError: the family's ranges give none.
    """
    words = {"who": draw.pick(NAMES)} | {name: draw.pick(options) for name, options in family.slots.items()}
    asked = family.asked.format(whose=words["who"], **words)
    wording = draw.below(len(family.wordings))
    for _ in range(TRIES):
        numbers = {name: low + draw.below(high - low + 1) for name, (low, high) in family.numbers.items()}
        problem = Problem(family, wording, numbers, words, family.steps, asked=asked)
        try:
            problem.values()
        except ValueError:
            continue
        return problem
    raise ValueError(f"{family.name}: no numbers in these ranges give whole values")


def rephrased(problem: Problem, number: int) -> Problem | None:
    """The same problem in another of its family's wordings, the `number`-th from its own; None if there are fewer."""
    wordings = len(problem.family.wordings)
    return replace(problem, wording=(problem.wording + 1 + number) % wordings) if number < wordings - 1 else None


def turned_round(problem: Problem, draw: Draw) -> Problem | None:
    """The problem with its answer given and one number of the statement asked for; None where none is determined."""
    names = problem.hideable()
    return replace(problem, hidden=draw.pick(names)) if names else None


# What one more person adds: a sentence and an operation. {a} is what was asked before, {b} the same of that person.
_MORE = (
    ("{b} is {k}{unit} more than {a}.", "+"),
    ("{b} is {k}{unit} less than {a}.", "-"),
    ("{b} is {k} times {a}.", "*"),
    ("{a} is {k} times {b}.", "/"),
)
_NOT_MULTIPLIED = ("years", "degrees", "points")  # nine times an age or a temperature is none


def deepened(problem: Problem, draw: Draw) -> Problem | None:
    """The problem with one more person and one more step (in-depth evolution); None where no number fits."""
    family, words = problem.family, dict(problem.words)
    others = [name for name in NAMES if name not in words.values()]
    if problem.hidden or not others:
        return None
    friend = draw.pick(others)
    depth = len(problem.steps) - len(family.steps) + 1
    name, words[f"friend{depth}"] = f"k{depth}", friend
    asked = family.asked.format(whose=friend, **words)
    for sentence, sign in draw.some(_MORE, len(_MORE)):
        if sign == "*" and family.unit in _NOT_MULTIPLIED:
            continue
        slots = {"a": problem.asked, "b": asked, "unit": problem.in_unit, "k": "{" + name + "}"}
        says = f"{asked} is {{eq}}{problem.in_unit}."
        added = Step(f"result_of_{friend}", problem.steps[-1].name, sign, name, says)
        for _ in range(20):
            longer = replace(
                problem,
                numbers={**problem.numbers, name: 2 + draw.below(8 if sign in "*/" else 40)},
                words=words,
                steps=(*problem.steps, added),
                extra=f"{problem.extra} {_upper(sentence.format(**slots))}",
                question=f"What is {asked}{f', in{problem.in_unit}' if family.unit else ''}?",
                asked=asked,
            )
            try:
                longer.values()
            except ValueError:
                continue
            return longer
    return None
