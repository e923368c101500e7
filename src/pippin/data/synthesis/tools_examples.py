"""Conversations with tool calls whose right answer is known: one pure function of (seed, index) for each kind.

Kinds (afm 5.8, 5.9; the templates and shares are ours):

    single             one tool on offer, one call
    multiple           several tools of other families on offer, one call
    lookalike          the oracle among its look-alikes and others
    parallel           several calls of one tool
    parallel_multiple  several calls of several tools
    irrelevant         nothing is wanted that a tool does: no call
    unsupported        the look-alikes are there, the oracle is not: no call
    missing            an argument is missing: it is asked for, then given, then the call

`tools_steps` adds calls that need the results of calls before them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pippin.data.synthesis.tools import Tool, fitting, says
from pippin.data.synthesis.tools_list import FAMILIES, TOOLS
from pippin.data.synthesis.tools_talk import TALK
from pippin.data.synthesis.tools_values import CITIES, PEOPLE
from pippin.data.world_words import Draw

Calls = Sequence[tuple[Tool, Mapping[str, Any]]]
Turn = dict[str, Any]  # a message in OpenAI's form
# What these do can be had from others of their family, with more calls: without them a call may be right all the same.
REPLACEABLE = frozenset({"exchange_rate", "convert_currency", "clear_list", "move_event"})
_JOINS = (" ", " Also: ", " And then: ", " One more thing: ")


@dataclass(frozen=True)
class Example:
    """A conversation about tools.

    Attributes:
        offered: the tools on offer, in their order.
        messages: OpenAI's form: `tool_calls` with arguments as JSON text, results with `tool_call_id`.
        truths: for each turn of the assistant whose calls are known, the number of messages before it and the expected
            calls as BFCL writes them; an empty list expects none.
        asked: the calls that the first message asks for, all arguments in it; empty where it may not be worded anew.
        answer: the number in the last message, where results lead to one.
    """

    kind: str
    offered: tuple[Tool, ...]
    messages: tuple[Turn, ...]
    truths: tuple[tuple[int, list[dict[str, Any]]], ...]
    asked: tuple[tuple[Tool, Mapping[str, Any]], ...] = ()
    answer: str = ""

    @property
    def text(self) -> str:
        """What the user asks first."""
        return str(self.messages[0]["content"])

    def reworded(self, text: str) -> Example:
        """The example with another first message."""
        return replace(self, messages=(user(text), *self.messages[1:]))


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def call_turn(calls: Calls, first: int = 1) -> Turn:
    """The assistant's turn that makes calls, numbered from `first`."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": tool.name, "arguments": json.dumps(arguments, ensure_ascii=False)},
            }
            for number, (tool, arguments) in enumerate(calls, first)
        ],
    }


def result_turn(number: int, result: Any) -> Turn:
    """The result of call `number`; a text as it is, anything else as JSON."""
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


def truth(calls: Calls) -> list[dict[str, Any]]:
    return [tool.truth(arguments) for tool, arguments in calls]


def _called(kind: str, draw: Draw, offered: Sequence[Tool], text: str, calls: Calls) -> Example:
    """A request and its calls; where all tools have an answer, the results and the answer too."""
    messages = [user(text), call_turn(calls)]
    if all(tool.answer for tool, _ in calls):
        said = []
        for number, (tool, arguments) in enumerate(calls, 1):
            results = tool.returns(draw, arguments)
            messages.append(result_turn(number, results))
            said.append(tool.fill(tool.answer, arguments, results))
        messages.append(assistant(" ".join(said)))
    return Example(kind, tuple(offered), tuple(messages), ((1, truth(calls)),), tuple(calls))


def _offer(draw: Draw, text: str, calls: Calls, beside: Sequence[Tool], others: int, away: set[str]) -> list[Tool]:
    """The tools of the calls, `beside`, and so many `others`, not of `away` and fitting none of the calls, shuffled."""
    oracles = list({tool.name: tool for tool, _ in calls}.values())
    offered = [*oracles, *(tool for tool in beside if tool not in oracles)]
    for tool in draw.some(TOOLS, len(TOOLS)):
        if others == 0:
            break
        if tool.family in away or tool in offered or any(fitting([tool], text, arguments) for _, arguments in calls):
            continue
        offered.append(tool)
        others -= 1
    return draw.some(offered, len(offered))


def _single(draw: Draw) -> Example:
    tool = draw.pick(TOOLS)
    arguments = tool.arguments(draw)
    return _called("single", draw, [tool], tool.fill(draw.pick(tool.asks), arguments), [(tool, arguments)])


def _multiple(draw: Draw) -> Example:
    tool = draw.pick(TOOLS)
    arguments = tool.arguments(draw)
    text = tool.fill(draw.pick(tool.asks), arguments)
    calls = [(tool, arguments)]
    return _called("multiple", draw, _offer(draw, text, calls, (), 1 + draw.below(4), {tool.family}), text, calls)


