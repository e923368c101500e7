"""What reinforcement learning trains on: at each iteration the model as it is then answers some prompts.

An iteration is a fixed number of steps. Its responses, and the advantages that they keep, are a function of the seed,
the iteration and the weights at its start, so a run that resumes between two iterations goes on bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from pippin.data.mixture import derive, permute
from pippin.errors import UserError
from pippin.model.transformer import Transformer
from pippin.training.losses import kl_penalised, leave_one_out
from pippin.training.policy import Response, ResponseBatch, response_batch, score_responses


class Drawn(Protocol):
    """A sampled response (`rollout.Rollout`)."""

    tokens: list[int]
    log_probs: list[float]


AnyDrawn = TypeVar("AnyDrawn", bound=Drawn)


class Told(NamedTuple):
    """What an iteration is told about its responses, a number each, and the largest difference between a
    log-probability as it was recorded when drawn and as the training pass has it (of a whole response)."""

    rewards: list[float]
    kl: list[float]
    advantages: list[float]
    log_prob_error: float


class Actor(Protocol[AnyDrawn]):
    """The model as it answers prompts, which are named by number, and what judges the answers."""

    def sample(self, numbers: Sequence[int], each: int, seed: int) -> list[AnyDrawn]:
        """So many responses to each prompt, prompt after prompt, drawn from the model as it is."""

    def judge(self, numbers: Sequence[int], drawn: Sequence[AnyDrawn]) -> list[float]:
        """The reward of each, without any KL."""

    def log(self, step: int, numbers: Sequence[int], drawn: Sequence[AnyDrawn], told: Told) -> None:
        """Told once an iteration, at its first step."""


@dataclass(frozen=True)
class Iteration:
    """How an iteration is made.

    Attributes:
        responses: K, to each prompt.
        minibatches: steps in which all responses are seen once.
        epochs: how often they are gone over.
        beta: of the KL to the reference, inside the reward.
    """

    responses: int
    minibatches: int
    epochs: int
    beta: float

    @property
    def steps(self) -> int:
        """Steps of an iteration."""
        return self.minibatches * self.epochs


class Experience(Generic[AnyDrawn]):
    """Batches of sampled responses by step (`training.loop.Batches`).

    Args:
        model: what is trained; it answers at the first step of each iteration.
        reference: pi_ref.
        prompts: as the model is given them.
        iteration: the numbers.
        batch_size: responses of a step, whole prompts' worth.
        actor: answers with `model`, and judges.
        temperature: the responses are drawn at.

    Attributes:
        iterate: a copy of the model as it was when it answered, pi_k.
    """

    def __init__(
        self,
        model: Transformer,
        reference: Transformer,
        prompts: Sequence[list[int]],
        iteration: Iteration,
        batch_size: int,
        seed: int,
        actor: Actor[AnyDrawn],
        temperature: float = 1.0,
    ) -> None:
        if iteration.responses < 2:
            raise UserError(
                f"responses={iteration.responses}: leave-one-out compares the responses of a prompt; ask for 2 or more"
            )
        if batch_size % iteration.responses:
            raise UserError(
                f"batch_size={batch_size}: counts responses, whole prompts' worth; must be a multiple of "
                f"responses={iteration.responses}"
            )
        self.model, self.reference, self.prompts, self.iteration = model, reference, prompts, iteration
        self.batch_size, self.seed, self.temperature = batch_size, seed, temperature
        self._actor = actor
        self.iterate = copy.deepcopy(model).requires_grad_(False).eval()
        self._current = -1
        self._responses: list[Response] = []

    def rows(self, step: int, start: int, stop: int) -> ResponseBatch:
        """Responses start..stop-1 of a step.

        Raises:
            UserError: a reward is not a number.
            ValueError: a step inside an iteration that this process did not begin.
        """
        number, within = divmod(step, self.iteration.steps)
        if number != self._current:
            if within:
                raise ValueError(f"step {step}: its iteration began with another model")
            self._begin(number)
        # Each time over, prompts stand in another order; the responses of one stay together.
        k = self.iteration.responses
        epoch, part = divmod(within, self.iteration.minibatches)
        each = self.batch_size // k
        n = each * self.iteration.minibatches
        places = np.arange(part * each, (part + 1) * each)
        chosen = permute(derive(self.seed, "minibatch", number, epoch), n, places)
        rows = [int(place) * k + i for place in chosen for i in range(k)]
        return response_batch([self._responses[row] for row in rows[start:stop]])

    def identify(self, step: int) -> str:
        """Which iteration the batch of a step belongs to, for a log."""
        return f"seed {self.seed}, iteration {step // self.iteration.steps}"

    def _begin(self, number: int) -> None:
        """The model as it is answers the prompts of an iteration."""
        i = self.iteration
        n = self.batch_size // i.responses * i.minibatches
        asked = self._asked(number * n, n)
        self.iterate.load_state_dict(self.model.state_dict())
        training = self.model.training
        self.model.eval()
        try:
            drawn = self._actor.sample(asked, i.responses, derive(self.seed, "responses", number))
        finally:
            self.model.train(training)
        rewards = self._actor.judge(asked, drawn)
        found = [Response(self.prompts[asked[row // i.responses]], own.tokens) for row, own in enumerate(drawn)]
        known = score_responses(self.iterate, found, self.temperature)
        reference = score_responses(self.reference, found, self.temperature)
        recorded = [sum(own.log_probs) for own in drawn]
        r, log_p, log_ref = (torch.tensor(v, dtype=torch.float64) for v in (rewards, known, reference))
        penalised = kl_penalised(r, log_p, log_ref, i.beta)
        advantages = leave_one_out(penalised.view(n, i.responses)).flatten().tolist()
        self._responses = [
            response._replace(reference=log_prob, advantage=advantage)
            for response, log_prob, advantage in zip(found, reference, advantages, strict=True)
        ]
        self._current = number
        error = max(abs(a - b) for a, b in zip(recorded, known, strict=True))
        told = Told(rewards, [a - b for a, b in zip(known, reference, strict=True)], advantages, error)
        self._actor.log(number * i.steps, asked, drawn, told)

    def _asked(self, first: int, n: int) -> list[int]:
        """Numbers of the prompts first .. first + n - 1: each epoch asks every prompt once, in an order of its own."""
        epochs, within = np.divmod(np.arange(first, first + n), len(self.prompts))
        found = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            now = epochs == epoch
            found[now] = permute(derive(self.seed, "prompts", epoch), len(self.prompts), within[now])
        return [int(i) for i in found]
