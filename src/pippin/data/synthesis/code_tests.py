"""Unit tests that a model wrote, as single assertions of a harmless form.

Tests run on the side that decides (`evaluate.verify.code`), so only this may be in them: comparisons of calls of the
function under test with plain values, and a few functions such as `sorted` and `len` around them. No names, attributes,
loops or imports: such a test cannot print a verdict of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

LONGEST = 2_000  # characters of a test
AROUND = (
    "abs", "all", "any", "bool", "dict", "float", "frozenset", "int", "isinstance", "len", "list", "max", "min",
    "object", "round", "set", "sorted", "str", "sum", "tuple",
)  # fmt: skip
_PLAIN = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Call, ast.keyword, ast.Constant, ast.List,
    ast.Tuple, ast.Set, ast.Dict, ast.Subscript, ast.Slice, ast.Name, ast.Load, ast.cmpop, ast.boolop, ast.unaryop,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
)  # fmt: skip
_LINE = re.compile(r"[-*\s`]*(?:\d+[.)])?[\s`]*(assert\b.*?)[\s`]*")  # also as an item of a list
_LARGEST = 64  # exponent; 10 ** 18 is a usual bound in tests


def read_test(line: str, entry: str) -> str:
    """A test as the expression that it asserts, in one form.

    Args:
        line: "assert f(1) == 2", with or without "assert" and a message.
        entry: the function under test; the expression calls it.

    Raises:
        ValueError: why it is no such test.
    """
    if len(line) > LONGEST:
        raise ValueError("too long")
    try:
        body = ast.parse(line.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("not Python") from None
    if len(body) != 1 or not isinstance(body[0], ast.Assert | ast.Expr):
        raise ValueError("not one assertion")
    tree = body[0].test if isinstance(body[0], ast.Assert) else body[0].value
    called = False
    for node in ast.walk(tree):
        if not isinstance(node, _PLAIN):
            raise ValueError(f"{type(node).__name__} is not allowed")
        if isinstance(node, ast.Name) and node.id not in AROUND and node.id != entry:
            raise ValueError("another name")
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
            raise ValueError("a call of something else")
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not _small(node.right):
            raise ValueError("a large power")
        called = called or (isinstance(node, ast.Call) and ast.unparse(node.func) == entry)
    if not called:
        raise ValueError("does not call the function")
    return ast.unparse(tree)


def _small(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) <= _LARGEST


def read_tests(text: str, entry: str) -> list[str]:
    """The tests of a text, one a line, in order and none twice; every other line is passed over."""
    found = []
    for line in text.splitlines():
        written = _LINE.fullmatch(line) if len(line) <= LONGEST else None
        if written:
            try:
                found.append(read_test(written[1], entry))
            except ValueError:
                continue
    return list(dict.fromkeys(found))


def renamed(test: str, entry: str, name: str) -> str:
    """The test of another function."""
    tree = ast.parse(test, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == entry:
            node.id = name
    return ast.unparse(tree)


def as_check(tests: Iterable[str]) -> str:
    """The tests as the `test` field of HumanEval's form; the function under test stands under its own name."""
    lines = "".join(f"    assert {test}\n" for test in tests)
    return f"def check(candidate):\n{lines}"
