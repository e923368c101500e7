"""Questions that come twice: equal ones, near ones, and the filter against all pairs."""

from __future__ import annotations

import re

import pytest

from pippin.data.synthesis.distinct import SHINGLE, Near, duplicates
from pippin.data.world_words import Draw


def test_equal_and_near_texts() -> None:
    first = "Mia buys 7 pens at 3 dollars each and pays with 50 dollars. How many dollars are left?"
    texts = [
        first,
        first.upper() + " ",
        first.replace("50", "60"),
        "A train covers 300 kilometres in 4 hours. How fast is it?",
        first.replace("7 pens at 3 dollars", "9 cups at 8 dollars"),
        "What is 2 + 3 ?",
        "What is 2 - 3 ?",
    ]
    assert duplicates(texts) == [None, 0, 0, None, None, None, None]
    no: list[Near] = ["no"] * 7
    kin = ["one", "one", "one", "two", "two", "two", "two"]
    assert duplicates(texts, no) == [None, 0, None, None, None, None, None]
    assert duplicates(texts, [*no[:2], "all", *no[3:]], kin) == [None, 0, 0, None, None, None, None]
    assert duplicates(texts, [*no[:2], "strangers", *no[3:]], kin) == [None, 0, None, None, None, None, None]
    assert duplicates(texts, [*no[:2], "strangers", *no[3:]], list("abcdefg")) == [None, 0, 0, None, None, None, None]
    assert duplicates(texts, threshold=1.0) == [None, 0, None, None, None, None, None]
    assert duplicates(["", "", "a", "a b", "a b"]) == [None, 0, None, None, 3]
    assert duplicates([]) == []
    with pytest.raises(ValueError, match="threshold"):
        duplicates(texts, threshold=0)


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_the_filter_finds_what_a_comparison_of_all_pairs_finds(threshold: float) -> None:
    draw = Draw("distinct", str(threshold))
    words = [f"w{i}" for i in range(12)]
    texts: list[str] = []
    for _ in range(300):
        if texts and draw.below(2):
            changed = draw.pick(texts).split()
            changed[draw.below(len(changed))] = draw.pick(words)
        else:
            changed = [draw.pick(words) for _ in range(3 + draw.below(20))]
        texts.append(" ".join(changed))
    expected: list[int | None] = []
    sets = [grams(text) for text in texts]
    for number, own in enumerate(sets):
        alike = (
            other
            for other in range(number)
            if expected[other] is None and len(own & sets[other]) / len(own | sets[other]) >= threshold
        )
        expected.append(next(alike, None))
    found = duplicates(texts, threshold=threshold)
    assert [first is None for first in found] == [first is None for first in expected]
    assert sum(first is not None for first in found) > 10
