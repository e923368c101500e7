"""The search's stages on given scores: what is kept, what is told, and that other seeds have the last word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pippin.data.autoscale_project import read_mixture
from pippin.data.mixture_search import BASE, trials
from pippin.files import read_json
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.stages.mixture_search import MixtureChoice, MixtureSearch

WEIGHTS = {"good": 0.5, "plain": 0.45, "idle": 0.05}
DELTA = 0.1
MEANS = {BASE: 0.5, "good +0.1": 0.6, "good -0.1": 0.4, "plain +0.1": 0.5, "plain -0.1": 0.5, "idle -0.05": 0.5}


@dataclass(frozen=True, kw_only=True)
class Scored(Stage):
    """What a benchmark of some model would have said."""

    name: str
    seed: int
    score: float

    def run(self, ctx: Context) -> None:
        ctx.result(score=self.score)


def run(place: Path, candidate: float) -> tuple[Graph, dict[str, Any]]:
    """A search with a noise of 0.01, and a choice between 0.5 and the candidate's score; the choice's results."""
    names, scores = [], {}
    for name in (BASE, *(trial.name for trial in trials(WEIGHTS, DELTA))):
        for seed, sign in ((0, 1), (1, -1)):
            wobble = 0.01 * sign * (-1) ** (len(names) // 2)  # of mixture and seed together: noise
            scores[f"{name}/{seed}"] = Scored(name=name, seed=seed, score=MEANS.get(name, 0.5) + 0.1 * seed + wobble)
        names += [name, name]
    search = MixtureSearch(scores=dict(scores), names=tuple(names), weights=WEIGHTS, delta=DELTA)
    fresh = {"old": Scored(name=BASE, seed=2, score=0.5), "new": Scored(name="candidate", seed=2, score=candidate)}
    choice = MixtureChoice(search=search, base=(fresh["old"],), candidate=(fresh["new"],))
    graph = Graph({**scores, **fresh, "search": search, "choice": choice}, place)
    graph.run(["choice"], Screen(quiet=True))
    return graph, dict(graph.record(choice)["results"])


def test_what_helps_is_kept_and_what_is_not_missed_is_dropped(tmp_path: Path) -> None:
    graph, results = run(tmp_path, candidate=0.6)
    directory = graph.directory(graph.stages["search"])
    found = read_json(directory / "report" / "summary.json")
    assert {name: each["verdict"] for name, each in found["trials"].items() if each["verdict"]} == {
        "good +0.1": "helps", "idle -0.05": "drop",
    }  # fmt: skip
    assert found["trials"]["good +0.1"]["effect"] == pytest.approx(0.1)
    candidate = read_mixture(directory / "mixture" / "mixture.json")
    assert candidate == pytest.approx({"good": 0.6 / 1.05, "plain": 0.45 / 1.05})
    text = (directory / "report" / "summary.txt").read_text()
    assert "idle -0.05" in text
    assert "drop" in text
    assert results["taken"]
    assert read_mixture(graph.directory(graph.stages["choice"]) / "mixture" / "mixture.json") == candidate


def test_other_seeds_have_the_last_word(tmp_path: Path) -> None:
    graph, results = run(tmp_path, candidate=0.4)
    assert not results["taken"]
    assert results["gain"] == pytest.approx(-0.1)
    chosen = read_mixture(graph.directory(graph.stages["choice"]) / "mixture" / "mixture.json")
    assert chosen == WEIGHTS
    assert "not taken" in (graph.directory(graph.stages["choice"]) / "report" / "summary.txt").read_text()


def test_a_difference_within_a_standard_error_does_no_harm(tmp_path: Path) -> None:
    graph, _ = run(tmp_path, candidate=0.6)
    one = graph.record(graph.stages["search"])["results"]["error"] * 2**0.5  # of one fresh seed instead of two
    assert run(tmp_path, candidate=0.5 - 0.9 * one)[1]["taken"]
    assert not run(tmp_path, candidate=0.5 - 1.1 * one)[1]["taken"]
