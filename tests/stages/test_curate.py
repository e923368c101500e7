from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pippin import files
from pippin.data import curation, instruct
from pippin.data.records import split_of
from pippin.data.world_check import leaks
from pippin.errors import UserError
from pippin.pipeline import Graph, stage_id
from pippin.progress import Screen
from pippin.stages.curate import Curate

SMALL = Curate(
    seed=1, world_documents=300, world_tasks=300, stdlib_bytes=400_000, packages=("pluggy",), package_bytes=100_000,
    instruct_world=2_000, instruct_python=60, heldout_per_task=5,
)  # fmt: skip


def run(stage: Curate, runs: Path) -> Path:
    graph = Graph({"curate": stage}, runs)
    graph.run([], Screen(quiet=True))
    return graph.directory(stage)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(SMALL, tmp_path_factory.mktemp("runs"))


def contents(directory: Path) -> dict[str, bytes]:
    kinds = ("documents", "instruct", "report")
    paths = [path for kind in kinds for path in sorted((directory / kind).iterdir())]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def test_artifacts(done: Path) -> None:
    assert curation.sources_in(done / "documents") == ["packages", "python", "stories", "tasks"]
    rows = pq.read_table(done / "documents" / "python.parquet")
    assert rows.column_names == ["id", "source", "split", "text", "licence"]
    assert set(rows["licence"].to_pylist()) == {"PSF-2.0"}
    assert {r["task"] for r in instruct.read(done / "instruct", "train")} >= {"add", "read", "summary", "describe"}
    summary = files.read_json(done / "report" / "summary.json")
    audit = pq.read_table(done / "report" / "audit.parquet").to_pylist()
    kept = sum(sum(part["documents"].values()) for part in summary["documents"].values())
    assert kept == sum(row["kept"] for row in audit)
    assert all(row["reason"] for row in audit if not row["kept"])
    ids = [document["id"] for s in summary["documents"] for document in curation.read_documents(done / "documents", s)]
    assert ids and set(ids) == {row["id"] for row in audit if row["kept"]}
    assert len(set(ids)) == len(ids)


def test_numbers_asked_for_are_kept(done: Path) -> None:
    counts = files.read_json(done / "report" / "summary.json")["instructions"]
    assert sum(n for name, n in counts.items() if name in ("describe.train", "docstring.train")) == 60
    world = sum(n for name, n in counts.items() if name.endswith(".train")) - 60
    assert 1_800 <= world < 2_000  # repeated questions are left out
    assert max(n for name, n in counts.items() if name.endswith(".heldout")) <= 5
    assert counts["copy_length.heldout"] == 5 and "copy_length.train" not in counts


def test_nothing_held_out_is_in_training(done: Path) -> None:
    texts = [d["text"] for s in ("stories", "tasks") for d in curation.read_documents(done / "documents", s, "train")]
    texts += ["\n".join(m["content"] for m in r["messages"]) for r in instruct.read(done / "instruct", "train")]
    assert [leak for text in texts[:1_000] for leak in leaks(text)] == []
    asked = [{r["messages"][0]["content"] for r in instruct.read(done / "instruct", s)} for s in ("train", "heldout")]
    assert asked[0].isdisjoint(asked[1])


def test_heldout_answers_that_training_text_repeats_are_dropped(tmp_path: Path) -> None:
    names = [f"module{i}.py" for i in range(200)]
    heldout = next(name for name in names if split_of(f"folder/{name}") == "heldout")
    train = next(name for name in names if split_of(f"folder/{name}") == "train")
    said_twice = "def f(x):\n    'Turn the given number into a word.'\n    return words[x]\n\n\n"
    said_once = "def g(x):\n    'Turn the given word into a number.'\n    return numbers[x]\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / train).write_text(said_twice)
    (tmp_path / "mine" / heldout).write_text(said_twice + said_once)
    directory = run(Curate(folder=str(tmp_path / "mine"), instruct_python=10), tmp_path / "runs")
    found = list(instruct.read(directory / "instruct", "heldout"))
    assert [record["messages"][-1]["content"] for record in found] == ["Turn the given word into a number."]
    assert files.read_json(directory / "report" / "summary.json")["heldout_answers_in_training_text"] == 1


def test_bytes_are_the_same_again(done: Path, tmp_path: Path) -> None:
    again = contents(run(SMALL, tmp_path))
    before = contents(done)
    assert list(again) == list(before)
    assert [name for name in again if again[name] != before[name]] == []


def test_the_seed_changes_the_world(tmp_path: Path) -> None:
    one, two = (run(Curate(seed=seed, world_documents=5), tmp_path) for seed in (1, 2))
    texts = [[d["text"] for d in curation.read_documents(each / "documents", "stories")] for each in (one, two)]
    assert texts[0] != texts[1]


def test_a_users_folder_is_one_override(tmp_path: Path) -> None:
    texts = tmp_path / "mine"
    texts.mkdir()
    for i in range(6):
        (texts / f"{i}.txt").write_text(f"Letter number {i}, written by hand and kept for a long time in a box.\n" * 2)
    (texts / "bad.txt").write_bytes(b"x" * 100 + b"\xff")
    stage = Curate(folder=str(texts))
    directory = run(stage, tmp_path / "runs")
    found = list(curation.read_documents(directory / "documents", "folder"))
    assert len(found) == 6
    assert {document["split"] for document in found} == {"train", "heldout"}
    audit = pq.read_table(directory / "report" / "audit.parquet").to_pylist()
    dropped = [(row["id"], row["reason"]) for row in audit if not row["kept"]]
    assert dropped == [("folder/bad.txt", "not UTF-8: byte 100")]
    before = stage_id(stage)
    (texts / "0.txt").write_text("another text\n")
    assert stage_id(stage) != before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"world_tasks": -1}, "world_tasks: value -1: must not be negative"),
        ({"max_chars": 10}, "max_chars: value 10: too short"),
        ({"packages": ("pluggy",)}, "package_bytes: value 0"),
    ],
)
def test_wrong_fields_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Curate(**fields)


def test_nothing_to_train_on_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every source is empty"):
        run(Curate(), tmp_path)
    (tmp_path / "a.txt").write_text("tiny")
    with pytest.raises(UserError, match=r"source 'folder': no training document remains \(1 too short\)"):
        run(Curate(folder=str(tmp_path / "a.txt")), tmp_path)
    with pytest.raises(UserError, match="packages: 'no-such-package': is not installed"):
        run(Curate(packages=("no-such-package",), package_bytes=10), tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        run(Curate(folder=str(tmp_path / "nowhere")), tmp_path)
