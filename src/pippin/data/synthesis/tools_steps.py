"""Conversations of several steps: a call needs what the call before it returned, or is not made because of it.

`multi_step` uses the tools of `tools_list`, whose results are invented; `with_python` and `with_search` use two that
really run (`tools_real`): a conversation is kept only where they returned the answer that is known otherwise.
"""

from __future__ import annotations

import calendar
import datetime
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pippin.data.synthesis.tools import Tool, say_list
from pippin.data.synthesis.tools_examples import (
    Calls,
    Example,
    Turn,
    assistant,
    call_turn,
    result_turn,
    truth,
    user,
)
from pippin.data.synthesis.tools_list import BY_NAME, TOOLS
from pippin.data.synthesis.tools_notes import Inn
from pippin.data.synthesis.tools_real import PYTHON, SEARCH, PythonTool, SearchTool
from pippin.data.synthesis.tools_values import ITEMS, TEXTS
from pippin.data.world_words import Draw


class _Talk:
    """A conversation that grows by calls and their results."""

    def __init__(self, text: str) -> None:
        self.messages: list[Turn] = [user(text)]
        self.truths: list[tuple[int, list[dict[str, Any]]]] = []
        self._made = 0

    def call(self, calls: Calls, results: Sequence[Any], exact: bool = True) -> None:
        """Calls made at the same time; `exact`: they alone are right, so that they can be verified."""
        if exact:
            self.truths.append((len(self.messages), truth(calls)))
        self.messages.append(call_turn(calls, self._made + 1))
        for result in results:
            self._made += 1
            self.messages.append(result_turn(self._made, result))

    def invented(self, draw: Draw, name: str, **arguments: Any) -> dict[str, Any]:
        """One call of a tool of `tools_list`, and what it returned."""
        tool = BY_NAME[name]
        results = tool.returns(draw, arguments)
        self.call([(tool, arguments)], [results])
        return results

    def end(self, kind: str, offered: Sequence[Tool], text: str, answer: str = "", no_call: bool = False) -> Example:
        """The last word; `no_call`: that it is a word and no call is what is verified."""
        if no_call:
            self.truths.append((len(self.messages), []))
        self.messages.append(assistant(text))
        return Example(kind, tuple(offered), tuple(self.messages), tuple(self.truths), (), answer)


def _values(draw: Draw, name: str) -> dict[str, Any]:
    return BY_NAME[name].arguments(draw, leave_out=1.0)


def _beside(draw: Draw, *names: str) -> list[Tool]:
    """The tools of a job among up to three others."""
    own = [BY_NAME[name] for name in names]
    others = [tool for tool in draw.some(TOOLS, 6) if tool not in own][: draw.below(4)]
    return draw.some([*own, *others], len(own) + len(others))


def _mail_a_person(draw: Draw) -> Example:
    mail, person = _values(draw, "send_email"), _values(draw, "find_contact")["person"]
    talk = _Talk(
        f'Find out the e-mail address of {person} and send there an e-mail with the subject "{mail["subject"]}" '
        f'that says "{mail["text"]}".'
    )
    email = talk.invented(draw, "find_contact", person=person)["email_address"]
    talk.invented(draw, "send_email", email=email, subject=mail["subject"], text=mail["text"])
    return talk.end("multi_step", _beside(draw, "find_contact", "send_email"), f"The e-mail is sent to {email}.")


def _train_into_calendar(draw: Draw) -> Example:
    trip = _values(draw, "find_trains")
    title = f"train to {trip['destination']}"
    tool = BY_NAME["find_trains"]
    talk = _Talk(tool.fill(tool.asks[0], trip)[:-1] + f', and put it into my calendar as "{title}" when it leaves.')
    found = talk.invented(draw, "find_trains", **trip)
    talk.invented(draw, "create_event", title=title, date=trip["date"], time=found["departs"])
    said = f'The train leaves at {found["departs"]}; "{title}" is in your calendar.'
    return talk.end("multi_step", _beside(draw, "find_trains", "create_event", "find_buses"), said)


def _cancel_if_packed(draw: Draw) -> Example:
    number = _values(draw, "order_status")["order_number"]
    talk = _Talk(f"If order {number} is still being packed, cancel it. Otherwise leave it as it is.")
    state = talk.invented(draw, "order_status", order_number=number)["state"]
    offered = _beside(draw, "order_status", "cancel_order")
    if state != "being packed":
        return talk.end("multi_step", offered, f"Order {number} is {state}, so I have left it as it is.", no_call=True)
    talk.invented(draw, "cancel_order", order_number=number)
    return talk.end("multi_step", offered, f"Order {number} was still being packed. It is cancelled now.")


def _heat_if_cold(draw: Draw) -> Example:
    city, heating = _values(draw, "weather_now")["city"], _values(draw, "set_heating")
    limit = draw.below(25)
    talk = _Talk(
        f"If it is colder than {limit} degrees Celsius in {city} right now, set the heating in the {heating['room']} "
        f"to {heating['degrees']} degrees."
    )
    warm = talk.invented(draw, "weather_now", city=city)["temperature"]
    offered = _beside(draw, "weather_now", "set_heating")
    if warm >= limit:
        said = f"It is {warm} degrees in {city}, so I have not touched the heating."
        return talk.end("multi_step", offered, said, no_call=True)
    talk.invented(draw, "set_heating", **heating)
    said = f"It is {warm} degrees in {city}; the {heating['room']} will be {heating['degrees']} degrees warm."
    return talk.end("multi_step", offered, said)


