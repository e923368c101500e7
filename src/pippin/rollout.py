"""Rollouts for reinforcement learning: many samples of many prompts, each token with its log-probability.

A batch has a fixed number of rows. When a sequence ends, the next waiting one takes its row, so short answers do not
wait for long ones. A prompt is read once for all its samples. The forward pass is the model's own, with its cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from pippin.data.mixture import derive
from pippin.device.engine import Engine
from pippin.errors import UserError
from pippin.generate import Generator, check_request
from pippin.model.cache import KVCache
from pippin.model.transformer import Transformer
from pippin.torch_sampler import Sampling, log_probs
from pippin.vllm_backend import VLLM

SHORTEST_MOVE = 16  # slots that must be unused before what a cache holds is moved to its front


@dataclass
class Rollout:
    """One sampled answer.

    Attributes:
        prompt: the token ids that it goes on from.
        tokens: what was drawn, a stop token included: drawing it was an action too.
        log_probs: natural log of each token's probability under softmax(logits / temperature), before top_p cuts it.
        stopped: it ended with a stop token; False if max_tokens ended it.
    """

    prompt: list[int]
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stopped: bool = False


def rollouts(
    model: Generator | VLLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    stop_ids: Collection[int],
    n_per_prompt: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    slots: Sequence[int] | None = None,
) -> list[Rollout]:
    """Sample `n_per_prompt` answers to each prompt.

    The tokens of a sequence are a function of (seed, its number in the result); batch_size and what else runs change
    only rounding. The engine and vLLM draw from other noise and batch by themselves (the engine's `max_sequences`), and
    log_probs are their own; the engine's are recorded at temperature 0 and 1, else `score`d.

    While it runs, the torch model's matrices of float32 on a CPU take their memory twice (`model.prepacked`).

    Args:
        model: of torch, the engine, or vLLM.
        prompts: token ids, one list a prompt, of any lengths.
        max_tokens: the most to produce for each sequence.
        stop_ids: a sequence ends when one is produced.
        n_per_prompt: samples of each prompt.
        temperature: logits are divided by it; 0 = the most likely token, with log_probs at temperature 1.
        top_p: draw only from the most likely tokens that together hold this probability.
        seed: of the noise.
        batch_size: rows that run at the same time.
        slots: adapter slot of each prompt (with the engine: what `add_adapter` gave; with vLLM: the place in its
            `adapters`), -1 for none; None: no adapters.

    Returns:
        The samples of prompt 0, then those of prompt 1 ...; sample s of prompt p has the number p * n_per_prompt + s.

    Raises:
        UserError: as `pippin.generate.generate`; a slot that the model has not, or what vLLM cannot do.
    """
    if n_per_prompt < 1:
        raise UserError(f"n_per_prompt: {n_per_prompt}: must be at least 1")
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}: must be at least 1")
    check_request(cast(Generator, model), prompts, max_tokens, temperature, 0, top_p)  # it reads model.config alone
    _check_slots(model, slots, len(prompts))
    results = [Rollout(list(prompt)) for prompt in prompts for _ in range(n_per_prompt)]
    if not results:
        return []
    stops = set(stop_ids)
    slot_of_each = None if slots is None else [slot for slot in slots for _ in range(n_per_prompt)]
    if isinstance(model, VLLM):
        _by_vllm(model, results, max_tokens, temperature, top_p, seed, stops, slot_of_each)
        return results
    if isinstance(model, Engine):
        _by_engine(model, results, max_tokens, temperature, top_p, seed, stops, slot_of_each)
        return results
    sampling = Sampling(temperature, 0, top_p, seed)
    batch = _Batch(model, results, n_per_prompt, max_tokens, min(batch_size, len(results)), slots)
    with torch.inference_mode(), model.unchanging(adapters=slots is not None):
        while batch.refill():
            for number, token, log_prob in batch.step(sampling):
                rollout = results[number]
                rollout.tokens.append(token)
                rollout.log_probs.append(log_prob)
                rollout.stopped = token in stops
                if rollout.stopped or len(rollout.tokens) == max_tokens:
                    batch.end(number)
    return results


@torch.inference_mode()
def score(
    model: Generator,
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    temperature: float = 1.0,
    batch_size: int = 16,
    slots: Sequence[int] | None = None,
) -> list[list[float]]:
    """What `Rollout.log_probs` would be for given tokens, by full forward passes without a cache.

    Args:
        model: of torch, or the engine.
        sequences: prompt and answer, as token ids; the prompt is not empty.
        temperature: as in `rollouts`; 0 is taken as 1.
        batch_size: sequences at a time; of like length, padded on the right. The engine takes one at a time.
        slots: as in `rollouts`, of each sequence.

    Returns:
        For each sequence the log-probability of each token of its answer.

    Raises:
        UserError: an empty prompt, an id outside the vocabulary, a sequence above the model's max_seq_len, or a
            negative temperature.
    """
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}: must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature: {temperature}: must be 0 (greedy) or positive")
    for number, (prompt, answer) in enumerate(sequences):
        _check_sequence(model, number, prompt, answer)
    _check_slots(model, slots, len(sequences))
    out: list[list[float]] = [[] for _ in sequences]
    order = sorted((n for n, pair in enumerate(sequences) if pair[1]), key=lambda n: sum(map(len, sequences[n])))
    if isinstance(model, Engine):
        for number in order:
            prompt, answer = sequences[number]
            adapter = None if slots is None or slots[number] < 0 else model.adapters[slots[number]]
            logits_TV = torch.from_numpy(model.logits([*prompt, *answer][:-1], last=len(answer), adapter=adapter))
            out[number] = log_probs(logits_TV, torch.tensor(answer), temperature or 1.0).tolist()
        return out
    device = next(model.parameters()).device
    for begin in range(0, len(order), batch_size):
        numbers = order[begin : begin + batch_size]
        tokens_BT, segment_ids_BT = _padded([[*sequences[n][0], *sequences[n][1]][:-1] for n in numbers], device)
        slots_B = None if slots is None else torch.tensor([slots[n] for n in numbers], device=device)
        logits_BTV = cast(Tensor, model(tokens_BT, segment_ids_BT=segment_ids_BT, slots_B=slots_B))
        for row, number in enumerate(numbers):
            prompt, answer = sequences[number]
            logits_TV = logits_BTV[row, len(prompt) - 1 :][: len(answer)]
            out[number] = log_probs(logits_TV, torch.tensor(answer, device=device), temperature or 1.0).tolist()
    return out


def _check_sequence(model: Generator, number: int, prompt: Sequence[int], answer: Sequence[int]) -> None:
    if not prompt:
        raise UserError(
            f"sequence {number}: its prompt is empty; start it with <eos>, which stands before every document"
        )
    ids, config = [*prompt, *answer], model.config
    if len(ids) > config.max_seq_len:
        raise UserError(
            f"sequence {number}: its {len(ids)} tokens exceed the model's max_seq_len {config.max_seq_len}; shorten it"
        )
    if not 0 <= min(ids) <= max(ids) < config.vocab_size:
        raise UserError(
            f"sequence {number}: has token ids outside 0..{config.vocab_size - 1}; was it the model's tokenizer?"
        )


def _check_slots(model: Generator | VLLM, slots: Sequence[int] | None, count: int) -> None:
    if slots is None:
        return
    if len(slots) != count:
        raise UserError(f"slots: {len(slots)} of them for {count} prompts; give each one, -1 for no adapter")
    if isinstance(model, Engine | VLLM):
        room = len(model.adapters)
    else:
        room = max((0 if linear.lora_A is None else len(linear.lora_A) for _, linear in model.linears()), default=0)
    if max(slots, default=-1) >= room:
        raise UserError(f"slots: {max(slots)}: the model has {room} adapter slots, numbered from 0")


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Tokens [B, T] padded on the right, and their segments; None if nothing is padded: then no mask is needed."""
    longest = max(map(len, rows))
    tokens_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.int64, device=device)
    if min(map(len, rows)) == longest:
        return tokens_BT, None
    lengths_B1 = torch.tensor([[len(row)] for row in rows], device=device)
    return tokens_BT, (torch.arange(longest, device=device) < lengths_B1).long()


