"""The page of a round: every section from its numbers, texts of models stay texts, a real browser shows it."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tests.inspect import browser

from pippin.evaluate.round_page import render

EVIL = "</script><script>alert(1)</script>&\"'"


def member(name: str, won: dict[str, int], reward: float | None = None) -> dict[str, Any]:
    return {
        "name": name, "run": f"{name}-01234567", "samples": 48, "tokens": 400, "stopped": 0.9, "right": 0.625,
        "reward": reward, "won": sum(won.values()), "won_by": won,
    }  # fmt: skip


def share(value: float) -> dict[str, float]:
    return {"share": value, "low": value - 0.1, "high": value + 0.1, "total": 40}


def figures(accuracy: float) -> dict[str, float]:
    return {"pairs": 30, "accuracy": accuracy, "log_loss": 0.512, "margin": 1.25}


NUMBERS: dict[str, Any] = {
    "round": 2, "recipe": "posttrain", "by": "the reward model", "prompts": 12, "picked": 11, "samples": 96,
    "tokens": 1234,
    "members": [member("sft", {"sums": 3, "sorting": 5}, -0.5), member("mdloo", {"sums": 3})],
    "sources": {"sums": {"prompts": 7, "none": 1}, "sorting": {"prompts": 5, "none": 0}},
    "heldout": {
        "sft": {"greedy": share(0.4), "sampled": share(0.3), "kl": 0.0, "kl_error": 0.0},
        "student": {"greedy": share(0.8), "sampled": share(0.7), "kl": 3.25, "kl_error": 0.1},
    },
    "preferences": {
        "pairs": 9, "looked": 12, "by": "rule 1", "none": {"both are wrong": 3}, "levels": {"better": 6, "no level": 3}
    },
    "reward": {"heldout": figures(0.7), "levels": {"better": figures(0.8)}},
    "examples": [
        {"source": "sums", "prompt": "What is 3 + 4?", "winner": "mdloo", "responses": [
            {"member": "sft", "response": "8", "won": False}, {"member": "mdloo", "response": "7", "won": True}
        ]},
        {"source": "sums", "prompt": "What is 9 + 9?", "winner": "", "responses": [
            {"member": "sft", "response": "", "won": False}
        ]},
    ],
    "files": {"../../picked-0a/picks/picks.jsonl": "who won each prompt"},
}  # fmt: skip


def plain(html: str) -> str:
    """What a reader sees: markup taken away, spaces as one."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def test_every_section_says_its_numbers() -> None:
    html = render(NUMBERS)
    text = plain(html)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Who won the prompts", "The members", "Held out", "Preferences", "The reward model", "Prompts to look at",
        "Files",
    ]  # fmt: skip
    for words in (
        "Round 2", "11 of 12 prompts have a pick", "sums n = 7 sft 43 % mdloo 43 % nobody 14 %",
        "sorting n = 5 sft 100 % mdloo 0 %", "sft 8 62 % \u22120.50 90 % 8.3 sft-01234567", "mdloo 3 62 % \u2013 90 %",
        "student 80 % 70 % to 90 % 70 % 3.25 ± 0.10 40", "9 pairs of 12 looked at, by rule 1", "no level 3 33 %",
        "both are wrong 3 25 %", "all 30 70 % 0.512 1.25", "(nothing)",
    ):  # fmt: skip
        assert words in text, words
    assert 'href="../../picked-0a/picks/picks.jsonl"' in html


def test_what_is_not_there_has_no_section() -> None:
    bare = NUMBERS | {"heldout": {}, "preferences": None, "reward": None, "examples": []}
    assert re.findall(r"<h2>(.*?)</h2>", render(bare)) == ["Who won the prompts", "The members", "Files"]


def evil(value: Any) -> Any:
    """The same numbers with markup in the place of every text, and of every name."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {name: evil(item) for name, item in value.items()}
    return [evil(item) for item in value] if isinstance(value, list) else value


def test_markup_in_any_text_stays_text() -> None:
    html = render(evil(NUMBERS) | {"files": {f"x{EVIL}": EVIL}, "sources": {EVIL: {"prompts": 1, "none": 0}}})
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "script-src" not in policy[1]
    assert "default-src 'none'" in unescape(policy[1])


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "round.html"
    file.write_text(render(NUMBERS), encoding="utf-8")
    with browser.Browser(tmp_path / "home", width=500) as tab:
        tab.open(file)
        assert tab.js("document.querySelectorAll('main section').length") == 7
        assert tab.js("document.documentElement.scrollWidth <= innerWidth")  # nothing runs out of a narrow window
        assert tab.errors == []
