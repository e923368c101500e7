"""Params: nested frozen dataclasses, overridden by `path=value` before the stage graph is built.

A recipe is a function of its Params, so derived numbers follow an override:

>>> from dataclasses import dataclass, field
>>> @dataclass(frozen=True)
... class Train:
...     steps: int = 100
...     lr: float = 0.01
>>> @dataclass(frozen=True)
... class Params:
...     seed: int = 0
...     train: Train = field(default_factory=Train)
>>> override(Params(), ["train.steps=20", "seed=1"])
Params(seed=1, train=Train(steps=20, lr=0.01))
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pippin.errors import UserError
from pippin.files import read_json

P = TypeVar("P")


def leaves(params: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) for every field of a nested dataclass that is not itself a dataclass."""
    for field in dataclasses.fields(params):
        path, value = f"{prefix}{field.name}", getattr(params, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def override(params: P, assignments: Iterable[str]) -> P:
    """Return `params` with each `path=value` applied, in order.

    A value is read by the field's annotated type: text stays text, anything else is JSON (`none` is null, and leaves
    out a group that may be missing). For a table the path of a JSON file will do: its "weights" if it has them (a
    mixture.json), else all of it.

    Raises:
        UserError: no `=`, an unknown path (with the nearest known ones), or a value of the wrong type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"override {assignment!r}: expected path=value, for example seed=1")
        params = _replace(params, params, path.strip(), path.strip().split("."), text)
    return params


def _replace(root: Any, node: Any, path: str, keys: list[str], text: str) -> Any:
    hints = typing.get_type_hints(type(node))
    if keys[0] not in hints or not any(f.name == keys[0] for f in dataclasses.fields(node)):
        raise UserError(f"override {path!r}: no such setting; {_nearest(root, path)}")
    value = getattr(node, keys[0])
    if dataclasses.is_dataclass(value):
        left_out = len(keys) == 1 and text.strip().lower() == "none" and type(None) in typing.get_args(hints[keys[0]])
        if left_out:
            new = None
        elif len(keys) == 1:
            names = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(value))
            raise UserError(f"override {path!r}: this is a group; set one of {names}")
        else:
            new = _replace(root, value, path, keys[1:], text)
    elif len(keys) > 1:
        raise UserError(f"override {path!r}: no such setting; {_nearest(root, path)}")
    else:
        new = _parse(hints[keys[0]], path, text)
    return dataclasses.replace(node, **{keys[0]: new})


def _parse(hint: Any, path: str, text: str) -> Any:
    adapter = TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))
    json_text = "null" if text.strip().lower() == "none" else text
    if typing.get_origin(hint) is dict and text.endswith(".json"):
        found = read_json(text)
        json_text = json.dumps(found.get("weights", found) if isinstance(found, dict) else found)
    try:
        if hint is str:
            return text
        try:
            return adapter.validate_json(json_text)
        except ValidationError:
            return adapter.validate_python(text)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        expected = getattr(hint, "__name__", str(hint))
        raise UserError(f"override {path}={text!r}: expected {expected}; {reason[:1].lower()}{reason[1:]}") from None


def _nearest(root: Any, path: str) -> str:
    known = [name for name, _ in leaves(root)]
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    # A right last name in a wrong group is the commonest slip, and edit distance alone misses it.
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    suggestions = list(dict.fromkeys(same_leaf[:3] + close))[:4]
    if suggestions:
        return f"did you mean {' or '.join(suggestions)}?"
    return "`pippin show RECIPE` lists all settings"
