"""The page on which people say which of two responses is better: one file that works without a server or a network.

Its script shows one pair at a time, keeps the votes in the browser's own storage where there is one, and saves them as
the file that `evaluate.votes` reads. All texts of models are data for the script, which writes them as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pippin.data.preferences import LEVELS, PROPERTIES
from pippin.evaluate import frame
from pippin.evaluate.markup import Markup, count, element, join

QUESTIONS = {
    "instruction_following": "does what was asked",
    "conciseness": "is as long as it needs to be",
    "truthfulness": "is true",
    "harmlessness": "does no harm",
}
GRADE_WORDS = ("no", "partly", "yes")


def render(title: str, pairs: Mapping[str, Any]) -> str:
    """The whole page for `votes.shown_pairs`."""
    n = len(pairs["pairs"])
    header = element(
        "header",
        frame.brand("votes"),
        element("h1", "Which response is better?"),
        element(
            "p",
            f"{title}: {count(n)} pairs. Say which response you would rather have got, and by how much. Leave out what "
            "you cannot judge. Your votes stay in this browser until you save them as a file.",
            class_="lead",
        ),
        element(
            "p",
            "Keys: ", *_keys((("a", "A is better"), ("b", "B is better"), ("t", "alike"), ("1-4", "by how much"),
                              ("←  →", "back, on"))),
            class_="keys",
        ),
    )  # fmt: skip
    place = element(
        "div",
        _button("back", "← Back"), element("p", id="place", role="status"), _button("on", "On →"),
        _button("open", "Next without a vote"), class_="place",
    )  # fmt: skip
    save = element(
        "section",
        element("label", "Your name ", element("input", id="by", autocomplete="name", maxlength=80)),
        _button("save", "Save votes.json"),
        element("p", id="said", role="status", class_="small"),
        class_="save",
    )
    sides = element("div", _side("a", "Response A"), _side("b", "Response B"), class_="sides")
    vote = element(
        "div",
        element(
            "div",
            _button("better-a", "A is better", "a"), _button("better-tie", "They are alike", "t"),
            _button("better-b", "B is better", "b"), class_="choices", role="group", aria_label="Which is better",
        ),
        element("div", *(_button(f"level-{i}", level, str(i + 1)) for i, level in enumerate(LEVELS)), class_="levels",
                role="group", aria_label="By how much"),
        class_="vote",
    )  # fmt: skip
    main = element("main", place, element("div", id="prompt"), sides, vote, save)
    style = frame.source("pippin.evaluate", "report.css", "votes.css")
    script = frame.source("pippin.evaluate", "votes.js")
    data = frame.data("data", {**pairs, "levels": list(LEVELS), "properties": list(PROPERTIES)})
    return frame.page("Votes", style, header, main, data, script=script, class_="votes")


def _button(id: str, text: str, key: str = "") -> Markup:
    hint = element("kbd", key) if key else None
    return element("button", text, hint, id=id, type="button", aria_pressed="false" if key else None)


def _keys(keys: tuple[tuple[str, str], ...]) -> list[Markup]:
    return [join([element("kbd", key), f" {what}  "]) for key, what in keys]


def _side(side: str, title: str) -> Markup:
    """One response, and questions about it alone (afm 5.2, 7.1)."""
    questions = [
        element(
            "label",
            f"{QUESTIONS[name]} ",
            element(
                "select",
                element("option", "not said", value=""),
                *(element("option", word, value=str(grade)) for grade, word in enumerate(GRADE_WORDS)),
                id=f"grade-{side}-{name}",
            ),
        )
        for name in PROPERTIES
    ]
    return element(
        "article",
        element("h2", title),
        element("div", id=f"text-{side}", class_="text", tabindex="0"),
        element("details", element("summary", "About this response alone"), *questions),
        id=f"side-{side}",
    )
