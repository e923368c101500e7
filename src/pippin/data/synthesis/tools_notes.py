"""Notes about invented inns and villages: what the search tool finds, with every fact known.

Each inn has a note; its village's note names the inn, so that some questions need a second look.
"""

from __future__ import annotations

from typing import NamedTuple

from pippin.data.synthesis.tools_search import Passage
from pippin.data.world_words import Draw

_FIRST = ("Copper", "Silver", "Hollow", "Merry", "Grey", "Little", "Golden", "Quiet", "Red", "Lost", "Old", "Blue")
_SECOND = ("Heron", "Anchor", "Thistle", "Kettle", "Badger", "Lantern", "Plough", "Otter", "Barrel", "Swan", "Hare")
_BEGIN = ("Ash", "Birch", "Cold", "Dun", "Elder", "Fern", "Gold", "Hart", "Ivy", "Kirk", "Lin", "Marsh", "North")
_END = ("brook", "field", "combe", "ford", "mere", "stead", "wick", "holt", "gate", "bury")
_RIVERS = ("Sarn", "Wend", "Tolle", "Irrel", "Maud", "Ouver")
_KEEPERS = ("Agnes", "Bruno", "Clara", "Dario", "Esther", "Felix", "Greta", "Harun", "Ines", "Jonas")
_FAMILIES = ("Almond", "Brand", "Cope", "Dale", "Ekman", "Farr", "Gorski", "Holm", "Iwu", "Jessen")


class Inn(NamedTuple):
    """An inn and its village."""

    name: str
    village: str
    rooms: int
    year: int
    keeper: str
    river: str
    kilometres: int

    @property
    def note(self) -> str:
        return f"inns/{self.name}"

    @property
    def village_note(self) -> str:
        return f"villages/{self.village}"


def make_inns(seed: int, n: int) -> list[Inn]:
    """`n` inns in as many villages, at most 130, no name twice."""
    draw = Draw("inns", seed)
    names = draw.some([f"The {first} {second}" for first in _FIRST for second in _SECOND], n)
    villages = draw.some([begin + end for begin in _BEGIN for end in _END], n)
    return [
        Inn(
            name, village, 4 + draw.below(40), 1650 + draw.below(340),
            f"{draw.pick(_KEEPERS)} {draw.pick(_FAMILIES)}", draw.pick(_RIVERS), 1 + draw.below(30),
        )
        for name, village in zip(names, villages, strict=True)
    ]  # fmt: skip


def notes_of(inns: list[Inn]) -> list[Passage]:
    """A note for each inn, and one for each village."""
    found = []
    for inn in inns:
        found.append(
            Passage(
                inn.note,
                f"{inn.name} was opened in {inn.year}. {inn.keeper} keeps it; it has {inn.rooms} rooms and a garden.",
            )
        )
        found.append(
            Passage(
                inn.village_note,
                f"{inn.village} lies on the {inn.river}, {inn.kilometres} km from the railway. "
                f"Its inn is called {inn.name}.",
            )
        )
    return found
