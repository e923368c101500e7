"""The recipe posttrain and the round of the quickstart: what is made of what, and the bench's arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pippin.bench import posttrain as bench
from pippin.bench.posttrain import Params, arms
from pippin.bench.posttrain_labels import planted
from pippin.data.preferences import LEVELS
from pippin.pipeline import Stage, stage_id
from pippin.recipes.posttrain import PARAMS, posttrain
from pippin.recipes.quickstart import PARAMS as QUICKSTART
from pippin.recipes.quickstart import quickstart
from pippin.stages.picked import Picked
from pippin.stages.policies import ComparePolicies
from pippin.stages.reinforce import Reinforce
from pippin.stages.responses import Responses
from pippin.stages.sft import Sft


def test_a_round_begins_from_the_student_and_earlier_models_stay_members() -> None:
    stages = posttrain()
    second, first = stages["responses-2"], stages["responses-1"]
    assert isinstance(first, Responses)
    assert isinstance(second, Responses)
    assert list(first.members) == ["sft"]
    assert list(second.members) == ["rs", "dpo", "ipo", "mdloo", "student", "sft"]
    assert second.members["student"] is stages["student-1"]
    third = stages["responses-3"]
    assert isinstance(third, Responses)
    assert list(third.members)[-1] == "earlier"
    mdloo = stages["mdloo-2"]
    assert isinstance(mdloo, Reinforce)
    assert mdloo.start is stages["student-1"]
    picked, student = stages["picked-1"], stages["student-1"]
    assert isinstance(picked, Picked)
    assert isinstance(student, Sft)
    assert list(picked.responses.members) == ["start", "rs", "dpo", "ipo", "mdloo"]
    assert student.tokens is picked
    compare = stages["compare"]
    assert isinstance(compare, ComparePolicies)
    assert len(compare.members) == 1 + 3 * 5
    ids = {name: stage_id(stage) for name, stage in stages.items()}
    assert len(set(ids.values())) == len(ids)


def test_the_arms_of_the_bench_draw_as_many_samples() -> None:
    stages = arms(Params(), 0)
    mdloo, rloo = stages["mdloo-1"], stages["rloo-1"]
    assert isinstance(mdloo, Reinforce)
    assert isinstance(rloo, Reinforce)
    assert mdloo.samples == rloo.samples == 7_680
    assert rloo.epochs == rloo.minibatches == 1
    again = {name: stage for name, stage in stages.items() if bench.AGAIN in name}
    assert len(again) == 4
    assert len({stage.samples for stage in again.values() if isinstance(stage, Reinforce)}) == 1
    seeds = [stage_id(arms(Params(), seed)["sft"]) for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_planted_preferences_follow_their_levels() -> None:
    lines = planted(2_000).splitlines()
    assert lines == planted(2_000).splitlines()
    pairs = [json.loads(line) for line in lines]
    for level, expected in zip(LEVELS, (0.95, 0.85, 0.75), strict=False):
        own = [p for p in pairs if p["level"] == level]
        better = [
            p["grades"]["chosen"]["truthfulness"] > p["grades"]["rejected"]["truthfulness"]
            for p in own
            if p["grades"]["chosen"]["truthfulness"] != p["grades"]["rejected"]["truthfulness"]
        ]
        assert len(better) > 300
        assert sum(better) / len(better) == pytest.approx(expected, abs=0.05)


def test_the_quickstart_shows_a_round_and_goes_on_from_the_fine_tuned_model() -> None:
    stages, without = quickstart(), quickstart(replace(QUICKSTART, feedback=None))
    added = set(stages) - set(without)
    assert {"reward-1", "rs-1", "dpo-1", "mdloo-1", "student-1", "policies", "style"} <= added
    for name in set(without) - {"evaluate"}:
        assert stage_id(stages[name]) == stage_id(without[name]), name
    evaluate: Stage = stages["evaluate"]
    assert stage_id(evaluate) != stage_id(without["evaluate"])
    assert PARAMS.round.methods == ("rs", "dpo", "ipo", "mdloo")
