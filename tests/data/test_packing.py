"""Tokens on disk: what is written is what is read, and no damage passes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pippin.data import packing
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
    assert web.read(0, 6).tolist() == [10, 11, 12, EOS, 13, EOS]
    assert web.read(0, 6).dtype == np.uint16
    assert web.starts.tolist() == [0, 4, 6]
    assert web.doc_bytes.tolist() == [7, 5]
    assert (web.masked, web.read_mask(0, 6), web.n_bytes, web.n_targets, web.n_documents) == (False, None, 12, 6, 2)
    sums = tokens.open("sums", "train")
    assert sums.read_mask(0, 3).tolist() == [0, 1, 0]
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
    assert stream.read(0, 2).dtype == dtype
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
    assert TokenSet(tmp_path).open("web", "train").read(0, 1) == [10]


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
        ({"format_version": 3}, "format_version 3: this Pippin reads 2"),
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


def write_shards(directory: Path, documents: int = 40, shard_tokens: int = 50) -> list[list[int]]:
    """Documents of 1 to 20 tokens in several shards."""
    rng = np.random.default_rng(3)
    texts = [rng.integers(2, 100, int(rng.integers(1, 21))).tolist() for _ in range(documents)]
    with TokenWriter(directory, 100, EOS, shard_tokens) as writer:
        for text in texts:
            writer.add("web", "train", text, len(text), [1] * len(text))
        writer.add("sums", "train", [5, 6], 2)
    return texts


def test_shards_are_read_as_one_stream(tmp_path: Path) -> None:
    texts = write_shards(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    sums, web = index["streams"]
    assert index["format_version"] == 2
    assert "shards" not in sums
    assert len(web["shards"]) > 5
    assert all(50 <= shard["tokens"] < 50 + 21 for shard in web["shards"][:-1])
    assert len(list(tmp_path.glob("web.train.tokens*.npy"))) == len(web["shards"])
    stream = TokenSet(tmp_path).open("web", "train")
    flat = [token for text in texts for token in [*text, EOS]]
    learnt = [bit for text in texts for bit in [1] * len(text) + [0]]
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    assert (stream.n_tokens, stream.n_documents, stream.n_targets) == (len(flat), len(texts), sum(learnt))
    assert stream.starts.tolist() == starts.tolist()
    assert stream.doc_bytes.tolist() == [len(text) for text in texts]
    cuts = sorted({0, *np.cumsum([shard["tokens"] for shard in web["shards"]]).tolist()})
    near = sorted({min(max(cut + d, 0), len(flat)) for cut in cuts for d in (-1, 0, 1, 30)})
    for start in near:
        for stop in near:
            if start <= stop:
                assert stream.read(start, stop).tolist() == flat[start:stop]
                assert stream.read_mask(start, stop).tolist() == learnt[start:stop]
                within = starts[(starts >= start) & (starts < stop) & (starts < len(flat))]
                assert stream.starts_within(start, stop).tolist() == within.tolist()


def test_only_so_many_shards_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each map holds open files, of which a process may have few."""
    monkeypatch.setattr(packing, "MAPPED_SHARDS", 3)
    write_shards(tmp_path)
    tokens = TokenSet(tmp_path)
    stream = tokens.open("web", "train")
    assert tokens.mapped.cache_info().currsize == 0  # opening looks at sizes only
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    stream.read(0, stream.n_tokens)
    assert tokens.mapped.cache_info().currsize == 3
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3 * 3


@pytest.mark.parametrize("kind", ["tokens", "starts", "bytes", "mask"])
def test_a_damaged_shard_is_named_at_once(tmp_path: Path, kind: str) -> None:
    write_shards(tmp_path)
    path = tmp_path / f"web.train.{kind}.00003.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"web.train.{kind}.00003.npy: damaged or truncated \(\d+ bytes, not \d+\)"):
        TokenSet(tmp_path).open("web", "train")
    path.unlink()
    with pytest.raises(UserError, match=rf"web.train.{kind}.00003.npy: no such file, though index.json names it"):
        TokenSet(tmp_path).open("web", "train")


def test_damage_inside_a_shard_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_shards(tmp_path)
    sizes = [shard["tokens"] for shard in json.loads((tmp_path / "index.json").read_text())["streams"][1]["shards"]]
    path = tmp_path / "web.train.tokens.00002.npy"
    array = np.load(path)
    array[7] = 100
    np.save(path, array)
    stream = TokenSet(tmp_path).open("web", "train")
    assert len(stream.read(0, sum(sizes[:2]) + 7)) == sum(sizes[:2]) + 7
    with pytest.raises(UserError, match=r"web.train.tokens.00002.npy: token id 100 at 7 is not below"):
        stream.read(sum(sizes[:2]) + 5, sum(sizes[:2]) + 9)
    starts = tmp_path / "web.train.starts.00001.npy"
    np.save(starts, np.load(starts) + 1)
    with pytest.raises(UserError, match=r"web.train.starts.00001.npy: offsets do not rise from 0 to"):
        TokenSet(tmp_path).open("web", "train").read(sizes[0], sizes[0] + 1)


def test_shards_that_do_not_add_up_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    path = tmp_path / "index.json"
    index = json.loads(path.read_text())
    index["streams"][1]["shards"].pop()
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index.json: field missing or wrong .*their tokens do not add up"):
        TokenSet(tmp_path)


def test_same_documents_are_told_from_others(tmp_path: Path) -> None:
    for name, lengths, shard_tokens in (
        ("a", [3, 5, 4], 100),
        ("b", [3, 5, 4], 100),
        ("c", [5, 3, 4], 100),
        ("d", [3, 5, 4], 1),
        ("e", [3, 5, 4], 1),
        ("f", [5, 3, 4], 1),
    ):
        with TokenWriter(tmp_path / name, 100, EOS, shard_tokens) as writer:
            for length in lengths:
                writer.add("web", "train", [7] * length, length)
    streams = {name: TokenSet(tmp_path / name).open("web", "train") for name in "abcdef"}
    same = [(x, y) for x in "abcdef" for y in "abcdef" if x < y and streams[x].same_documents(streams[y])]
    assert same == [("a", "b"), ("d", "e")]
