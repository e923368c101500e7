"""Tokens on disk: what is written is what is read, and no damage passes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pippin.data.packing import TokenSet, TokenWriter
from pippin.errors import UserError

EOS = 1


def write(directory: Path, vocab_size: int = 100) -> None:
    with TokenWriter(directory, vocab_size, EOS) as writer:
        writer.add("web", "train", [10, 11, 12], 7)
        writer.add("sums", "train", [20, 21], 4, loss_mask=[0, 1])
        writer.add("web", "heldout", [14], 3)
        writer.add("web", "train", [13], 5)


def write_and_fail(directory: Path) -> None:
    with TokenWriter(directory, 100, EOS) as writer:
        writer.add("web", "train", [99], 1)
        raise RuntimeError


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path)
    tokens = TokenSet(tmp_path)
    assert (tokens.vocab_size, tokens.eos_id) == (100, EOS)
    assert tokens.sources("train") == ["sums", "web"]
    assert tokens.sources("heldout") == ["web"]
    web = tokens.open("web", "train")
    assert web.tokens.tolist() == [10, 11, 12, EOS, 13, EOS]
    assert web.tokens.dtype == np.uint16
    assert web.starts.tolist() == [0, 4, 6]
    assert web.doc_bytes.tolist() == [7, 5]
    assert (web.mask, web.n_bytes, web.n_targets, web.n_documents) == (None, 12, 6, 2)
    sums = tokens.open("sums", "train")
    assert sums.mask is not None
    assert sums.mask.tolist() == [0, 1, 0]
    assert sums.n_targets == 1
    entry = json.loads((tmp_path / "index.json").read_text())["streams"][2]
    assert entry == {
        "source": "web", "split": "train", "tokens": 6, "targets": 6, "documents": 2, "bytes": 12, "mask": False
    }  # fmt: skip


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_smallest_type_that_holds_the_vocabulary(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    with TokenWriter(tmp_path, vocab_size, EOS) as writer:
        writer.add("web", "train", [vocab_size - 1], 1)
    stream = TokenSet(tmp_path).open("web", "train")
    assert stream.tokens.dtype == dtype
    assert stream.read(0, 2).tolist() == [vocab_size - 1, EOS]


def test_files_are_plain_numpy_arrays(tmp_path: Path) -> None:
    write(tmp_path)
    assert np.load(tmp_path / "web.train.tokens.npy", allow_pickle=False).tolist() == [10, 11, 12, EOS, 13, EOS]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_again_keeps_the_old_tokens(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path)
    assert TokenSet(tmp_path).open("web", "train").tokens[0] == 10


@pytest.mark.parametrize(
    ("source", "split", "ids", "message"),
    [
        ("web", "train", [], "source web, split train, document 0: has no tokens"),
        ("web", "train", [100], "outside 0..99"),
        ("web", "train", [-1], "outside 0..99"),
        ("../web", "train", [10], "source '../web'"),
        ("web", "a.b", [10], "split 'a.b'"),
    ],
)
def test_bad_documents(tmp_path: Path, source: str, split: str, ids: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message), TokenWriter(tmp_path, 100, EOS) as writer:
        writer.add(source, split, ids, 1)


@pytest.mark.parametrize("mask", [None, [1], [0, 2]])
def test_a_mask_fits_its_document_and_its_source(tmp_path: Path, mask: list[int] | None) -> None:
    with TokenWriter(tmp_path, 100, EOS) as writer:
        writer.add("sums", "train", [10, 11], 1, loss_mask=[0, 1])
        with pytest.raises(ValueError, match="loss mask"):
            writer.add("sums", "train", [10, 11], 1, loss_mask=mask)


def test_missing_directory_index_source_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"index.json: no such file"):
        TokenSet(tmp_path / "nowhere")
    write(tmp_path)
    with pytest.raises(UserError, match=r"no source 'wob' with split 'train'.*sums.train, web.heldout, web.train"):
        TokenSet(tmp_path).open("wob", "train")
    (tmp_path / "web.train.tokens.npy").unlink()
    with pytest.raises(UserError, match=r"web.train.tokens.npy: no such file"):
        TokenSet(tmp_path).open("web", "train")


@pytest.mark.parametrize("kind", ["tokens", "starts", "bytes", "mask"])
def test_truncated_files_are_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path)
    path = tmp_path / f"sums.train.{kind}.npy"
    for keep in (0, 20, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UserError, match=f"sums.train.{kind}.npy: damaged or truncated"):
            TokenSet(tmp_path).open("sums", "train")


def test_arrays_that_disagree_with_the_index_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "web.train.tokens.npy", np.zeros(5, np.uint16))
    with pytest.raises(UserError, match=r"web.train.tokens.npy: holds uint16 \[5\], index.json says uint16 \[6\]"):
        TokenSet(tmp_path).open("web", "train")
    write(tmp_path)
    np.save(tmp_path / "web.train.starts.npy", np.array([0, 0, 6]))
    with pytest.raises(UserError, match=r"web.train.starts.npy: offsets do not rise from 0 to 6"):
        TokenSet(tmp_path).open("web", "train")


def test_pickles_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "web.train.tokens.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        TokenSet(tmp_path).open("web", "train")


def test_a_token_beyond_the_vocabulary_is_found_when_read(tmp_path: Path) -> None:
    write(tmp_path)
    np.save(tmp_path / "web.train.tokens.npy", np.array([10, 11, 12, 1, 100, 1], np.uint16))
    stream = TokenSet(tmp_path).open("web", "train")
    assert stream.read(0, 4).tolist() == [10, 11, 12, 1]
    with pytest.raises(UserError, match=r"web.train.tokens.npy: token id 100 at 4 is not below the vocabulary's 100"):
        stream.read(3, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2: this Pippin reads 1"),
        ({"vocab_size": None}, "index.json: field missing or wrong"),
        ({"streams": [{"source": "web"}]}, "index.json: field missing or wrong"),
    ],
)
def test_a_bad_index_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write(tmp_path)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        TokenSet(tmp_path)
