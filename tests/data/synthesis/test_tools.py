"""Generated tool use: every ground truth holds, every change of it fails, the oracle is the only tool that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pippin.data.synthesis.tools import admits, fitting, says
from pippin.data.synthesis.tools_examples import KINDS, REPLACEABLE, REWORDED, Example, example
from pippin.data.synthesis.tools_list import FAMILIES, TOOLS
from pippin.data.synthesis.tools_reword import objection, reworded
from pippin.data.synthesis.tools_steps import multi_step
from pippin.data.world_words import Draw
from pippin.evaluate.verify.tools import check_tools

N = 60


def made(kind: str, n: int = N) -> list[Example]:
    return [multi_step(0, i) if kind == "multi_step" else example(kind, 0, i) for i in range(n)]


def functions(of: Example) -> list[dict[str, Any]]:
    return [tool.function() for tool in of.offered]


def calls_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        for call in turn.get("tool_calls", ())
    ]


def mutations(of: Example, calls: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Wrong forms of calls that are right."""
    yield "none", []
    yield "one twice", [*calls, calls[0]]
    for number, call in enumerate(calls):

        def changed(what: dict[str, Any], number: int = number) -> list[dict[str, Any]]:
            return [what if i == number else other for i, other in enumerate(calls)]

        name, arguments = call["name"], call["arguments"]
        tool = next(tool for tool in of.offered if tool.name == name)
        yield "name", changed({"name": name + "s", "arguments": arguments})
        yield "extra", changed({"name": name, "arguments": arguments | {"other": 1}})
        for other in of.offered:
            if other.name not in [c["name"] for c in calls]:
                yield "other tool", changed({"name": other.name, "arguments": arguments})
        for key, value in arguments.items():
            if key in tool.required:
                yield "missing", changed({"name": name, "arguments": {k: v for k, v in arguments.items() if k != key}})
            if isinstance(value, bool):
                wrong: Any = not value
            elif isinstance(value, int | float):
                wrong = value + 1
                yield "type", changed({"name": name, "arguments": arguments | {key: str(value)}})
            elif isinstance(value, str):
                wrong = value + " and more"
            elif isinstance(value, list):
                wrong = [*value, "more"]
            else:
                wrong = value | {"city": "Nowhere"}
            yield "value", changed({"name": name, "arguments": arguments | {key: wrong}})


def test_the_tools_are_well_formed() -> None:
    assert len(TOOLS) >= 40 and len({tool.name for tool in TOOLS}) == len(TOOLS)
    assert len({tool.description for tool in TOOLS}) == len(TOOLS)
    assert {tool.name for tool in TOOLS} >= REPLACEABLE
    assert min(len(family) for family in FAMILIES.values()) >= 3
    for tool in TOOLS:
        function = tool.function()
        assert set(function["parameters"]["required"]) <= function["parameters"]["properties"].keys()
        assert set(tool.lacks) <= set(tool.required)
        assert json.loads(json.dumps(function)) == function


@pytest.mark.parametrize("kind", [*KINDS, "multi_step"])
def test_ground_truths_hold_and_changed_calls_fail(kind: str) -> None:
    tried = set()
    for of in made(kind):
        assert of.truths
        for at, expected in of.truths:
            turn = of.messages[at]
            assert turn["role"] == "assistant"
            response = {"tool_calls": turn["tool_calls"]} if "tool_calls" in turn else turn["content"]
            assert check_tools(functions(of), expected, response).correct
            calls = calls_of(turn)
            assert (calls == []) == (expected == [])
            if expected:
                for what, wrong in mutations(of, calls):
                    tried.add(what)
                    assert not check_tools(functions(of), expected, wrong).correct, (what, wrong)
            else:
                for tool in of.offered:  # no call at all is right, whatever the call
                    call = {"name": tool.name, "arguments": tool.arguments(Draw(tool.name))}
                    assert not check_tools(functions(of), expected, [call]).correct
    if kind not in ("irrelevant", "unsupported"):
        assert {"none", "one twice", "name", "extra", "missing", "value"} <= tried


def test_the_oracle_is_the_only_tool_of_its_family_that_fits_any_request_for_it() -> None:
    for tool in TOOLS:
        for number in range(12):
            arguments = tool.arguments(Draw("oracle", tool.name, number))
            for ask in tool.asks:
                text = tool.fill(ask, arguments)
                assert fitting(FAMILIES[tool.family], text, arguments) == [tool], text
                assert says(text, tool.pieces(arguments)), text


@pytest.mark.parametrize("kind", [kind for kind in REWORDED if kind != "parallel"])
def test_nothing_on_offer_fits_but_the_oracles(kind: str) -> None:
    for of in made(kind):
        expected = {tool.name for tool, _ in of.asked}
        for tool, arguments in of.asked:
            fits = {found.name for found in fitting(of.offered, of.text, arguments)}
            assert tool.name in fits and fits <= expected


def test_look_alikes_are_on_offer_and_need_telling_apart() -> None:
    by_schema = by_words = 0
    for of in made("lookalike"):
        ((tool, arguments),) = of.asked
        others = [other for other in of.offered if other.family == tool.family and other is not tool]
        assert len(others) >= 2
        by_schema += any(not admits(other, arguments) for other in others)
        by_words += any(admits(other, arguments) for other in others)
    assert by_schema and by_words  # some differ in what they take, some in what they say only


