"""Benchmarks from local files."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pippin.data.decontaminate.benchmarks import Benchmark, items
from pippin.errors import UserError

ROWS = [{"question": "Who?", "answer": "Nobody at all."}, {"question": "Where, then?", "answer": "There"}]


def read(path: Path, *fields: str) -> list[tuple[str, str]]:
    return list(items(Benchmark("b", str(path), fields)))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz"])
def test_rows_of_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"items{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif ending == ".json":
        path.write_text(json.dumps(ROWS))
    elif ending in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], delimiter="," if ending == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
    assert read(path) == [("0:question", "Who?"), ("1:question", "Where, then?")]
    assert [text for _, text in read(path, "question", "answer")] == ["Who?", "Nobody at all.", "Where, then?", "There"]


def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree\n")
    assert [text.strip() for _, text in read(tmp_path / "a.txt")] == ["one two", "three"]


def test_fields_inside_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": {"stem": "Why?", "choices": []}, "x.y": "plain"}\n')
    assert read(tmp_path / "a.jsonl") == [("0:question.stem", "Why?")]
    assert read(tmp_path / "a.jsonl", "x.y") == [("0:x.y", "plain")]


@pytest.mark.parametrize(
    ("name", "content", "fields", "said"),
    [
        ("absent.jsonl", None, (), "no such file"),
        ("a.jsonl", b'{"question": "x"}\n{"question', (), "cannot be read"),
        ("a.jsonl", b"[1]\n", (), "not an object"),
        ("a.json", b'{"question": "x"}', (), "list of objects"),
        ("a.jsonl", b"\xff\xfe\x00", (), "cannot be read"),
        ("a.jsonl.gz", b"not gzip", (), "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"question": "x"}\n', mtime=0)[:-9], (), "cannot be read"),
        ("a.parquet", b"PAR1", (), "cannot be read"),
        ("a.xml", b"<a/>", (), "not one of"),
        ("a.jsonl", b'{"other": "x"}\n', (), "none of the fields question.stem"),
        ("a.jsonl", b'{"question": "x"}\n', ("question", "solution"), "'solution' is text in no row"),
        ("a.jsonl", b'{"question": 7}\n', ("question",), "'question' is text in no row"),
        ("a.txt", b"", (), "none of the fields"),
    ],
)
def test_a_bad_file_is_one_line(
    name: str, content: bytes | None, fields: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="benchmark 'b'") as caught:
        read(tmp_path / name, *fields)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_files_of_known_benchmarks_as_they_are_published(test_data: Path) -> None:
    counts = {
        name: len(list(items(Benchmark(name, str(test_data / path)))))
        for name, path in {
            "gsm8k": "gsm8k/train.jsonl.gz",
            "math": "math/train.jsonl.gz",
            "arc": "arc/ARC-Challenge-Dev.jsonl",
            "openbookqa": "openbookqa/dev.tsv",
            "lambada": "lambada/lambada_development_plain_text.txt.gz",
        }.items()
    }
    assert counts == {"gsm8k": 7473, "math": 7500, "arc": 294, "openbookqa": 500, "lambada": 4869}
