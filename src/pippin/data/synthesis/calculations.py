"""The calculations in GSM8K's reference solutions, <<48/2=24>>, run again with another number in place of one.

They say what a final answer depends on. So a number may be asked for in its place where the calculations lead from it
to the answer, and from no other number.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from fractions import Fraction

_NOTE = re.compile(r"<<([^<>\n=]*)=([^<>\n=]*)>>")
_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+|[-+*/()]|\S")
_LONGEST = 200  # characters of one calculation


class Calculations:
    """The calculations of a solution, in order.

    Operands that are an earlier result are taken to stand for it. `known` is False where a calculation cannot be read
    or does not come to its own result.
    """

    def __init__(self, solution: str) -> None:
        self._steps: list[tuple[str, Fraction]] = []
        self.known = False
        for left, right in _NOTE.findall(solution):
            result = _number(right)
            if result is None or len(left) > _LONGEST:
                return
            self._steps.append((left, result))
        try:
            self.known = bool(self._steps) and self._run(None, None) == self._steps[-1][1]
        except (ArithmeticError, ValueError):
            self.known = False

    def determine(self, number: str, answer: str) -> bool:
        """Whether the answer is the last result, and no other value of `number` leads to it.

        The last result must be (a n + b) / (c n + d) in the number n, which takes no value twice: seen at five values.
        """
        value, expected = _number(number), _number(answer)
        if not self.known or value is None or self._steps[-1][1] != expected:
            return False
        try:
            points = [value + shift for shift in (0, 1, 2, 5, 11)]
            return _one_to_one(points, [self._run(value, point) for point in points])
        except (ArithmeticError, ValueError):
            return False

    def _run(self, hidden: Fraction | None, instead: Fraction | None) -> Fraction:
        """The last result with `instead` wherever `hidden` is an operand that is no earlier result."""
        stated: list[Fraction] = []
        results: list[Fraction] = []
        for left, result in self._steps:
            names: dict[str, Fraction] = {}

            def operand(token: str, names: dict[str, Fraction] = names) -> str:
                value = _number(token)
                if value is None:
                    return token
                if value in stated:
                    found = results[len(stated) - 1 - stated[::-1].index(value)]
                else:
                    found = instead if value == hidden and instead is not None else value
                name = f"n{len(names)}"
                names[name] = found
                return name

            tokens = [operand(token) for token in _TOKEN.findall(left)]
            found = _evaluate(tokens, names)
            if hidden is None and found != result:
                raise ValueError("the solution is wrong")
            stated.append(result)
            results.append(found)
        return results[-1]


def _number(text: str) -> Fraction | None:
    text = text.strip().replace(",", "").removeprefix("$")
    return Fraction(text) if re.fullmatch(r"-?(\d+(\.\d+)?|\.\d+)", text) and len(text) < 30 else None


def _evaluate(tokens: Sequence[str], names: dict[str, Fraction]) -> Fraction:
    """The value of an expression of names, + - * / and brackets.

    Raises:
        ValueError: it is something else. ZeroDivisionError: it divides by zero.
    """
    try:
        tree = ast.parse(" ".join(tokens), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("not an expression") from None

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
            if isinstance(node.op, ast.Div):
                return left / right
        raise ValueError("not an expression of + - * /")

    return value(tree)


def _one_to_one(xs: Sequence[Fraction], ys: Sequence[Fraction]) -> bool:
    """Whether points lie on a curve (a x + b) / (c x + d) that is not level: it keeps the cross-ratio of any four.

    Raises:
        ZeroDivisionError: two y are equal.
    """

    def ratio(values: Sequence[Fraction], fourth: int) -> Fraction:
        a, b, c, d = (*values[:3], values[fourth])
        return (a - c) * (b - d) / ((b - c) * (a - d))

    return all(ratio(xs, fourth) == ratio(ys, fourth) for fourth in (3, 4))
