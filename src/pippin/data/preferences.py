"""Preferences between two answers to a prompt: JSON lines, JSON or Parquet, read strictly, split by prompt.

A pair is {"prompt": messages, "chosen": answer, "rejected": answer, "level": one of `LEVELS`, "grades": {"chosen":
{property: 0, 1 or 2}, "rejected": {...}}}; level, grades and any property may be missing (null), and "tools" are the
functions that the prompt offers. An answer is a text, or messages of which the last is the answer and those before it
are the prompt's. Other layouts that are read:

    hh-rlhf          no prompt; both answers are dialogues "\\n\\nHuman: ...\\n\\nAssistant: ..." that begin alike
    UltraFeedback    the prompt is a text; both answers are messages that begin with it
    ShareGPT         "conversations": [{"from": "human", "value": ...}, ...]; an answer is {"from": "gpt", "value": ...}
    completions      a prompt (or instruction) and "completions": [{"response": text, "annotations": {aspect: {"Rating":
                     1 to 5}}}, ...], UltraFeedback before anybody made pairs of it; see `_graded`
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from pippin.data.messages import read_message, read_messages, read_text, with_functions
from pippin.data.records import Message, Split, fraction_of
from pippin.data.rows import read_rows
from pippin.errors import UserError

# How much better the chosen answer is, and what is graded of each answer alone, 0 to 2 (afm 7.1).
LEVELS = ("significantly better", "better", "slightly better", "negligibly better")
PROPERTIES = ("instruction_following", "conciseness", "truthfulness", "harmlessness")
GRADES = 3
SIDES = ("chosen", "rejected")

# Ours, the report is silent: how far two scores of 1 to 5 lie apart at each level, and the grade that a rating is.
APART = dict(zip(LEVELS, (2.0, 1.0, 0.5, 0.0), strict=True))
_GRADE_OF = (0, 0, 1, 2, 2)
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
    before the last answer, which are answers to different prompts (hh-rlhf has some); two completions of one score."""

    pairs: list[Preference]
    repeated: int
    equal: int
    apart: int
    tied: int


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
    left_out = Counter[str]()
    for number, value in read_rows(path, "preferences"):
        try:
            if isinstance(value, ValueError):
                raise value
            pairs = _pairs(value)
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        for place, pair in enumerate(pairs, 1):
            if isinstance(pair, str):
                left_out[pair] += 1
                continue
            prompt = json.dumps([[message["role"], message["content"]] for message in pair["prompt"]])
            key = (prompt, pair["chosen"], pair["rejected"])
            if pair["chosen"] == pair["rejected"]:
                left_out["equal"] += 1
            elif key in seen:
                left_out["repeated"] += 1
            else:
                seen.add(key)
                pair["id"] = f"{path.name}:{number}" + (f".{place}" if len(pairs) > 1 else "")
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
    return Preferences(found, *(left_out[why] for why in Preferences._fields[1:]))


# --- a pair ----------------------------------------------------------------------------------------------------------


def _pairs(value: Any) -> list[Preference | str]:
    """The pairs of a row of any layout, or why one is none; ValueError with the field and what is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError(f"value {str(value)[:40]!r}: must be an object with prompt, chosen and rejected")
    if value.get("completions") is not None:
        return _graded(value)
    given = {side: value.get(side) for side in SIDES}
    if value.get("conversations") is not None:
        prompt = read_messages(value["conversations"], "conversations", sharegpt=True)
        answers = {side: [read_message(given[side], side, sharegpt=True)] for side in SIDES}
    elif value.get("prompt") is None and all(isinstance(given[side], str) for side in SIDES):
        dialogues = {side: _dialogue(str(given[side]), side) for side in SIDES}
        prompt, answers = dialogues["chosen"][:-1], dialogues
        if dialogues["rejected"][:-1] != prompt:
            return ["apart"]
    else:
        prompt = _said(value.get("prompt"), "prompt", "user")
        answers = {side: _said(given[side], side, "assistant") for side in SIDES}
    if not prompt:
        raise ValueError("prompt: empty; give the message that is answered")
    for side, messages in answers.items():
        if messages[-1]["role"] != "assistant":
            raise ValueError(f"{side}: the last message has role {messages[-1]['role']!r}: must be the assistant's")
        if len(messages) > 1 and messages[:-1] != prompt:
            raise ValueError(f"{side}: begins with other messages than the prompt; both answers need the same prompt")
    return [
        {
            "id": "",
            "split": "train",
            "prompt": with_functions(prompt, value.get("tools")),
            "chosen": answers["chosen"][-1]["content"],
            "rejected": answers["rejected"][-1]["content"],
            "level": _level(value.get("level")),
            "grades": _grades(value.get("grades")),
        }
    ]


def _said(value: Any, field: str, role: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": read_text(value, field)}]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be text or a list of messages")
    return read_messages(value, field)


def _graded(value: Mapping[str, Any]) -> list[Preference | str]:
    """Every two completions of a prompt, the one with the higher score chosen, by how far the scores lie apart.

    Ours: pairs and levels (`APART`), and that a rating of 1 or 2 of instruction following or truthfulness is our grade
    0, 3 is 1, 4 or 5 is 2.
    """
    field = "instruction" if value.get("instruction") is not None else "prompt"
    prompt = with_functions(_said(value.get(field), field, "user"), value.get("tools"))
    if not isinstance(value["completions"], list):
        raise ValueError(f"completions: value {str(value['completions'])[:40]!r}: must be a list of rated answers")
    answers = [_completion(answer, f"completions[{place}]") for place, answer in enumerate(value["completions"])]
    found: list[Preference | str] = []
    for one, other in itertools.combinations(answers, 2):
        better, worse = (one, other) if one[1] >= other[1] else (other, one)
        gap = round(better[1] - worse[1], 6)  # thirds of a point are no exact floats
        if not gap:
            found.append("tied")
            continue
        found.append(
            {
                "id": "",
                "split": "train",
                "prompt": prompt,
                "chosen": better[0],
                "rejected": worse[0],
                "level": next(level for level, least in APART.items() if gap >= least),
                "grades": {"chosen": better[2], "rejected": worse[2]},
            }
        )
    return found


def _completion(value: Any, field: str) -> tuple[str, float, dict[str, int]]:
    """An answer, its score from 1 to 5, and its grades.

    The score is the mean of the ratings, else `fine-grained_score` (the same mean), else half of `overall_score`, which
    the first edition of UltraFeedback has wrong in places.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object with a response and its ratings")
    text = read_text(value.get("response"), f"{field}.response")
    annotations = value.get("annotations")
    ratings: dict[str, float] = {}
    for aspect, note in (annotations if isinstance(annotations, Mapping) else {}).items():
        rating = note.get("Rating") if isinstance(note, Mapping) else None
        if rating is not None and rating != "N/A":
            ratings[aspect] = _score(rating, f"{field}.annotations[{aspect!r}].Rating", 5)
    grades = {name: _GRADE_OF[round(ratings[name]) - 1] for name in PROPERTIES if name in ratings}
    if ratings:
        return text, sum(ratings.values()) / len(ratings), grades
    for name, most in (("fine-grained_score", 5), ("overall_score", 10)):
        if value.get(name) is not None:
            return text, _score(value[name], f"{field}.{name}", most) * 5 / most, grades
    raise ValueError(f"{field}: no annotations with a Rating, no fine-grained_score and no overall_score; give one")


def _score(value: Any, field: str, most: int) -> float:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not 1 <= score <= most:
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be a number from 1 to {most}")
    return score


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
