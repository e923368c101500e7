"""Responses as batches: log-probabilities as they were drawn, exact KL, chunks, the losses for the loop, iterations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pippin.data.loader import IGNORE
from pippin.errors import UserError
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer
from pippin.rollout import rollouts
from pippin.training import policy
from pippin.training.experience import Experience, Iteration, Told
from pippin.training.losses import MAX_LOG_RATIO, dpo, ipo
from pippin.training.policy import (
    PolicyKind,
    Response,
    ResponsePair,
    log_probs_and_kl,
    pair_responses,
    policy_loss,
    preference_loss,
    response_batch,
    response_log_probs,
    score_responses,
)

CONFIG = ModelConfig(vocab_size=40, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48, max_seq_len=64)
PROMPTS = [[5, 9, 30], [7], [8, 10, 11, 12, 13], [9, 10]]
STOPS = range(0, 40, 7)


def model(seed: int = 0, dtype: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(CONFIG, dtype)
    with torch.no_grad():
        made.embed.weight.mul_(0.1)
        made.norm.weight.mul_(16)
    return made.to(dtype)


def drawn(of: Transformer, temperature: float = 1.0) -> list[Response]:
    found = rollouts(
        of.requires_grad_(False), PROMPTS, n_per_prompt=2, max_tokens=12, stop_ids=STOPS, temperature=temperature
    )
    of.requires_grad_(True)
    return [Response(r.prompt, r.tokens, sum(r.log_probs)) for r in found]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_recorded_while_drawing(temperature: float) -> None:
    responses = drawn(model(), temperature)
    batch = response_batch(responses)
    assert batch.targets.ne(IGNORE).sum() == len(responses)
    assert batch.actions.ne(IGNORE).sum() == sum(len(r.tokens) for r in responses)
    found = response_log_probs(model(), batch, temperature).tolist()
    assert found == pytest.approx([r.reference for r in responses], abs=1e-4)
    assert score_responses(model(), responses, temperature, at_once=3) == pytest.approx(found, abs=1e-4)


def test_the_kl_is_exact_at_every_place_and_its_gradient_reaches_the_model_alone() -> None:
    own, other = model(0, torch.float64), model(1, torch.float64)
    responses = drawn(model())
    batch = response_batch(responses)
    log_p, log_q, kl = log_probs_and_kl(own, other, batch)
    for row, r in enumerate(responses):
        ids = torch.tensor([[*r.prompt, *r.tokens]])
        p, q = (torch.log_softmax(m(ids)[0, len(r.prompt) - 1 : -1], -1) for m in (own, other))
        assert float(kl[row].detach()) == pytest.approx(float((p.exp() * (p - q)).sum().detach()), abs=1e-10)
        said = torch.tensor(r.tokens)[:, None]
        assert float(log_p[row].detach()) == pytest.approx(float(p.gather(1, said).sum().detach()), abs=1e-10)
        assert float(log_q[row]) == pytest.approx(float(q.gather(1, said).sum().detach()), abs=1e-10)
    kl.sum().backward()
    assert own.embed.weight.grad is not None
    assert other.embed.weight.grad is None


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = response_batch(drawn(model()))
    results = []
    for chunk in (10_000, 3):
        monkeypatch.setattr(policy, "MIN_CHUNK", chunk)
        monkeypatch.setattr(policy, "CHUNK_LOGITS", 1)
        own, other = model(0, torch.float64), model(1, torch.float64)
        log_p, _, kl = log_probs_and_kl(own, other, batch)
        (log_p.sum() + kl.sum()).backward()
        results.append([log_p, kl, own.embed.weight.grad])
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("kind", ["mdloo", "ppo"])
def test_the_first_step_is_that_of_rloo(kind: Any) -> None:
    """At pi = pi_k ratios are 1 and the exact KL has no gradient (posttraining.md property 5), through the model."""
    advantages = [1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.3, -0.3]
    responses = [r._replace(advantage=a) for r, a in zip(drawn(model()), advantages, strict=True)]
    gradients = []
    steps: tuple[tuple[PolicyKind, float], ...] = ((kind, 0.7), ("rloo", 0.0))
    for name, gamma in steps:
        own = model(0, torch.float64)
        loss = policy_loss(own, copy.deepcopy(own), name, gamma, 1.0, response_batch(responses), 0)
        assert int(loss.count) == len(responses)
        loss.total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in own.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-10)
    assert gradients[0].norm() > 1e-3


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_off_the_iterate_mdloo_is_its_formula(gamma: float) -> None:
    own, iterate = model(0, torch.float64), model(1, torch.float64)
    advantages = [1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.3, -0.3]
    batch = response_batch([r._replace(advantage=a) for r, a in zip(drawn(model(1)), advantages, strict=True)])
    log_probs, before, kl = (each.detach() for each in log_probs_and_kl(own, iterate, batch))
    ratio = (log_probs - before).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    expected = (-ratio * batch.advantages + gamma * kl).sum()
    loss = policy_loss(own, iterate, "mdloo", gamma, 1.0, batch, 0)
    assert float(loss.total.detach()) == pytest.approx(float(expected), rel=1e-9)
    assert kl.min() > 1e-3 and (ratio - 1).abs().max() > 0.1


@pytest.mark.parametrize("by_length", [False, True])
def test_a_preference_loss_is_its_formula_on_summed_log_ratios(by_length: bool) -> None:
    own, reference = model(0, torch.float64), model(1, torch.float64)
    responses = drawn(model())
    known = [r._replace(reference=v) for r, v in zip(responses, score_responses(reference, responses), strict=True)]
    pairs = [ResponsePair(str(i), known[2 * i], known[2 * i + 1]) for i in range(4)]
    batch = pair_responses(pairs)
    ratios = torch.tensor(score_responses(own, known), dtype=torch.float64) - batch.reference
    lengths = torch.tensor([len(r.tokens) for r in known])
    expected = ipo(ratios[0::2], ratios[1::2], 0.2, (lengths[0::2], lengths[1::2]) if by_length else None)
    loss = preference_loss(own, "ipo", 0.2, by_length, batch, 0)
    assert int(loss.count) == 4
    assert float(loss.total.detach()) == pytest.approx(0.2 * float(expected.sum()), rel=1e-9)
    plain = preference_loss(own, "dpo", 0.2, False, batch, 0)
    assert float(plain.total.detach()) == pytest.approx(float(dpo(ratios[0::2], ratios[1::2], 0.2).sum()), rel=1e-9)
    same = preference_loss(reference, "dpo", 0.2, False, batch, 0)  # policy = reference: ln 2 a pair
    assert float(same.total.detach()) == pytest.approx(4 * 0.6931471805599453, rel=1e-9)


@dataclass
class Drawn:
    tokens: list[int]
    log_probs: list[float]


class Actor:
    """Answers with the model; a response is worth its number of even tokens."""

    def __init__(self, of: Transformer) -> None:
        self.model, self.asked, self.told = of, list[list[int]](), list[Told]()
        self.bad = False

    def sample(self, numbers: Sequence[int], each: int, seed: int) -> list[Drawn]:
        self.asked.append(list(numbers))
        found = rollouts(
            self.model, [PROMPTS[n] for n in numbers], n_per_prompt=each, max_tokens=6, stop_ids=STOPS, seed=seed
        )
        return [Drawn(r.tokens, r.log_probs) for r in found]

    def judge(self, numbers: Sequence[int], drawn: Sequence[Drawn]) -> list[float]:
        return [float("nan") if self.bad else float(sum(t % 2 == 0 for t in d.tokens)) for d in drawn]

    def log(self, step: int, numbers: Sequence[int], drawn: Sequence[Drawn], told: Told) -> None:
        self.told.append(told)


def experience(of: Transformer, actor: Actor, k: int = 3, minibatches: int = 2, epochs: int = 2) -> Experience[Drawn]:
    iteration = Iteration(k, minibatches, epochs, beta=0.1)
    return Experience(of, model(1).requires_grad_(False), PROMPTS, iteration, 2 * k, 0, actor)


def test_an_iteration_goes_over_the_same_responses_and_the_kl_is_inside_the_reward() -> None:
    own = model()
    actor = Actor(own)
    made = experience(own, actor)
    batches = [made.rows(step, 0, 6) for step in range(4)]
    assert len(actor.asked) == 1
    assert sorted(actor.asked[0]) == [0, 1, 2, 3]
    whole = [sorted(map(tuple, torch.cat([pad(b.tokens) for b in batches[i : i + 2]]).tolist())) for i in (0, 2)]
    assert whole[0] == whole[1]  # two epochs over the same twelve responses
    told = actor.told[0]
    penalised = [r - 0.1 * kl for r, kl in zip(told.rewards, told.kl, strict=True)]
    for prompt in range(4):
        group = penalised[3 * prompt : 3 * prompt + 3]
        for i in range(3):
            others = (sum(group) - group[i]) / 2
            assert told.advantages[3 * prompt + i] == pytest.approx(group[i] - others, abs=1e-6)
        assert sum(told.advantages[3 * prompt : 3 * prompt + 3]) == pytest.approx(0, abs=1e-6)
    assert told.log_prob_error < 1e-3
    assert any(abs(kl) > 0.01 for kl in told.kl)
    before = {name: t.clone() for name, t in made.iterate.state_dict().items()}
    with torch.no_grad():
        own.embed.weight.add_(0.05)
    made.rows(3, 0, 6)
    assert all(torch.equal(before[name], t) for name, t in made.iterate.state_dict().items())
    made.rows(4, 0, 6)  # the next iteration: the iterate is the model as it is now
    assert torch.equal(made.iterate.embed.weight, own.embed.weight)
    assert len(actor.asked) == 2


def pad(tokens: Tensor) -> Tensor:
    return torch.nn.functional.pad(tokens, (0, 16 - tokens.shape[1]))


def test_an_iteration_is_a_function_of_seed_number_and_weights() -> None:
    one, two = (experience(m, Actor(m)) for m in (model(), model()))
    one.rows(0, 0, 6)
    assert torch.equal(one.rows(4, 0, 6).tokens, two.rows(4, 0, 6).tokens)
    assert torch.equal(one.rows(5, 3, 6).advantages, two.rows(5, 0, 6).advantages[3:])
    with pytest.raises(ValueError, match="began with another model"):
        two.rows(1, 0, 6)


def test_what_cannot_be_compared_is_refused() -> None:
    own = model()
    with pytest.raises(UserError, match="responses=1: leave-one-out compares"):
        experience(own, Actor(own), k=1)
    with pytest.raises(UserError, match=r"batch_size=4: .* multiple of responses=3"):
        Experience(own, own, PROMPTS, Iteration(3, 1, 1, 0.0), 4, 0, Actor(own))
    broken = Actor(own)
    broken.bad = True
    with pytest.raises(UserError, match="reward: value nan or inf"):
        experience(own, broken).rows(0, 0, 6)