def _lookalike(draw: Draw) -> Example:
    tool = draw.pick(TOOLS)
    arguments = tool.arguments(draw)
    text = tool.fill(draw.pick(tool.asks), arguments)
    calls = [(tool, arguments)]
    offered = _offer(draw, text, calls, FAMILIES[tool.family], draw.below(3), {tool.family})
    return _called("lookalike", draw, offered, text, calls)


def _parallel(draw: Draw) -> Example:
    tool = draw.pick([tool for tool in TOOLS if tool.parameters])
    calls: list[tuple[Tool, dict[str, Any]]] = []
    n = 2 + draw.below(2)
    short = len(tool.required) == 1 and draw.below(2) == 0
    while len(calls) < n:
        arguments = tool.arguments(draw, leave_out=1.0 if short else 0.5)
        if arguments not in [other for _, other in calls]:
            calls.append((tool, arguments))
    asks = [tool.fill(draw.pick(tool.asks), arguments) for _, arguments in calls]
    if short:
        name = tool.required[0]
        more = [tool.parameters[name].say(arguments[name]) for _, arguments in calls[1:]]
        text = f"{asks[0]} And the same for {' and for '.join(more)}."
    else:
        text = asks[0] + "".join(draw.pick(_JOINS) + ask for ask in asks[1:])
    return _called("parallel", draw, _offer(draw, text, calls, (), draw.below(3), {tool.family}), text, calls)


def _parallel_multiple(draw: Draw) -> Example:
    families = draw.some(tuple(FAMILIES), 2 + draw.below(2))
    calls = []
    for family in families:
        tool = draw.pick(FAMILIES[family])
        calls.append((tool, tool.arguments(draw)))
    asks = [tool.fill(draw.pick(tool.asks), arguments) for tool, arguments in calls]
    text = asks[0] + "".join(draw.pick(_JOINS) + ask for ask in asks[1:])
    offered = _offer(draw, text, calls, (), draw.below(3), set(families))
    return _called("parallel_multiple", draw, offered, text, calls)


def _irrelevant(draw: Draw) -> Example:
    text, reply = draw.pick(TALK)
    values = {"city": draw.pick(CITIES), "person": draw.pick(PEOPLE)}
    offered = draw.some(TOOLS, 1 + draw.below(5))
    messages = (user(text.format(**values)), assistant(reply.format(**values)))
    return Example("irrelevant", tuple(offered), messages, ((1, []),))


def _unsupported(draw: Draw) -> Example:
    tool = draw.pick([tool for tool in TOOLS if tool.name not in REPLACEABLE])
    arguments = tool.arguments(draw)
    text = tool.fill(draw.pick(tool.asks), arguments)
    near = [other for other in FAMILIES[tool.family] if other is not tool]
    offered = _offer(draw, text, [(tool, arguments)], near, draw.below(3), {tool.family})
    offered.remove(tool)
    what = tool.description[0].lower() + tool.description[1:].rstrip(".")
    reply = draw.pick(("I cannot do that: I have no tool that {}.", "I am sorry, none of my tools {}.")).format(what)
    return Example("unsupported", tuple(offered), (user(text), assistant(reply)), ((1, []),))


def _missing(draw: Draw) -> Example:
    """The question for an argument, then the call; the lacking request fits no tool on offer."""
    tool = draw.pick([tool for tool in TOOLS if tool.lacks])
    name = draw.pick(tuple(tool.lacks))
    parameter = tool.parameters[name]
    while True:
        arguments = tool.arguments(draw)
        text = tool.fill(tool.lacks[name], arguments)
        given = {key: value for key, value in arguments.items() if says(text, [tool.parameters[key].pieces(value)])}
        if name not in given:
            break
    # An optional argument that the request does not say is none.
    arguments = {key: value for key, value in arguments.items() if key in given or key in tool.required}
    near = FAMILIES[tool.family] if draw.below(2) else ()
    near = tuple(other for other in near if other is tool or not fitting([other], text, given))
    offered = _offer(draw, text, [(tool, given)], near, draw.below(3), {tool.family})
    done = _called("missing", draw, offered, text, [(tool, arguments)])
    begin = (user(text), assistant(parameter.question), user(_given(draw, parameter.say(arguments[name]))))
    return replace(
        done, messages=(*begin, *done.messages[1:]), truths=((1, []), (3, truth([(tool, arguments)]))), asked=()
    )


def _given(draw: Draw, words: str) -> str:
    text = draw.pick(("{}.", "{}, please.", "I mean {}.")).format(words)
    return text[0].upper() + text[1:]


KINDS: dict[str, Callable[[Draw], Example]] = {
    "single": _single,
    "multiple": _multiple,
    "lookalike": _lookalike,
    "parallel": _parallel,
    "parallel_multiple": _parallel_multiple,
    "irrelevant": _irrelevant,
    "unsupported": _unsupported,
    "missing": _missing,
}

# Those whose first message may be put in other words: all arguments are in it, so a text can be checked for them.
REWORDED = ("single", "multiple", "lookalike", "parallel", "parallel_multiple")


def example(kind: str, seed: int, index: int) -> Example:
    """One example of a kind of `KINDS`."""
    return KINDS[kind](Draw("tools", kind, seed, index))
