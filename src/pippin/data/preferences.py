"""Preferences between two answers to a prompt: JSON lines, JSON or Parquet, read strictly, split by prompt.

A pair is {"prompt": messages, "chosen": answer, "rejected": answer, "level": one of `LEVELS`, "grades": {"chosen":
{property: 0, 1 or 2}, "rejected": {...}}}; level, grades and any property may be missing (null). An answer is a text,
or messages of which the last is the answer and those before it are the prompt's. Three other layouts are read too:

    hh-rlhf          no prompt; both answers are dialogues "\\n\\nHuman: ...\\n\\nAssistant: ..." that begin alike
    UltraFeedback    the prompt is a text; both answers are messages that begin with it
    ShareGPT         "conversations": [{"from": "human", "value": ...}, ...]; an answer is {"from": "gpt", "value": ...}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from pippin.data.messages import read_message, read_messages, read_text
from pippin.data.records import Message, Split, fraction_of
from pippin.data.rows import read_rows
from pippin.errors import UserError

# How much better the chosen answer is, and what is graded of each answer alone, 0 to 2 (afm 7.1).
LEVELS = ("significantly better", "better", "slightly better", "negligibly better")
PROPERTIES = ("instruction_following", "conciseness", "truthfulness", "harmlessness")
GRADES = 3
SIDES = ("chosen", "rejected")

_TURN = re.compile(r"\n\n(Human|Assistant):")


class Preference(TypedDict):
    """One pair. `id` is file:line (or file:row); a property without a grade is not in `grades`."""

    id: str
    split: Split
    prompt: list[Message]
    chosen: str
    rejected: str
    level: str | None
    grades: dict[str, dict[str, int]]


class Preferences(NamedTuple):
    """The pairs of a file, and how many were left out: the same pair again; two equal answers; two dialogues that part
    before the last answer, which are answers to different prompts (hh-rlhf has some)."""

    pairs: list[Preference]
    repeated: int
    equal: int
    apart: int


def read_preferences(path: str | Path, heldout_share: float) -> Preferences:
    """The preferences of a file in order (.jsonl, .json or .parquet; JSON also with .gz behind it).

    Pairs with the same prompt are on the same side, so no prompt that is asked to evaluate was trained on. A pair and
    its reversal are two opinions and both stay.

    Args:
        heldout_share: about which share of the prompts is held out.

    Raises:
        UserError: one line that names file, line and field: what is wrong there, and how many lines have errors.
    """
    path = Path(path)
    found: list[Preference] = []
    wrong: list[str] = []
    seen: set[tuple[str, str, str]] = set()
    repeated = equal = apart = 0
    for number, value in read_rows(path, "preferences"):
        where = f"{path}:{number}"
        try:
            if isinstance(value, ValueError):
                raise value
            pair = _pair(value)
        except ValueError as error:
            wrong.append(f"{where}: {error}")
            continue
        if pair is None:
            apart += 1
            continue
        prompt = json.dumps([[message["role"], message["content"]] for message in pair["prompt"]])
        key = (prompt, pair["chosen"], pair["rejected"])
        if pair["chosen"] == pair["rejected"]:
            equal += 1
        elif key in seen:
            repeated += 1
        else:
            seen.add(key)
            pair["id"] = f"{path.name}:{number}"
            pair["split"] = "heldout" if fraction_of(f"preference/{prompt}") < heldout_share else "train"
            found.append(pair)
    if wrong:
        more = f" ({len(wrong)} lines have errors)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    for split in ("train", "heldout"):
        if not any(pair["split"] == split for pair in found):
            raise UserError(
                f"{path}: none of its {len(found)} pairs is on the {split} side at heldout_share={heldout_share}; "
                "give more pairs or another share"
            )
    return Preferences(found, repeated, equal, apart)


# --- a pair ----------------------------------------------------------------------------------------------------------


def _pair(value: Any) -> Preference | None:
    """A pair of any layout, None for dialogues that part early; ValueError with the field and what is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError(f"value {str(value)[:40]!r}: must be an object with prompt, chosen and rejected")
    given = {side: value.get(side) for side in SIDES}
    if value.get("conversations") is not None:
        prompt = read_messages(value["conversations"], "conversations", sharegpt=True)
        answers = {side: [read_message(given[side], side, sharegpt=True)] for side in SIDES}
    elif value.get("prompt") is None and all(isinstance(given[side], str) for side in SIDES):
        dialogues = {side: _dialogue(str(given[side]), side) for side in SIDES}
        prompt, answers = dialogues["chosen"][:-1], dialogues
        if dialogues["rejected"][:-1] != prompt:
            return None
    else:
        prompt = _prompt(value.get("prompt"))
        answers = {
            side: [{"role": "assistant", "content": read_text(given[side], side)}]
            if isinstance(given[side], str)
            else read_messages(given[side], side)
            for side in SIDES
        }
    if not prompt:
        raise ValueError("prompt: empty; give the message that is answered")
    for side, messages in answers.items():
        if messages[-1]["role"] != "assistant":
            raise ValueError(f"{side}: the last message has role {messages[-1]['role']!r}: must be the assistant's")
        if len(messages) > 1 and messages[:-1] != prompt:
            raise ValueError(f"{side}: begins with other messages than the prompt; both answers need the same prompt")
    return {
        "id": "",
        "split": "train",
        "prompt": prompt,
        "chosen": answers["chosen"][-1]["content"],
        "rejected": answers["rejected"][-1]["content"],
        "level": _level(value.get("level")),
        "grades": _grades(value.get("grades")),
    }


def _prompt(value: Any) -> list[Message]:
    if isinstance(value, str):
        return [{"role": "user", "content": read_text(value, "prompt")}]
    return read_messages(value, "prompt")


def _dialogue(text: str, field: str) -> list[Message]:
    """Turns of "\\n\\nHuman: ...\\n\\nAssistant: ..."; a text that holds a mark is cut there."""
    parts = _TURN.split(read_text(text, field))
    if len(parts) < 5 or parts[0].strip():
        raise ValueError(f'{field}: not a dialogue; expected "\\n\\nHuman: ...\\n\\nAssistant: ...", or give a prompt')
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _level(value: Any) -> str | None:
    if value is not None and value not in LEVELS:
        raise ValueError(f"level: value {str(value)[:40]!r}: must be one of {', '.join(LEVELS)}")
    return value


def _grades(value: Any) -> dict[str, dict[str, int]]:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise ValueError(f"grades: value {str(value)[:40]!r}: must be an object with chosen and rejected")
    found: dict[str, dict[str, int]] = {}
    for side in SIDES:
        grades = value.get(side)
        if grades is None:
            grades = {}
        if not isinstance(grades, Mapping):
            raise ValueError(f"grades.{side}: value {str(grades)[:40]!r}: must be an object of grades")
        found[side] = {}
        for name, grade in grades.items():
            if name not in PROPERTIES:
                raise ValueError(f"grades.{side}: unknown property {str(name)[:40]!r}: one of {', '.join(PROPERTIES)}")
            if grade is None:
                continue
            if type(grade) is not int or not 0 <= grade < GRADES:
                raise ValueError(f"grades.{side}.{name}: value {str(grade)[:40]!r}: must be 0, 1 or 2")
            found[side][name] = grade
    for side in value:
        if side not in SIDES:
            raise ValueError(f"grades: unknown field {str(side)[:40]!r}: must be chosen or rejected")
    return found
