"""Our tokenizer against SentencePiece (the same model file) and against transformers' AutoTokenizer (the directory)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import sysconfig
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pippin.data.chat import render
from pippin.data.tokenizer import CHAT_TEMPLATE, PRESETS, Tokenizer, train_tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

STDLIB = Path(sysconfig.get_path("stdlib"))
# First and last code point of blocks that random words are made of.
SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF),
]  # fmt: skip
ODD = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u00ad\u200b\u200d\u200e\u2028\u2029\u202e\u2060\ufeff\ufe0f\u3000\u0300\u0301\u20e3\U0001f3fd\U000e0041",
    *"\ufffd\ufffc\ufdd0\ufffe\uffff\U0001fffe\U0010ffff\ue000\uf8ff\U000f0000\u0378\u2580\u2582\u2585",
    *"１٣५²½Ⅷ一",
    *["<pad>", "<eos>", "<unk>", "<0x41>", "<|user|>", "<|end|>"],
]


def random_text(rng: random.Random, words: list[str]) -> str:
    """A string of a few parts from all over Unicode, without surrogates and without U+2581."""
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.randrange(9)
        if kind == 0:
            parts.append(rng.choice([" ", "\n", "\t", "\r\n", "a", "-", "=", "0"]) * rng.randrange(1, 40))
        elif kind == 1:
            parts.append(str(rng.randrange(10 ** rng.randrange(1, 15))))
        elif kind == 2:
            parts.extend(rng.choice(ODD) for _ in range(rng.randrange(1, 6)))
        elif kind == 3:
            parts.append("e" + "".join(chr(rng.randrange(0x300, 0x370)) for _ in range(rng.randrange(1, 5))))
        elif kind == 4:
            parts.extend(chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(5))
        elif kind < 7:
            first, last = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 10))))
        else:
            parts.append(rng.choice(["", " "]).join(rng.choices(words, k=rng.randrange(1, 8))))
    return "".join(parts).replace("\u2581", "")


def some_sources() -> list[str]:
    return [(STDLIB / name).read_text("utf-8") for name in ("argparse.py", "typing.py", "inspect.py")]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """10,000 random strings that touch every category of Unicode."""
    rng = random.Random(7)
    words = [word for text in some_sources() for word in text.split(" ")]
    texts = [random_text(rng, words) for _ in range(10_000)]
    assert {unicodedata.category(c) for text in texts for c in text} >= {"Cc", "Cf", "Co", "Cn", "Mn", "So", "Nd", "Lo"}
    return texts


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A trained tokenizer directory; half of the strings are in its training text, so all scripts have pieces."""
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([*some_sources(), *texts[::2]], directory, vocab_size=4096)
    return directory


def load_both(directory: Path) -> tuple[Tokenizer, Any]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    return Tokenizer.load(directory), processor


def test_encodes_like_sentencepiece(directory: Path, texts: list[str]) -> None:
    ours, theirs = load_both(directory)
    encoded = ours.encode_batch(texts)
    assert encoded == theirs.encode(texts)
    assert [ours.decode(ids) for ids in encoded] == texts
    used = {id for ids in encoded for id in ids}
    assert min(used) >= 8
    assert len([id for id in used if id >= 264]) > 3000, "most learnt pieces are in use, else the test shows little"


def test_whole_files_encode_like_sentencepiece(directory: Path) -> None:
    ours, theirs = load_both(directory)
    for text in some_sources():
        assert ours.encode(text) == theirs.encode(text)
    one_line = " ".join(some_sources()).replace("\n", " ")
    assert ours.encode(one_line) == theirs.encode(one_line)


def test_periodic_text_encodes_like_sentencepiece(tmp_path: Path) -> None:
    """Pieces that overlap themselves ("aba", "aaa") can be cut in several ways: the ranks of the cuts must not show."""
    rng = random.Random(3)

    def strings(count: int) -> Iterator[str]:
        for _ in range(count):
            unit = "".join(rng.choices("ab ", k=rng.randrange(1, 5)))
            yield "".join(rng.choice([unit, unit[::-1], rng.choice("ab ")]) for _ in range(rng.randrange(1, 30)))

    train_tokenizer(strings(3000), tmp_path, vocab_size=2000)
    ours, theirs = load_both(tmp_path)
    texts = list(strings(10_000))
    assert ours.encode_batch(texts) == theirs.encode(texts)


def test_the_one_difference_is_u2581(directory: Path) -> None:
    ours, theirs = load_both(directory)
    assert theirs.encode("a\u2581b") == theirs.encode("a b")
    assert ours.encode("a\u2581b") == [*ours.encode("a"), *(8 + byte for byte in "\u2581".encode()), *ours.encode("b")]
    assert ours.decode(ours.encode("a\u2581b")) == "a\u2581b"


