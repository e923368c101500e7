"""Mathematical questions to begin from, and what becomes of them by rule, with exact answers and without a model.

What a rule can do depends on where a question comes from:

                template (`problems`)                  row of a file with a plain number as its answer
    rephrased   another wording                        -
    reversed    the answer given, a number asked for   the same behind the question, if it has GSM8K's calculations
    deeper      one more person and step               the answer is multiplied and added to
    broader     a template of another topic            a template
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pippin.data.messages import read_text
from pippin.data.records import Split, fraction_of, split_of
from pippin.data.rows import read_rows
from pippin.data.synthesis.calculations import Calculations
from pippin.data.synthesis.families import FAMILIES
from pippin.data.synthesis.problems import Problem, deepened, draw_problem, rephrased, turned_round
from pippin.data.world_words import Draw
from pippin.errors import UserError

Origin = Literal["seed", "rephrased", "reversed", "deeper", "broader"]
TEMPLATES = "maths templates"

_NUMBER = re.compile(r"(?<![\w.,/^\\{-])\d+(?:\.\d+)?(?![\w/^}%]|[.,]\d)")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: of the question; a descendant's begins with its parent's.
        text: as a user asks it.
        kind: the verifier that compares its answers, "gsm8k" (numbers) or "math" (values).
        answer: the ground truth, as its verifier takes it; None if nobody knows.
        origin: how it came about.
        root: text of the seed that it descends from, which decides its side: a descendant of a held-out question is
            held out.
        source: file or generator.
        solution: by rule; "" without one.
        problem: of a template.
    """

    id: str
    text: str
    kind: Literal["gsm8k", "math"]
    answer: str | None
    origin: Origin
    root: str
    source: str
    solution: str = ""
    problem: Problem | None = None

    @property
    def split(self) -> Split:
        return split_of(f"maths/{self.root}")

    def child(self, origin: Origin, number: int, text: str, answer: str | None) -> Question:
        """A descendant of the same side, without a solution."""
        id = f"{self.id}/{origin}{number}"
        return replace(self, id=id, text=text, answer=answer, origin=origin, solution="", problem=None)


def template_seeds(n: int, seed: int = 0) -> list[Question]:
    """`n` word problems, the families in turn."""
    return [
        _of_problem(draw_problem(FAMILIES[i % len(FAMILIES)], Draw("maths", seed, i)), f"maths:{seed}:{i}", "seed")
        for i in range(n)
    ]


def _of_problem(problem: Problem, id: str, origin: Origin, root: str = "") -> Question:
    text = problem.text
    return Question(
        id, text, "gsm8k", str(problem.answer), origin, root or text, TEMPLATES, problem.solution, problem
    )  # fmt: skip


def read_seeds(path: str | Path, n: int | None = None, seed: int = 0) -> list[Question]:
    """The questions of a file, or `n` of them, chosen by a hash: the same whatever their order.

    A row is GSM8K's {"question", "answer"}, whose answer ends in a number, or MATH's {"problem", "answer" or
    "solution"}; without an answer, or with an empty one, there is no ground truth. Equal questions count once.

    Raises:
        UserError: one line that names file, line and field: what is wrong there, and how many lines have errors.
    """
    path = Path(path)
    found: dict[str, Question] = {}
    wrong: list[str] = []
    for number, value in read_rows(path, "questions"):
        try:
            if isinstance(value, ValueError):
                raise value
            question = _of_row(value, f"{path.name}:{number}", path.name)
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        found.setdefault(question.text, question)
    if wrong:
        more = f" ({len(wrong)} lines have errors)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    if not found:
        raise UserError(f"{path}: has no questions; give some")
    questions = list(found.values())
    if n is None or n >= len(questions):
        return questions
    chosen = {q.text for q in sorted(questions, key=lambda q: fraction_of(f"seed/{seed}/{q.text}"))[:n]}
    return [question for question in questions if question.text in chosen]


