"""GGUF files: every weight where llama.cpp looks for it, and a vocabulary that tokenizes as ours.

llama.cpp itself computes them in tests/parity/test_llama_cpp.py and in `pippin bench export`.
"""

from __future__ import annotations

import heapq
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from tests.interop.models import BASE, CONFIGS, TEXT, dense_dir, packed_dir, tokenizer_dir
from tokenizers import decoders, pre_tokenizers, trainers

from pippin.bench.export import random_texts
from pippin.data.tokenizer import Tokenizer
from pippin.errors import UserError
from pippin.interop.gguf import TYPES, export_gguf, gguf_name, interleaved
from pippin.interop.gguf_vocabulary import _GPT4, _QWEN, read_vocabulary
from pippin.interop.stored import StoredModel
from pippin.model.rope import rope_tables, rotate


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_dir(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def packed(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return StoredModel(packed_dir(tmp_path_factory.mktemp("packed") / "model", tokenizer=tokenizer))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, GGMLQuantizationType]]:
    tensors = {t.name: t for t in GGUFReader(path).tensors}
    values = {
        name: dequantize(np.array(t.data), t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
        for name, t in tensors.items()
    }
    return values, {name: t.tensor_type for name, t in tensors.items()}


def field(path: Path, name: str) -> object:
    found = GGUFReader(path).get_field(name)
    assert found is not None, name
    return found.contents()


@pytest.mark.parametrize("kind", [name for name in CONFIGS if name not in ("llama3.1", "mistral")])
def test_weights_are_the_models_to_the_last_bit(kind: str, tokenizer: Path, tmp_path: Path) -> None:
    model = StoredModel(dense_dir(tmp_path / "model", CONFIGS[kind], tokenizer))
    export_gguf(model, tmp_path / "m.gguf", "f32")
    values, _ = read(tmp_path / "m.gguf")
    for name in model.shapes:
        found = values.pop(gguf_name(name, model.config.post_norm))
        assert np.array_equal(found, model.dense(name)), name
    assert set(values) == ({"output.weight"} if kind == "olmo2-tied" else set())


@pytest.mark.parametrize("kind", ["llama3.1", "mistral"])
def test_rows_of_llama_rotate_in_neighbouring_pairs(kind: str, tokenizer: Path, tmp_path: Path) -> None:
    """The scores of queries and keys are those of ours, when pairs 2 i, 2 i + 1 are rotated instead of halves."""
    model = StoredModel(dense_dir(tmp_path / "model", CONFIGS[kind], tokenizer))
    export_gguf(model, tmp_path / "m.gguf", "f32")
    values, _ = read(tmp_path / "m.gguf")
    c = model.config
    scaling = None if c.rope_scaling is None else (8.0, 1.0, 4.0, 16.0)
    divisors = values["rope_freqs.weight"] if scaling else np.ones(c.d_head // 2, np.float32)
    x = np.random.default_rng(0).normal(size=(9, c.d_model)).astype(np.float32)
    cos, sin = rope_tables(torch.arange(9), c.d_head, c.rope_base, scaling)
    angles = np.arange(9)[:, None] * c.rope_base ** (-np.arange(0, c.d_head, 2) / c.d_head) / divisors

    def ours(name: str, heads: int) -> np.ndarray:
        projected = torch.from_numpy(x @ model.dense(f"blocks.1.attention.{name}.weight").T)
        return rotate(projected.view(1, 9, heads, c.d_head), cos, sin)[0].numpy()

    def theirs(name: str, heads: int) -> np.ndarray:
        pairs = (x @ values[f"blk.1.attn_{name}.weight"].T).reshape(9, heads, -1, 2)
        even, odd = pairs[..., 0], pairs[..., 1]
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.stack([even * cos - odd * sin, odd * cos + even * sin], -1).reshape(9, heads, c.d_head)

    expected = np.einsum("tnh,snh->nts", ours("q", 4)[:, ::2], ours("k", 2))
    found = np.einsum("tnh,snh->nts", theirs("q", 4)[:, ::2], theirs("k", 2))
    assert np.allclose(found, expected, atol=1e-4)
    assert np.array_equal(values["blk.1.attn_v.weight"], model.dense("blocks.1.attention.v.weight"))
    assert np.array_equal(values["blk.1.attn_q.weight"], interleaved(model.dense("blocks.1.attention.q.weight"), 4))


@pytest.mark.parametrize("kind", TYPES)
def test_a_packed_model_in_every_type(kind: str, packed: StoredModel, tmp_path: Path) -> None:
    written: list[int] = []
    counts = export_gguf(packed, tmp_path / "m.gguf", kind, written.append)
    values, types = read(tmp_path / "m.gguf")
    assert sum(written) == counts.total() == len(values)
    largest = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 2**-7, "q5_0": 0.07, "q5_1": 0.07}.get(kind, 0.14)
    for name in packed.shapes:
        expected, found = packed.dense(name), values[gguf_name(name)]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= largest * np.abs(expected).max(), name
        if expected.ndim == 1:
            assert types[gguf_name(name)].name == "F32"
    # Rows of 48 and 72 do not divide into blocks of 32, those of 64 do.
    quantised = kind.startswith("q")
    assert types["blk.0.attn_output.weight"].name == kind.upper()
    assert types["blk.0.attn_q.weight"].name == ("F16" if quantised else kind.upper())


def test_metadata(packed: StoredModel, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    export_gguf(packed, path)
    expected = {
        "general.architecture": "qwen3", "general.file_type": 1, "qwen3.context_length": 64, "qwen3.block_count": 2,
        "qwen3.embedding_length": 48, "qwen3.feed_forward_length": 72, "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2, "qwen3.attention.key_length": 16, "qwen3.vocab_size": 384,
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 7,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.unknown_token_id": 2,
    }  # fmt: skip
    assert {name: field(path, name) for name in expected} == expected
    assert field(path, "qwen3.rope.freq_base") == pytest.approx(BASE.rope_base)
    assert field(path, "qwen3.attention.layer_norm_rms_epsilon") == pytest.approx(BASE.norm_eps)
    assert "<|assistant|>" in str(field(path, "tokenizer.chat_template"))


def merged(text: str, ids: dict[str, int], scores: list[float]) -> list[int]:
    """SentencePiece's BPE as llama.cpp runs it: join the neighbours of the best score, the left ones first."""
    symbols: list[str | None] = list(text.replace(" ", "\u2581"))
    after, before = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left >= 0 and right < len(symbols):
            joined = str(symbols[left]) + str(symbols[right])
            if joined in ids:
                heapq.heappush(queue, (-scores[ids[joined]], left, right, joined))

    for left in range(len(symbols) - 1):
        offer(left, left + 1)
    while queue:
        _, left, right, joined = heapq.heappop(queue)
        if symbols[left] is None or symbols[right] is None or f"{symbols[left]}{symbols[right]}" != joined:
            continue
        symbols[left], symbols[right], after[left] = joined, None, after[right]
        if after[right] < len(symbols):
            before[after[right]] = left
        offer(before[left], left)
        offer(left, after[left])
    found: list[int] = []
    for symbol in symbols:
        if symbol is not None:
            found += [ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return found


def test_the_vocabulary_tokenizes_as_ours(tokenizer: Path) -> None:
    ours, vocabulary = Tokenizer.load(tokenizer), read_vocabulary(tokenizer)
    assert vocabulary.scores is not None
    ids = {piece: id for id, piece in enumerate(vocabulary.pieces)}
    texts = [*TEXT, *random_texts(1500), "  two  spaces ", "12345 6", "\n\n a\n", "x" * 300]
    texts = [text for text in texts if "\u2581" not in text]
    assert len(texts) > 1000
    for text in texts:
        assert merged(text, ids, vocabulary.scores) == ours.encode(text), text
    # The one known difference: the mark that stands for a space is taken for one.
    assert merged("a\u2581b", ids, vocabulary.scores) == ours.encode("a b") != ours.encode("a\u2581b")


def byte_level(directory: Path, expression: str, ignore_merges: bool) -> Path:
    """A tokenizer directory as Qwen's or Llama 3's."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    directory.mkdir()
    backend.save(str(directory / "tokenizer.json"))
    settings = {"eos_token": "<|endoftext|>", "chat_template": "{{ messages }}"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


@pytest.mark.parametrize(
    ("expression", "ignore_merges", "pre"),
    [(_QWEN, False, "qwen2"), (_GPT4, True, "llama-bpe"), (_GPT4, False, "dbrx")],
)
def test_another_makers_byte_level_tokenizer(expression: str, ignore_merges: bool, pre: str, tmp_path: Path) -> None:
    vocabulary = read_vocabulary(byte_level(tmp_path / "t", expression, ignore_merges))
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    assert (vocabulary.model, vocabulary.pre, vocabulary.scores) == ("gpt2", pre, None)
    assert vocabulary.pieces == [backend.id_to_token(id) for id in range(backend.get_vocab_size())]
    assert vocabulary.types[-2:] == [3, 3]
    assert vocabulary.types[0] == 1
    assert vocabulary.ids == {"eos": backend.token_to_id("<|endoftext|>")}
    assert not vocabulary.add_bos
    assert vocabulary.chat_template == "{{ messages }}"
    assert vocabulary.merges
    assert all(merge.count(" ") == 1 for merge in vocabulary.merges)


def test_a_larger_model_than_its_tokenizer_is_filled_up(tokenizer: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    model = StoredModel(dense_dir(tmp_path / "model", replace(BASE, vocab_size=400), tokenizer))
    export_gguf(model, tmp_path / "m.gguf")
    pieces, types = (field(tmp_path / "m.gguf", f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    assert len(pieces) == len(types) == 400  # type: ignore[arg-type]
    assert (pieces[383:386], types[384:]) == ([pieces[383], "[PAD384]", "[PAD385]"], [5] * 16)  # type: ignore[index]
    model = StoredModel(dense_dir(tmp_path / "small", replace(BASE, vocab_size=300), tokenizer))
    with pytest.raises(UserError, match="has 384 ids, the model 300"):
        export_gguf(model, tmp_path / "small.gguf")
    assert not list(tmp_path.glob("*small.gguf*"))


def test_what_llama_cpp_cannot_do_is_one_line(tokenizer: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    def refused(match: str, kind: str = "f16", **changes: object) -> None:
        path = dense_dir(tmp_path / f"m{len(list(tmp_path.iterdir()))}", replace(BASE, **changes), tokenizer)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=match):
            export_gguf(StoredModel(path), tmp_path / "m.gguf", kind)
        assert not list(tmp_path.glob("*m.gguf*"))

    refused("d_head: value 16: llama.cpp's qwen2 needs", qk_norm="none", qkv_bias=True)
    refused("rope_scaling: llama.cpp's qwen3", rope_scaling=CONFIGS["llama3.1"].rope_scaling)
    refused("type: value 'q2_k'", kind="q2_k")
    path = dense_dir(tmp_path / "without")
    with pytest.raises(UserError, match=r"tokenizer.json: no such file"):
        export_gguf(StoredModel(path), tmp_path / "m.gguf")
    other = json.loads((tokenizer / "tokenizer.json").read_text())
    other["pre_tokenizer"] = None
    del other["model"]["vocab"]["<0x00>"]
    (path / "tokenizer.json").write_text(json.dumps(other))
    (path / "tokenizer_config.json").write_bytes((tokenizer / "tokenizer_config.json").read_bytes())
    with pytest.raises(UserError, match="llama.cpp's name for this tokenizer is not known"):
        export_gguf(StoredModel(path), tmp_path / "m.gguf")
    big = StoredModel(dense_dir(tmp_path / "big", BASE, tokenizer))
    dense = big.dense
    big.dense = lambda name: dense(name) * np.float32(1e6)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="float16 does not hold; use bf16"):
        export_gguf(big, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("*m.gguf*"))