def test_special_pieces_are_the_same_in_both(directory: Path) -> None:
    ours, theirs = load_both(directory)
    assert ours.vocab_size == theirs.vocab_size() == 4096
    assert {piece: theirs.piece_to_id(piece) for piece in ours.special} == ours.special
    assert (theirs.pad_id(), theirs.eos_id(), theirs.unk_id(), theirs.bos_id()) == (0, 1, 2, -1)
    assert [theirs.is_byte(id) for id in (7, 8, 263, 264)] == [False, True, True, False]


@pytest.mark.parametrize("model_type", [None, "qwen3"])
def test_auto_tokenizer_encodes_alike(
    directory: Path, texts: list[str], tmp_path: Path, model_type: str | None
) -> None:
    """In a tokenizer directory, and in a model directory, where AutoTokenizer sees the type of the model first."""
    transformers = pytest.importorskip("transformers")
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if model_type is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours, theirs = Tokenizer.load(directory), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id, theirs.bos_token_id) == (0, 1, 2, None)
    assert len(theirs) == ours.vocab_size
    plain = [text for text in texts if not any(piece in text for piece in ours.special)] + ["a\u2581b", " \u2581 "]
    assert len(plain) > 5000
    encoded = theirs(plain)["input_ids"]
    assert encoded == ours.encode_batch(plain)
    assert theirs.batch_decode(encoded) == plain
    assert ours.encode("<|user|>") != theirs.encode("<|user|>") == [4]


def test_chat_template_gives_the_ids_of_render(directory: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs = Tokenizer.load(directory), transformers.AutoTokenizer.from_pretrained(directory)
    assert theirs.chat_template == CHAT_TEMPLATE == (directory / "chat_template.jinja").read_text("utf-8")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": " Be short.\n"},
        {"role": "user", "content": "{{ 1 + 1 }}\n\n  & <b>?"},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "\n2 "},
    ]
    for prompt in (False, True):
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"]
        assert ids == render(ours, messages, add_generation_prompt=prompt).ids
    function = {"name": "größe", "description": "<b> & 'c'", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]
    calls = [
        {"function": {"name": "größe", "arguments": {"b": [1, None], "a": 1e-9}}},
        {"name": "f", "arguments": "{}"},
    ]
    messages += [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "So:", "tool_calls": calls[:1]},
    ]
    for asked in (messages, messages[1:]):
        ids = theirs.apply_chat_template(asked, tools=tools)["input_ids"]
        assert ids == render(ours, asked, tools=tools).ids
    # Their mask, from marks around what the assistant says, is ours, from the structure.
    said, end = "{%- if message['content'] -%}", "{{- '<|end|>' -}}{%- endfor -%}"
    assert CHAT_TEMPLATE.count(said) == CHAT_TEMPLATE.count(end) == 1
    parts = CHAT_TEMPLATE.partition(said)
    body, _, rest = parts[2].partition(end)
    body, rest = said + body + "{{- '<|end|>' -}}", "{%- endfor -%}" + rest
    marked = "{%- if message['role'] == 'assistant' -%}{%- generation -%}" + body + "{%- endgeneration -%}"
    marked = parts[0] + marked + "{%- else -%}" + body + "{%- endif -%}" + rest
    found = theirs.apply_chat_template(
        messages, tools=tools, chat_template=marked, return_assistant_tokens_mask=True, return_dict=True
    )
    rendered = render(ours, messages, tools=tools)
    assert (found["input_ids"], found["assistant_masks"]) == (rendered.ids, rendered.loss_mask)
    for bad, what in [
        ({"role": "root", "content": ""}, "role root"),
        ({"role": "user", "content": None}, "must be text"),
        ({"role": "user", "content": "", "tool_calls": calls}, "only the assistant"),
    ]:
        with pytest.raises(Exception, match=what):
            theirs.apply_chat_template([bad])


def test_another_process_writes_the_same_bytes(directory: Path, tmp_path: Path, texts: list[str]) -> None:
    (tmp_path / "texts.json").write_text(json.dumps([*some_sources(), *texts[::2]]))
    program = (
        "import json, sys; from pippin.data.tokenizer import train_tokenizer; "
        "train_tokenizer(json.load(open(sys.argv[1])), sys.argv[2], 4096)"
    )
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "texts.json", tmp_path / "again"],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "123"},
    )
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["chat_template.jinja", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["afm-on-device", "afm-server"])
def test_large_presets(preset: str, tmp_path: Path, texts: list[str]) -> None:
    sources = [
        path.read_text("utf-8", errors="replace")
        for path in sorted(STDLIB.rglob("*.py"))
        if not {"site-packages", "test", "tests"} & set(path.parts)
    ]
    assert sum(map(len, sources)) > 5_000_000
    tokenizer = train_tokenizer([*sources[1::2], *texts[::2]], tmp_path, PRESETS[preset])
    assert tokenizer.vocab_size == PRESETS[preset]
    ours, theirs = load_both(tmp_path)
    for batch in (texts, sources[::2]):
        encoded = ours.encode_batch(batch)
        assert encoded == theirs.encode(batch)
        assert [ours.decode(ids) for ids in encoded] == batch
