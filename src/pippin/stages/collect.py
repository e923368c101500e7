"""Preferences between the responses of a committee: by a rule, a reward model, a judge or people."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pippin import files
from pippin.data.preferences import LEVELS
from pippin.data.prompts import Prompt
from pippin.data.records import fraction_of
from pippin.data.responses import Response
from pippin.errors import UserError
from pippin.evaluate.opinions import Contest, Grader, JudgeGrader, Opinion, RewardGrader, RuleGrader
from pippin.evaluate.vote_page import render
from pippin.evaluate.votes import read_votes, shown_pairs
from pippin.pipeline import Context, Cost, Stage, digest_tree
from pippin.stages.committee import Answered, answered, rewards_of, verdicts_of
from pippin.stages.pairs import PREFERENCES
from pippin.stages.responses import Responses
from pippin.stages.reward import NO_LEVEL
from pippin.stages.writing import WritingStage
from pippin.training.losses import SOFT_LABELS

GRADERS = ("rule", "reward", "judge", "people")
FREE_AT_ONCE, ASKED_AT_ONCE = 256, 8  # prompts between two moves of the bar


class Collected(NamedTuple):
    """Lines of preferences, why there is no opinion of a pair and how often, the pairs looked at, and who looked."""

    pairs: list[dict[str, Any]]
    none: Counter[str]
    looked: int
    by: str


@dataclass(frozen=True, kw_only=True)
class CollectPreferences(WritingStage):
    """Pairs of responses to the same prompt, each with what a grader thinks of it (afm 8.2; the report's are people).

    Artifact: `preferences/preferences.jsonl` (see `data.preferences`), with who graded a pair (`by`) and whose the two
    responses are. Two responses to a prompt that read alike are no pair. A rule and a reward model see all pairs of a
    prompt, in an order drawn with the seed, until they have an opinion of enough; a judge and people, who cost
    something, see the first so many and no more. What brought no opinion is counted by its reason.

    Args:
        prompts: that were answered; their verifiers are the rule.
        responses: of the committee.
        grader: "rule", "reward", "judge" (see `evaluate.opinions`) or "people" (see `evaluate.votes`).
        reward: whose `reward/` grades.
        writer, served, url, max_calls ...: the judge, and how often it may be asked (see `WritingStage`).
        votes: a file of people's votes, or a folder of them. Without it the stage leaves the page that they vote on,
            and stops.
        pairs_per_prompt: the most.
        shorter: by rule, of two right responses the shorter is better.
        drawn: exchange the two responses of a pair with the probability that its level leaves (0.05, 0.15, 0.25,
            0.35), so that levels say how often the preferred one won: for planted preferences.
        seed: of the order of pairs, and of what is drawn.
    """

    prompts: Stage
    responses: Responses
    grader: Literal["rule", "reward", "judge", "people"] = "rule"
    reward: Stage | None = None
    votes: str = ""
    pairs_per_prompt: int = 1
    shorter: bool = True
    drawn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.responses.samples * len(self.responses.members) < 2:
            raise UserError(
                f"samples={self.responses.samples}: one response to a prompt is no pair; take 2 samples or 2 members"
            )
        if self.pairs_per_prompt < 1:
            raise UserError(f"pairs_per_prompt={self.pairs_per_prompt}: must be at least 1")
        if self.grader not in GRADERS:
            raise UserError(f"grader={self.grader}: must be one of {', '.join(GRADERS)}")
        for name, given, by in (
            ("reward", self.reward is not None, "reward"),
            ("writer or served", not self.offline, "judge"),
        ):
            if given != (self.grader == by):
                raise UserError(f"{name}: grader={by} needs it, and no other does; grader={self.grader}")
        if self.votes and self.grader != "people":
            raise UserError(f"votes: only grader=people reads them; grader={self.grader}")

    def inputs(self) -> Mapping[str, str]:
        return {"votes": digest_tree(Path(self.votes).expanduser())} if self.votes else {}

    def run(self, ctx: Context) -> None:
        rows = answered(ctx, self.prompts, self.responses)
        asked = sum(len(self._contests(*row, everything=False)) for row in rows)
        if not asked:
            raise UserError(f"{ctx.name}: no prompt has two different responses; take more samples or members")
        if self.grader == "people":
            found, none, looked, by = self._by_people(ctx, rows)
        else:
            found, none, looked, by = self._by_grader(ctx, rows, asked)
        if not found:
            raise UserError(
                f"{ctx.name}: none of {looked} pairs is left ({_told(none)}); take more samples, or another grader"
            )
        lines = (json.dumps(pair, ensure_ascii=False, allow_nan=False) + "\n" for pair in found)
        files.write_text(ctx.out("preferences") / PREFERENCES, "".join(lines))
        levels = Counter(pair["level"] or NO_LEVEL for pair in found)
        ctx.say(f"{len(found)} pairs of {looked} looked at; no opinion: {_told(none) or 'never'}")
        ctx.result(
            pairs=len(found), looked=looked, by=by, none=dict(none),
            levels={level: levels[level] for level in (*LEVELS, NO_LEVEL) if levels[level]},
        )  # fmt: skip

    def _by_grader(self, ctx: Context, rows: Sequence[Answered], asked: int) -> Collected:
        found: list[dict[str, Any]] = []
        none: Counter[str] = Counter()
        looked = 0
        grader = self._grader(ctx, rows, asked)
        at_once = FREE_AT_ONCE if grader.free else ASKED_AT_ONCE
        with ctx.track(asked, ctx.name) as bar:
            for start in range(0, len(rows), at_once):
                some = rows[start : start + at_once]
                contests = [c for row in some for c in self._contests(*row, everything=grader.free)]
                opinions = grader.compare(contests)
                looked += len(contests)
                none.update(opinion for opinion in opinions if isinstance(opinion, str))
                found += self._pairs(contests, opinions, grader.name)
                bar.advance(sum(len(self._contests(*row, everything=False)) for row in some))
        return Collected(found, none, looked, grader.name)

    def _by_people(self, ctx: Context, rows: Sequence[Answered]) -> Collected:
        """Lines of the votes, one for each voter of a pair; without votes what voters need, and the way on."""
        contests = [c for row in rows for c in self._contests(*row, everything=False)]
        pairs = shown_pairs(contests)
        files.write_json(ctx.out("people") / "pairs.json", pairs)
        page = ctx.out("people") / "vote.html"
        files.write_text(page, render(f"{ctx.recipe} {ctx.name}".strip(), pairs))
        if not self.votes:
            raise UserError(
                f"{ctx.name}: {len(contests)} pairs wait for people: open {page} in a browser, save the votes, set "
                f"votes of this stage to that file and run again"
            )
        votes = read_votes(Path(self.votes).expanduser(), contests)
        none = Counter(vote.opinion for vote in votes if isinstance(vote.opinion, str))
        if unseen := len(contests) - len({vote.contest for vote in votes}):
            none["nobody voted"] = unseen
        found = [
            self._line(contests[vote.contest], vote.opinion, vote.by)
            for vote in sorted(votes, key=lambda vote: vote.contest)
            if isinstance(vote.opinion, Opinion)
        ]
        return Collected(found, none, len(contests), f"people: {', '.join(sorted({vote.by for vote in votes}))}")

    def _grader(self, ctx: Context, rows: Sequence[Answered], asked: int) -> Grader:
        if self.grader == "rule":
            return RuleGrader(verdicts_of(ctx, rows), self.shorter)
        if self.grader == "reward":
            assert self.reward is not None
            name = ctx.directory(self.reward).name
            return RewardGrader(rewards_of(ctx, self.reward, self.responses, rows), name)
        return JudgeGrader(self.opened(ctx, 2 * asked, lambda n: None))

    def _contests(self, prompt: Prompt, responses: Sequence[Response], everything: bool) -> list[Contest]:
        """Pairs of different responses in the order in which they are looked at, each side first as often."""
        different: dict[str, Response] = {}
        for response in responses:
            different.setdefault(response["response"], response)
        pairs = list(itertools.combinations(different.values(), 2))
        draw = random.Random(f"pairs/{self.seed}/{prompt['id']}")
        draw.shuffle(pairs)
        if not everything:
            pairs = pairs[: self.pairs_per_prompt]
        return [Contest(prompt, *(pair if draw.random() < 0.5 else pair[::-1])) for pair in pairs]

    def _pairs(self, contests: Sequence[Contest], opinions: Sequence[Opinion | str], by: str) -> list[dict[str, Any]]:
        """The first opinions of each prompt as lines."""
        kept: Counter[str] = Counter()
        found = []
        for contest, opinion in zip(contests, opinions, strict=True):
            id = contest.prompt["id"]
            if isinstance(opinion, Opinion) and kept[id] < self.pairs_per_prompt:
                kept[id] += 1
                found.append(self._line(contest, opinion, by))
        return found

    def _line(self, contest: Contest, opinion: Opinion, by: str) -> dict[str, Any]:
        chosen, rejected = opinion.better, 1 - opinion.better
        sides = contest.a, contest.b
        if self.drawn and opinion.level is not None:
            texts = f"{self.seed}/{contest.prompt['id']}/{contest.a['response']}/{contest.b['response']}"
            if fraction_of(f"drawn/{texts}") >= SOFT_LABELS[LEVELS.index(opinion.level)]:
                chosen, rejected = rejected, chosen
        return {
            "prompt": contest.prompt["messages"],
            "chosen": sides[chosen]["response"],
            "rejected": sides[rejected]["response"],
            "level": opinion.level,
            "grades": {"chosen": opinion.grades[chosen], "rejected": opinion.grades[rejected]},
            "by": by,
            "prompt_id": contest.prompt["id"],
            "members": {"chosen": _who(sides[chosen]), "rejected": _who(sides[rejected])},
        }

    def cost(self) -> Cost:
        prompts = self.responses.limit
        return Cost(bytes=1_000 * prompts, other_s=2 + self.seconds(2 * prompts * self.pairs_per_prompt))


def _who(response: Response) -> dict[str, Any]:
    return {"member": response["member"], "sample": response["sample"]}


def _told(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
