"""The arguments of our tools by name, and what their calls return: schemas, values, and how values are said.

All words are ours. Names of people, streets and titles are invented or common; places are cities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pippin.data.synthesis.tools import Parameter, say_date, say_list
from pippin.data.world_words import Draw

CITIES = (
    "Oslo", "Lima", "Porto", "Kyoto", "Nairobi", "Quito", "Turin", "Leeds", "Austin", "Hanoi", "Perth", "Ghent",
    "Zagreb", "Bergen", "Cairo", "Seville",
)  # fmt: skip
PEOPLE = (
    "Mia", "Tom", "Nora", "Hugo", "Ida", "Samir", "Priya", "Leo", "Ana", "Kenji", "Fatou", "Eva", "Otto", "Lin",
)  # fmt: skip
ROOMS = ("kitchen", "hall", "bedroom", "study", "bathroom", "attic", "living room")
ITEMS = ("flour", "milk", "rice", "apples", "candles", "soap", "tea", "onions", "paper", "bread", "salt", "lemons")
TEXTS = (
    "the key is under the mat", "we are ten minutes late", "bring the blue folder", "the boat leaves at noon",
    "dinner is ready", "the plumber comes tomorrow", "please feed the cat", "I found your umbrella",
    "the code has changed", "the parcel has arrived",
)  # fmt: skip
TITLES = (
    "choir practice", "dentist", "budget review", "chess evening", "parents' evening", "car inspection", "book club",
    "garden work", "team lunch", "piano lesson",
)  # fmt: skip
SONGS = (
    "Paper Lanterns", "Slow River", "Nine Windows", "Salt and Cedar", "The Late Tram", "Green Umbrella",
    "Half a Moon", "Copper Bells",
)  # fmt: skip
ARTISTS = ("the Fennel Quartet", "Ada Brook", "Low Harbour", "Milo and the Kites", "Juniper Lane")
PLAYLISTS = ("Sunday Kitchen", "Long Drive", "Rain Outside", "Deep Work", "Old Favourites")
CUISINES = ("Italian", "Thai", "Mexican", "Lebanese", "Indian", "Greek", "Ethiopian")
RESTAURANTS = ("The Copper Pot", "Blue Heron", "Casa Lucia", "Saffron House", "Three Ovens")
CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF", "NOK", "INR", "MXN")
LANGUAGES = ("French", "Spanish", "German", "Polish", "Swahili", "Japanese", "Welsh")
LISTS = ("shopping", "packing", "hardware", "party")
REASONS = ("it is too small", "it arrived broken", "the colour is wrong", "I no longer need it")
DOORS = ("front door", "back door", "garage door", "cellar door")
NOTES = ("Boiler settings", "Gift ideas", "Seed dates", "Tyre sizes", "Holiday plans", "Wall colours")
QUERIES = ("passport", "bicycle lock", "tomato soup", "insurance", "guest network", "oak table")
SUBJECTS = ("Saturday", "the minutes", "your invoice", "the spare key", "next week's plan")
SKIES = ("clear", "cloudy", "foggy", "windy", "rainy")


def _pick(options: Sequence[Any]) -> Callable[[Draw], Any]:
    return lambda draw: draw.pick(options)


def _whole(low: int, high: int, step: int = 1) -> Callable[[Draw], int]:
    return lambda draw: low + step * draw.below((high - low) // step + 1)


def _amount(low: int, high: int) -> Callable[[Draw], float]:
    """A number with two decimals that are not both zero, so that it is no whole number."""
    return lambda draw: (100 * (low + draw.below(high - low)) + 1 + draw.below(99)) / 100


def _date(draw: Draw) -> str:
    return f"2027-{1 + draw.below(12):02d}-{1 + draw.below(28):02d}"


def _time(draw: Draw) -> str:
    return f"{6 + draw.below(16):02d}:{draw.pick(('00', '05', '15', '20', '30', '45'))}"


def _items(draw: Draw) -> list[str]:
    return draw.some(ITEMS, 1 + draw.below(3))


def _address(draw: Draw) -> dict[str, Any]:
    street = draw.pick(("Mill Lane", "Station Road", "Elm Street", "Harbour Walk"))
    return {"street": street, "number": 1 + draw.below(90), "city": draw.pick(CITIES)}


def _say_address(value: Mapping[str, Any]) -> str:
    return f"{value['number']} {value['street']}, {value['city']}"


def _email(draw: Draw) -> str:
    return f"{draw.pick(('post', 'hello', 'box', 'desk'))}{10 + draw.below(90)}@example.org"


def _text(
    description: str, options: Sequence[str], question: str = "", clause: str = "", quoted: bool = False
) -> Parameter:
    say: Callable[[Any], str] = (lambda value: f'"{value}"') if quoted else str
    return Parameter({"type": "string", "description": description}, _pick(options), say, clause, question)


def _number(
    kind: str, description: str, draw: Callable[[Draw], Any], question: str = "", clause: str = "",
    default: int | None = None,
) -> Parameter:  # fmt: skip
    schema = {"type": kind, "description": description} | ({} if default is None else {"default": default})
    say: Callable[[Any], str] = (lambda value: f"{value:.2f}") if kind == "number" else str
    return Parameter(schema, draw, say, clause, question)


def _day(description: str, question: str) -> Parameter:
    return Parameter({"type": "string", "description": f"{description}, YYYY-MM-DD"}, _date, say_date, "", question)


def _choice(description: str, options: Sequence[str], clause: str, default: str = "") -> Parameter:
    schema = {"type": "string", "enum": list(options), "description": description}
    return Parameter(schema | ({"default": default} if default else {}), _pick(options), str, clause)


PARAMETERS: dict[str, Parameter] = {
    "address": Parameter(
        {
            "type": "object",
            "description": "where it is delivered",
            "properties": {"street": {"type": "string"}, "number": {"type": "integer"}, "city": {"type": "string"}},
            "required": ["street", "number", "city"],
        },
        _address, _say_address, "", "To which address?",
    ),
    "amount": _number("number", "sum of money", _amount(5, 900), "How much?"),
    "artist": _text("who plays it", ARTISTS, "", " by {}"),
    "base": _number("integer", "length of the base in centimetres", _whole(2, 60), "How long is its base?"),
    "city": _text("name of the city", CITIES, "Which city do you mean?"),
    "cuisine": _text("kind of cooking", CUISINES, "What kind of food would you like?"),
    "date": _day("the day", "On which date?"),
    "days": _number("integer", "how many days from today", _whole(2, 10), "How many days ahead?"),
    "degrees": _number("integer", "temperature in degrees Celsius", _whole(15, 25), "How warm should it be?"),
    "destination": _text("city where the journey ends", CITIES, "Where do you want to go?"),
    "door": _text("which door", DOORS, "Which door?"),
    "email": Parameter({"type": "string", "description": "e-mail address"}, _email, str, "", "To which address?"),
    "height": _number("integer", "height in centimetres", _whole(2, 60), "How high is it?"),
    "depth": _number("integer", "depth in centimetres", _whole(2, 60), "How deep is it?"),
    "items": Parameter(
        {"type": "array", "items": {"type": "string"}, "description": "names of the items"},
        _items, say_list, "", "Which items?",
    ),
    "language": _text("language to translate into", LANGUAGES, "Into which language?"),
    "list_name": _text("name of the list", LISTS, "On which list?"),
    "minutes": _number("integer", "length in minutes", _whole(5, 90, 5), "For how many minutes?", " for {} minutes"),
    "new_date": _day("the day to move it to", "To which date?"),
    "nights": _number("integer", "how many nights", _whole(2, 14), "For how many nights?"),
    "note": _text("title of the note", NOTES, "What is the note called?", quoted=True),
    "order_number": _number("integer", "number of the order", _whole(10_000, 99_999), "What is the order's number?"),
    "origin": _text("city where the journey begins", CITIES, "Where do you start?"),
    "source_currency": _text("three-letter code of the money that there is", CURRENCIES, "From which currency?"),
    "target_currency": _text("three-letter code of the money that is wanted", CURRENCIES, "Into which currency?"),
    "party": _number("integer", "how many people", _whole(2, 12), "For how many people?"),
    "percent": _number("integer", "0 to 100", _whole(5, 95, 5), "To how many per cent?"),
    "person": _text("name of the person", PEOPLE, "Who is it?"),
    "playlist": _text("name of the playlist", PLAYLISTS, "Which playlist?", quoted=True),
    "price": _choice("level of prices", ("low", "middle", "high"), " with {} prices"),
    "query": _text("words to look for", QUERIES, "What shall I look for?", quoted=True),
    "radius": _number("integer", "radius in centimetres", _whole(2, 50), "What is its radius?"),
    "rate": _number("number", "interest in per cent a year", _amount(1, 9), "At which rate?"),
    "reason": _text("why it goes back", REASONS, "Why do you send it back?"),
    "recipient": _text("name of the person who gets it", PEOPLE, "Who shall get it?"),
    "restaurant": _text("name of the restaurant", RESTAURANTS, "Which restaurant?"),
    "room": _text("which room", ROOMS, "In which room?"),
    "song": _text("title of the song", SONGS, "Which song?", quoted=True),
    "subject": _text("subject line", SUBJECTS, "What is the subject?", quoted=True),
    "text": _text("the text itself", TEXTS, "What shall it say?", quoted=True),
    "time": Parameter({"type": "string", "description": "24-hour time, HH:MM"}, _time, str, "", "At what time?"),
    "tip": _number("integer", "tip in per cent", _whole(5, 20), "How many per cent?"),
    "title": _text("what it is called", TITLES, "What is it called?", quoted=True),
    "unit": _choice("unit of the temperature", ("Celsius", "Fahrenheit"), " in {}", "Celsius"),
    "urgent": Parameter(
        {"type": "boolean", "description": "whether it is marked as urgent", "default": False},
        _pick((True,)), str, ", and mark it as urgent",
    ),
    "width": _number("integer", "width in centimetres", _whole(2, 60), "How wide is it?"),
    "years": _number("integer", "how many years", _whole(2, 30), "Over how many years?"),
}  # fmt: skip

RESULTS: dict[str, Callable[[Draw], Any]] = {
    "birthday": _date,
    "chance_of_rain": _whole(0, 100, 10),
    "count": _whole(1, 9),
    "departs": lambda draw: f"{6 + draw.below(7):02d}:{draw.pick(('05', '20', '40', '50'))}",
    "arrives": lambda draw: f"{13 + draw.below(9):02d}:{draw.pick(('00', '15', '35', '55'))}",
    "email_address": _email,
    "found": _pick(RESTAURANTS),
    "hotel": _pick(("Fennel Inn", "Hotel Meridian", "The Old Mill", "Harbour Rest")),
    "index": _whole(5, 150, 5),
    "kilometres": _whole(40, 2_500, 5),
    "open_items": _items,
    "phone": lambda draw: f"555 01{10 + draw.below(90)}",
    "rate_now": _amount(1, 20),
    "reference": lambda draw: f"R{1_000 + draw.below(9_000)}",
    "sky": _pick(SKIES),
    "state": _pick(("being packed", "on its way", "delivered")),
    "temperature": _whole(-5, 33),
    "total": _amount(5, 900),
    "warmest": _whole(12, 33),
}
