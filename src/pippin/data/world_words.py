"""The words of the generated world, its random draws, and the rule for what is held out.

The world is narrow on purpose: some 400 words, so that a model of one million parameters learns it in minutes.
What it must not do is memorise, so combinations (who owns what, which words stand in one list, which numbers are
added) are split by a hash: a held-out combination appears nowhere in training, in no task, order or wording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import TypeVar

from pippin.data.records import fraction_of

T = TypeVar("T")

BOYS = ("Tom", "Sam", "Ben", "Max", "Leo", "Finn", "Hugo", "Otto")
GIRLS = ("Mia", "Anna", "Lily", "Eva", "Nora", "Rosa", "Ida", "Zoe")
NAMES = BOYS + GIRLS
COLORS = ("red", "blue", "green", "yellow", "white", "black", "brown", "pink")
ITEMS = ("ball", "kite", "hat", "drum", "boat", "lamp", "book", "cup",
         "bell", "doll", "box", "key", "ring", "scarf", "spoon", "coat")  # fmt: skip
ANIMALS = ("cat", "dog", "fox", "hen", "owl", "frog", "duck", "goat", "mouse", "bear", "rabbit", "pony")
FOODS = ("apple", "pear", "fig", "plum", "lemon", "melon", "grape", "nut")
PLACES = {
    "garden": "in", "kitchen": "in", "barn": "in", "forest": "in", "library": "in", "park": "in",
    "school": "at", "market": "at", "beach": "on", "hill": "on", "river": "by", "lake": "by",
}  # fmt: skip
LIST_WORDS = ITEMS + ANIMALS + FOODS
DIGITS = tuple("0123456789")

HELDOUT_COMBINATIONS = 0.10
# Whole lengths that training never shows for a task.
HELDOUT_LENGTHS = {"copy": (5,), "digits": (4,)}


def heldout(task: str, key: str) -> bool:
    """Whether a combination is kept out of all training text and instructions.

    Args:
        task: the family of combinations: "words", "digits", "sum", "item", "place", "food", "story" or "length".
        key: the combination in its canonical form (see `list_key` and `sum_key`); for "length" "<task> <n>".
    """
    if task == "length":
        name, n = key.split()
        return int(n) in HELDOUT_LENGTHS.get(name, ())
    return fraction_of(f"world/{task}/{key}") < HELDOUT_COMBINATIONS


def list_key(words: Iterable[str]) -> str:
    """The canonical form of a list: its distinct words in order, so that every permutation shares one side."""
    return " ".join(sorted(set(words)))


def sum_key(a: int, b: int) -> str:
    """The canonical form of a sum: the smaller operand first, so that a + b and b + a share one side."""
    return f"{min(a, b)}+{max(a, b)}"


def article(word: str) -> str:
    """The word with "a" or "an" before it."""
    return ("an " if word[0] in "aeiou" else "a ") + word


class Draw:
    """Random draws that depend on the key alone.

    Only `Random.random` is used: Python guarantees its sequence across versions, not that of `choice` or `shuffle`.
    """

    __slots__ = ("random",)

    def __init__(self, *key: str | int) -> None:
        self.random = Random(int(fraction_of("/".join(map(str, key))) * 2**53)).random

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self.random() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self.random() * len(options))]

    def some(self, options: Sequence[T], n: int) -> list[T]:
        """`n` different options in random order."""
        left = list(options)
        for i in range(n):
            j = i + int(self.random() * (len(left) - i))
            left[i], left[j] = left[j], left[i]
        return left[:n]
