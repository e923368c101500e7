"""What the models of a committee said to prompts: JSON lines, one response a line.

{"prompt": id, "member": name, "sample": 0, "response": text, "tokens": 7, "log_prob": -3.2, "stopped": true}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from pippin.data.messages import read_text
from pippin.data.rows import read_rows
from pippin.errors import UserError

FILE = "responses.jsonl"
_FIELDS: dict[str, tuple[Any, str]] = {
    "prompt": (str, "a prompt's id"),
    "member": (str, "a name"),
    "sample": (int, "a whole number"),
    "response": (str, "text"),
    "tokens": (int, "a whole number"),
    "log_prob": ((int, float), "a number"),
    "stopped": (bool, "true or false"),
}


class Response(TypedDict):
    """One sample.

    `tokens` counts what was drawn, the token that ended it included; `log_prob` is the log-probability of all of them
    at the temperature of sampling; `stopped` is False where the length ended it.
    """

    prompt: str
    member: str
    sample: int
    response: str
    tokens: int
    log_prob: float
    stopped: bool


def to_lines(responses: Iterable[Response]) -> str:
    """The text of a file of responses."""
    return "".join(json.dumps(response, ensure_ascii=False, allow_nan=False) + "\n" for response in responses)


def read_responses(path: str | Path) -> list[Response]:
    """The responses of a file, in order.

    Raises:
        UserError: file, line and field: what is wrong there; or the same sample twice.
    """
    path = Path(path)
    found: list[Response] = []
    seen: set[tuple[str, str, int]] = set()
    for number, value in read_rows(path, "responses"):
        try:
            response = _response(value)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        key = (response["prompt"], response["member"], response["sample"])
        if key in seen:
            raise UserError(f"{path}:{number}: sample {key[2]} of {key[1]} to prompt {key[0]!r} is there twice")
        seen.add(key)
        found.append(response)
    if not found:
        raise UserError(f"{path}: holds no response")
    return found


def by_prompt(responses: Iterable[Response]) -> dict[str, list[Response]]:
    """The responses to each prompt, in their order."""
    found: dict[str, list[Response]] = {}
    for response in responses:
        found.setdefault(response["prompt"], []).append(response)
    return found


def members_of(responses: Sequence[Response]) -> list[str]:
    """The members' names in the order of the file, which is that of the committee."""
    return list(dict.fromkeys(response["member"] for response in responses))


def _response(value: Any) -> Response:
    """One line's value; ValueError with the field and what is wrong."""
    if isinstance(value, ValueError):
        raise value
    if not isinstance(value, dict):
        raise ValueError(f"value {str(value)[:40]!r}: must be an object with prompt, member, sample and response")
    for name, (kind, said) in _FIELDS.items():
        given = value.get(name)
        if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
            raise ValueError(f"{name}: value {str(given)[:40]!r}: must be {said}")
    if not math.isfinite(value["log_prob"]):
        raise ValueError(f"log_prob: value {value['log_prob']}: must be finite")
    return {
        "prompt": value["prompt"],
        "member": value["member"],
        "sample": value["sample"],
        "response": read_text(value["response"], "response"),
        "tokens": value["tokens"],
        "log_prob": float(value["log_prob"]),
        "stopped": value["stopped"],
    }
