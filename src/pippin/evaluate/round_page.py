"""A round of a committee as one HTML page: who won which prompts, how good the members are, what people can look at.

The page needs nothing else (see `evaluate.frame`) and has no script; links lead to the files of the round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pippin.evaluate import charts, frame
from pippin.evaluate.markup import (
    MISSING,
    Child,
    Markup,
    compact,
    count,
    decimals,
    element,
    is_number,
    join,
    percent,
    table,
)

Numbers = Mapping[str, Any]
COLOURS, NOBODY = ("e0", "e1", "e2", "e4"), "e3"


def render(numbers: Numbers) -> str:
    """The whole page for the `round.json` of `stages.round_report`."""
    sections = [
        ("won", "Who won the prompts", _won(numbers)),
        ("members", "The members", _members(numbers)),
        ("heldout", "Held out", _heldout(numbers)),
        ("preferences", "Preferences", _preferences(numbers)),
        ("reward", "The reward model", _reward(numbers)),
        ("examples", "Prompts to look at", _examples(numbers)),
        ("files", "Files", _files(numbers)),
    ]
    present = [section for section in sections if section[2] is not None]
    links = [element("a", title, href=f"#{name}") for name, title, _ in present]
    body = [
        _header(numbers),
        element("nav", *links, aria_label="Sections"),
        element("main", *(element("section", element("h2", title), part, id=name) for name, title, part in present)),
        element("footer", _p("Made by Pippin. This page is one file without scripts; the numbers lie beside it.")),
    ]
    title = f"Round {numbers['round']} {MISSING} {numbers['recipe'] or 'committee'}"
    return frame.page(title, frame.source("pippin.evaluate", "report.css"), *body)


def _p(*children: Child, class_: str | None = None) -> Markup:
    return element("p", *children, class_=class_)


def _header(numbers: Numbers) -> Markup:
    prompts, picked = numbers["prompts"], numbers["picked"]
    tiles = [
        (count(picked), "", f"of {count(prompts)} prompts have a pick"),
        (compact(numbers["samples"]), "samples", f"{compact(numbers['tokens'])} tokens were drawn for them"),
        (count(len(numbers["members"])), "", "members in the committee"),
    ]
    made = [
        element("div", _p(element("b", value), f" {unit}", class_="big"), _p(what, class_="small"), class_="tile")
        for value, unit, what in tiles
    ]
    return element(
        "header",
        frame.brand("committee"),
        element("h1", f"Round {numbers['round']}"),
        _p(
            f"Every member answered the same prompts; each prompt's best response was picked by "
            f"{numbers['by']}, whoever gave it.",
            class_="lead",
        ),
        element("div", *made, class_="tiles"),
    )


def _won(numbers: Numbers) -> Markup:
    cards = []
    for source, of in numbers["sources"].items():
        lines: list[Child] = []
        for number, member in enumerate(numbers["members"]):
            won = member["won_by"].get(source, 0)
            share = won / of["prompts"]
            lines += [
                element("dt", member["name"]),
                element("dd", charts.bar(share, COLOURS[number % len(COLOURS)])),
                element("dd", percent(share), class_="num"),
            ]
        if of["none"]:
            lines += [
                element("dt", "nobody"),
                element("dd", charts.bar(of["none"] / of["prompts"], NOBODY)),
                element("dd", percent(of["none"] / of["prompts"]), class_="num"),
            ]
        title = element("h3", source, element("span", f"n = {count(of['prompts'])}", class_="n"))
        cards.append(element("div", title, element("dl", *lines, class_="bars"), class_="card"))
    words = _p(
        "By where the prompts come from. Of equal responses the one of the first member in the list was taken, so "
        "what every member can do counts for the first.",
        class_="lead",
    )
    return join([words, element("div", *cards, class_="cards")])


def _members(numbers: Numbers) -> Markup:
    head = ["member", "won", "samples right", "mean reward", "ended by itself", "tokens a sample", "run"]
    rows: list[list[Child]] = [
        [
            member["name"], count(member["won"]), percent(member["right"]), decimals(member["reward"], 2),
            percent(member["stopped"]), decimals(member["tokens"] / member["samples"], 1), member["run"],
        ]
        for member in numbers["members"]
    ]  # fmt: skip
    return table(head, rows, class_="numbers")


def _heldout(numbers: Numbers) -> Markup | None:
    rows: list[list[Child]] = []
    for name, row in numbers["heldout"].items():
        greedy, sampled = row["greedy"], row["sampled"]
        interval = f"{percent(greedy['low'])} to {percent(greedy['high'])}"
        kl = f"{decimals(row['kl'], 2)} ± {decimals(row['kl_error'], 2)}" if is_number(row["kl"]) else MISSING
        rows.append([name, percent(greedy["share"]), interval, percent(sampled["share"]), kl, count(greedy["total"])])
    if not rows:
        return None
    words = _p(
        "Prompts that no one was trained on: the share that the most likely response solves, with its 95 % Wilson "
        "interval, and the share of samples. KL is that to the reference, in nats a response.",
        class_="lead",
    )
    head = ["model", "solved", "95 %", "samples right", "KL", "prompts"]
    return join([words, table(head, rows, class_="numbers")])


def _preferences(numbers: Numbers) -> Markup | None:
    of = numbers["preferences"]
    if not of:
        return None
    rows: list[list[Child]] = [[level, count(n), percent(n / of["pairs"])] for level, n in of["levels"].items()]
    none: list[list[Child]] = [[reason, count(n), percent(n / of["looked"])] for reason, n in of["none"].items()]
    parts = [table(["level", "pairs", "share"], rows, class_="numbers")]
    if none:
        parts.append(table(["no opinion", "pairs", "of those looked at"], none, class_="numbers"))
    words = _p(f"{count(of['pairs'])} pairs of {count(of['looked'])} looked at, by {of['by']}.", class_="lead")
    return join([words, element("div", *(element("div", part) for part in parts), class_="figures")])


def _reward(numbers: Numbers) -> Markup | None:
    of = numbers["reward"]
    if not of:
        return None
    rows: list[list[Child]] = [
        [name, count(row["pairs"]), percent(row["accuracy"]), decimals(row["log_loss"], 3), decimals(row["margin"], 2)]
        for name, row in {**of["levels"], "all": of["heldout"]}.items()
    ]
    head = ["held-out pairs", "number", "accuracy", "log loss", "mean margin"]
    return table(head, rows, class_="numbers ruled1")


def _examples(numbers: Numbers) -> Markup | None:
    cards = []
    for example in numbers["examples"]:
        lines: list[tuple[str, str, str | None]] = [("prompt", example["prompt"], None)]
        for response in example["responses"]:
            lines.append((response["member"], response["response"], "right" if response["won"] else None))
        said = [
            element("div", element("dt", name, class_=class_), element("dd", text or "(nothing)"))
            for name, text, class_ in lines
        ]
        winner = element("span", example["winner"] or "nobody", class_="right" if example["winner"] else "wrong")
        title = element("h3", example["source"], winner)
        cards.append(element("div", title, element("dl", *said, class_="talk"), class_="card"))
    return element("div", *cards, class_="cards wide") if cards else None


def _files(numbers: Numbers) -> Markup:
    rows: list[list[Child]] = [[element("a", path, href=path), what] for path, what in numbers["files"].items()]
    return table(["file", "what is in it"], rows)
