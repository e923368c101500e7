"""What came of a round of a committee: text and a page."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pippin import files
from pippin.data.judging import shown
from pippin.data.responses import Response
from pippin.errors import UserError
from pippin.evaluate.opinions import Key, key_of
from pippin.evaluate.round_page import render
from pippin.evaluate.text_table import text_table
from pippin.pipeline import Context, Cost, Stage
from pippin.stages.collect import CollectPreferences
from pippin.stages.committee import Answered, answered, verdicts_of
from pippin.stages.pairs import PREFERENCES
from pippin.stages.picked import PICKS, SCORES, Picked
from pippin.stages.policies import ComparePolicies
from pippin.stages.reward import Reward

EXAMPLES = 12  # prompts that are shown, and so many characters of a text
LONGEST_TEXT = 600
BY = {
    "reward": "the reward model",
    "verifier": "the prompt's verifier",
    "both": "the reward model among those that the prompt's verifier finds right",
}


@dataclass(frozen=True, kw_only=True)
class RoundReport(Stage):
    """`report/round.html`, `round.txt` and `round.json` of one round; nothing is sampled or trained for it.

    Args:
        number: of the round, from 1.
        picked: what was picked from whose responses.
        preferences, reward: of this round, if it had its own.
        policies: the members (and the student) judged on held-out prompts, with the KL to the reference.
    """

    number: int
    picked: Picked
    preferences: CollectPreferences | None = None
    reward: Reward | None = None
    policies: ComparePolicies | None = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UserError(f"number={self.number}: rounds count from 1")

    def run(self, ctx: Context) -> None:
        rows = answered(ctx, self.picked.prompts, self.picked.responses)
        scores = {_key(row): row for row in _lines(ctx.artifact(self.picked, "picks") / SCORES)}
        picks = {row["prompt"]: row for row in _lines(ctx.artifact(self.picked, "picks") / PICKS)}
        correct = {key: row["correct"] for key, row in scores.items()}
        verifiable = [row for row in rows if row[0]["verifier"] is not None]
        if self.picked.by == "reward" and verifiable:
            correct |= {key: verdict.correct for key, verdict in verdicts_of(ctx, verifiable).items()}
        rewards = {key: row["reward"] for key, row in scores.items()}
        heldout = {} if self.policies is None else ctx.record(self.policies)["results"]["policies"]
        numbers: dict[str, Any] = {
            "round": self.number,
            "recipe": ctx.recipe,
            "by": BY[self.picked.by],
            "prompts": len(rows),
            "picked": len(picks),
            "samples": len(scores),
            "tokens": sum(response["tokens"] for _, own in rows for response in own),
            "members": [
                self._member(ctx, name, stage, rows, picks, correct, rewards)
                for name, stage in self.picked.responses.members.items()
            ],
            "sources": _sources(rows, picks),
            "heldout": heldout,
            "preferences": None if self.preferences is None else ctx.record(self.preferences)["results"],
            "reward": None
            if self.reward is None
            else files.read_json(ctx.artifact(self.reward, "report") / "reward.json"),
            "examples": _examples(rows, picks),
            "files": self._files(ctx),
        }
        files.write_json(ctx.out("report") / "round.json", numbers)
        files.write_text(ctx.out("report") / "round.html", render(numbers))
        files.write_text(ctx.out("report") / "round.txt", told(numbers))
        ctx.result(prompts=len(rows), picked=len(picks), won={m["name"]: m["won"] for m in numbers["members"]})

    def _member(
        self, ctx: Context, name: str, stage: Stage, rows: Sequence[Answered], picks: Mapping[str, Any],
        correct: Mapping[Key, bool | None], rewards: Mapping[Key, float | None],
    ) -> dict[str, Any]:  # fmt: skip
        own = [response for _, responses in rows for response in responses if response["member"] == name]
        won = Counter(p["source"] for p, _ in rows if p["id"] in picks and picks[p["id"]]["member"] == name)
        return {
            "name": name,
            "run": ctx.directory(stage).name,
            "samples": len(own),
            "tokens": sum(response["tokens"] for response in own),
            "stopped": _mean([float(response["stopped"]) for response in own]),
            "right": _mean([float(c and r["stopped"]) for r in own if (c := correct.get(key_of(r))) is not None]),
            "reward": _mean([reward for r in own if (reward := rewards[key_of(r)]) is not None]),
            "won": sum(won.values()),
            "won_by": dict(sorted(won.items())),
        }

    def _files(self, ctx: Context) -> dict[str, str]:
        """Paths from the page to the files of the round."""
        there: dict[Path, str] = {
            ctx.directory(self.picked.responses) / "responses" / "responses.jsonl": "what every member said",
            ctx.directory(self.picked) / "picks" / PICKS: "who won each prompt",
            ctx.directory(self.picked) / "picks" / SCORES: "every response: right or not, and its reward",
            ctx.dir / "report" / "round.json": "the numbers of this page",
        }
        if self.preferences is not None:
            there[ctx.directory(self.preferences) / "preferences" / PREFERENCES] = "pairs, and who graded them"
        if self.reward is not None:
            there[ctx.directory(self.reward) / "report" / "reward.json"] = "how good the reward model is"
        return {os.path.relpath(path, ctx.dir / "report"): what for path, what in there.items()}

    def cost(self) -> Cost:
        return Cost(other_s=2)


def told(numbers: Mapping[str, Any]) -> str:
    """The round as text."""
    title = f"Round {numbers['round']}: {numbers['picked']} of {numbers['prompts']} prompts have a pick"
    sources = list(numbers["sources"])
    rows = [
        [m["name"], *(str(m["won_by"].get(source, 0)) for source in sources), _percent(m["right"]), _fixed(m["reward"])]
        for m in numbers["members"]
    ]
    rows.append(["nobody", *(str(numbers["sources"][source]["none"]) for source in sources), "", ""])
    text = text_table(title, ["won by", *sources, "samples right", "mean reward"], rows)
    if numbers["heldout"]:
        judged = [
            [name, _percent(row["greedy"]["share"]), _percent(row["sampled"]["share"]), _fixed(row["kl"])]
            for name, row in numbers["heldout"].items()
        ]
        text += text_table("On held-out prompts", ["model", "solved", "samples right", "KL (nats)"], judged)
    text += f"\n{numbers['samples']:,} samples, {numbers['tokens']:,} tokens\n"
    if of := numbers["preferences"]:
        text += f"{of['pairs']:,} preferences of {of['looked']:,} pairs, by {of['by']}\n"
    return text


def _sources(rows: Sequence[Answered], picks: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """For each source its prompts, and how many of them nobody won."""
    asked = Counter(prompt["source"] for prompt, _ in rows)
    none = Counter(prompt["source"] for prompt, _ in rows if prompt["id"] not in picks)
    return {source: {"prompts": asked[source], "none": none[source]} for source in sorted(asked)}


def _examples(rows: Sequence[Answered], picks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Some prompts, those with different winners in turn, each with one response of every member."""
    by_winner: dict[str, list[dict[str, Any]]] = {}
    for prompt, responses in rows:
        pick = picks.get(prompt["id"])
        winner = pick["member"] if pick else ""
        best: dict[str, Response] = {}
        for response in responses:
            won = pick is not None and _key(pick) == key_of(response)
            if won or response["member"] not in best:
                best[response["member"]] = response
        said = [
            {"member": name, "response": r["response"][:LONGEST_TEXT], "won": name == winner}
            for name, r in best.items()
        ]
        of = {"source": prompt["source"], "prompt": shown(prompt["messages"])[-LONGEST_TEXT:], "winner": winner}
        by_winner.setdefault(winner, []).append(of | {"responses": said})
    found: list[dict[str, Any]] = []
    for place in range(EXAMPLES):
        found += [those[place] for those in by_winner.values() if place < len(those)]
    return found[:EXAMPLES]


def _key(row: Mapping[str, Any]) -> Key:
    return row["prompt"], row["member"], row["sample"]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
