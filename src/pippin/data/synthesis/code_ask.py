"""What a model is asked for programming questions, their tests and their solutions, and how its answers are read."""

from __future__ import annotations

import ast
import re
from typing import NamedTuple

LONGEST = 3_000  # characters of a question
SHORTEST = 20
_DEF = re.compile(r"^[ \t]*(def\s+\w+\s*\(.*\))[^\n:]*:[ \t]*$", re.MULTILINE)
_EMPTY = re.compile(r"\s*(?:```.*|pass|\.\.\.|\"{3}|'{3})\s*$")  # a line that says nothing without the function
_QUESTION = (
    "Write one question of a job interview for programmers about this topic: {topic}. It asks for one Python function "
    "that takes plain values (numbers, texts, lists, dictionaries), returns one, and needs the standard library alone. "
    "First write the first line of the function, such as\ndef name(first, second):\nand then the question: a few "
    "sentences that say exactly what is returned, in edge cases, too. Write no solution and no examples."
)
_TESTS = (
    "{question}\n\nWrite {n} tests of this function that differ from each other, edge cases among them. Each is one "
    "line of the form\nassert {entry}(...) == ...\nwith plain values written out. Answer with these lines alone."
)
_SOLUTION = "{question}\n\nAnswer with the Python code alone."


class Question(NamedTuple):
    """What is asked for: a text, and the function's name with its arguments."""

    text: str
    signature: str

    @property
    def entry(self) -> str:
        return self.signature.partition("(")[0]

    @property
    def message(self) -> str:
        """The question as a user's message."""
        return f"{self.text}\n\nWrite it as a Python function that begins with `def {self.signature}:`."


def ask_question(topic: str) -> list[dict[str, str]]:
    return _user(_QUESTION.format(topic=topic))


def ask_tests(question: Question, n: int) -> list[dict[str, str]]:
    return _user(_TESTS.format(question=question.message, n=n, entry=question.entry))


def ask_solution(question: Question) -> list[dict[str, str]]:
    return _user(_SOLUTION.format(question=question.message))


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def read_question(text: str) -> Question:
    """The question in a model's answer: the line of the function, and all else without code fences.

    Raises:
        ValueError: why it is none, in a few words.
    """
    found = _DEF.findall(text)
    if len(found) != 1:
        raise ValueError("not one function")
    try:
        function = ast.parse(f"{found[0]}: pass").body[0]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("not one function") from None
    assert isinstance(function, ast.FunctionDef)
    for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
        argument.annotation = None
    rest = "\n".join(line for line in _DEF.sub("", text).splitlines() if not _EMPTY.match(line))
    if re.search(r"^[ \t]+return\b|^[ \t]*assert\b", rest, re.MULTILINE):
        raise ValueError("holds code")
    rest = re.sub(r"\n{3,}", "\n\n", rest).strip()
    if not SHORTEST <= len(rest) <= LONGEST:
        raise ValueError("too short" if len(rest) < SHORTEST else "too long")
    return Question(rest, f"{function.name}({ast.unparse(function.args)})")
