from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from pippin import files
from pippin.errors import UserError
from pippin.pipeline import Context, Graph, Stage, digest_tree, read_metrics, stage_id
from pippin.progress import Screen

RAN: list[str] = []


@dataclass(frozen=True)
class Write(Stage):
    text: str
    source: str = ""

    def run(self, ctx: Context) -> None:
        RAN.append(ctx.name)
        files.write_text(ctx.out("text") / "a.txt", self.text)
        ctx.log(0, loss=1.5)
        ctx.result(length=len(self.text))

    def inputs(self) -> dict[str, str]:
        return {"source": digest_tree(self.source)} if self.source else {}


@dataclass(frozen=True)
class Join(Stage):
    left: Write
    others: tuple[Write, ...] = ()
    by_name: dict[str, Write] = field(default_factory=dict)
    fail: bool = False

    def run(self, ctx: Context) -> None:
        RAN.append(ctx.name)
        if self.fail:
            raise RuntimeError("boom")
        text = "".join(
            (ctx.artifact(s, "text") / "a.txt").read_text() for s in (self.left, *self.others, *self.by_name.values())
        )
        files.write_text(ctx.out("text") / "a.txt", text)
        ctx.result(lengths=[ctx.record(self.left)["results"]["length"]])


def recipe(text: str = "one", **changes: object) -> dict[str, Stage]:
    a, b, c = Write(text), Write("two"), Write("three")
    return {"a": a, "b": b, "c": c, "join": replace(Join(a, (b,), {"c": c}), **changes)}  # type: ignore[arg-type]


def run(stages: dict[str, Stage], runs: Path, *targets: str) -> list[str]:
    RAN.clear()
    return Graph(stages, runs).run(targets, Screen(quiet=True))


def test_runs_upstream_first_then_nothing(tmp_path: Path) -> None:
    assert run(recipe(), tmp_path) == ["a", "b", "c", "join"]
    graph = Graph(recipe(), tmp_path)
    assert (graph.directory(graph.stages["join"]) / "text" / "a.txt").read_text() == "onetwothree"
    assert run(recipe(), tmp_path) == []
    assert RAN == []


def test_a_change_gives_new_directories_downstream_and_keeps_the_old(tmp_path: Path) -> None:
    run(recipe(), tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert run(recipe("ONE"), tmp_path) == ["a", "join"]
    after = sorted(p.name for p in tmp_path.iterdir())
    assert set(before) < set(after)
    assert len(after) == 6


def test_a_target_runs_only_what_it_needs(tmp_path: Path) -> None:
    assert run(recipe(), tmp_path, "b") == ["b"]
    with pytest.raises(UserError, match="it has a, b, c, join"):
        run(recipe(), tmp_path, "d")


def test_the_id_follows_fields_version_upstream_and_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = stage_id(Join(Write("x")))
    assert stage_id(Join(Write("x"))) == base
    assert stage_id(Join(Write("y"))) != base
    assert stage_id(Join(Write("x"), fail=True)) != base
    monkeypatch.setattr(Write, "version", 2)
    assert stage_id(Join(Write("x"))) != base
    source = tmp_path / "in"
    source.mkdir()
    (source / "f").write_text("1")
    first = stage_id(Write("x", str(source)))
    (source / "f").write_text("2")
    assert stage_id(Write("x", str(source))) != first


def test_a_failed_stage_is_run_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(recipe(fail=True), tmp_path)
    assert not list(tmp_path.glob("join-*/DONE"))
    with pytest.raises(RuntimeError):
        run(recipe(fail=True), tmp_path)
    assert RAN == ["join"]


def test_damage_is_one_clear_line(tmp_path: Path) -> None:
    stages = recipe()
    run(stages, tmp_path)
    graph = Graph(stages, tmp_path)
    a = graph.directory(stages["a"])
    (a / "text" / "a.txt").write_text("onx")  # same size: only the digest tells, when it is used
    assert run(stages, tmp_path) == []
    with pytest.raises(UserError, match="digest"):
        run(recipe(by_name={}), tmp_path)
    (a / "text" / "a.txt").write_text("longer")
    with pytest.raises(UserError, match="6 bytes, 3 were written.*delete"):
        run(stages, tmp_path)
    (a / "text" / "a.txt").unlink()
    with pytest.raises(UserError, match="is missing"):
        run(stages, tmp_path)
    (a / "DONE").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        run(stages, tmp_path)
    (a / "DONE").write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        run(stages, tmp_path)
    (a / "DONE").write_text(json.dumps({"format_version": 99, "files": {}}))
    with pytest.raises(UserError, match="newer"):
        run(stages, tmp_path)


def test_two_processes_do_not_compute_one_stage(tmp_path: Path) -> None:
    import fcntl

    stages = recipe()
    directory = Graph(stages, tmp_path).directory(stages["a"])
    directory.mkdir(parents=True)
    with open(directory / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            run(stages, tmp_path)
    assert run(stages, tmp_path) == ["a", "b", "c", "join"]


def test_metrics_survive_a_cut_last_line_and_rewind(tmp_path: Path) -> None:
    stages = recipe()
    graph = Graph(stages, tmp_path)
    graph.directory(stages["a"]).mkdir(parents=True)
    ctx = Context(graph, "a", Screen(quiet=True))
    for step in range(4):
        ctx.log(step, loss=float(step))
    ctx.log(note=1)
    with open(ctx.dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "lo')
    assert [m.get("step") for m in read_metrics(ctx.dir / "metrics.jsonl")] == [0, 1, 2, 3, None]
    ctx.rewind_metrics(2)
    ctx.log(2, loss=20.0)
    ctx.close()
    assert [m.get("loss") for m in read_metrics(ctx.dir / "metrics.jsonl")] == [0.0, 1.0, None, 20.0]
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = board.EventAccumulator(str(ctx.dir / "tensorboard"))
    events.Reload()
    assert [e.value for e in events.Scalars("loss")] == [0.0, 1.0, 20.0]


def test_a_stage_that_the_recipe_does_not_return_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not return"):
        Graph({"join": Join(Write("x"))}, tmp_path)


def test_values_without_a_canonical_form_are_refused() -> None:
    @dataclass(frozen=True)
    class Odd(Stage):
        thing: object = object()
        version: ClassVar[int] = 1

    with pytest.raises(ValueError, match="cannot be part of an id"):
        stage_id(Odd())