def _birthday_reminder(draw: Draw) -> Example:
    person, text = _values(draw, "contact_birthday")["person"], draw.pick(TEXTS)
    talk = _Talk(f'Look up the birthday of {person} and remind me on that day: "{text}".')
    day = talk.invented(draw, "contact_birthday", person=person)["birthday"]
    talk.invented(draw, "add_reminder", text=text, date=day)
    offered = _beside(draw, "contact_birthday", "add_reminder", "find_contact")
    return talk.end("multi_step", offered, f"I will remind you on {day}, {person}'s birthday.")


def _add_what_lacks(draw: Draw) -> Example:
    name, wanted = _values(draw, "read_list")["list_name"], draw.some(ITEMS, 3)
    talk = _Talk(f"Look at my {name} list and add what is not on it yet of these, in this order: {say_list(wanted)}.")
    there = talk.invented(draw, "read_list", list_name=name)["open_items"]
    lacking = [item for item in wanted if item not in there]
    offered = _beside(draw, "read_list", "add_to_list", "remove_from_list")
    if not lacking:
        return talk.end("multi_step", offered, f"All of them are on the {name} list already.", no_call=True)
    talk.invented(draw, "add_to_list", list_name=name, items=lacking)
    return talk.end("multi_step", offered, f"I have added {say_list(lacking)} to the {name} list.")


def _dinner(draw: Draw) -> Example:
    """Three steps."""
    place, table = _values(draw, "find_restaurants"), _values(draw, "book_table")
    friend = _values(draw, "send_message")["recipient"]
    find, book = BY_NAME["find_restaurants"], BY_NAME["book_table"]
    words = {name: book.parameters[name].say(table[name]) for name in ("date", "time", "party")}
    talk = _Talk(
        f"{find.fill(find.asks[0], place)[:-1]}, book a table there for {words['party']} people on {words['date']} at "
        f"{words['time']}, and then text {friend} the name of the place, nothing else."
    )
    found = talk.invented(draw, "find_restaurants", **place)["found"]
    talk.invented(draw, "book_table", **table | {"restaurant": found})
    talk.invented(draw, "send_message", recipient=friend, text=found)
    offered = _beside(draw, "find_restaurants", "book_table", "send_message")
    return talk.end("multi_step", offered, f"A table at {found} is booked, and {friend} knows.")


_CHAINS = (
    _mail_a_person, _train_into_calendar, _cancel_if_packed, _heat_if_cold, _birthday_reminder, _add_what_lacks,
    _dinner,
)  # fmt: skip


def multi_step(seed: int, index: int) -> Example:
    """Two or three steps; in some the result decides that the last call is not made."""
    draw = Draw("tools", "multi_step", seed, index)
    return draw.pick(_CHAINS)(draw)


class _Sum(NamedTuple):
    """A question, a program that answers it, and the answer by another way."""

    question: str
    code: str
    answer: int


def _primes(draw: Draw) -> _Sum:
    n = 5 + draw.below(60)
    sieve = [number for number in range(2, 400) if all(number % d for d in range(2, math.isqrt(number) + 1))]
    code = (
        "found, number = [], 2\n"
        f"while len(found) < {n}:\n"
        "    if all(number % prime for prime in found):\n"
        "        found.append(number)\n"
        "    number += 1\n"
        "print(sum(found))"
    )
    return _Sum(f"What is the sum of the first {n} prime numbers?", code, sum(sieve[:n]))


def _fridays(draw: Draw) -> _Sum:
    first = 1900 + draw.below(150)
    last = first + 5 + draw.below(60)
    code = (
        "import datetime\n"
        f"days = [datetime.date(year, month, 13) for year in range({first}, {last + 1}) for month in range(1, 13)]\n"
        "print(sum(day.weekday() == 4 for day in days))"
    )
    count = sum(calendar.weekday(y, m, 13) == calendar.FRIDAY for y in range(first, last + 1) for m in range(1, 13))
    return _Sum(f"How many Fridays fall on a 13th from {first} up to and with {last}?", code, count)


def _digits(draw: Draw) -> _Sum:
    base, power = 2 + draw.below(8), 30 + draw.below(300)
    left, total = base**power, 0
    while left:
        left, digit = divmod(left, 10)
        total += digit
    return _Sum(
        f"What is the sum of the digits of {base} to the power of {power}?",
        f"print(sum(int(digit) for digit in str({base} ** {power})))", total,
    )  # fmt: skip


