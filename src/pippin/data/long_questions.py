"""Long rows with questions: several documents in one row, facts hidden in some of them, and questions about the facts.

The report lengthens the context with synthetic long question answering and does not say how it is made (afm 4.30,
4.31). Here a fact is the code of a thing ("Code: red ball 47."), put between two sentences of a document. The thing is
its key; the number is drawn for each row, so it can only be read, never remembered.
What makes a question right is checked in the finished text by `problems`, which knows nothing of how it was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pippin.data.records import Split
from pippin.data.world_words import COLORS, ITEMS, Draw, heldout
from pippin.errors import UserError

CODES = tuple(str(number) for number in range(10, 100))
KEYS = tuple(f"{color} {item}" for color in COLORS for item in ITEMS)
SEPARATOR = "\n\n"
MOST_PASSED = 1_000  # documents that are passed over on end before that is an error
_GAP = re.compile(r"(?<=[.!?])[ \n]|\n")
_FACT = re.compile(r"Code: (\w+ \w+) (\w+\.)")
_ASKED = re.compile(r"^Recall: (\w+ \w+) (.*)$", re.MULTILINE)
_MENTION = re.compile(r"Code: (\w+ \w+)")


@dataclass(frozen=True)
class LongQuestions:
    """A source of such rows: how long, how many on each side of the split, and the most facts that one holds.

    A row has between half of `keys` and `keys` facts, each asked about. `fillers` are the curated sources of its
    documents.
    """

    length: int
    train: int
    heldout: int
    keys: int
    fillers: tuple[str, ...] = ("stories",)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("length", "train", "heldout", "keys"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.keys > len(KEYS) // 2:
            raise UserError(f"keys={self.keys}: there are {len(KEYS)} things to name; take at most half of them")

    def rows(self, split: Split, documents: Iterator[str], encode: Callable[[str], list[int]]) -> Iterator[Row]:
        """The rows of one side, each a function of (seed, its number, the documents that are its turn).

        Raises:
            UserError: the facts do not fit into the length.
        """
        for index in range(self.train if split == "train" else self.heldout):
            draw = Draw("long questions", self.seed, split, self.length, index)
            n = self.keys - draw.below(self.keys // 2 + 1)
            try:
                yield row(draw, split, documents, encode, self.length, n, n)
            except ValueError as error:
                raise UserError(f"{error}; take fewer keys or longer rows") from None


class Row(NamedTuple):
    """A row of exactly the wanted length.

    Attributes:
        ids: its tokens; one fewer than the row's length, which the final `<eos>` completes.
        answers: places of the answers in `ids`: [start, stop), in order.
        distance: tokens from the end of the document that has the last question's fact to its answer.
    """

    ids: list[int]
    answers: tuple[tuple[int, int], ...]
    distance: int

    @property
    def loss_mask(self) -> list[int]:
        """1 at the answers: the documents are what other sources teach."""
        mask = [0] * len(self.ids)
        for start, stop in self.answers:
            mask[start:stop] = [1] * (stop - start)
        return mask


def fact(key: str, number: str) -> str:
    """The sentence that is the evidence."""
    return f"Code: {key} {number}."


def question(key: str) -> str:
    """What is asked about it: a cloze, to be completed by " <number>."."""
    return f"Recall: {key}"


def with_fact(document: str, sentence: str, draw: Draw) -> str:
    """The document with the sentence after one of its sentences or lines."""
    gaps = [*_GAP.finditer(document)]
    at = draw.below(len(gaps) + 1)
    if at == len(gaps):
        return f"{document} {sentence}".lstrip()
    gap = gaps[at]
    return f"{document[: gap.start()]}{gap.group()}{sentence}{document[gap.start() :]}"


def keys_of(draw: Draw, split: Split, n: int) -> list[str]:
    """`n` different keys; in training none is held out, on the held-out side the last one is."""
    allowed = [key for key in KEYS if not heldout("code", key)]
    if split == "train":
        return draw.some(allowed, n)
    asked = draw.pick([key for key in KEYS if heldout("code", key)])
    return [*draw.some([key for key in KEYS if key != asked], n - 1), asked]


def row(
    draw: Draw,
    split: Split,
    documents: Iterator[str],
    encode: Callable[[str], list[int]],
    length: int,
    keys: int,
    questions: int,
) -> Row:
    """One row of `length` tokens (with its final `<eos>`): documents with `keys` facts, then `questions` of them.

    Rows fill the length exactly, so a training window of that length never parts a question from its evidence. The
    first document is cut at its beginning to make that so; it has no fact.

    Args:
        documents: endless; those that have such facts already are passed over.
        encode: text to ids, without special tokens.

    Raises:
        ValueError: facts and questions do not fit, or more questions than keys.
    """
    if not 1 <= questions <= keys:
        raise ValueError(f"questions: {questions}: must lie between 1 and keys ({keys})")
    chosen = keys_of(draw, split, keys)
    numbers = [draw.pick(CODES) for _ in chosen]
    facts = [fact(key, number) for key, number in zip(chosen, numbers, strict=True)]
    asked = list(zip(chosen, numbers, strict=True))[-questions:]
    tail: list[int] = []
    answers: list[tuple[int, int]] = []
    for key, number in asked:
        before = encode(question(key))
        answer = encode(f" {number}.")
        answers.append((len(tail) + len(before), len(tail) + len(before) + len(answer)))
        tail += [*before, *answer, *([] if key == asked[-1][0] else encode("\n"))]
    room = length - 1 - len(tail)
    extra = sum(len(encode(f"{sentence} ")) for sentence in facts) + len(encode(SEPARATOR))
    if extra > room:
        raise ValueError(f"length {length}: too short for {keys} facts and {questions} questions")
    texts: list[str] = []
    first, left = _next(documents), room - extra
    while (n := len(encode(first + SEPARATOR))) <= left:
        texts.append(first)
        first, left = _next(documents), left - n
    # A document may hold several facts, the first none. Where no other fits in, the facts are one.
    texts = texts or [""]
    holders = [draw.below(len(texts)) for _ in facts]
    for holder, sentence in zip(holders, facts, strict=True):
        texts[holder] = with_fact(texts[holder], sentence, draw)
    blocks = [encode(text + SEPARATOR) for text in texts]
    body = [token for block in blocks for token in block]
    while len(body) < room:  # once; again if a fact took fewer tokens where it stands than alone
        body = encode(first + SEPARATOR) + body
        first = _next(documents)
    after = sum(map(len, blocks[holders[-1] + 1 :]))
    body = body[len(body) - room :]
    return Row(body + tail, tuple((room + start, room + stop) for start, stop in answers), answers[-1][0] + after)


def _next(documents: Iterator[str]) -> str:
    """The next document that has no such facts of its own, as one block of lines."""
    for _, text in zip(range(MOST_PASSED), documents, strict=False):
        if not _MENTION.search(text):
            return text.replace(SEPARATOR, "\n")
    raise ValueError(f"all of {MOST_PASSED} documents speak of codes")


def problems(text: str) -> list[str]:
    """What is wrong with the questions of a finished row; found by reading the text alone.

    Each question's evidence must stand in exactly one document, once, before the questions; its key must begin no
    other fact; and the answer must be its number.
    """
    found = []
    asked = list(_ASKED.finditer(text))
    if not asked:
        return ["no question"]
    documents = text[: asked[0].start()].split(SEPARATOR)
    for match in asked:
        key, answer = match.groups()
        evidence = [m.group(2) for document in documents for m in _FACT.finditer(document) if m.group(1) == key]
        mentions = sum(m.group(1) == key for document in documents for m in _MENTION.finditer(document))
        if len(evidence) != 1 or mentions != 1:
            found.append(f"{key}: evidence {len(evidence)} times, mentioned {mentions} times")
        elif answer != evidence[0]:
            found.append(f"{key}: answered {answer!r}, the text says {evidence[0]!r}")
    if len({match.group(1) for match in asked}) != len(asked):
        found.append("a key is asked twice")
    return found


def leaks(text: str) -> Sequence[str]:
    """Held-out keys that a training text mentions."""
    return [key for key in _MENTION.findall(text) if heldout("code", key)]
