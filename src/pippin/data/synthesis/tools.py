"""What a tool is to the generator of tool use: its schema, how people ask for it, and when a request fits it.

Tools come in families of look-alikes: names, descriptions and arguments that are near to each other (afm 5.9). A
request fits a tool if the tool's schema admits the arguments and the request holds one of the tool's marks, words that
tell it from its family. The oracle of a request is the only offered tool that it fits: `fitting` is that definition,
which the generator keeps and the tests check. Tools, words and definition are ours; the report gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pippin.data.world_words import Draw

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,),
}  # fmt: skip

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class Parameter:
    """An argument's schema, its values, and how they are said.

    Attributes:
        schema: JSON Schema's type, description, enum, items, default.
        draw: a value.
        say: a value in words, as it stands in a request.
        clause: what an optional argument adds to a request, "{}" for the value in words.
        question: what asks for it where it is missing.
    """

    schema: Mapping[str, Any]
    draw: Callable[[Draw], Any]
    say: Callable[[Any], str] = str
    clause: str = ""
    question: str = ""

    def pieces(self, value: Any) -> list[str]:
        """What a text must hold, in this order, to say the value."""
        if isinstance(value, list):
            return [str(item) for item in value]
        if isinstance(value, bool):  # the clause itself says it
            return [self.clause.strip()]
        return [self.say(value)]

    def said(self, value: Any) -> str:
        """The clause with the value."""
        return self.clause.replace("{}", self.say(value))


@dataclass(frozen=True)
class Tool:
    """A function that a model may call, with what is needed to make requests for it.

    Attributes:
        parameters: by name; the order is the schema's.
        optional: names of parameters that may be left out.
        marks: lower-case words; a request for this tool holds one of them.
        asks: requests, "{name}" for each argument; an optional one's clause stands where its name does.
        lacks: requests that leave out one required argument, by its name.
        returns: what a call returns, by key.
        answer: what is said then, "{key}" for arguments in words and results.
    """

    name: str
    family: str
    description: str
    parameters: Mapping[str, Parameter]
    optional: tuple[str, ...]
    marks: tuple[str, ...]
    asks: tuple[str, ...]
    returns: Callable[[Draw, Mapping[str, Any]], dict[str, Any]]
    answer: str
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def required(self) -> list[str]:
        return [name for name in self.parameters if name not in self.optional]

    def function(self) -> dict[str, Any]:
        """Name, description and parameters, as BFCL and OpenAI's `function` have them."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {name: dict(parameter.schema) for name, parameter in self.parameters.items()},
                "required": self.required,
            },
        }

    def arguments(self, draw: Draw, leave_out: float = 0.5) -> dict[str, Any]:
        """Arguments of a call; each optional one is left out with this chance. No two texts of a call are the same."""
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            if name in self.optional and draw.random() < leave_out:
                continue
            value = parameter.draw(draw)
            while value in [other for other in found.values() if isinstance(other, str)]:
                value = parameter.draw(draw)
            found[name] = value
        return found

    def fill(self, template: str, arguments: Mapping[str, Any], results: Mapping[str, Any] | None = None) -> str:
        """A request or an answer with its values in words; what is left out leaves nothing."""
        words = dict.fromkeys(self.optional, "")
        for name, value in arguments.items():
            parameter = self.parameters[name]
            words[name] = parameter.said(value) if name in self.optional else parameter.say(value)
        words |= {key: say_result(value) for key, value in (results or {}).items()}
        text = re.sub(r" +([,.?!])", r"\1", template.format(**words))
        return text[0].upper() + text[1:]

    def truth(self, arguments: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
        """The call as a ground truth of BFCL's: the accepted values of each argument, "" where it may be left out."""
        accepted: dict[str, list[Any]] = {}
        for name, parameter in self.parameters.items():
            if name in arguments:
                value = arguments[name]
                accepted[name] = [{key: [item] for key, item in value.items()} if isinstance(value, dict) else value]
            else:
                accepted[name] = [*([parameter.schema["default"]] if "default" in parameter.schema else []), ""]
        return {self.name: accepted}

    def pieces(self, arguments: Mapping[str, Any]) -> list[list[str]]:
        """For each argument what a request must hold, in order."""
        return [self.parameters[name].pieces(value) for name, value in arguments.items()]


def say_date(value: str) -> str:
    """An ISO date in words: "4 May 2027"."""
    year, month, day = value.split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def say_list(value: Sequence[str]) -> str:
    """ "flour, milk and tea"."""
    return " and ".join(filter(None, [", ".join(value[:-1]), value[-1]]))


def say_result(value: Any) -> str:
    """What a call returned, in words."""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return say_list(value)
    return say_date(value) if isinstance(value, str) and _ISO_DATE.fullmatch(value) else str(value)


def admits(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether a tool's schema takes the arguments: the required ones are there, all are described and of their type."""
    if not set(tool.required) <= arguments.keys() <= tool.parameters.keys():
        return False
    return all(_has_type(tool.parameters[name].schema, value) for name, value in arguments.items())


def _has_type(schema: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, bool) and schema["type"] != "boolean":
        return False
    if not isinstance(value, _JSON_TYPES[schema["type"]]) or value not in schema.get("enum", [value]):
        return False
    return not isinstance(value, list) or all(_has_type(schema["items"], item) for item in value)


def marked(tool: Tool, text: str) -> bool:
    """Whether a request holds one of a tool's marks, as whole words."""
    return any(re.search(rf"\b{re.escape(mark)}\b", text.lower()) for mark in tool.marks)


def fitting(tools: Iterable[Tool], text: str, arguments: Mapping[str, Any]) -> list[Tool]:
    """The tools that a request with these arguments fits. Of the tools on offer this must be the oracle alone."""
    return [tool for tool in tools if admits(tool, arguments) and marked(tool, text)]


def says(text: str, pieces: Iterable[Iterable[str]]) -> bool:
    """Whether a text says every argument: each piece as whole words, those of one argument in their order."""
    for of_one in pieces:
        at = 0
        for piece in of_one:
            found = re.compile(rf"(?<!\w){re.escape(piece)}(?!\w)", re.IGNORECASE).search(text, at)
            if found is None:
                return False
            at = found.end()
    return True