def _collatz(draw: Draw) -> _Sum:
    start = 3 + draw.below(5_000)
    number, steps = start, 0
    while number != 1:
        number = 3 * number + 1 if number & 1 else number >> 1
        steps += 1
    code = (
        "def steps(n):\n"
        "    return 0 if n == 1 else 1 + steps(n // 2 if n % 2 == 0 else 3 * n + 1)\n\n"
        f"print(steps({start}))"
    )
    question = (
        f"Begin with {start}. Halve an even number; make an odd one three times as large and add one. How many steps "
        "does it take to reach 1?"
    )
    return _Sum(question, code, steps)


def _days(draw: Draw) -> _Sum:
    first = datetime.date(1950 + draw.below(60), 1 + draw.below(12), 1 + draw.below(28))
    last = datetime.date(2011 + draw.below(40), 1 + draw.below(12), 1 + draw.below(28))
    code = (
        "from datetime import date\n"
        f"print((date({last.year}, {last.month}, {last.day}) - date({first.year}, {first.month}, {first.day})).days)"
    )
    question = f"How many days lie between {first.isoformat()} and {last.isoformat()}?"
    return _Sum(question, code, last.toordinal() - first.toordinal())


def _multiples(draw: Draw) -> _Sum:
    n, a, b = 200 + draw.below(5_000), 3 + draw.below(9), 12 + draw.below(9)
    count = (n - 1) // a + (n - 1) // b - (n - 1) // math.lcm(a, b)
    code = f"print(sum(n % {a} == 0 or n % {b} == 0 for n in range(1, {n})))"
    return _Sum(f"How many positive whole numbers below {n} can be divided by {a} or by {b}?", code, count)


def _letters(draw: Draw) -> _Sum:
    text, letter = " and ".join(draw.some(TEXTS, 3)), draw.pick("aehnort")
    code = f"print({text!r}.count({letter!r}))"
    count = sum(character == letter for character in text)
    return _Sum(f'How often does the letter "{letter}" stand in this: "{text}"?', code, count)


_SUMS = (_primes, _fridays, _digits, _collatz, _days, _multiples, _letters)


def with_python(seed: int, index: int, python: PythonTool) -> Example | None:
    """A sum that is done by running a program. None where its output is not the answer that is known otherwise."""
    draw = Draw("tools", "python", seed, index)
    found = draw.pick(_SUMS)(draw)
    talk = _Talk(found.question)
    printed = python.run(found.code)
    if printed != str(found.answer):
        return None
    talk.call([(PYTHON, {"code": found.code})], [printed], exact=False)
    others = draw.some(TOOLS, draw.below(4))
    offered = draw.some([PYTHON, *others], 1 + len(others))
    return talk.end("python", offered, f"The answer is {printed}.", str(found.answer))


def with_search(seed: int, index: int, inns: Sequence[Inn], search: SearchTool, python: PythonTool) -> Example | None:
    """A question about notes: looked up at once, by way of another note, or twice and then reckoned with.

    None where a note that is needed was not among what was found, or the program's output is not the answer.
    """
    draw = Draw("tools", "search", seed, index)
    one, two = draw.some(inns, 2)
    what, name = draw.pick((("rooms", "How many rooms does {} have?"), ("year", "In which year was {} opened?")))
    if draw.below(3) == 0:
        return _looked_up(draw, name.format(one.name), [one.name], one, what, search)
    if draw.below(2) == 0:
        question = name.format(f"the inn of {one.village}")
        return _looked_up(draw, question, [f"inn {one.village}", one.name], one, what, search)
    return _reckoned(draw, one, two, search, python)


def _offered(draw: Draw) -> list[Tool]:
    others = draw.some(TOOLS, draw.below(3))
    return draw.some([PYTHON, SEARCH, *others], 2 + len(others))


def _holds(result: str, note: str) -> bool:
    return any(hit["name"] == note for hit in json.loads(result))


def _looked_up(
    draw: Draw, question: str, queries: Sequence[str], inn: Inn, what: str, search: SearchTool
) -> Example | None:
    talk = _Talk(question)
    notes = [inn.note] if len(queries) == 1 else [inn.village_note, inn.note]
    for query, note in zip(queries, notes, strict=True):
        result = search.run(query)
        if not _holds(result, note):
            return None
        talk.call([(SEARCH, {"query": query})], [result], exact=False)
    answer = str(getattr(inn, what))
    said = f"{inn.name} has this many rooms: {answer}." if what == "rooms" else f"{inn.name} was opened in {answer}."
    return talk.end("search", _offered(draw), said, answer)


def _reckoned(draw: Draw, one: Inn, two: Inn, search: SearchTool, python: PythonTool) -> Example | None:
    talk = _Talk(f"How many rooms do {one.name} and {two.name} have together?")
    results = [search.run(inn.name) for inn in (one, two)]
    if not all(_holds(result, inn.note) for result, inn in zip(results, (one, two), strict=True)):
        return None
    talk.call([(SEARCH, {"query": inn.name}) for inn in (one, two)], results, exact=False)
    code = f"print({one.rooms} + {two.rooms})"
    printed = python.run(code)
    if printed != str(one.rooms + two.rooms):
        return None
    talk.call([(PYTHON, {"code": code})], [printed], exact=False)
    return talk.end("search", _offered(draw), f"Together they have this many rooms: {printed}.", printed)
