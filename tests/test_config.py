from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pippin.config import leaves, override
from pippin.errors import UserError


@dataclass(frozen=True)
class Train:
    steps: int = 100
    lr: float = 0.01
    compute: Literal["bfloat16", "float32"] = "bfloat16"


@dataclass(frozen=True)
class Params:
    name: str = "x"
    packages: tuple[str, ...] = ("numpy",)
    mixture: dict[str, float] = field(default_factory=lambda: {"world": 1.0})
    limit: int | None = 3
    flag: bool = False
    core: Train = field(default_factory=Train)
    sft: Train = field(default_factory=lambda: Train(steps=10))


def test_override_reads_each_kind_of_value_by_its_annotation() -> None:
    p = override(
        Params(),
        [
            "core.steps=7",
            "core.lr=1e-3",
            "name=a=b",
            'packages=["a", "b"]',
            'mixture={"w": 2}',
            "limit=none",
            "flag=true",
        ],
    )
    assert p.core == Train(steps=7, lr=1e-3)
    assert (p.name, p.packages, p.mixture, p.limit, p.flag) == ("a=b", ("a", "b"), {"w": 2.0}, None, True)
    assert p.sft == Params().sft  # the other group is untouched


def test_a_table_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mixture.json"
    path.write_text('{"format_version": 1, "weights": {"a": 0.25, "b": 0.75}}', "utf-8")
    assert override(Params(), [f"mixture={path}"]).mixture == {"a": 0.25, "b": 0.75}
    path.write_text('{"a": 2}', "utf-8")
    assert override(Params(), [f"mixture={path}"]).mixture == {"a": 2.0}
    path.write_text('["a"]', "utf-8")
    with pytest.raises(UserError, match="mixture"):
        override(Params(), [f"mixture={path}"])
    with pytest.raises(UserError, match="no such file"):
        override(Params(), [f"mixture={tmp_path}/none.json"])


def test_a_later_override_wins_and_text_that_looks_like_json_stays_text() -> None:
    assert override(Params(), ["name=1", "name=true"]).name == "true"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("core.stepz=1", "core.steps"),
        ("sft.steps.x=1", "did you mean"),
        ("steps=1", "core.steps or sft.steps"),
        ("core=1", "core.steps, core.lr"),
        ("core.steps=many", "expected int"),
        ("core.compute=float8", "'bfloat16' or 'float32'"),
        ("core.steps", "path=value"),
        ("zzz=1", "pippin show"),
    ],
)
def test_a_wrong_override_is_one_clear_line(assignment: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        override(Params(), [assignment])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_leaves_lists_every_setting_once() -> None:
    assert dict(leaves(Params()))["sft.steps"] == 10
    assert len(list(leaves(Params()))) == 11


@dataclass(frozen=True)
class _Maybe:
    """A group that may be missing."""

    train: _Group | None = field(default_factory=lambda: _Group())
    other: _Group = field(default_factory=lambda: _Group())


@dataclass(frozen=True)
class _Group:
    steps: int = 1


def test_a_group_that_may_be_missing_can_be_left_out() -> None:
    assert override(_Maybe(), ["train=none"]).train is None
    assert override(_Maybe(), ["train.steps=2"]).train == _Group(2)
    with pytest.raises(UserError, match=r"this is a group; set one of other.steps"):
        override(_Maybe(), ["other=none"])
