"""A search of training text for what the generated world holds out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pippin.data.world_words import (
    COLORS,
    FOODS,
    HELDOUT_LENGTHS,
    ITEMS,
    LIST_WORDS,
    NAMES,
    PLACES,
    heldout,
    list_key,
    sum_key,
)


def _any(words: Iterable[str]) -> str:
    return "|".join(words)


_RUN = rf"(?:{_any(LIST_WORDS)})(?:[\[\], 1-9.]+(?:{_any(LIST_WORDS)}))+\b"
_LISTS = re.compile(rf"\b{_RUN}", re.IGNORECASE)
_DIGIT_LISTS = re.compile(r"(?<![\d+=] )(?<!\d)\d(?: \d)+(?!\d)(?! [+=])")
_SUMS = (
    re.compile(r"(\d+) \+ (\d+)"),
    re.compile(r"Add (\d+) and (\d+)"),
    re.compile(r"has (\d+) \w+\. \w+ gives \w+ (\d+) more"),
)
_COPIES = re.compile(rf"(?:copy|Copy these words|Copy this|Say it again): ({_RUN})")
_SENTENCE_END = re.compile(r"[.!?\n]")
_NAME = re.compile(rf"\b(?:{_any(NAMES)})\b")
_THING = re.compile(rf"\b(?:{_any(COLORS)}) (?:{_any(ITEMS)})\b")
_PLACE = re.compile(rf"\b(?:{_any(PLACES)})\b")
_LIKES = re.compile(rf"\b({_any(NAMES)}) likes ({_any(FOODS)})s\b")


def leaks(text: str) -> Iterator[str]:
    """Held-out combinations that stand in `text`, found by searching it, not by asking the generator.

    Looked for: sums in every wording and order, lists of words or of digits in every order and form, held-out
    lengths, and who has what, who is where (any name in one sentence with the thing or the place), who likes what.
    """
    for pattern in _SUMS:
        for a, b in pattern.findall(text):
            if heldout("sum", sum_key(int(a), int(b))):
                yield f"sum {a} + {b}"
    for run in _LISTS.findall(text):
        if heldout("words", list_key(re.findall("[a-z]+", run.lower()))):
            yield f"words {run}"
    for run in _DIGIT_LISTS.findall(text):
        if heldout("digits", list_key(run.split())):
            yield f"digits {run}"
        if len(run.split()) in HELDOUT_LENGTHS["digits"]:
            yield f"length {run}"
    for run in _COPIES.findall(text):
        if len(run.split()) in HELDOUT_LENGTHS["copy"]:
            yield f"length {run}"
    for name, food in _LIKES.findall(text):
        if heldout("food", f"{name} {food}"):
            yield f"food {name} {food}"
    for sentence in _SENTENCE_END.split(text):
        for name in set(_NAME.findall(sentence)):
            for thing in _THING.findall(sentence):
                if heldout("item", f"{name} {thing}"):
                    yield f"item {name} {thing}"
            for place in _PLACE.findall(sentence):
                if heldout("place", f"{name} {place}"):
                    yield f"place {name} {place}"
