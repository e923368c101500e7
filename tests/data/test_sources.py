from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin.data import sources
from pippin.data.sources import SourceFile, documents, folder, packages, stdlib
from pippin.errors import UserError


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def python(text: str, path: str = "pkg/mod.py") -> SourceFile:
    return SourceFile("python", path, "train", "PSF-2.0", text)


# --- the library and packages


def test_stdlib_reads_whole_files_up_to_the_limit_in_the_same_order() -> None:
    small, large = list(stdlib(200_000)), list(stdlib(600_000))
    assert [f.path for f in small] == [f.path for f in large[: len(small)]]
    size = sum(len((f.text or "").encode()) for f in small)
    assert 200_000 <= size < 500_000
    assert len({f.path.split("/")[0] for f in large}) > 5  # from all over the library
    assert not any(part in f.path for f in large for part in ("test/", "idlelib", "encodings/", "site-packages"))
    assert list(stdlib(0)) == []


def test_modules_stay_on_one_side() -> None:
    sides: dict[str, set[str | None]] = {}
    for file in stdlib(10**9):
        sides.setdefault(file.path.split("/")[0], set()).add(file.split)
        assert file.licence == "PSF-2.0"
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "heldout"} == set.union(*sides.values())


def test_the_digest_sees_a_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write(tmp_path / "a.py", "x = 1\n")
    monkeypatch.setattr(sources, "stdlib_files", lambda: {"a.py": file})
    before = sources.stdlib_digest()
    assert before == sources.stdlib_digest()
    write(file, "x = 2\n")
    assert sources.stdlib_digest() != before


def test_packages_carry_their_licence_and_mix() -> None:
    found = list(packages(["pluggy", "iniconfig", "pluggy"], 10**7))
    assert {f.path.split("/")[0] for f in found} == {"pluggy", "iniconfig"}
    assert all("MIT" in f.licence and f.source == "packages" for f in found)
    assert len({f.path for f in found}) == len(found)
    assert len(sources.package_digest("pluggy")) == 64
    assert len(list(packages(["pluggy"], 1))) == 1


def test_a_missing_package_is_one_line() -> None:
    with pytest.raises(UserError, match="packages: 'plugy': is not installed here; did you mean 'pluggy'"):
        list(packages(["plugy"], 10))


# --- a user's folder


def test_folder_reads_text_jsonl_and_parquet(tmp_path: Path) -> None:
    write(tmp_path / "b" / "notes.md", "\ufeff# Title\r\ntext\r\n")
    write(tmp_path / "rows.jsonl", '{"text": "one"}\n{"text": "two", "x": 1}\n')
    pq.write_table(pa.table({"text": ["three", "four"], "n": [1, 2]}), tmp_path / "t.parquet")
    write(tmp_path / "image.png", b"\x89PNG")
    write(tmp_path / ".hidden.txt", "no")
    found = {f.path: f for f in folder(tmp_path)}
    assert {path: f.text for path, f in found.items()} == {
        "b/notes.md": "# Title\ntext\n", "image.png": None, "rows.jsonl:1": "one", "rows.jsonl:2": "two",
        "t.parquet:1": "three", "t.parquet:2": "four",
    }  # fmt: skip
    assert found["image.png"].problem == "ending not read: .png"
    assert sum(f.split == "heldout" for f in found.values()) >= 1
    assert found == {f.path: f for f in folder(tmp_path)}


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i} of a book." + " word" * 30 for i in range(20))
    (book,) = folder(write(tmp_path / "book.txt", text))
    assert book.split is None
    parts = documents(book, max_chars=400)
    assert {"train", "heldout"} == {part["split"] for part in parts}  # a single file is split by its documents
    assert parts[0]["id"] == "folder/book.txt:1"


def test_few_units_still_give_a_heldout_one(tmp_path: Path) -> None:
    for n in (2, 3, 5):
        base = tmp_path / str(n)
        for i in range(n):
            write(base / f"{i}.txt", f"text {i}")
        sides = [f.split for f in folder(base)]
        assert 1 <= sides.count("heldout") < n


