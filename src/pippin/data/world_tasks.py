"""Exercises of the generated world: a question, its one right answer, and the combination that it tests."""

from __future__ import annotations

from typing import NamedTuple

from pippin.data.records import Split
from pippin.data.world_stories import story
from pippin.data.world_words import (
    BOYS,
    COLORS,
    DIGITS,
    FOODS,
    HELDOUT_LENGTHS,
    ITEMS,
    LIST_WORDS,
    NAMES,
    PLACES,
    Draw,
    heldout,
    list_key,
    sum_key,
)


class Exercise(NamedTuple):
    """One exercise.

    Attributes:
        question: as a person would ask it.
        plain: the same as one line of text with the answer in it ("sort: pear fig -> fig pear"); "" if it has none.
        answer: the only right answer.
        family, key: the combination, for `world_words.heldout`.
    """

    question: str
    plain: str
    answer: str
    family: str
    key: str


def add(draw: Draw, split: Split) -> Exercise:
    """A sum below 100; a quarter has two one-digit operands, a third one."""
    while True:
        kind = draw.below(12)
        a, b = draw.below(10 if kind < 7 else 100), draw.below(10 if kind < 3 else 100)
        if a + b < 100 and heldout("sum", sum_key(a, b)) == (split == "heldout"):
            break
    if kind >= 3 and draw.below(2):
        a, b = b, a
    form = draw.below(4)
    if form == 0 and min(a, b) > 1:
        name, friend = draw.some(NAMES, 2)
        him, food = "him" if name in BOYS else "her", draw.pick(FOODS)
        question = f"{name} has {a} {food}s. {friend} gives {him} {b} more. How many {food}s does {name} have?"
    else:
        question = (f"What is {a} + {b}?", f"Add {a} and {b}.", f"{a} + {b} = ?")[form % 3]
    return Exercise(question, f"{a} + {b} = {a + b}", str(a + b), "sum", sum_key(a, b))


def _list(draw: Draw, split: Split, lengths: tuple[int, ...], options: tuple[str, ...], family: str) -> list[str]:
    n = draw.pick(lengths)
    while True:
        chosen = draw.some(options, n)
        if heldout(family, list_key(chosen)) == (split == "heldout"):
            return chosen


def _of_words(draw: Draw, split: Split, *lengths: int) -> list[str]:
    return _list(draw, split, lengths, LIST_WORDS, "words")


def _exercise(draw: Draw, asks: tuple[str, ...], plain: str, items: list[str], answer: str, family: str) -> Exercise:
    text = " ".join(items)
    return Exercise(f"{draw.pick(asks)}: {text}", f"{plain}: {text} -> {answer}", answer, family, list_key(items))


def sort(draw: Draw, split: Split) -> Exercise:
    """Two to four words into alphabetical order."""
    words = _of_words(draw, split, 2, 3, 3, 4)
    asks = ("Sort these words", "Put these words in order", "Sort from A to Z")
    return _exercise(draw, asks, "sort", words, " ".join(sorted(words)), "words")


def digits(draw: Draw, split: Split, lengths: tuple[int, ...] = (2, 3, 5)) -> Exercise:
    """Different digits into rising order. Four digits are never seen in training."""
    numbers = _list(draw, split, lengths, DIGITS, "digits")
    asks = ("Sort these numbers", "Put these numbers in order", "Sort from small to big")
    return _exercise(draw, asks, "sort", numbers, " ".join(sorted(numbers)), "digits")


def copy(draw: Draw, split: Split, lengths: tuple[int, ...] = (2, 3, 4, 6)) -> Exercise:
    """The same words again. Five words are never seen in training."""
    words = _of_words(draw, split, *lengths)
    return _exercise(draw, ("Copy these words", "Copy this", "Say it again"), "copy", words, " ".join(words), "words")


def reverse(draw: Draw, split: Split) -> Exercise:
    """Two to four words, last one first."""
    words = _of_words(draw, split, 2, 3, 4)
    asks = ("Turn these words around", "Say these words from last to first", "Reverse this list")
    return _exercise(draw, asks, "reverse", words, " ".join(reversed(words)), "words")


def count(draw: Draw, split: Split) -> Exercise:
    """How many words are there: two to eight."""
    words = _of_words(draw, split, 2, 3, 4, 5, 6, 7, 8)
    asks = ("Count these words", "How many words are these", "How long is this list")
    return _exercise(draw, asks, "count", words, str(len(words)), "words")


def pick(draw: Draw, split: Split) -> Exercise:
    """The first, second, third or last word of four or five."""
    words = _of_words(draw, split, 4, 5)
    which = draw.pick(("first", "second", "third", "last"))
    answer = words[("first", "second", "third").index(which)] if which != "last" else words[-1]
    asks = (f"What is the {which} word", f"Say only the {which} word", f"Find the {which} word")
    return _exercise(draw, asks, f"{which} word", words, answer, "words")


