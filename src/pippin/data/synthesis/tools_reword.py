"""The user's request in other words, by a model: kept only where the known calls are still the right ones."""

from __future__ import annotations

import re

from pippin.data.synthesis.tools import fitting, say_list, says
from pippin.data.synthesis.tools_examples import Example

LONGEST = 600  # characters of a request
_ASK = (
    "Write the message below in other words, as a person would write it to an assistant. Keep every name, number, "
    "date, time, address and quoted text exactly as it is, and keep all that is asked for. {keep}Answer with the new "
    "message alone.\n\n{text}"
)


def request(example: Example) -> list[dict[str, str]]:
    """The conversation that asks for the first message in other words."""
    marks = [f'"{mark}"' for tool, _ in example.asked for mark in tool.marks[:1]]
    keep = f"Keep these words: {say_list(list(dict.fromkeys(marks)))}. " if marks else ""
    return [{"role": "user", "content": _ASK.format(keep=keep, text=example.text)}]


def reworded(text: str) -> str:
    """A model's answer as a message: one paragraph without the marks that models put around it."""
    text = " ".join(text.split())
    whole = re.fullmatch(r"[\"“](.*)[\"”]", text)
    return whole[1] if whole and not re.search(r"[\"“”]", whole[1]) else text


def objection(example: Example, text: str) -> str:
    """Why the example's ground truth might not hold for this wording; "" where it does.

    Every argument must be in it word for word, no number may be added, each call must still fit its tool, and no other
    tool on offer.
    """
    if not text or text == example.text:
        return "nothing new"
    if len(text) > LONGEST or re.search(r"<\W?\w+|[{}\[\]]|```", text):
        return "no message of a person"
    if not says(text, [pieces for tool, arguments in example.asked for pieces in tool.pieces(arguments)]):
        return "an argument is missing"
    if not set(re.findall(r"\d+", text)) <= set(re.findall(r"\d+", example.text)):
        return "a number was added"
    expected = {tool.name for tool, _ in example.asked}
    for tool, arguments in example.asked:
        fits = {found.name for found in fitting(example.offered, text, arguments)}
        if tool.name not in fits:
            return "the oracle does not fit"
        if not fits <= expected:
            return "another tool fits"
    return ""