def test_what_is_unsupported_fits_nothing_on_offer() -> None:
    for number, of in enumerate(made("unsupported")):
        draw = Draw("tools", "unsupported", 0, number)
        tool = draw.pick([tool for tool in TOOLS if tool.name not in REPLACEABLE])
        arguments = tool.arguments(draw)
        assert of.text in [tool.fill(ask, arguments) for ask in tool.asks]
        assert {other.name for other in FAMILIES[tool.family]} - {other.name for other in of.offered} == {tool.name}
        assert fitting(of.offered, of.text, arguments) == []
        assert fitting([tool], of.text, arguments) == [tool]


def test_a_missing_argument_is_asked_for_and_then_used() -> None:
    for of in made("missing"):
        assert [at for at, _ in of.truths] == [1, 3]
        assert str(of.messages[1]["content"]).endswith("?")
        (call,) = calls_of(of.messages[3])
        tool = next(tool for tool in of.offered if tool.name == call["name"])
        unsaid = [
            key for key in tool.required if not says(of.text, [tool.parameters[key].pieces(call["arguments"][key])])
        ]
        assert len(unsaid) == 1
        assert says(str(of.messages[2]["content"]), [tool.parameters[unsaid[0]].pieces(call["arguments"][unsaid[0]])])
        known = {key: value for key, value in call["arguments"].items() if key != unsaid[0]}
        assert fitting(of.offered, of.text, known) == []


def test_parallel_calls_are_several_of_one_tool_or_of_several() -> None:
    for of in made("parallel"):
        names = [call["name"] for call in calls_of(of.messages[1])]
        assert len(names) >= 2 and len(set(names)) == 1
    for of in made("parallel_multiple"):
        names = [call["name"] for call in calls_of(of.messages[1])]
        assert len(names) >= 2 and len(set(names)) == len(names)


def test_results_answer_the_calls_before_them() -> None:
    for kind in (*KINDS, "multi_step"):
        for of in made(kind, 20):
            waiting: list[str] = []
            for message in of.messages:
                if message["role"] == "tool":
                    assert message["tool_call_id"] == waiting.pop(0)
                else:
                    assert not waiting
                waiting += [call["id"] for call in message.get("tool_calls", ())]


def test_later_steps_use_what_earlier_ones_returned() -> None:
    """The last call of a chain has an argument that the user never said, and a result did; or there is none."""
    made_calls = left_out = 0
    for of in made("multi_step", 120):
        last = calls_of(of.messages[of.truths[-1][0]])
        if not last:
            left_out += 1
            continue
        tool = next(tool for tool in of.offered if tool.name == last[0]["name"])
        unsaid = [p for p in tool.pieces(last[0]["arguments"]) if not says(of.text, [p])]
        results = [str(message["content"]) for message in of.messages if message["role"] == "tool"]
        values = json.dumps([json.loads(result) for result in results])
        if unsaid:
            value = [v for v in last[0]["arguments"].values() if json.dumps(v) in values]
            assert value, of
            made_calls += 1
    assert made_calls >= 20 and left_out >= 10


def test_examples_are_the_same_every_time_and_differ_by_seed() -> None:
    for kind in KINDS:
        assert example(kind, 3, 5) == example(kind, 3, 5)
        assert [example(kind, 0, i).text for i in range(9)] != [example(kind, 1, i).text for i in range(9)]


def _lights() -> Example:
    return next(of for of in (example("lookalike", 0, i) for i in range(2_000)) if of.asked[0][0].name == "set_light")


def test_a_wording_is_kept_only_where_the_calls_still_hold() -> None:
    of = _lights()
    arguments = of.asked[0][1]
    room, percent = arguments["room"], arguments["percent"]
    assert objection(of, f"Could you bring the light in the {room} to {percent} per cent?") == ""
    cases = {
        of.text: "nothing new",
        "": "nothing new",
        f"Bring the light in the {room} down.": "an argument is missing",
        f"Bring the light in the {room} to {percent}5 per cent.": "an argument is missing",
        f"Bring the light in the {room} to {percent} per cent in 20 seconds.": "a number was added",
        f"Bring it to {percent} per cent in the {room}.": "the oracle does not fit",
        f"Bring the light and the blinds in the {room} to {percent} per cent.": "another tool fits",
        f'<tool_call>{{"name": "set_light"}}</tool_call> light {room} {percent}': "no message of a person",
        f"light {room} {percent} " * 60: "no message of a person",
    }
    assert {text: objection(of, text) for text in cases} == cases


def test_a_wording_loses_the_marks_around_it() -> None:
    assert reworded('  "Wake me\n at 07:00." ') == "Wake me at 07:00."
    assert reworded('"Deep Work" please, then "Long Drive"') == '"Deep Work" please, then "Long Drive"'


def test_lists_are_said_in_their_order() -> None:
    assert says("flour, milk and tea", [["flour", "milk"]])
    assert not says("milk, flour and tea", [["flour", "milk"]])
    assert not says("flourish and milk", [["flour", "milk"]])
