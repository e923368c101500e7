"""Messages as published files hold them, checked field by field: OpenAI's form, and ShareGPT's.

What comes out is role and text alone (`data.chat.plain`): a call is part of what the assistant says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pippin.data.chat import ROLES, plain
from pippin.data.records import Message

_SHAREGPT = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "function_call": "assistant", "observation": "tool", "tool": "tool",
}  # fmt: skip


def read_messages(value: Any, field: str, tools: Any = None, sharegpt: bool = False) -> list[Message]:
    """A list of messages, {"role", "content", "tool_calls"} or (ShareGPT) {"from", "value"}.

    Results of several calls are put in the order of the calls where they name them (`tool_call_id`): as text they have
    no names.

    Args:
        field: the name of `value` in the file, for errors.
        tools: the file's field of that name: a list of functions, or its JSON text.

    Raises:
        ValueError: the field, its value, and what is expected.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be a list of messages, not empty")
    messages = [_structured(message, f"{field}[{place}]", sharegpt) for place, message in enumerate(value)]
    found = plain(_results_in_order(messages, field))
    for message in found:
        read_text(message["content"], field)
    return with_functions(found, tools)


def with_functions(messages: list[Message], tools: Any) -> list[Message]:
    """Messages with the functions of a file's field `tools` in their system message; as `read_messages`."""
    found = plain(messages, _functions(tools))
    read_text(found[0]["content"], "tools")
    return found


def read_message(value: Any, field: str, sharegpt: bool = False) -> Message:
    """One message; as `read_messages`."""
    (message,) = plain([_structured(value, field, sharegpt)])
    return message


def read_text(value: Any, field: str) -> str:
    """A text of whole characters; it may be empty.

    Raises:
        ValueError: the field, its value, and what is expected.
    """
    if not isinstance(value, str):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be text")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{field}: holds half a character (a lone surrogate); write the text again")
    return value


def _structured(value: Any, field: str, sharegpt: bool) -> dict[str, Any]:
    """{"role", "content"} with the calls {"id", "name", "arguments"}, and the call's id that a result names."""
    who, what = ("from", "value") if sharegpt else ("role", "content")
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object with {who} and {what}")
    roles = _SHAREGPT if sharegpt else dict(zip(ROLES, ROLES, strict=True))
    role = value.get(who)
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"{field}.{who}: value {str(role)[:40]!r}: must be one of {', '.join(roles)}")
    if role == "function_call":
        calls = _json(read_text(value.get(what), f"{field}.{what}"), f"{field}.{what}")
        calls = calls if isinstance(calls, list) else [calls]
        return {"role": "assistant", "content": "", "tool_calls": [_call(call, f"{field}.{what}") for call in calls]}
    if value.get("function_call") is not None:
        raise ValueError(f"{field}.function_call: an old form that is not read; write tool_calls")
    calls = value.get("tool_calls")
    if calls is None or calls == []:
        return {
            "role": roles[role],
            "content": read_text(value.get(what), f"{field}.{what}"),
            "result_of": value.get("tool_call_id") if role == "tool" else None,
        }
    if role != "assistant":
        raise ValueError(f"{field}.tool_calls: in a message of {role}; only the assistant calls functions")
    if not isinstance(calls, list):
        raise ValueError(f"{field}.tool_calls: value {str(calls)[:40]!r}: must be a list of calls")
    said = value.get(what)
    return {
        "role": role,
        "content": "" if said is None else read_text(said, f"{field}.{what}"),
        "tool_calls": [_call(call, f"{field}.tool_calls[{place}]") for place, call in enumerate(calls)],
    }


def _call(value: Any, field: str) -> dict[str, Any]:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping):
        raise ValueError(f"{field}: value {str(value)[:40]!r}: must be an object with name and arguments")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{field}.name: value {str(name)[:40]!r}: must be the name of a function")
    if isinstance(arguments, str):
        arguments = _json(arguments, f"{field}.arguments") if arguments.strip() else {}
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{field}.arguments: value {str(arguments)[:40]!r}: must be an object, or its JSON text")
    return {"id": value.get("id"), "name": name, "arguments": arguments}


def _results_in_order(messages: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    place = 0
    while place < len(messages):
        ids = [call["id"] for call in messages[place].get("tool_calls", ())]
        place = first = place + 1
        while place < len(messages) and messages[place].get("result_of") is not None:
            if messages[place]["result_of"] not in ids:
                named = f"{field}[{place}].tool_call_id: value {str(messages[place]['result_of'])[:40]!r}"
                raise ValueError(f"{named}: no call of the assistant message before it has this id")
            place += 1
        messages[first:place] = sorted(messages[first:place], key=lambda result: ids.index(result["result_of"]))
    return messages


def _functions(value: Any) -> list[Mapping[str, object]]:
    """The schemas of the functions, without OpenAI's {"type": "function"} around them."""
    if isinstance(value, str):
        value = _json(value, "tools") if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"tools: value {str(value)[:40]!r}: must be a list of functions")
    found = []
    for place, tool in enumerate(value):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"tools[{place}]: value {str(tool)[:40]!r}: must be a function with name and parameters")
        found.append(function)
    return found


def _json(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{field}: value {text[:40]!r}: not valid JSON ({why})") from None
