"""Judging as an exercise of the generated world: the points of an answer, judgements, and judgements of judgements.

Each exercise has one right answer, so the points are exact. A judgement goes through the answer part by part: the part
that its judge expects, the part that is there, 1 or 0 for the same or not. Then it marks each line of the rubric and
adds the marks up: "fig fig 1 owl hat 0 01100 Score: 2". Parts are words, or the digits of a number:

    1  every part is one that this kind of answer can have: a word of the question, or a digit
    2  there are as many parts as in the right answer
    3  the first part is right
    4  the last part is right
    5  all of it is right

A judge who errs is one who took another answer for the right one; its marks follow from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from pippin.data.judging import BRIEF, judge_prompt, meta_prompt
from pippin.data.records import Message, Split
from pippin.data.world_tasks import Exercise, exercise
from pippin.data.world_words import DIGITS, LIST_WORDS, Draw

TASKS = ("copy", "sort", "add")
POINTS = 5
_RIGHT = 0.4  # share of the shown answers that are right
_MISTAKES = ("swap", "drop", "again", "other", "shuffle")


def parts(answer: str) -> list[str]:
    """The words of an answer; of a single number its digits."""
    words = answer.split()
    return list(words[0]) if len(words) == 1 and words[0].isdecimal() else words


def points(asked: Exercise, answer: str, taken: str | None = None) -> list[int]:
    """0 or 1 for each line of the rubric, by the right answer or one that is `taken` for it; nothing has no point."""
    right, given = parts(asked.answer if taken is None else taken), parts(answer)
    if not given:
        return [0] * POINTS
    allowed = DIGITS if asked.family == "sum" else parts(asked.answer)
    return [
        int(all(part in allowed for part in given)),
        int(len(given) == len(right)),
        int(given[0] == right[0]),
        int(given[-1] == right[-1]),
        int(given == right),
    ]


def judgement(asked: Exercise, answer: str, taken: str | None = None) -> str:
    """What a judge says of an answer who expects the right one, or one that is `taken` for it.

    >>> judgement(Exercise("Copy this: fig owl", "", "fig owl", "words", ""), "fig hat ball")
    'fig fig 1 owl hat 0 - ball 0 00100 Score: 1'
    """
    expected, given = parts(asked.answer if taken is None else taken), parts(answer)
    seen = [f"{e} {g} {int(e == g)}" for e, g in zip_longest(expected, given, fillvalue="-")]
    marks = points(asked, answer, taken)
    return f"{' '.join(seen)} {''.join(map(str, marks))} Score: {sum(marks)}"


def attempt(draw: Draw, asked: Exercise) -> str:
    """An answer to judge: the right one, or one with up to two mistakes."""
    given = parts(asked.answer)
    if draw.random() >= _RIGHT:
        for _ in range(1 + draw.below(2)):
            given = _with_mistake(draw, given, DIGITS if asked.family == "sum" else LIST_WORDS)
    return ("" if asked.family == "sum" else " ").join(given)


def _with_mistake(draw: Draw, given: Sequence[str], words: Sequence[str]) -> list[str]:
    made, mistake, place = list(given), draw.pick(_MISTAKES), draw.below(len(given))
    if mistake == "swap" and len(made) > 1:
        place = draw.below(len(made) - 1)
        made[place], made[place + 1] = made[place + 1], made[place]
    elif mistake == "drop" and len(made) > 1:
        del made[place]
    elif mistake == "again":
        made.insert(place, draw.pick(given))
    elif mistake == "shuffle":
        made = draw.some(made, len(made))
    else:
        made[place] = draw.pick(words)
    return made


def agreement(marks: Sequence[int], given: Sequence[int]) -> int:
    """On how many lines of the rubric the points given are the true ones."""
    return sum(mark == other for mark, other in zip(marks, given, strict=True))


def conversation(part: str, seed: int, index: int, split: Split) -> list[Message]:
    """One exercise of a part: "act" (answer it), "judge" (an answer), "meta" (two judgements of an answer).

    Of two judgements the better one agrees with the true points on more lines of the rubric.

    Raises:
        ValueError: no such part.
    """
    draw = Draw("judging", part, split, seed, index)
    asked = exercise(TASKS[index % len(TASKS)], draw, split)
    question: list[Message] = [{"role": "user", "content": asked.question}]
    if part == "act":
        return [*question, {"role": "assistant", "content": asked.answer}]
    answer = attempt(draw, asked)
    if part == "judge":
        said = judgement(asked, answer)
        return [*judge_prompt(BRIEF, question, answer), {"role": "assistant", "content": said}]
    if part != "meta":
        raise ValueError(f"part {part!r}: must be act, judge or meta")
    a = b = attempt(draw, asked)
    while a == b:
        b = attempt(draw, asked)
    if draw.below(2):  # the one drawn again is wrong more often
        a, b = b, a
    marks, *given = (points(asked, answer, taken) for taken in (None, a, b))
    more = agreement(marks, given[0]) - agreement(marks, given[1])
    said = f"Better: {'A' if more > 0 else 'B' if more < 0 else 'tie'}"
    both = (judgement(asked, answer, taken) for taken in (a, b))
    return [*meta_prompt(BRIEF, question, answer, *both), {"role": "assistant", "content": said}]
