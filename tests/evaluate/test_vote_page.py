"""The page that people vote on, in a real browser: by keys and clicks, kept over a reload, saved as a file; safe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from tests.evaluate.test_votes import CONTESTS
from tests.inspect import browser

from pippin.data.preferences import LEVELS
from pippin.evaluate.opinions import Contest, Opinion
from pippin.evaluate.vote_page import render
from pippin.evaluate.votes import TIE, read_votes, shown_pairs

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'\u2028"


def evil(contest: Contest) -> Contest:
    prompt, a, b = contest
    return Contest(
        {**prompt, "messages": [{"role": "system", "content": EVIL}, *prompt["messages"]]},
        {**a, "response": a["response"] + EVIL}, {**b, "response": EVIL + b["response"]},
    )  # fmt: skip


PAIRS = [evil(contest) for contest in CONTESTS]


def test_markup_in_any_text_stays_text() -> None:
    html = render(EVIL, shown_pairs(PAIRS))
    assert html.count("<script") == 2  # the pairs and the page's own
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)" in html  # of the title
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in unescape(policy[1])
    assert "unsafe" not in policy[1]
    assert "http" not in html.replace("http-equiv", "")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[browser.Browser, Path]]:
    if browser.find() is None:
        pytest.skip("no Chromium on this machine")
    file = tmp_path / "vote.html"
    file.write_text(render("a round", shown_pairs(PAIRS)), encoding="utf-8")
    with browser.Browser(tmp_path / "home") as tab:
        tab.open(file)
        yield tab, file


@pytest.mark.slow
def test_people_vote_with_keys_and_clicks(page: tuple[browser.Browser, Path], tmp_path: Path) -> None:
    tab, file = page
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map((e) => e.id)"
    text = "document.getElementById('text-a').textContent"
    assert tab.js(text) == PAIRS[0].a["response"]
    assert tab.js("document.querySelectorAll('#prompt .said-text')[0].textContent") == EVIL
    assert tab.js("document.images.length") == 0
    tab.key("2")  # by how much, before which: nothing
    assert tab.js(pressed) == []
    tab.key("b")
    tab.key("3")
    assert tab.js(pressed) == ["better-b", "level-2"]
    tab.click("#save")  # not without a name
    assert "name" in tab.js("document.getElementById('said').textContent")
    assert tab.js("document.activeElement.id") == "by"
    tab.fill("#by", "Ada abt1")  # what is typed there votes for nothing
    tab.js("document.activeElement.blur()")
    tab.key("ArrowRight")
    assert tab.js(text) == PAIRS[1].a["response"]
    tab.click("#better-tie")
    assert tab.js("document.getElementById('level-0').disabled")
    tab.click("#on")
    tab.click("#better-a")
    tab.click("#level-0")
    tab.click("#side-a summary")
    tab.fill("#grade-a-truthfulness", "2")
    tab.fill("#grade-b-harmlessness", "0")
    assert tab.js("document.getElementById('place').textContent") == "Pair 3 of 3, 3 voted"
    tab.open(file)  # kept over a reload
    assert tab.js("document.getElementById('by').value") == "Ada abt1"
    assert "3 voted" in tab.js("document.getElementById('place').textContent")
    tab.key("a")  # another mind on the first pair
    tab.click("#save")
    saved = tmp_path / "votes.json"
    saved.write_bytes(tab.downloaded("votes.json"))
    votes = read_votes(saved, PAIRS)
    assert [(vote.contest, vote.by) for vote in votes] == [(n, "Ada abt1") for n in range(3)]
    assert [vote.opinion for vote in votes] == [
        Opinion(0, LEVELS[2]), TIE, Opinion(0, LEVELS[0], ({"truthfulness": 2}, {"harmlessness": 0}))
    ]  # fmt: skip
    assert json.loads(saved.read_text())["by"] == "Ada abt1"
    assert tab.errors == []
