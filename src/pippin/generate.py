"""Text from the torch model: batches of ragged prompts, greedy or sampled, reproducible row by row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from pippin.data.chat import ChatTokenizer, render
from pippin.data.mixture import derive
from pippin.errors import UserError
from pippin.model.cache import KVCache
from pippin.model.transformer import Transformer


class Tokenizer(ChatTokenizer, Protocol):
    """The part of `data.tokenizer.Tokenizer` that generation needs."""

    special: dict[str, int]

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`."""


@dataclass(frozen=True)
class _Sampling:
    """How a token is chosen from logits; see `generate`."""

    temperature: float
    top_k: int
    top_p: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature: {self.temperature}: must be 0 (greedy) or positive")
        if self.top_k < 0:
            raise UserError(f"top_k: {self.top_k}: must be 0 (all tokens) or positive")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: {self.top_p}: must be above 0 and at most 1 (all tokens)")

    def choose(self, logits_BV: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """Next token of each row [B]. The noise of a row depends on (seed, row, step), not on the rest of the batch."""
        if self.temperature == 0:
            return logits_BV.argmax(-1)
        scores, ids = logits_BV, None
        if 0 < self.top_k < logits_BV.shape[-1]:
            scores, ids = scores.topk(self.top_k, dim=-1)  # sorted, largest first
        elif self.top_p < 1:
            scores, ids = scores.sort(dim=-1, descending=True, stable=True)
        # Float64: the sums over a large vocabulary decide which token a number in 0..1 falls on.
        weights = (scores.double() / self.temperature).softmax(-1)
        sums = weights.cumsum(-1)
        if self.top_p < 1:  # keep a token while what comes before it holds less than top_p
            weights = weights.masked_fill(sums - weights >= self.top_p, 0)
            sums = weights.cumsum(-1)
        noise = torch.tensor([[derive(self.seed, row, step) / 2**64] for row in rows], dtype=torch.float64)
        place = torch.searchsorted(sums, noise.to(sums.device) * sums[:, -1:], right=True)
        place = place.clamp(max=weights.shape[-1] - 1)
        return (place if ids is None else ids.gather(-1, place))[:, 0]


def generate(
    model: Transformer,
    tokenizer: Tokenizer | None,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
    slots_B: Sequence[int] | None = None,
) -> list[list[int]]:
    """Continue all prompts together, as one batch.

    Args:
        model: in any state of its weights.
        tokenizer: only for the default of `stop_ids`.
        prompts: token ids, one list a prompt, of any lengths.
        max_tokens: the most to produce for each.
        temperature: 0 = the most likely token; else logits are divided by it before a token is drawn.
        top_k: draw only from the k most likely tokens; 0 = from all.
        top_p: draw only from the most likely tokens that together hold this probability (after top_k).
        seed: the drawn tokens of a prompt are a function of (seed, its place in `prompts`), whatever is beside it.
        stop_ids: a row ends when one is produced; default: all special tokens of `tokenizer`.
        slots_B: adapter slot of each prompt, -1 for none; default: no adapters.

    Returns:
        the new tokens of each prompt without the stop token; fewer than max_tokens exactly if it was stopped.

    Raises:
        UserError: an empty prompt, an id outside the vocabulary, a prompt that leaves no room for max_tokens in the
            model's max_seq_len, or a setting out of range.
    """
    return generate_many(
        model, tokenizer, prompts, batch_size=max(1, len(prompts)), max_tokens=max_tokens, temperature=temperature,
        top_k=top_k, top_p=top_p, seed=seed, stop_ids=stop_ids, slots_B=slots_B,
    )  # fmt: skip


def generate_many(
    model: Transformer,
    tokenizer: Tokenizer | None,
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
    slots_B: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """As `generate`, in batches of prompts of like length; results are in the order of `prompts`.

    Args:
        batch_size: prompts at a time; does not change what is drawn, only rounding.
        progress: called with the number of prompts finished since the last call.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}: must be at least 1")
    sampling = _Sampling(temperature, top_k, top_p, seed)
    stops = _stops(tokenizer, stop_ids)
    _check(model, prompts, max_tokens)
    if slots_B is not None and len(slots_B) != len(prompts):
        raise ValueError(f"{len(slots_B)} adapter slots for {len(prompts)} prompts")
    out: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        slots = None if slots_B is None else [slots_B[row] for row in rows]
        running = set(rows)
        for tokens in _steps(model, [prompts[row] for row in rows], rows, max_tokens, sampling, slots):
            for row, token in zip(rows, tokens, strict=True):
                if row in running:
                    if token in stops:
                        running.remove(row)
                    else:
                        out[row].append(token)
            if not running:
                break
        if progress is not None:
            progress(len(rows))
    return out


def stream(
    model: Transformer,
    tokenizer: Tokenizer | None,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: Collection[int] | None = None,
    slot: int | None = None,
) -> Iterator[int]:
    """As `generate` for one prompt, each token as soon as it is known. Errors are raised by the call itself."""
    sampling = _Sampling(temperature, top_k, top_p, seed)
    stops = _stops(tokenizer, stop_ids)
    _check(model, [prompt], max_tokens)

    def tokens() -> Iterator[int]:
        for (token,) in _steps(model, [prompt], [0], max_tokens, sampling, None if slot is None else [slot]):
            if token in stops:
                return
            yield token

    return tokens()


def stream_reply(
    model: Transformer,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    slot: int | None = None,
) -> Iterator[str]:
    """The assistant's next message, in pieces of text of whole characters as they are known.

    Args:
        messages: the conversation so far (see `data.chat.render`).
        max_tokens: the most to produce; less when the model's max_seq_len leaves less room.
        slot: adapter slot; None: no adapter.

    Raises:
        UserError: as `generate` and `data.chat.render`, by the call itself.
    """
    prompt = render(tokenizer, messages, add_generation_prompt=True).ids
    room = model.config.max_seq_len - len(prompt)
    if room < 1:
        raise UserError(
            f"messages: the conversation has {len(prompt)} tokens, the model's max_seq_len is "
            f"{model.config.max_seq_len}: no room for a reply; leave out earlier messages"
        )
    ids = stream(
        model, tokenizer, prompt, max_tokens=min(max_tokens, room), temperature=temperature, top_k=top_k, top_p=top_p,
        seed=seed, slot=slot,
    )  # fmt: skip
    return _pieces(tokenizer, ids)


def chat_reply(
    model: Transformer,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, str]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    slot: int | None = None,
) -> str:
    """As `stream_reply`, the whole text at once."""
    return "".join(
        stream_reply(
            model, tokenizer, messages, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
            seed=seed, slot=slot,
        )
    )  # fmt: skip


def _pieces(tokenizer: Tokenizer, ids: Iterator[int]) -> Iterator[str]:
    """What each token adds to the decoded text; a token that ends inside a character waits for the next."""
    so_far: list[int] = []
    given = 0
    for token in ids:
        so_far.append(token)
        text = tokenizer.decode(so_far)
        if len(text) > given and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[given:]
            given = len(text)
    rest = tokenizer.decode(so_far)[given:]
    if rest:
        yield rest


def _stops(tokenizer: Tokenizer | None, stop_ids: Collection[int] | None) -> Collection[int]:
    if stop_ids is not None:
        return set(stop_ids)
    if tokenizer is None:
        raise ValueError("give stop_ids or a tokenizer")
    return set(tokenizer.special.values())


def _check(model: Transformer, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
    if max_tokens < 1:
        raise UserError(f"max_tokens: {max_tokens}: must be at least 1")
    config = model.config
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {number}: is empty; start it with <eos>, which stands before every document")
        if len(prompt) + max_tokens > config.max_seq_len:
            raise UserError(
                f"prompt {number}: its {len(prompt)} tokens and max_tokens {max_tokens} exceed the model's max_seq_len "
                f"{config.max_seq_len}; shorten one of them"
            )
        if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
            raise UserError(
                f"prompt {number}: has token ids outside 0..{config.vocab_size - 1}; was it the model's tokenizer?"
            )


@torch.inference_mode()
def _steps(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[int],
    max_tokens: int,
    sampling: _Sampling,
    slots: Sequence[int] | None,
) -> Iterator[list[int]]:
    """Yield the next token of every prompt, max_tokens times; stopping is the caller's business."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    tokens_BT = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
    tokens_BT = tokens_BT.to(device)
    slots_B = None if slots is None else torch.tensor(slots, device=device)
    cache = KVCache(model.config, len(prompts), longest + max_tokens - 1, model.compute_dtype, device)
    # Rows of one length need no padding: without positions and segments the model takes its cheaper path.
    positions_BT = segment_ids_BT = None
    if int(lengths.min()) < longest:
        positions_BT = (torch.arange(longest) - (longest - lengths)[:, None]).to(device)
        segment_ids_BT = (positions_BT >= 0).long()
        positions_BT = positions_BT.clamp(min=0)
    for step in range(max_tokens):
        logits_B1V = cast(
            Tensor,
            model(
                tokens_BT, positions_BT=positions_BT, segment_ids_BT=segment_ids_BT, cache=cache, slots_B=slots_B,
                last_only=True,
            ),
        )  # fmt: skip
        chosen = sampling.choose(logits_B1V[:, -1], rows, step)
        yield chosen.tolist()
        tokens_BT = chosen[:, None]
        if positions_BT is not None:
            positions_BT = positions_BT[:, -1:] + 1
            segment_ids_BT = torch.ones_like(positions_BT)