def _of_row(value: Any, id: str, source: str) -> Question:
    if not isinstance(value, Mapping):
        raise ValueError(f"value {str(value)[:40]!r}: must be an object with question (or problem) and answer")
    is_math = "question" not in value
    if is_math and "problem" not in value:
        raise ValueError('question: missing; expected {"question": ..., "answer": ...} or {"problem": ..., ...}')
    text = read_text(value["problem" if is_math else "question"], "problem" if is_math else "question").strip()
    if not text:
        raise ValueError("question: empty; give its text, or leave the row out")
    field = "solution" if is_math and value.get("answer") is None else "answer"
    answer = None if value.get(field) is None else read_text(value[field], field)
    if answer is not None and not answer.strip():
        answer = None  # as two rows of MATH have it
    if answer is not None and not is_math and final_number(answer) is None:
        raise ValueError(f"answer: value {answer[-40:]!r}: does not end in a number, as GSM8K's do; or name it problem")
    return Question(id, text, "math" if is_math else "gsm8k", answer, "seed", text, source)


def final_number(answer: str) -> str | None:
    """The number that an answer of GSM8K's form ends in, without commas."""
    found = re.search(r"(-?)\$?(\d[\d,]*(?:\.\d+)?)\D*$", answer.rpartition("####")[2])
    return found[1] + found[2].replace(",", "") if found else None


def by_rule(question: Question, origin: Origin, number: int, seed: int) -> Question | None:
    """A descendant of a question by rule; None where there is no rule for it.

    Args:
        number: of several descendants of the same origin.
        seed: of the draws.
    """
    draw = Draw("maths", seed, question.id, origin, number)
    id = f"{question.id}/{origin}{number}"
    if origin == "broader":
        return _of_problem(_elsewhere(question.problem, draw), id, origin, question.root)
    if question.problem is not None:
        if origin == "rephrased":
            problem = rephrased(question.problem, number)
        else:
            problem = (turned_round if origin == "reversed" else deepened)(question.problem, draw)
        return None if problem is None else _of_problem(problem, id, origin, question.root)
    if origin == "rephrased":
        return None
    found = _unknown(question, draw) if origin == "reversed" else _longer(question, draw)
    return None if found is None else question.child(origin, number, *found)


def _elsewhere(problem: Problem | None, draw: Draw) -> Problem:
    """A problem of another topic, with as many steps where there is one."""
    others = [family for family in FAMILIES if problem is None or family.topic != problem.family.topic]
    alike = [family for family in others if problem is not None and len(family.steps) == len(problem.steps)]
    return draw_problem(draw.pick(alike or others), draw)


def maskable(question: Question, proved: bool = False) -> list[str]:
    """The numbers that may be hidden in a question, each once in its text; empty where its answer is no plain number.

    In a template and in a row of GSM8K's form they are those that the calculations lead back to. Where there are no
    calculations any number may do, and samples must show it; with `proved` there is none then.
    """
    found = _NUMBER.findall(question.text)
    once = [number for number in found if found.count(number) == 1]
    if question.problem is not None:
        numbers = {str(question.problem.numbers[name]) for name in question.problem.hideable()}
        return [number for number in once if number in numbers]
    answer = plain_answer(question)
    if answer is None or re.search(r"\bx\b", question.text):
        return []
    if proved or "<<" in (question.answer or ""):
        calculations = Calculations(question.answer or "")
        return [number for number in once if calculations.determine(number, answer)]
    return once


def plain_answer(question: Question) -> str | None:
    """The answer of a question where it is a plain number."""
    if question.answer is None or (question.kind == "math" and not re.fullmatch(r"-?[\d,.]+", question.answer.strip())):
        return None
    return final_number(question.answer)


def _unknown(question: Question, draw: Draw) -> tuple[str, str] | None:
    """The question with a number hidden and its answer given, and the number."""
    numbers, result = maskable(question, proved=True), plain_answer(question)
    if not numbers:
        return None
    hidden = draw.pick(numbers)
    text = re.sub(_NUMBER, lambda match: "x" if match[0] == hidden else match[0], question.text)
    return f"{text} The answer to this question is {result}. Which number is x?", hidden


def _longer(question: Question, draw: Draw) -> tuple[str, str] | None:
    """The question with two more operations on its answer, and what comes out."""
    result = plain_answer(question)
    if result is None or not result.isdigit() or len(result) > 6:
        return None
    k, m = 2 + draw.below(8), 2 + draw.below(40)
    text = f"{question.text} Multiply the number that answers this by {k} and add {m}. What is the result?"
    return text, str(int(result) * k + m)
