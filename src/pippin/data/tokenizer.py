"""The tokenizer: SentencePiece BPE in training, the `tokenizers` library at run time, the text exact both ways.

From the report (section 3.1, "Tokenizer"): BPE as SentencePiece does it, every number split into digits, unknown
characters as UTF-8 bytes, no Unicode normalisation; 49k pieces on device, 100k on the server. From AXLearn's public
trainer files (data/tokenizers/sentencepiece/bpe_{32k,128k}.json): pad 0, eos 1, unk 2, no bos; character coverage
0.9995; pieces may run over spaces (split_by_whitespace false) and may be spaces only, extra spaces are kept;
"sentences" of at most 32,768 bytes; a newline is a piece of its own.

Ours differs where theirs would lose text, or where a small vocabulary needs it:
- Newline is the byte piece <0x0A>, where AXLearn rewrites it to a piece `<n>` first: one token either way, but a text
  with "<n>" in it stays what it is. Tab, carriage return and NUL are byte pieces for the same reason. So a line is
  encoded alike wherever it stands: encode(a + "\\n" + b) = encode(a) + [<0x0A>] + encode(b).
- No dummy space is put before the text, which nobody could tell from a real one when decoding.
- U+2581, SentencePiece's mark for a space, is three byte pieces here; SentencePiece itself makes it a space.
  It is the only character that the two encode differently: tokenizer.json holds the space as a space.
- Single characters take at most half of the pieces that are left after the special and the byte pieces, the most
  frequent first; with 1,024 pieces a text in Chinese or Japanese would otherwise leave no room for merges.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from pippin import files
from pippin.data.chat import FUNCTIONS
from pippin.errors import UserError

ROLES = ("system", "user", "assistant", "tool")

SPECIAL = ("<pad>", "<eos>", "<unk>", *(f"<|{role}|>" for role in ROLES), "<|end|>")
"""The special pieces in the order of their ids. No text is ever encoded to one of them."""

FIRST_PIECE = len(SPECIAL) + 256
"""Id of the first learnt piece: after the special pieces and one piece for each byte."""

PRESETS = {"quickstart": 1_024, "afm-on-device": 49_152, "afm-server": 100_000}
"""Vocabulary sizes. AFM's are the report's 49k and 100k (Apple's post of June 2024); quickstart's is ours."""

CHARACTER_COVERAGE = 0.9995  # AXLearn
SENTENCE_CHARACTERS = 32_768 // 4  # AXLearn's limit is 32,768 bytes, and a character has at most four
# Never part of a learnt piece: what SentencePiece reserves (tab, U+2581, U+2585), cannot hold (NUL) or strips from
# the end of a sentence (newline, carriage return). All are encoded as bytes.
RESERVED = "\0\t\n\r\u2581\u2585"

TEMPLATE_FILE = "chat_template.jinja"
GENERATION_PART = "add_generation_prompt"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}"
    "{{- raise_exception('role ' ~ message['role'] ~ ': must be system, user, assistant or tool') -}}"
    "{%- endif -%}"
    "{%- if message['tool_calls'] and message['role'] != 'assistant' -%}"
    "{{- raise_exception('tool_calls of ' ~ message['role'] ~ ': only the assistant calls functions') -}}"
    "{%- endif -%}"
    "{%- if message['content'] is not string and (message['content'] or not message['tool_calls']) -%}"
    "{{- raise_exception('content of ' ~ message['role'] ~ ': must be text') -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if tools -%}"
    "{{- '<|system|>' -}}"
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- if messages[0]['content'] -%}{{- messages[0]['content'] ~ '\\n\\n' -}}{%- endif -%}"
    "{%- set messages = messages[1:] -%}"
    "{%- endif -%}"
    f"{{{{- '{FUNCTIONS}' -}}}}"
    "{%- for tool in tools -%}"
    "{{- '\\n' -}}{{- (tool['function'] if 'function' in tool else tool) | tojson -}}"
    "{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|' ~ message['role'] ~ '|>' -}}"
    "{%- if message['content'] -%}{{- message['content'] -}}{%- endif -%}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{%- if message['content'] or not loop.first -%}{{- '\\n' -}}{%- endif -%}"
    "{%- set function = call['function'] if 'function' in call else call -%}"
    "{{- '<tool_call>{\"name\": ' -}}{{- function['name'] | tojson -}}{{- ', \"arguments\": ' -}}"
    "{%- if function['arguments'] is string -%}{{- function['arguments'] -}}"
    "{%- else -%}{{- function['arguments'] | tojson -}}{%- endif -%}"
    "{{- '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{{- '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Each message is its role token, its content and `<|end|>`. `data.chat.render` builds the same ids from the structure.

A template can only make text, so with it a content that holds "<|end|>" does end its message: a program that serves
strangers uses `data.chat.render`, where content stays content.
"""


class Tokenizer:
    """Text to token ids and back: a thin face of `tokenizers.Tokenizer`.

    `decode(encode(text)) == text` for every text, whatever characters are in it, and `encode` never gives a special id.

    Attributes:
        vocab_size: number of pieces.
        special: id of each special piece, by its text.
        pad_id, eos_id, unk_id, end_id: 0, 1, 2 and 7. The file formats ask for `<unk>`; nothing is encoded to it.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # Look-alikes of special pieces in a text are encoded as the ordinary text that they are.
        backend.encode_special_tokens = True
        self._backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self.special = {piece: id for id, piece in enumerate(SPECIAL)}
        self.pad_id, self.eos_id, self.unk_id, self.end_id = (
            self.special[piece] for piece in ("<pad>", "<eos>", "<unk>", "<|end|>")
        )
        pieces = [backend.id_to_token(id) or "" for id in range(self.vocab_size)]
        if pieces[:FIRST_PIECE] != [*SPECIAL, *map(_byte_piece, range(256))]:
            raise ValueError("its first pieces are not the special pieces and the bytes")
        self._bytes = [
            *[b""] * len(SPECIAL),
            *[bytes([byte]) for byte in range(256)],
            *[piece.encode() for piece in pieces[FIRST_PIECE:]],
        ]

    @classmethod
    def load(cls, directory: str | Path) -> Tokenizer:
        """Read `directory`/tokenizer.json (a tokenizer directory, or a model directory with one in it).

        Raises:
            UserError: the file is missing, damaged, or not one that Pippin trained; or the chat template beside it has
                no generation part, so that whoever renders with it could ask for no answer.
        """
        path = Path(directory) / "tokenizer.json"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{path}: no such file; give a directory that holds a tokenizer") from None
        template = _template(Path(directory))
        asks = template is None or GENERATION_PART in template
        try:
            backend = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare exceptions
            raise UserError(f"{path}: damaged, or not a tokenizer ({str(error).splitlines()[0]})") from None
        try:
            loaded = cls(backend)
        except ValueError as error:
            unread = (
                "are not read" if asks else f"are not read, and this one has no generation part ({GENERATION_PART})"
            )
            raise UserError(
                f"{path}: not a tokenizer that Pippin trained ({error}); chat templates of other makers {unread}: take "
                "a model of Pippin's for conversations"
            ) from None
        if not asks:
            raise UserError(
                f"{directory}: its chat template has no generation part ({GENERATION_PART}), so no answer can be asked "
                f"for with it; take the {TEMPLATE_FILE} of the run that trained the tokenizer"
            )
        return loaded

    def role_id(self, role: str) -> int:
        """Id of the token that starts a message of `role`: system, user, assistant or tool.

        Raises:
            ValueError: another role.
        """
        if role not in ROLES:
            raise ValueError(f"role {role!r}: must be one of {', '.join(ROLES)}")
        return self.special[f"<|{role}|>"]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, each in [8, vocab_size); an empty text has none. No eos is added.

        Raises:
            UserError: the text holds a lone surrogate (U+D800 to U+DFFF), which is not a Unicode character.
        """
        try:
            return self._backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):
            _refuse_surrogates(text)
            raise

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, on all cores (`TOKENIZERS_PARALLELISM=false` keeps to one). About 120 bytes per token are
        in use meanwhile, so give a large corpus in batches of some megabytes.

        Raises:
            UserError: one of the texts holds a lone surrogate.
        """
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            for text in texts:
                _refuse_surrogates(text)
            raise
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special pieces have none.

        Bytes that are not UTF-8 (a model may sample any byte) become U+FFFD as in `bytes.decode(errors="replace")`; the
        `tokenizers` library gives one U+FFFD for every byte of such a run, also where a part of it is UTF-8.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 bytes of `ids`: what a stream decodes step by step, as a character may be spread over several ids.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        parts = []
        for id in ids:
            if not 0 <= id < self.vocab_size:
                raise ValueError(f"token id {id}: outside the vocabulary of {self.vocab_size} pieces")
            parts.append(self._bytes[id])
        return b"".join(parts)


def train_tokenizer(texts: Iterable[str], out_dir: str | Path, vocab_size: int, or_fewer: bool = False) -> Tokenizer:
    """Train a tokenizer on `texts`, write it to `out_dir`, and return it.

    Writes tokenizer.json, tokenizer_config.json and chat_template.jinja (`transformers.AutoTokenizer` opens the
    directory), and tokenizer.model (SentencePiece's own file, for tools that read those).
    The same texts in the same order give the same bytes. One thread trains: others would only load the text faster.
    Memory: about 50 bytes per byte of text, so give a sample of some 10 to 100 MB of a large corpus.

    Args:
        texts: documents. Runs of characters without line breaks and tabs are trained on, whatever their length.
        out_dir: made if it does not exist.
        vocab_size: number of pieces, special (8) and byte (256) pieces included; see PRESETS.
        or_fewer: take as many as the text is enough for where it is not enough for `vocab_size`.

    Raises:
        UserError: the texts are empty, hold a lone surrogate, or are too little for `vocab_size` pieces (the message
            says how many they are enough for); or sentencepiece is not installed.
    """
    if vocab_size <= FIRST_PIECE:
        raise UserError(f"vocab_size: value {vocab_size}: {FIRST_PIECE} pieces are special or bytes; set more")
    texts = list(texts)
    counts = _count_characters(texts)
    try:
        model = _train_sentencepiece(texts, counts, vocab_size)
    except _TooFewPieces as error:
        largest = _largest_vocab_size(texts, counts, error.pieces)
        if not or_fewer:
            raise UserError(
                f"vocab_size: value {vocab_size}: the text is enough for {largest}; set it to {largest}, or give more "
                "text"
            ) from None
        model = _train_sentencepiece(texts, counts, largest)

    out_dir = Path(out_dir)
    tokenizer_json = json.dumps(_to_tokenizers(model), ensure_ascii=False, separators=(",", ":"))
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    files.write_bytes(out_dir / "tokenizer.model", model)
    files.write_text(out_dir / TEMPLATE_FILE, CHAT_TEMPLATE)
    files.write_json(out_dir / "tokenizer_config.json", config)
    files.write_text(out_dir / "tokenizer.json", tokenizer_json)
    return tokenizer


def _template(directory: Path) -> str | None:
    """The directory's chat template, in a file of its own or, as older ones have it, in the settings."""
    try:
        if (directory / TEMPLATE_FILE).is_file():
            return (directory / TEMPLATE_FILE).read_text(encoding="utf-8", errors="replace")
        settings = json.loads((directory / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # nothing is rendered with it here
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    return template if isinstance(template, str) else None


class _TooFewPieces(Exception):
    def __init__(self, pieces: int) -> None:
        self.pieces = pieces


def _byte_piece(byte: int) -> str:
    return f"<0x{byte:02X}>"


def _refuse_surrogates(text: str) -> None:
    """Raise UserError if `text` holds a lone surrogate; say where."""
    if found := re.search("[\ud800-\udfff]", text):
        raise UserError(
            f"text: lone surrogate U+{ord(found.group()):04X} at character {found.start()}: not a Unicode character; "
            'read the text with errors="replace"'
        )


def _count_characters(texts: list[str]) -> Counter[str]:
    """How often each character occurs that may be in a learnt piece."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    _refuse_surrogates("".join(counts))
    for character in RESERVED:
        del counts[character]
    if not counts:
        raise UserError("texts: empty: there is nothing to train a tokenizer on; give documents with text")
    return counts


def _alphabet(counts: Counter[str], limit: int) -> str:
    """The most frequent characters that cover 0.9995 of the text, at most `limit` of them (SentencePiece's rule)."""
    enough = CHARACTER_COVERAGE * counts.total()
    chosen = ""
    covered = 0
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= enough or len(chosen) == limit:
            break
        chosen += character
        covered += count
    return chosen


def _sentences(texts: list[str], alphabet: str) -> Iterator[str]:
    """The runs of characters of the alphabet in the texts, in order, a long one in several parts.

    No merge can reach over a character outside of the alphabet, so nothing is lost by leaving them out.
    """
    runs = re.compile(f"[{re.escape(alphabet)}]{{1,{SENTENCE_CHARACTERS}}}")
    for text in texts:
        for run in runs.finditer(text):
            yield run.group()


def _train_sentencepiece(texts: list[str], counts: Counter[str], vocab_size: int) -> bytes:
    """Train a BPE model of exactly `vocab_size` pieces and return SentencePiece's model file.

    Raises:
        _TooFewPieces: the text gives fewer pieces.
    """
    try:
        import sentencepiece
    except ImportError:
        raise UserError("tokenizer: training needs sentencepiece; pip install 'pippin[train]'") from None
    alphabet = _alphabet(counts, limit=max(1, (vocab_size - FIRST_PIECE) // 2))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, alphabet),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece=SPECIAL[0],
            eos_piece=SPECIAL[1],
            unk_piece=SPECIAL[2],
            control_symbols=list(SPECIAL[3:]),
            byte_fallback=True,
            character_coverage=1.0,  # of the alphabet, which was chosen above
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_by_whitespace=False,
            split_digits=True,
            max_sentence_length=4 * SENTENCE_CHARACTERS,
            shuffle_input_sentence=False,
            num_threads=1,  # written into the model file, so that another number would change its bytes
            minloglevel=2,  # errors only, and those come as exceptions
        )
    except RuntimeError as error:
        if found := re.search(r"value <= (\d+)", str(error)):
            raise _TooFewPieces(int(found.group(1))) from None
        raise
    return model.getvalue()


def _largest_vocab_size(texts: list[str], counts: Counter[str], size: int) -> int:
    """The first size from `size` downwards that the text is enough for: fewer pieces may mean a smaller alphabet."""
    while True:
        try:
            _train_sentencepiece(texts, counts, size)
        except _TooFewPieces as error:
            size = error.pieces
        else:
            return size


def _to_tokenizers(model: bytes) -> dict[str, Any]:
    """SentencePiece's BPE model as the content of a tokenizer.json that encodes alike.

    SentencePiece merges the neighbours whose concatenation is the best ranked piece, however that piece was first put
    together; so every way to cut a piece into two pieces is a merge, with the rank of the piece. Of two places with the
    same piece it takes the left one. The library ranks merges one by one, so cuts of one piece rank by length of their
    left part; that could only matter if two different cuts of the same piece overlapped in a text.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(id) for id in range(processor.vocab_size())]
    # A space is a space: there is no normaliser, and no character of a text is taken for another.
    learnt = [piece.replace("\u2581", " ") for piece in pieces[FIRST_PIECE:]]
    known = set(learnt)
    merges = [
        [piece[:cut], piece[cut:]]
        for piece in learnt
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": piece, **flags} for id, piece in enumerate(SPECIAL)],
        "normalizer": None,
        # A newline never merges, so lines are encoded one by one: the same ids, in less time and memory.
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": "\n"},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate([*pieces[:FIRST_PIECE], *learnt])},
            "merges": merges,
        },
    }
