"""What a judge is asked, and how its verdict is read: points for one answer, or the better of two judgements.

The words are ours; the rubric that adds up to five points and the judge of judges follow Meta-Rewarding
(arXiv:2407.19594). A judge ends with a line "Score: N", a meta-judge with "Better: A", "Better: B" or "Better: tie".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pippin.data.records import Message

BEST = 5.0

_SCORE = re.compile(
    r"\bscore[ \t*]*:[ \t*]*([0-9]+(?:\.[0-9]+)?)(?![0-9.]*[0-9])(?:[ \t]*/[ \t]*([0-9]+))?", re.IGNORECASE
)
_BETTER = re.compile(r"\bbetter[ \t*]*:[ \t*]*(a|b|tie)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Rubric:
    """The two prompts of a judge.

    Attributes:
        judge: with {question} and {answer} in it.
        meta: with {question}, {answer}, {a} and {b}, two judgements, in it.
    """

    judge: str
    meta: str


FULL = Rubric(
    judge="""\
You mark the answer to a question. Begin at 0 points and give one more for each of these that is true of the answer:

- It is about what was asked.
- It settles the larger part of what was asked.
- The person who asked can use it as it stands.
- It leaves nothing out, and it is clear and well ordered.
- Nothing in it is wrong or beside the point; someone who knows the subject well would have given it.

The question:
{question}

The answer:
{answer}

Say in a few sentences which points it earns and why. Length earns nothing. Then end with a line "Score: N", where N \
is the sum of the points, from 0 to 5.""",
    meta="""\
Two judges marked the same answer. They gave one point for each of these that is true of it: it is about what was \
asked; it settles the larger part of it; the person who asked can use it as it stands; it leaves nothing out, and it \
is clear and well ordered; nothing in it is wrong or beside the point.

The question:
{question}

The answer:
{answer}

Judgement A:
{a}

Judgement B:
{b}

Which judgement is the better one? The better one gives the points that are earned and no others, what it says of the \
answer is true, and its sum fits its reasons. A high score is no merit, and the order of the two means nothing. Say in \
a few sentences what decides it. Then end with a line "Better: A", "Better: B" or "Better: tie".""",
)
# For a small model that was taught what they mean.
BRIEF = Rubric(
    judge="{question}\nAnswer: {answer}\nWhat is it worth?",
    meta="{question}\nAnswer: {answer}\nA: {a}\nB: {b}\nWhich is better?",
)


def shown(messages: Sequence[Message]) -> str:
    """A prompt as a judge sees it: one message is its text, more of them have their roles before them."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


def judge_prompt(rubric: Rubric, messages: Sequence[Message], answer: str) -> list[Message]:
    """What a judge is asked about one answer."""
    return [{"role": "user", "content": rubric.judge.format(question=shown(messages), answer=answer)}]


def meta_prompt(rubric: Rubric, messages: Sequence[Message], answer: str, a: str, b: str) -> list[Message]:
    """What a meta-judge is asked about two judgements of one answer."""
    content = rubric.meta.format(question=shown(messages), answer=answer, a=a, b=b)
    return [{"role": "user", "content": content}]


def read_score(verdict: str) -> float | None:
    """The points of a verdict, 0 to 5: what follows its last "Score:"; None if there is none, or it is no such number.

    >>> read_score("It is right, but long. Score: 4"), read_score("**Score:** 3/5"), read_score("Four points.")
    (4.0, 3.0, None)
    """
    found = _SCORE.findall(verdict)
    if not found:
        return None
    points, of = found[-1]
    return float(points) if float(points) <= BEST and of in ("", f"{BEST:.0f}") else None


def read_better(verdict: str) -> int:
    """1 for A, -1 for B, 0 for a tie or a verdict that says neither: what follows its last "Better:".

    >>> read_better("A sees the mistake. Better: A"), read_better("Better: B"), read_better("Both are.")
    (1, -1, 0)
    """
    found = _BETTER.findall(verdict)
    return {"a": 1, "b": -1, "tie": 0}[found[-1].lower()] if found else 0
