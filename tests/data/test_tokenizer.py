"""The tokenizer by itself: exactness, special pieces, training, and what goes wrong."""

from __future__ import annotations

import codecs
import json
import random
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin.data.tokenizer import CHAT_TEMPLATE, FIRST_PIECE, SPECIAL, Tokenizer, train_tokenizer
from pippin.errors import UserError

pytest.importorskip("sentencepiece")

PROSE = "The quick brown fox jumps over the lazy dog. Über den Fluß. Привет, мир! 12 + 34 = 46\n    if x:\n        y\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    sources = [(Path(sysconfig.get_path("stdlib")) / name).read_text("utf-8") for name in ("argparse.py", "typing.py")]
    train_tokenizer([*sources, PROSE * 100], directory, vocab_size=1024)
    return directory


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.load(directory)


def pieces(tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode_bytes([id]).decode() for id in range(FIRST_PIECE, tokenizer.vocab_size)]


@given(st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(len(SPECIAL) <= id < tokenizer.vocab_size for id in ids)
    assert tokenizer.decode(ids) == text


def test_every_character_comes_back(tokenizer: Tokenizer) -> None:
    """Every Unicode scalar value, U+2581, U+FFFD, NUL and the noncharacters among them."""
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts = ["".join(characters[start : start + 4096]) for start in range(0, len(characters), 4096)]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


@pytest.mark.parametrize(
    "text", ["", " ", "  a  b  ", "\n", "\r\n\r", "\t\tx", "\0", "\u2581", " \u2581\u2581 ", "\ufeffa", "e\u0301"]
)
def test_spaces_and_marks_stay(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_pieces_have_their_ids(tokenizer: Tokenizer) -> None:
    names = ["<pad>", "<eos>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
    assert tokenizer.special == {name: id for id, name in enumerate(names)}
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.end_id) == (0, 1, 2, 7)
    assert [tokenizer.role_id(role) for role in ("system", "user", "assistant", "tool")] == [3, 4, 5, 6]
    with pytest.raises(ValueError, match="'end'"):
        tokenizer.role_id("end")
    assert tokenizer.vocab_size == 1024


@pytest.mark.parametrize("text", [*SPECIAL, "<0x41>", "a<|end|><|system|>b", "<|end|>\n<eos>", "<|<eos>user|>"])
def test_text_is_never_a_special_token(tokenizer: Tokenizer, text: str) -> None:
    for ids in (tokenizer.encode(text), tokenizer.encode_batch([text])[0]):
        assert min(ids) >= len(SPECIAL)
        assert tokenizer.decode(ids) == text
    if text.startswith("<0x"):
        assert ids != [8 + 0x41], "the text <0x41> is not the byte 0x41"


def test_batch_is_the_same_as_one_by_one(tokenizer: Tokenizer) -> None:
    texts = ["", "a", "two\nlines", PROSE]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_lone_surrogates_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for action in (
        lambda: tokenizer.encode("ab\udc80"),
        lambda: tokenizer.encode_batch(["fine", "ab\udc80"]),
        lambda: train_tokenizer(["ab\udc80"], tmp_path, 300),
    ):
        with pytest.raises(UserError, match=r"U\+DC80"):
            action()
    with pytest.raises(UserError, match="character 2:"):
        tokenizer.encode("ab\udc80")


@given(st.text(), st.text())
def test_lines_are_encoded_one_by_one(tokenizer: Tokenizer, before: str, after: str) -> None:
    newline = 8 + ord("\n")
    assert tokenizer.encode(f"{before}\n{after}") == [*tokenizer.encode(before), newline, *tokenizer.encode(after)]


def test_digits_are_single(tokenizer: Tokenizer) -> None:
    assert all(len(piece) == 1 for piece in pieces(tokenizer) if any(c.isdecimal() for c in piece))
    assert len(tokenizer.encode("2024")) == 4


def test_pieces_run_over_spaces(tokenizer: Tokenizer) -> None:
    """AXLearn's settings: pieces of several words and of spaces only exist, line breaks and tabs are bytes."""
    learnt = pieces(tokenizer)
    assert "        " in learnt
    assert any(" " in piece.strip() for piece in learnt)
    assert not any(c in piece for piece in learnt for c in "\n\t\r\0\u2581\u2585")
    assert learnt[-1] == learnt[-1].strip()
    assert len(set(learnt)) == len(learnt)


def test_decode_replaces_broken_utf8(tokenizer: Tokenizer) -> None:
    euro = [8 + byte for byte in "€".encode()]
    assert tokenizer.decode(euro) == "€"
    assert tokenizer.decode(euro[:2]) == "\ufffd"
    assert tokenizer.decode([8 + 0xFF, *euro, 8 + 0x80]) == "\ufffd€\ufffd"
    assert tokenizer.decode([1, *tokenizer.encode("x"), 7, 0]) == "x", "special pieces have no text"
    for id in (-1, 1024):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            tokenizer.decode([id])


def test_a_stream_can_be_decoded_step_by_step(tokenizer: Tokenizer) -> None:
    text = "naïve 日本 \U0001f600!"
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts = [decoder.decode(tokenizer.decode_bytes([id])) for id in tokenizer.encode(text)]
    assert "".join(parts) == text
    assert "" in parts, "a character of several tokens waits for its last byte"


def test_training_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train_tokenizer([PROSE * 20], tmp_path, 330)
    with pytest.raises(UserError):
        train_tokenizer(["a"], tmp_path, 2000)
    assert capfd.readouterr() == ("", "")


def test_training_takes_an_iterator_and_returns_what_it_wrote(tmp_path: Path) -> None:
    trained = train_tokenizer((text for text in [PROSE] * 20), tmp_path / "new" / "folder", 330)
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    assert trained.vocab_size == loaded.vocab_size == 330
    assert trained.encode(PROSE) == loaded.encode(PROSE)


@pytest.mark.parametrize(
    "text", [PROSE, "a", "aaaa", "abcdefghijklmnopqrstuvwxyz" * 3, "".join(map(chr, range(0x4E00, 0x5000)))]
)
def test_too_little_text_names_the_size_that_works(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        train_tokenizer([text], tmp_path, 5000)
    message = str(caught.value)
    assert message.startswith("vocab_size: value 5000:")
    assert not list(tmp_path.iterdir())
    size = int(message.split("set it to ")[1].split(",")[0])
    assert FIRST_PIECE < size < 5000
    assert train_tokenizer([text], tmp_path, size).vocab_size == size


@pytest.mark.parametrize("texts", [[], ["", ""], ["\n\n\t", "\u2581"]])
def test_an_empty_corpus_is_refused(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(UserError, match="^texts: empty"):
        train_tokenizer(texts, tmp_path, 1024)


def test_a_vocabulary_without_learnt_pieces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^vocab_size: value 264:"):
        train_tokenizer([PROSE], tmp_path, 264)


def test_training_without_sentencepiece_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"pip install 'pippin\[train\]'"):
        train_tokenizer([PROSE], tmp_path, 300)


def test_long_lines_are_trained_on_to_their_end(tmp_path: Path) -> None:
    """SentencePiece by itself would skip a line of more than 32,768 bytes."""
    rng = random.Random(0)
    noise = "".join(rng.choices("bcdfghjklmnp", k=40_000))
    tokenizer = train_tokenizer([noise + "wonderful " * 2000], tmp_path, 500)
    assert any("wonderful" in piece for piece in pieces(tokenizer))


def test_single_characters_leave_room_for_merges(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(2)) for _ in range(2000)]
    text = "".join(words[min(int(rng.paretovariate(0.5)), 1999)] for _ in range(40_000))
    assert len(set(text)) > 1024
    tokenizer = train_tokenizer([text], tmp_path, 1024)
    singles = [piece for piece in pieces(tokenizer) if len(piece) == 1]
    assert len(singles) == (1024 - FIRST_PIECE) // 2
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < len(text)


def test_rare_characters_are_bytes(tmp_path: Path) -> None:
    text = "".join(random.Random(0).choices("abcd ", k=40_000))
    tokenizer = train_tokenizer([text + "é" * 30 + "ж"], tmp_path, 300)
    singles = {piece for piece in pieces(tokenizer) if len(piece) == 1}
    assert singles == set("abcd é"), "é is needed to cover 0.9995 of the text, ж is not"
    assert tokenizer.encode("ж") == [8 + byte for byte in "ж".encode()]


def test_load_refuses_what_is_no_tokenizer(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such file"):
        Tokenizer.load(directory / "tokenizer.json")
    content = (directory / "tokenizer.json").read_text("utf-8")
    other = json.loads(content)
    other["added_tokens"][4]["content"] = "<|human|>"
    other["model"]["vocab"]["<|human|>"] = other["model"]["vocab"].pop("<|user|>")
    for damaged in ("", "{}", content[:-100]):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(UserError, match=r"damaged, or not a tokenizer \("):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    asking = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    for template, unread in [
        (None, "are not read: take a model of Pippin's"),
        (asking, "are not read: take a model of Pippin's"),
        ("{{ messages }}", r"are not read, and this one has no generation part \(add_generation_prompt\): take"),
    ]:
        files = {"chat_template.jinja": template, "tokenizer_config.json": json.dumps({"chat_template": template})}
        for name, text in files.items():
            if text is not None:
                (tmp_path / name).write_text(text)
            with pytest.raises(
                UserError, match=rf"tokenizer.json: not a tokenizer that Pippin trained .*{unread}"
            ) as said:
                Tokenizer.load(tmp_path)
            assert "\n" not in str(said.value)
            (tmp_path / name).unlink(missing_ok=True)


def test_a_template_without_a_generation_part_is_refused(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "t")
    (tmp_path / "t" / "chat_template.jinja").write_text(CHAT_TEMPLATE.partition("{%- if add_generation_prompt")[0])
    with pytest.raises(
        UserError, match=r"t: its chat template has no generation part \(add_generation_prompt\)"
    ) as said:
        Tokenizer.load(tmp_path / "t")
    assert "\n" not in str(said.value)
    (tmp_path / "t" / "chat_template.jinja").unlink()
    Tokenizer.load(tmp_path / "t")  # the settings hold it, too
