"""DPO and IPO as a stage: what is preferred becomes likelier, a cut run ends with the same bits, errors in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.stages.speaking import Speaker, preferences

from pippin.errors import UserError
from pippin.pipeline import Context, Graph, Stage
from pippin.progress import Screen
from pippin.stages import preference as preference_stage
from pippin.stages.preference import PreferenceTuning
from pippin.training.loop import TrainSpec

SHORT = TrainSpec(
    steps=12, batch_size=16, seq_len=64, lr=0.005, weight_decay=0.0, compute="float32", log_every=1, eval_every=6,
    checkpoint_every=4,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Collected(Stage):
    """What a stage leaves that collected preferences."""

    def run(self, ctx: Context) -> None:
        preferences(ctx.out("preferences") / "preferences.jsonl")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("preference")


def run(place: Path, train: TrainSpec = SHORT, **fields: Any) -> tuple[Path, dict[str, Any]]:
    begin, collected = Speaker(), Collected()
    if not fields.get("data"):
        fields["preferences"] = collected
    made = PreferenceTuning(start=begin, train=train, heldout_share=0.2, **fields)
    graph = Graph({"begin": begin, "collected": collected, "tuned": made}, place)
    graph.run(["tuned"], Screen(quiet=True))
    return graph.directory(made), graph.record(made)["results"]


@pytest.mark.parametrize(
    "fields", [{"kind": "dpo"}, {"kind": "ipo"}, {"kind": "ipo", "by_length": True, "beta": 0.5}], ids=str
)
def test_what_is_preferred_becomes_likelier(place: Path, fields: dict[str, Any]) -> None:
    _, found = run(place, **fields)
    assert found["before"]["accuracy"] == 0.5  # at the reference every margin is 0
    assert found["before"]["log_loss"] == pytest.approx(0.6931, abs=1e-4)
    assert found["accuracy"] == 1.0
    assert found["margin"] > 0.05
    assert found["counts"]["train"] + found["counts"]["heldout"] > 50


def test_ipo_stops_where_its_target_is(place: Path) -> None:
    """Its optimum is a margin of 1 / (2 tau), whatever the number of steps; DPO's has none (Azar et al. 2023)."""
    train = replace(SHORT, steps=80, checkpoint_every=80, eval_every=80, lr=0.003)
    _, found = run(place, train, kind="ipo", beta=0.25)
    assert found["margin"] / 0.25 == pytest.approx(1 / (2 * 0.25), rel=0.25)


def test_a_file_of_pairs_and_a_cut_run_give_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(place)
    plain: Callable[..., Any] = preference_stage.preference_loss

    def cut(*arguments: Any) -> Any:
        if arguments[-1] == 10:
            raise KeyboardInterrupt
        return plain(*arguments)

    data = str(preferences(tmp_path / "preferences.jsonl"))
    with monkeypatch.context() as patched:
        patched.setattr(preference_stage, "preference_loss", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, data=data)
    again, _ = run(tmp_path, data=data)
    assert "resumed at step 8" in (again / "log").read_text()
    assert (again / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def test_what_is_wrong_is_one_line(place: Path, tmp_path: Path) -> None:
    def fails(match: str, **fields: Any) -> None:
        with pytest.raises(UserError, match=match) as raised:
            run(place, **fields)
        assert "\n" not in str(raised.value)

    fails("batch_size=3: a pair is two rows", train=replace(SHORT, batch_size=3))
    fails("kind=kto: must be dpo or ipo", kind="kto")
    fails("beta=0: must be above 0", beta=0)
    fails("by_length=True: is IPO's", by_length=True)
    fails("no held-out pair fits seq_len=4", train=replace(SHORT, seq_len=4))
    fails("seq_len=128: the model's max_seq_len is 64", train=replace(SHORT, seq_len=128))
    with pytest.raises(UserError, match="preferences: give either"):
        PreferenceTuning(start=Speaker(), train=SHORT)
