"""Prompts and what decides whether an answer to them is right: JSON lines, JSON or Parquet, read strictly.

A prompt is {"id", "split", "messages", "verifier", "source"}; only messages must be there. The verifiers (the fields of
the public benchmarks; `evaluate.verify.prompts` runs them) are

    {"kind": "exact", "answer"}                             the text itself, white space at both ends aside
    {"kind": "gsm8k", "answer"}                             the final number
    {"kind": "math", "answer"}                              the value of the final answer
    {"kind": "ifeval", "instruction_id_list", "kwargs"}     every instruction is followed
    {"kind": "code", "prompt", "test", "entry_point"}       the tests pass (HumanEval's fields, or MBPP's test_list)
    {"kind": "tools", "function", "ground_truth"}           the calls are the expected ones (BFCL's fields)

The rows of GSM8K, MATH, IFEval, HumanEval and BFCL are prompts as they are published: their question is the message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from pippin import files
from pippin.data.messages import read_messages, read_text
from pippin.data.records import Message, Split, split_of
from pippin.data.rows import read_rows
from pippin.errors import UserError

# The fields that the verifier of each kind needs, and their types in JSON.
KINDS: dict[str, dict[str, type]] = {
    "exact": {"answer": str},
    "gsm8k": {"answer": str},
    "math": {"answer": str},
    "ifeval": {"instruction_id_list": list, "kwargs": list},
    "code": {"prompt": str, "test": str, "entry_point": str},
    "tools": {"function": list},
}
_MBPP: dict[str, type] = {"test_list": list}
# Of a benchmark's rows: the kind of verifier, the field of what is asked, and the fields that the verifier takes.
_PUBLISHED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("gsm8k", "question", ("answer",)),
    ("math", "problem", ("answer",)),
    ("math", "problem", ("solution",)),
    ("ifeval", "prompt", ("instruction_id_list", "kwargs")),
    ("code", "prompt", ("test", "entry_point")),
    ("tools", "question", ("function",)),
)
_JSON: dict[type, str] = {str: "text", list: "a list"}


class Prompt(TypedDict):
    """One prompt. `messages` end with a user's or a tool's; `verifier` is None where only a grader can judge."""

    id: str
    split: Split
    messages: list[Message]
    verifier: dict[str, Any] | None
    source: str


def read_prompts(path: str | Path, split: Split | None = None) -> list[Prompt]:
    """The prompts of a file in order (.jsonl, .json or .parquet; JSON also with .gz behind it), of one side or all.

    Without an id it is file:line (or file:row), without a split it follows from a hash of the messages (about 5 % are
    held out), without a source it is the file's name. Other fields are not looked at.

    Raises:
        UserError: one line that names file, line and field: what is wrong there, and how many lines have errors.
    """
    path = Path(path)
    found: list[Prompt] = []
    wrong: list[str] = []
    ids: dict[str, int] = {}
    sides: dict[str, tuple[Split, int]] = {}
    for number, value in read_rows(path, "prompts"):
        try:
            if isinstance(value, ValueError):
                raise value
            prompt = _prompt(value, path.name, number)
            first = ids.setdefault(prompt["id"], number)
            if first != number:
                raise ValueError(f"id: value {prompt['id'][:40]!r}: line {first} has it, too; an id names one prompt")
            side, first = sides.setdefault(_key(prompt["messages"]), (prompt["split"], number))
            if side != prompt["split"]:
                raise ValueError(f"split: value {prompt['split']!r}: line {first} has the same messages as {side!r}")
        except ValueError as error:
            wrong.append(f"{path}:{number}: {error}")
            continue
        if split is None or prompt["split"] == split:
            found.append(prompt)
    if wrong:
        more = f" ({len(wrong)} lines have errors)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    if not found:
        raise UserError(f"{path}: has no {f'{split} prompts' if split else 'prompts'}; give some")
    return found


def write_prompts(path: str | Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts as JSON lines; `read_prompts` gives the same ones back."""
    lines = (json.dumps(prompt, ensure_ascii=False, allow_nan=False) + "\n" for prompt in prompts)
    files.write_text(path, "".join(lines))


def _prompt(value: Any, name: str, number: int) -> Prompt:
    if not isinstance(value, Mapping):
        raise ValueError(f"value {str(value)[:40]!r}: must be an object with messages and a verifier")
    if value.get("messages") is not None:
        messages, verifier = read_messages(value["messages"], "messages", value.get("tools")), value.get("verifier")
    else:
        messages, verifier = _published(value)
    if messages[-1]["role"] not in ("user", "tool"):
        raise ValueError(
            f"messages: the last message is of {messages[-1]['role']}; it must be the user's or a tool's, as that is "
            "what is answered"
        )
    split = value.get("split")
    if split not in ("train", "heldout", None):
        raise ValueError(f"split: value {str(split)[:40]!r}: must be train or heldout")
    return {
        "id": _name(value.get("id"), "id", _name(value.get("task_id"), "task_id", f"{name}:{number}")),
        "split": split or split_of(_key(messages)),
        "messages": messages,
        "verifier": _verifier(verifier),
        "source": _name(value.get("source"), "source", name),
    }


def _published(value: Mapping[str, Any]) -> tuple[list[Message], dict[str, Any]]:
    """The messages and the verifier of a benchmark's row, which is known by its fields."""
    for kind, field, fields in _PUBLISHED:
        if any(value.get(name) is None for name in (field, *fields)):
            continue
        verifier = {"kind": kind} | {name: value[name] for name in fields}
        if kind == "tools":
            if value.get("ground_truth") is not None:
                verifier["ground_truth"] = value["ground_truth"]
            turns = value[field]
            if not isinstance(turns, list) or len(turns) != 1:
                raise ValueError(f"{field}: value {str(turns)[:40]!r}: must be a list of one turn, a list of messages")
            return read_messages(turns[0], f"{field}[0]", value["function"]), verifier
        if kind == "code":
            verifier["prompt"] = value[field]
        if "solution" in verifier:
            verifier["answer"] = verifier.pop("solution")
        return [{"role": "user", "content": read_text(value[field], field)}], verifier
    known = "; ".join(f"{', '.join((field, *fields))} ({kind})" for kind, field, fields in _PUBLISHED)
    raise ValueError(f"fields {', '.join(value)[:60]!r}: fit no known layout; known: messages; {known}")


def _key(messages: list[Message]) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


def _name(value: Any, field: str, default: str) -> str:
    name = default if value is None else read_text(value, field)
    if not name.isprintable():
        raise ValueError(f"{field}: value {name[:40]!r}: must be one line of printable text")
    return name


def _verifier(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"verifier: value {str(value)[:40]!r}: must be an object with a kind")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"verifier.kind: value {str(kind)[:40]!r}: must be one of {', '.join(KINDS)}")
    fields = _MBPP if kind == "code" and "test_list" in value else KINDS[kind]
    for name, type_ in fields.items():
        if not isinstance(value.get(name), type_):
            shown = f"value {str(value[name])[:40]!r}" if name in value else "missing"
            raise ValueError(f"verifier.{name}: {shown}: must be {_JSON[type_]}, as kind {kind!r} needs it")
    return dict(value)
