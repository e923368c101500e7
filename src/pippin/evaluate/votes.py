"""People's votes on pairs of responses: the pairs that they see, and the file that they give back.

A pair has no names of models, and which response stands first was drawn. The page (`evaluate.vote_page`) saves

    {"format_version": 1, "pairs": digest, "by": name, "votes": [
      {"pair": id, "better": "a" | "b" | "tie", "level": one of data.preferences.LEVELS or null,
       "grades": {"a": {property: 0, 1 or 2}, "b": {...}}}]}

where `pairs` is the digest of what was shown, so that votes on other pairs are noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pippin.data.preferences import GRADES, LEVELS, PROPERTIES
from pippin.errors import UserError
from pippin.evaluate.opinions import Contest, Opinion
from pippin.files import read_json

FORMAT_VERSION = 1
TIE = "people find them alike"


class Vote(NamedTuple):
    """What somebody thinks of the contest with this number, or why there is no opinion."""

    contest: int
    opinion: Opinion | str
    by: str


def shown_pairs(contests: Sequence[Contest]) -> dict[str, Any]:
    """What people see of the contests, as JSON: `pairs` with id, prompt, a and b, and the digest of them all."""
    pairs = []
    for prompt, a, b in contests:
        pair = {"prompt": prompt["messages"], "a": a["response"], "b": b["response"]}
        pairs.append({"id": _digest(pair)[:16], **pair})
    return {"format_version": FORMAT_VERSION, "digest": _digest(pairs), "pairs": pairs}


def read_votes(path: str | Path, contests: Sequence[Contest]) -> list[Vote]:
    """The votes of a file, or of all `.json` files of a folder in order of name.

    Raises:
        UserError: there is none, or one line that names file and field: what is wrong there; votes on other pairs.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: has no .json file of votes; save one from the page, or give the file")
    pairs = shown_pairs(contests)
    numbers = {pair["id"]: number for number, pair in enumerate(pairs["pairs"])}
    found: list[Vote] = []
    for file in files:
        value = read_json(file)
        try:
            if not isinstance(value, dict):
                raise ValueError("not a file of votes; save one from the page")
            if value.get("format_version") != FORMAT_VERSION:
                raise ValueError(f"format_version: value {value.get('format_version')!r}: must be {FORMAT_VERSION}")
            if value.get("pairs") != pairs["digest"]:
                raise ValueError("votes are on other pairs than those of this stage; vote on its own page")
            by, votes = value.get("by"), value.get("votes")
            if not isinstance(by, str) or not by.strip():
                raise ValueError(f"by: value {by!r}: must be who voted")
            if not isinstance(votes, list):
                raise ValueError(f"votes: value {str(votes)[:40]!r}: must be a list")
            found += [Vote(*_vote(vote, f"votes[{n}]", numbers), by.strip()) for n, vote in enumerate(votes)]
        except ValueError as error:
            raise UserError(f"{file}: {error}") from None
    if not found:
        raise UserError(f"{path}: holds no vote; vote on a pair first")
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


def _vote(value: Any, field: str, numbers: Mapping[str, int]) -> tuple[int, Opinion | str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object with pair and better")
    number = numbers.get(str(value.get("pair")))
    if number is None:
        raise ValueError(f"{field}.pair: value {str(value.get('pair'))[:40]!r}: there is no such pair")
    better, level, grades = value.get("better"), value.get("level"), value.get("grades") or {}
    if better not in ("a", "b", "tie"):
        raise ValueError(f"{field}.better: value {str(better)[:40]!r}: must be a, b or tie")
    if level is not None and level not in LEVELS:
        raise ValueError(f"{field}.level: value {str(level)[:40]!r}: must be one of {', '.join(LEVELS)}")
    if not isinstance(grades, Mapping):
        raise ValueError(f"{field}.grades: value {str(grades)[:40]!r}: must be an object with a and b")
    sides = _grades(grades.get("a"), f"{field}.grades.a"), _grades(grades.get("b"), f"{field}.grades.b")
    return number, TIE if better == "tie" else Opinion("ab".index(better), level, sides)


def _grades(value: Any, field: str) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object of grades")
    for name, grade in value.items():
        if name not in PROPERTIES:
            raise ValueError(f"{field}: unknown property {str(name)[:40]!r}: one of {', '.join(PROPERTIES)}")
        if type(grade) is not int or not 0 <= grade < GRADES:
            raise ValueError(f"{field}.{name}: value {str(grade)[:40]!r}: must be 0, 1 or 2")
    return dict(value)
