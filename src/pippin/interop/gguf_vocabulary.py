"""A tokenizer directory as the metadata that llama.cpp tokenizes with.

Pippin's own tokenizers are SentencePiece BPE with byte fallback, llama.cpp's type "llama": it merges the neighbours
whose concatenation has the best score, so minus the rank of a piece reproduces the order of merges. Byte-level BPE of
other makers is its type "gpt2", with a name for the expression that cuts the text beforehand.

Where llama.cpp differs from `Tokenizer.encode`: it writes a space as U+2581, so a U+2581 of a text becomes a space; and
when it is told to look for special tokens (as chat programs do) it finds them in a user's text too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tokenizers

from pippin.data.foreign import ForeignTokenizer
from pippin.data.tokenizer import FIRST_PIECE, SPECIAL, Tokenizer
from pippin.errors import UserError
from pippin.files import read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

# gguf.TokenType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN, _GPT4 = rf"{_LETTERS}\p{{N}}{_REST}", rf"{_LETTERS}\p{{N}}{{1,3}}{_REST}"


class Vocabulary(NamedTuple):
    """Pieces in the order of their ids, and what llama.cpp has to know about them.

    `model` is "llama" or "gpt2"; `scores` are of the first, `merges` and `pre` of the second. `ids` are special roles:
    "eos", "pad", "unk", "eot", "bos".
    """

    model: str
    pieces: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    pre: str
    ids: dict[str, int]
    add_bos: bool
    chat_template: str | None


def read_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary of a tokenizer directory, of ours or of another maker's byte-level BPE.

    Raises:
        UserError: the files are missing or damaged, or llama.cpp has no name for such a tokenizer.
    """
    values = read_json(directory / "tokenizer.json")
    chat_template = None
    if (directory / "chat_template.jinja").is_file():
        chat_template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    try:
        own = Tokenizer.load(directory)
    except UserError:
        return _foreign(directory, values, chat_template)
    pieces = sorted(values["model"]["vocab"], key=values["model"]["vocab"].__getitem__)
    types = [_CONTROL] * len(SPECIAL) + [_BYTE] * 256 + [_NORMAL] * (len(pieces) - FIRST_PIECE)
    types[own.unk_id] = _UNKNOWN
    scores = [0.0] * FIRST_PIECE + [-float(rank) for rank in range(len(pieces) - FIRST_PIECE)]
    pieces[FIRST_PIECE:] = [piece.replace(" ", "\u2581") for piece in pieces[FIRST_PIECE:]]
    ids = {"eos": own.eos_id, "pad": own.pad_id, "unk": own.unk_id, "eot": own.end_id}
    return Vocabulary("llama", pieces, types, scores, None, "default", ids, False, chat_template)


def add_vocabulary(writer: GGUFWriter, directory: Path | None, size: int) -> None:
    """Write a tokenizer directory's vocabulary into a GGUF writer; ids up to the model's `size` are filled up.

    Raises:
        UserError: what `read_vocabulary` raises, or the tokenizer has more ids than the model.
    """
    if directory is None:
        writer.add_tokenizer_model("none")
        return
    v = read_vocabulary(directory)
    if len(v.pieces) > size:
        raise UserError(
            f"{directory}: tokenizer.json has {len(v.pieces)} ids, the model {size}; they do not belong together"
        )
    unused = [f"[PAD{id}]" for id in range(len(v.pieces), size)]
    writer.add_tokenizer_model(v.model)
    writer.add_tokenizer_pre(v.pre)
    writer.add_token_list(v.pieces + unused)
    writer.add_token_types(v.types + [_UNUSED] * len(unused))
    if v.scores is not None:
        writer.add_token_scores(v.scores + [-1e9] * len(unused))
        writer.add_add_space_prefix(False)
    if v.merges is not None:
        writer.add_token_merges(v.merges)
    for role, id in v.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{_ROLE_KEYS[role]}_token_id", id)
    writer.add_add_bos_token(v.add_bos)
    writer.add_add_eos_token(False)
    if v.chat_template is not None:
        writer.add_chat_template(v.chat_template)


_ROLE_KEYS = {"eos": "eos", "pad": "padding", "unk": "unknown", "eot": "eot", "bos": "bos"}


def _foreign(directory: Path, values: Any, chat_template: str | None) -> Vocabulary:
    """Byte-level BPE as of Qwen, Llama 3 and OLMo2."""
    other = ForeignTokenizer.load(directory)
    model = values.get("model", {})
    pre = _pre_tokenizer(values, bool(model.get("ignore_merges")))
    if model.get("type") != "BPE" or pre is None:
        raise UserError(
            f"{directory / 'tokenizer.json'}: llama.cpp's name for this tokenizer is not known here; "
            "export with --to hf and use llama.cpp's convert_hf_to_gguf.py"
        )
    pieces, types = [f"[PAD{id}]" for id in range(other.vocab_size)], [_UNUSED] * other.vocab_size
    for piece, id in model["vocab"].items():
        pieces[id], types[id] = piece, _NORMAL
    for token in values.get("added_tokens", []):
        pieces[token["id"]] = token["content"]
        types[token["id"]] = _CONTROL if token.get("special") else _USER_DEFINED
    settings = read_json(directory / "tokenizer_config.json")
    if chat_template is None and isinstance(settings.get("chat_template"), str):
        chat_template = settings["chat_template"]
    ids = {"eos": other.eos_id}
    backend = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    for role in ("bos", "pad"):
        token = settings.get(f"{role}_token")
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and (id := backend.token_to_id(content)) is not None:
            ids[role] = id
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    # The tokenizer itself puts its start token first (Llama), or it has none and `start_id` is the end of a text.
    add_bos = "bos" in ids and other.start_id == ids["bos"] != other.eos_id
    return Vocabulary("gpt2", pieces, types, None, merges, pre, ids, add_bos, chat_template)


def _pre_tokenizer(values: Any, ignore_merges: bool) -> str | None:
    """llama.cpp's name for how a byte-level tokenizer cuts a text, or None."""
    cutter = values.get("pre_tokenizer") or {}
    steps = cutter.get("pretokenizers", [cutter])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        expression = steps[0].get("pattern", {}).get("Regex")
        if expression == _GPT4:
            return "llama-bpe" if ignore_merges else "dbrx"
        return {_QWEN: "qwen2"}.get(expression)
    return None