def test_bad_rows_are_named_with_their_place(tmp_path: Path) -> None:
    rows = [b'{"text": "good"}', b'{"text": "b\xe4d"}', b"{not json", b'{"body": "x"}', b"", b'{"text": 3}']
    write(tmp_path / "r.jsonl", b"\n".join(rows))
    found = [(f.path, f.text, f.problem) for f in folder(tmp_path)]
    assert found[0] == ("r.jsonl:1", "good", "")
    assert [problem for _, text, problem in found if text is None] == [
        f"not UTF-8: byte {len(rows[0]) + 1 + rows[1].index(0xE4)}", "not JSON", "no text in a field 'text'",
        "empty line", "no text in a field 'text'",
    ]  # fmt: skip
    write(tmp_path / "r.txt", b"abc\xff")
    assert [f.problem for f in folder(tmp_path / "r.txt")] == ["not UTF-8: byte 3"]


def test_parquet_with_nulls_and_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    column = pa.Array.from_buffers(pa.string(), 3, pa.array([b"fine", b"b\xe4d", None], pa.binary()).buffers(), 1)
    pq.write_table(pa.table({"text": column}), tmp_path / "t.parquet")
    assert [(f.text, f.problem) for f in folder(tmp_path)] == [
        ("fine", ""), (None, "not UTF-8: byte 1"), (None, "no text (null)"),
    ]  # fmt: skip


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        list(folder(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to read .*it is empty"):
        list(folder(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"nothing to read \(endings there: .png\); readable are .txt"):
        list(folder(write(tmp_path / "p" / "a.png", b"x").parent))
    with pytest.raises(UserError, match="no text in a field 'text'; there is: title, body"):
        list(folder(write(tmp_path / "j.jsonl", json.dumps({"title": "a", "body": "b"}))))
    with pytest.raises(UserError, match="there is: a list"):
        list(folder(write(tmp_path / "k.jsonl", "[1]\n")))
    pq.write_table(pa.table({"content": ["a"], "n": [1]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"no column 'text' of strings; there is: content \(string\), n \(int64\)"):
        list(folder(tmp_path / "c.parquet"))
    with pytest.raises(UserError, match="cannot be read as Parquet") as caught:
        list(folder(write(tmp_path / "d.parquet", b"PAR1 and no more")))
    assert "\n" not in str(caught.value)


# --- cutting


def test_python_is_cut_at_definitions() -> None:
    functions = [f"@wrap\ndef f{i}(x):\n    '''About {i}.'''\n    return x + {i}\n\n\n" for i in range(10)]
    text = "# Copyright (c) someone\n# Licensed under something\n\nimport os\n\n\n" + "".join(functions)
    found = documents(python(text), max_chars=200)
    assert len(found) > 3
    for document in found[1:]:
        assert document["text"].startswith("# pkg/mod.py\n@wrap\ndef f")
        assert len(document["text"]) <= 200
        line = int(document["id"].rsplit(":", 1)[1])
        assert text.split("\n")[line - 1] == "@wrap"
    assert found[0]["text"].startswith("# pkg/mod.py\nimport os\n")  # without the licence, which is in meta
    assert found[0]["meta"] == {"licence": "PSF-2.0"}
    assert "".join(text.split()).endswith("".join("".join(d["text"].split("\n", 1)[1] for d in found).split()))


def test_a_long_class_is_cut_between_methods() -> None:
    methods = "".join(f"    def m{i}(self):\n        return '{'x' * 40}'\n\n" for i in range(10))
    found = documents(python("class C:\n    '''Doc.'''\n\n" + methods), max_chars=250)
    assert all(document["text"].split("\n")[1].startswith(("class C", "    def m")) for document in found)


@given(st.text(alphabet="ab #\n@\x0c", max_size=300), st.integers(40, 80), st.sampled_from(["a.py", "a.md"]))
def test_cutting_loses_nothing_but_space(text: str, max_chars: int, path: str) -> None:
    found = documents(SourceFile("folder", path, "train", "", text), max_chars)
    assert all(len(document["text"]) <= max_chars for document in found)
    bodies = [d["text"].split("\n", 1)[1] if path.endswith(".py") else d["text"] for d in found]
    assert "".join("".join(bodies).split()) == "".join(text.split())
    assert len({document["id"] for document in found}) == len(found) or max(map(len, text.split("\n"))) > max_chars - 10
