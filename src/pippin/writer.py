"""Who writes synthetic data: a model of ours beside those of `pippin.data.writer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pippin.data.chat import render
from pippin.data.writer import EndpointWriter, KeptWriter, Writer
from pippin.errors import UserError
from pippin.generate import Generator, Tokenizer
from pippin.rollout import rollouts

__all__ = ["EndpointWriter", "KeptWriter", "ModelWriter", "Writer"]


class ModelWriter:
    """A model of ours, torch's or the engine, through `pippin.rollout`.

    Args:
        model, tokenizer: that belong together.
        name: of the model, for the record.
        batch_size: rows that run at the same time (torch).
    """

    def __init__(self, model: Generator, tokenizer: Tokenizer, name: str, batch_size: int = 64) -> None:
        self.name = name
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, object]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        """As `Writer.write`, all conversations in one batch.

        Raises:
            UserError: a conversation that leaves no room for max_tokens in the model's max_seq_len; what
                `data.chat.render` and `rollouts` refuse.
        """
        prompts = [render(self._tokenizer, messages, add_generation_prompt=True).ids for messages in conversations]
        most = self._model.config.max_seq_len
        for number, prompt in enumerate(prompts):
            if len(prompt) + max_tokens > most:
                raise UserError(
                    f"{self.name}: conversation {number}: its {len(prompt)} tokens and max_tokens {max_tokens} exceed "
                    f"the model's max_seq_len {most}; shorten one of them or take another model"
                )
        stops = set(self._tokenizer.special.values())
        found = rollouts(
            self._model, prompts, max_tokens=max_tokens, stop_ids=stops, n_per_prompt=n, temperature=temperature,
            seed=seed, batch_size=self._batch_size,
        )  # fmt: skip
        texts = [self._tokenizer.decode(rollout.tokens) for rollout in found]  # a stop token has no text
        return [texts[begin : begin + n] for begin in range(0, len(texts), n)]
