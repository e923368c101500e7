"""The best of n: each committee's arg max, and the distribution that it has when every probability is known."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.committee import WORDS, Begin, Given, Scripted, run, shape

from pippin.evaluate.opinions import Key, key_of
from pippin.model.transformer import Transformer
from pippin.pipeline import Stage
from pippin.rollout import rollouts
from pippin.stages import picked as picked_stage
from pippin.stages.picked import Picked

CHI_SQUARE_7 = 24.3  # exceeded once in a thousand times with 7 degrees of freedom

Row = tuple[str, str, int, str, bool]


def picks(
    place: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Row], rewards: Mapping[Key, float], members: list[str]
) -> list[dict[str, Any]]:
    """What `Picked` takes of a committee's responses, at given rewards."""
    judged = lambda ctx, reward, responses, answered: {  # noqa: E731
        key_of(response): rewards[key_of(response)] for _, own in answered for response in own
    }
    monkeypatch.setattr(picked_stage, "rewards_of", judged)
    given = Given(train=len({row[0] for row in rows}), heldout=1)
    stages: dict[str, Stage] = {name: Begin(seed=number) for number, name in enumerate(members)}
    own = tuple(row for row in rows if row[1] in members)
    responses = Scripted(prompts=given, members=stages, rows=own, max_tokens=9)
    made = Picked(model=stages[members[0]], prompts=given, responses=responses, reward=given, heldout_share=0.3)
    directory = run(place, given=given, **stages, responses=responses, picked=made)["picked"]
    return [json.loads(line) for line in (directory / "picks" / "picks.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("members", [["one", "two"], ["three"], ["three", "one", "two"]])
def test_each_prompt_has_its_committees_arg_max(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str]
) -> None:
    generator = torch.Generator().manual_seed(len(members))
    rows = [
        (f"p{number}", name, sample, WORDS[sample], True)
        for number in range(20)
        for name in members
        for sample in range(4)
    ]
    drawn = torch.randn(20, len(members), 4, generator=generator)
    rewards = {row[:3]: float(value) for row, value in zip(rows, drawn.flatten(), strict=True)}
    found = picks(tmp_path, monkeypatch, rows, rewards, members)
    best = [divmod(int(place), 4) for place in drawn.flatten(1).argmax(1)]
    assert [(p["prompt"], p["member"], p["sample"]) for p in found] == [
        (f"p{number}", members[member], sample) for number, (member, sample) in enumerate(best)
    ]
    assert [p["score"] for p in found] == pytest.approx(drawn.flatten(1).amax(1).tolist())
    assert len(set(best)) > 3


def best_of(p: torch.Tensor, rewards: torch.Tensor, n: int) -> torch.Tensor:
    """The distribution of the best of n draws: P(max <= r) is P(one <= r)^n."""
    order = rewards.argsort()
    below = torch.cat((p.new_zeros(1), p[order].cumsum(0)))
    found = torch.empty_like(p)
    found[order] = below[1:] ** n - below[:-1] ** n
    return found


def chi_square(counts: torch.Tensor, p: torch.Tensor) -> float:
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_best_of_four_samples_is_distributed_as_an_order_statistic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    model = Transformer(shape(len(WORDS)), torch.float32).requires_grad_(False)
    logits = model(torch.tensor([[1, 2]]))
    assert isinstance(logits, torch.Tensor)
    p = logits[0, -1].double().softmax(-1)
    rewards = torch.tensor([0.3, -1.0, 0.9, 0.1, -0.2, 1.4, -2.0, 0.6], dtype=torch.float64)
    n, prompts = 4, 900
    drawn = rollouts(model, [[1, 2]], n_per_prompt=n * prompts, max_tokens=1, stop_ids=(), seed=7)
    tokens = [r.tokens[0] for r in drawn]
    assert chi_square(torch.tensor(tokens).bincount(minlength=8).double(), p) < CHI_SQUARE_7

    rows = [(f"p{i // n}", "one", i % n, WORDS[token], True) for i, token in enumerate(tokens)]
    scores = {row[:3]: float(rewards[token]) for row, token in zip(rows, tokens, strict=True)}
    found = picks(tmp_path, monkeypatch, rows, scores, ["one"])
    won = Counter(p["score"] for p in found)
    counts = torch.tensor([won[float(reward)] for reward in rewards], dtype=torch.float64)
    assert counts.sum() == prompts
    assert chi_square(counts, best_of(p, rewards, n)) < CHI_SQUARE_7
    for other in (1, n - 1, n + 1):  # it can tell
        assert chi_square(counts, best_of(p, rewards, other)) > CHI_SQUARE_7


def test_the_best_of_n_is_at_most_so_far_from_the_base() -> None:
    """KL(best of n || base) <= ln n - (n - 1) / n, which arms without weight of their own come close to."""
    generator = torch.Generator().manual_seed(0)
    for n in (2, 4, 16, 64):
        bound = math.log(n) - (n - 1) / n
        for arms in (2, 8, 100):
            p = torch.rand(arms, dtype=torch.float64, generator=generator)
            p = p / p.sum()
            best = best_of(p, torch.randn(arms, generator=generator), n)
            assert float(best.sum()) == pytest.approx(1)
            assert 0 < float(torch.special.xlogy(best, best / p).sum()) <= bound
        fine = torch.full((100_000,), 1e-5, dtype=torch.float64)
        best = best_of(fine, torch.arange(100_000), n)
        assert float(torch.special.xlogy(best, best / fine).sum()) == pytest.approx(bound, abs=1e-3)