@dataclass
class _Row:
    """A place of the batch: whose it is (None: nobody's), where that begins in the cache, what it reads next."""

    number: int | None = None
    first: int = 0
    token: int = 0
    position: int = 0
    drawn: int = 0


class _Batch:
    """Sequences that run together in one cache, right-aligned: each step adds one slot to all rows.

    A newcomer's prompt but for its last token is copied into its row; the last token goes through with the next tokens
    of the others. So all rows always read one token, and one function draws for all.
    """

    def __init__(
        self, model: Transformer, results: Sequence[Rollout], n_per_prompt: int, max_tokens: int, rows: int,
        slots: Sequence[int] | None,
    ) -> None:  # fmt: skip
        self.model, self.results, self.n_per_prompt, self.slots = model, results, n_per_prompt, slots
        self.device = next(model.parameters()).device
        self.waiting = deque(range(len(results)))
        self.rows = [_Row() for _ in range(rows)]
        # A row never needs more than `most` slots; the rest is room to move seldom.
        most = max(len(rollout.prompt) for rollout in results) - 1 + max_tokens
        room = most + max(SHORTEST_MOVE, most // 3) + 1
        self.cache = KVCache(model.config, rows, room, model.compute_dtype, self.device)
        self.read: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of prompts whose samples still wait

    def end(self, number: int) -> None:
        """A sequence is complete: its row is free."""
        for row in self.rows:
            if row.number == number:
                row.number = None

    @torch.inference_mode()
    def refill(self) -> bool:
        """Give free rows to those who wait, or let go of them; False if nobody is left."""
        free = [place for place, row in enumerate(self.rows) if row.number is None]
        running = len(self.rows) - len(free)
        newcomers = [self.waiting.popleft() for _ in range(min(len(free), len(self.waiting)))]
        if running + len(newcomers) == 0:
            return False
        if 2 * (running + len(newcomers)) <= len(self.rows) or not running:  # the last ones: no work for empty rows
            spare = set(free[len(newcomers) :])
            kept = [place for place in range(len(self.rows)) if place not in spare]
            if spare:
                self.cache.keep(kept)
                self.rows = [self.rows[place] for place in kept]
                free = [place for place, row in enumerate(self.rows) if row.number is None]
        if newcomers:
            self._admit(free, newcomers, running)
        return True

    def _admit(self, free: Sequence[int], newcomers: Sequence[int], running: int) -> None:
        longest = max(len(self.results[number].prompt) for number in newcomers) - 1
        if not running:
            self.cache.clear(longest)
        elif longest > self.cache.length:
            self._move(longest - self.cache.length)
        self._read_prompts(newcomers)
        for place, number in zip(free, newcomers, strict=False):
            prompt = self.results[number].prompt
            first = self.cache.place(place, *self.read[number // self.n_per_prompt])
            self.rows[place] = _Row(number, first, prompt[-1], len(prompt) - 1)
        for number in newcomers:
            if number % self.n_per_prompt == self.n_per_prompt - 1:
                del self.read[number // self.n_per_prompt]

    def _read_prompts(self, newcomers: Sequence[int]) -> None:
        """Fill `read` for the prompts of the newcomers, all but their last tokens, in one forward pass."""
        first_samples = {number // self.n_per_prompt: number for number in newcomers}
        new = {prompt: self.results[n].prompt[:-1] for prompt, n in first_samples.items() if prompt not in self.read}
        if not new:
            return
        longest = max(map(len, new.values()))
        cache = KVCache(self.model.config, len(new), longest, self.model.compute_dtype, self.device)
        if longest:
            tokens_BT, segment_ids_BT = _padded(list(new.values()), self.device)
            self.model(
                tokens_BT, segment_ids_BT=segment_ids_BT, cache=cache, slots_B=self._slots(new), last_only=True,
                hidden_only=True,
            )  # fmt: skip
        for row, (prompt, tokens) in enumerate(new.items()):
            self.read[prompt] = cache.k_LBKSH[:, row, :, : len(tokens)], cache.v_LBKSH[:, row, :, : len(tokens)]

    def _slots(self, prompts: Iterable[int | None]) -> Tensor | None:
        """Adapter slots of rows that hold these prompts, None for nobody's."""
        if self.slots is None:
            return None
        return torch.tensor([-1 if n is None else self.slots[n] for n in prompts], device=self.device)

    def _move(self, by: int) -> None:
        """Move what the running rows hold by so many slots; what is before the first of them is forgotten."""
        first = min(row.first for row in self.rows if row.number is not None)
        self.cache.realign(first, self.cache.length + by)
        for row in self.rows:
            row.first += by

    @torch.inference_mode()
    def step(self, sampling: Sampling) -> list[tuple[int, int, float]]:
        """One forward pass: number, next token and its log-probability of every running sequence."""
        unused = min(row.first for row in self.rows if row.number is not None)
        length = self.cache.length
        if unused >= max(SHORTEST_MOVE, length // 4) or length == self.cache.max_len:
            self._move(-unused)
        tokens_B1 = torch.tensor([[row.token] for row in self.rows], device=self.device)
        positions_B1 = None
        if not self.cache.plain:
            positions_B1 = torch.tensor([[row.position] for row in self.rows], device=self.device)
        slots_B = self._slots(None if row.number is None else row.number // self.n_per_prompt for row in self.rows)
        logits_B1V = self.model(
            tokens_B1, positions_BT=positions_B1, cache=self.cache, slots_B=slots_B, last_only=True
        )  # fmt: skip
        logits_BV = cast(Tensor, logits_B1V)[:, -1]
        numbers, drawn = [row.number or 0 for row in self.rows], [row.drawn for row in self.rows]
        chosen_B, log_probs_B = sampling.choose(logits_BV, numbers, drawn)
        out = []
        for row, token, log_prob in zip(self.rows, chosen_B.tolist(), log_probs_B.tolist(), strict=True):
            if row.number is not None:
                row.token, row.position, row.drawn = token, row.position + 1, row.drawn + 1
                out.append((row.number, token, log_prob))
        return out


def _by_engine(
    engine: Engine, results: Sequence[Rollout], max_tokens: int, temperature: float, top_p: float, seed: int,
    stops: Collection[int], slots: Sequence[int] | None,
) -> None:  # fmt: skip
    """Fill `results` with what the engine draws; `slots` has the adapter of each."""
    running = {
        engine.submit(
            rollout.prompt, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=derive(seed, number),
            stop_ids=stops, adapter=None if slots is None or slots[number] < 0 else engine.adapters[slots[number]],
        ): rollout
        for number, rollout in enumerate(results)
    }  # fmt: skip
    while running:
        for event in engine.step():
            rollout = running.get(event.request)
            if rollout is None:
                continue
            if event.token is not None:
                rollout.tokens.append(event.token)
                rollout.log_probs.append(event.logprob)
            if event.finish:
                rollout.stopped = event.finish == "stop_id"
                del running[event.request]
    if temperature not in (0, 1):
        pairs = [(rollout.prompt, rollout.tokens) for rollout in results]
        scored = score(engine, pairs, temperature=temperature, slots=slots)
        for rollout, values in zip(results, scored, strict=True):
            rollout.log_probs = values


def _by_vllm(
    model: VLLM, results: Sequence[Rollout], max_tokens: int, temperature: float, top_p: float, seed: int,
    stops: Collection[int], slots: Sequence[int] | None,
) -> None:  # fmt: skip
    """Fill `results` with what vLLM draws; `slots` has the adapter of each."""
    answers = model.sample(
        [rollout.prompt for rollout in results], [derive(seed, number) for number in range(len(results))],
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, stop_ids=stops, slots=slots,
    )  # fmt: skip
    for rollout, (tokens, values, stopped) in zip(results, answers, strict=True):
        rollout.tokens, rollout.log_probs, rollout.stopped = tokens, values, stopped
