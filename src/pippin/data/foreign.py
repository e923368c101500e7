"""Another maker's tokenizer.json, for plain text: what calibration and recovery training of an imported model need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from pippin.errors import UserError
from pippin.files import read_json


class ForeignTokenizer:
    """Text to ids as the imported model knows them. Chat templates and special tokens of the maker are not used:
    a text that looks like a special token is encoded as the text that it is.

    Attributes:
        vocab_size: one more than the largest id.
        start_id: what stands before a document: the token that the tokenizer itself puts first (Llama, Mistral), else
            its end-of-text token (Qwen, OLMo2).
        eos_id: the end-of-text token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, eos_id: int) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self.eos_id = eos_id
        self.vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        empty = backend.encode("", add_special_tokens=True)
        added = [id for id, special in zip(empty.ids, empty.special_tokens_mask, strict=True) if special]
        self.start_id: int = added[0] if added else eos_id

    @classmethod
    def load(cls, directory: str | Path) -> ForeignTokenizer:
        """Read tokenizer.json, and the name of its end-of-text token from tokenizer_config.json.

        Raises:
            UserError: a file is missing or damaged, or no end-of-text token is named.
        """
        path, settings = Path(directory) / "tokenizer.json", Path(directory) / "tokenizer_config.json"
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; write it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained"
            )
        try:
            backend = tokenizers.Tokenizer.from_buffer(path.read_bytes())
        except Exception as error:  # the library raises bare exceptions
            raise UserError(f"{path}: not a tokenizer ({str(error).splitlines()[0]}); fetch the file again") from None
        values = read_json(settings)
        token = values.get("eos_token") if isinstance(values, dict) else None
        content = token.get("content") if isinstance(token, dict) else token
        eos_id = backend.token_to_id(content) if isinstance(content, str) else None
        if eos_id is None:
            raise UserError(f"{settings}: eos_token: value {token!r}: not a token of {path.name}; name one that is")
        return cls(backend, eos_id)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without anything before or after it."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