def form(draw: Draw, split: Split) -> Exercise:
    """Two to four words in a wanted form: brackets, commas, capitals, numbered, or twice."""
    words = _of_words(draw, split, 2, 3, 3, 4)
    kind = draw.below(5)
    answer = (
        " ".join(f"[{word}]" for word in words),
        ", ".join(words),
        " ".join(words).upper(),
        " ".join(f"{i}. {word}" for i, word in enumerate(words, 1)),
        " ".join(words + words),
    )[kind]
    asks = (
        ("Put each word in brackets", "Write these words in brackets"),
        ("Put commas between the words", "Write this list with commas"),
        ("Write this in capitals", "Use capitals for these words"),
        ("Number these words", "Make a numbered list"),
        ("Write this two times", "Say these words two times"),
    )[kind]
    plain = ("brackets", "commas", "capitals", "numbers", "twice")[kind]
    return _exercise(draw, asks, plain, words, answer, "words")


def song(draw: Draw, split: Split) -> str:
    """Three to eight words sung over and over, a line each time.

    Copying from the context is what all tasks on lists and passages rest on, and a small model finds it several times
    sooner in text where most tokens can be copied.
    """
    line = " ".join(_of_words(draw, split, 3, 4, 5, 6, 7, 8))
    return "\n".join([f"{draw.pick(NAMES)} sings:"] + [line] * (4 + draw.below(5)))


class Fact(NamedTuple):
    """A sentence about one person, its combination, and the questions that it alone answers."""

    sentence: str
    family: str
    key: str
    questions: tuple[tuple[str, str], ...]


def _fact(kind: int, name: str, color: str, item: str, place: str, food: str) -> Fact:
    if kind == 0:
        thing = f"{color} {item}"
        asks = (
            (f"What color is {name}'s {item}?", color),
            (f"Who has the {thing}?", name),
            (f"What does {name} have?", f"a {thing}"),
        )
        return Fact(f"{name} has a {thing}.", "item", f"{name} {thing}", asks)
    if kind == 1:
        where = f"{PLACES[place]} the {place}"
        return Fact(
            f"{name} is {where}.", "place", f"{name} {place}",
            ((f"Where is {name}?", where), (f"Who is {where}?", name)),
        )  # fmt: skip
    return Fact(
        f"{name} likes {food}s.", "food", f"{name} {food}",
        ((f"What does {name} like?", f"{food}s"), (f"Who likes {food}s?", name)),
    )  # fmt: skip


def facts(draw: Draw, split: Split) -> list[Fact]:
    """Two to four facts about different people, things, places and foods, mostly of one kind.

    In training all of them are allowed combinations; on the held-out side at least the first is held out.
    """
    n = 2 + draw.below(3)
    one_kind = draw.below(3) if draw.below(3) else None
    while True:
        columns = zip(
            draw.some(NAMES, n), [draw.pick(COLORS) for _ in range(n)], draw.some(ITEMS, n),
            draw.some(tuple(PLACES), n), draw.some(FOODS, n), strict=True,
        )  # fmt: skip
        found = [_fact(draw.below(3) if one_kind is None else one_kind, *column) for column in columns]
        sides = [heldout(fact.family, fact.key) for fact in found]
        if sides[0] if split == "heldout" else not any(sides):
            return found


def read(draw: Draw, split: Split) -> Exercise:
    """A question about one sentence of a short passage."""
    found = facts(draw, split)
    asked = found[0] if split == "heldout" else draw.pick(found)
    question, answer = draw.pick(asked.questions)
    passage = " ".join(fact.sentence for fact in draw.some(found, len(found)))
    shown = (f"{passage} {question}", f"{passage}\n{question}", f"{question} {passage}")[draw.below(3)]
    return Exercise(shown, "", answer, asked.family, asked.key)


def summary(draw: Draw, split: Split) -> Exercise:
    """A story in one line."""
    told = story(draw, split)
    ask = draw.pick(("Sum up this story in one line.", "What happens in this story?", "Tell this story in one line."))
    return Exercise(f"{ask}\n{told.text}", "", told.summary, "story", told.key)


TASKS = {
    "add": add, "sort": sort, "digits": digits, "copy": copy, "reverse": reverse, "count": count, "pick": pick,
    "form": form, "read": read, "summary": summary,
}  # fmt: skip
# Asked only on the held-out side: lengths between those of training.
LENGTH_TASKS = {"copy_length": "copy", "digits_length": "digits"}


def exercise(task: str, draw: Draw, split: Split) -> Exercise:
    """One exercise of a task of `TASKS`, or of `LENGTH_TASKS` (held-out side only).

    Raises:
        ValueError: a length task on the training side.
    """
    if task not in LENGTH_TASKS:
        return TASKS[task](draw, split)
    if split == "train":
        raise ValueError(f"{task} has no training side")
    base = LENGTH_TASKS[task]
    return (copy if base == "copy" else digits)(draw, split, HELDOUT_LENGTHS[base])
