"""Losses of post-training against closed forms, published values, and optima known analytically. All in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pippin.errors import UserError
from pippin.training import losses

REWARDS = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64)
REFERENCE = torch.log_softmax(torch.tensor([0.1, 0.9, -0.3], dtype=torch.float64), 0)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, of)
    return found


# --- preferences -----------------------------------------------------------------------------------------------------


def test_dpo_has_the_published_values() -> None:
    assert float(losses.dpo(double(6.0), double(0.0), beta=0.1)) == pytest.approx(0.437488, abs=1e-6)
    for beta in (0.05, 0.1, 1.0):
        chosen = double(0.3).requires_grad_()
        loss = losses.dpo(chosen, double(0.3), beta)  # the policy is the reference
        assert float(loss.detach()) == pytest.approx(math.log(2))
        assert float(gradient(loss.sum(), chosen)) == pytest.approx(-beta / 2)


def test_ipo_is_zero_at_its_margin_and_only_there() -> None:
    assert float(losses.ipo(double(6.0), double(0.0), tau=0.1)) == pytest.approx(1.0)
    for tau in (0.05, 0.1, 0.5):
        margin = double(1 / (2 * tau)).requires_grad_()
        loss = losses.ipo(margin, double(0.0), tau)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-12) and float(gradient(loss.sum(), margin)) == 0
        assert float(losses.ipo(margin.detach() + 0.1, double(0.0), tau)) == pytest.approx(0.01)


def test_ipo_by_token_takes_means_of_each_side() -> None:
    chosen, rejected, lengths = double(8.0), double(-3.0), (double(4.0), double(6.0))
    assert float(losses.ipo(chosen, rejected, 0.1, lengths)) == pytest.approx((2.0 + 0.5 - 5.0) ** 2)
    assert float(losses.ipo(chosen, rejected, 0.1)) == pytest.approx((11.0 - 5.0) ** 2)


# --- the reward model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "margin"), list(zip(losses.SOFT_LABELS, (2.944, 1.735, 1.099, 0.619), strict=True)))
def test_a_pair_alone_is_fitted_to_the_logit_of_its_label(p: float, margin: float) -> None:
    found = double(0.0).requires_grad_()
    for _ in range(400):
        slope = gradient(losses.soft_preference(found, double(0.0), double(p)).sum(), found)
        found = (found - 5 * slope).detach().requires_grad_()
    assert float(found.detach()) == pytest.approx(margin, abs=1e-3)


def test_soft_labels_are_symmetric_and_end_in_bradley_terry() -> None:
    a, b, p = double(0.3, -1.0, 4.0), double(1.0, 0.0, 0.5), double(0.95, 0.65, 0.75)
    assert torch.allclose(losses.soft_preference(a, b, p), losses.soft_preference(b, a, 1 - p))
    assert torch.allclose(losses.soft_preference(a, b, torch.ones(3)), -F.logsigmoid(a - b))
    assert torch.allclose(losses.margin_preference(a, b, torch.zeros(3)), -F.logsigmoid(a - b))
    assert float(losses.margin_preference(double(2.0), double(0.0), double(2.0))) == pytest.approx(math.log(2))


def test_a_missing_grade_adds_nothing_and_pulls_at_nothing() -> None:
    logits = torch.randn(3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    grades = torch.tensor([[0, 1, 2, 0], [1, -100, 2, -100], [-100] * 4])
    found = losses.grade_regulariser(logits, grades)
    logs = logits.detach().log_softmax(-1)
    assert float(found[0].detach()) == pytest.approx(
        float(-(logs[0, 0, 0] + logs[0, 1, 1] + logs[0, 2, 2] + logs[0, 3, 0]))
    )
    assert float(found[1].detach()) == pytest.approx(float(-(logs[1, 0, 1] + logs[1, 2, 2])))
    assert float(found[2].detach()) == 0
    pull = gradient(found.sum(), logits)
    assert (pull[grades == -100] == 0).all() and (pull[grades != -100] != 0).all()


# --- reinforcement ---------------------------------------------------------------------------------------------------


def test_leave_one_out_has_the_published_values() -> None:
    rewards = torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3)
    assert losses.leave_one_out(rewards).tolist() == [[-1.5, 0, 1.5], [-1.5, 0, 1.5]]
    generator = torch.Generator().manual_seed(1)
    for k in (2, 4, 7):
        rewards = torch.randn(1_000, k, dtype=torch.float64, generator=generator)
        found = losses.leave_one_out(rewards)
        for i in range(k):
            others = torch.cat((rewards[:, :i], rewards[:, i + 1 :]), 1)
            assert torch.allclose(found[:, i], rewards[:, i] - others.mean(1))
        assert torch.allclose(found.sum(1), torch.zeros(1_000, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(losses.leave_one_out(rewards + 100), found)


@pytest.mark.parametrize(
    ("rewards", "message"), [(torch.zeros(3, 1), "responses=1"), (torch.tensor([[0.0, math.nan]]), "reward: value nan")]
)
def test_rewards_that_cannot_be_compared_are_one_clear_line(rewards: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        losses.leave_one_out(rewards)
    assert "\n" not in str(caught.value)


def test_the_penalty_comes_before_the_baseline() -> None:
    rewards, log_probs = double(1.0, 0.0, 0.5)[None], double(-1.0, -3.0, -2.0)[None]
    reference, beta = double(-2.0, -2.0, -2.0)[None], 0.5
    found = losses.leave_one_out(losses.kl_penalised(rewards, log_probs, reference, beta))
    assert torch.allclose(found, losses.leave_one_out(double(0.5, 0.5, 0.5)[None]))
    after = losses.leave_one_out(rewards) - beta * (log_probs - reference)
    assert not torch.allclose(found, after)
    assert not losses.kl_penalised(rewards, log_probs.requires_grad_(), reference, beta).requires_grad


def bandit(logits: Tensor, iterate: Tensor, beta: float, gamma: float, kind: str = "exact") -> tuple[Tensor, Tensor]:
    """The MDLOO loss with every arm enumerated under the iterate, and the exact advantages."""
    log_p, old = logits.log_softmax(-1), iterate.log_softmax(-1).detach()
    rewards = losses.kl_penalised(REWARDS, old, REFERENCE, beta)
    advantages = rewards - (old.exp() * rewards).sum()
    kl = losses.exact_kl(log_p, old) if kind == "exact" else losses.k3(log_p, old)
    return (old.exp() * losses.mirror_descent(log_p, old, advantages, kl, gamma)).sum(), advantages


@pytest.mark.parametrize("kind", ["exact", "k3"])
@pytest.mark.parametrize("gamma", [0.0, 0.1, 3.0])
def test_the_first_step_of_mirror_descent_is_that_of_rloo(kind: str, gamma: float) -> None:
    logits = double(0.4, -0.2, 0.1).requires_grad_()
    loss, advantages = bandit(logits, logits.detach(), 0.1, gamma, kind)
    p = logits.log_softmax(-1)
    plain = (p.detach().exp() * losses.reinforce(p, advantages)).sum()
    assert torch.allclose(gradient(loss, logits), gradient(plain, logits), atol=1e-12)


def test_the_plain_estimate_of_the_kl_would_not_vanish_at_the_iterate() -> None:
    """mean(rho log rho) leaves mean(grad log pi) there, zero in expectation only: why `k3` or the exact KL is taken."""
    logits, arms = double(0.4, -0.2, 0.1).requires_grad_(), torch.tensor([0, 2, 2, 1, 0, 0, 2])
    log_p = logits.log_softmax(-1)
    log_ratio = log_p[arms] - log_p[arms].detach()
    left = gradient((log_ratio.exp() * log_ratio).mean(), logits)
    assert torch.allclose(left, (F.one_hot(arms, 3) - log_p.detach().exp()).mean(0), atol=1e-12)
    assert left.abs().max() > 0.05
    for kl in (lambda log_p: losses.k3(log_p[arms], log_p[arms]).mean(), lambda log_p: losses.exact_kl(log_p, log_p)):
        assert gradient(kl(logits.log_softmax(-1)), logits).abs().max() < 1e-12


def test_off_the_iterate_the_gradient_is_the_closed_form() -> None:
    gamma = 0.3
    logits, iterate = double(0.9, -0.4, 0.2).requires_grad_(), double(0.1, 0.3, -0.1)
    loss, advantages = bandit(logits, iterate, 0.1, gamma)
    p, old = logits.detach().softmax(-1), iterate.softmax(-1)
    rho = p / old
    weights = old * rho * (advantages - gamma * (rho.log() + 1))
    closed = weights - p * weights.sum()  # sum_a w_a grad log p_a
    assert torch.allclose(gradient(loss, logits), -closed, atol=1e-10)


def maximised(iterate: Tensor, beta: float, gamma: float) -> Tensor:
    """The iterate's next one, by gradient steps to the end."""
    logits = iterate.clone().requires_grad_()
    for _ in range(3_000):
        loss, _ = bandit(logits, iterate, beta, gamma)
        logits = (logits - 0.5 / gamma * gradient(loss, logits)).detach().requires_grad_()
    return logits.detach()


def closed_form(iterate: Tensor, beta: float, gamma: float) -> Tensor:
    _, advantages = bandit(iterate, iterate, beta, gamma)
    return iterate.log_softmax(-1) + advantages / gamma


def test_the_inner_maximum_is_the_iterate_times_exp_of_the_advantage() -> None:
    iterate = double(0.1, 0.3, -0.1)
    for gamma in (1.0, 2.0):  # no ratio reaches the limit of e^2
        found, expected = maximised(iterate, 0.1, gamma).softmax(-1), closed_form(iterate, 0.1, gamma).softmax(-1)
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_mirror_descent_ends_where_the_objective_is_largest(seed: int) -> None:
    """pi_ref exp(r / beta) / Z, whatever gamma above beta / 2; below it the iterates do not settle."""
    beta = 0.4
    best = (REFERENCE + REWARDS / beta).softmax(-1)
    start = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for gamma in (0.25, 0.5, 2.0):
        iterate = start
        for _ in range(200):
            iterate = closed_form(iterate, beta, gamma)
        assert 0.5 * float((iterate.softmax(-1) - best).abs().sum()) < 0.02
    iterate = start
    for _ in range(200):
        iterate = closed_form(iterate, beta, 0.19)
    assert not 0.5 * float((iterate.softmax(-1) - best).abs().sum()) < 0.02
    four_best = order_statistic(REFERENCE.softmax(-1), 4)
    assert 0.5 * float((four_best - best).abs().sum()) > 0.05  # best of n is not confused with it


def order_statistic(p: Tensor, n: int) -> Tensor:
    """The distribution of the best of n draws, by reward."""
    ranked = REWARDS.argsort()
    below = torch.cat((double(0.0), p[ranked].cumsum(0)))
    found = torch.zeros(3, dtype=torch.float64)
    found[ranked] = below[1:] ** n - below[:-1] ** n
    return found


def test_a_sampled_gradient_is_unbiased() -> None:
    """20,000 groups of four: the mean is within four standard errors of the enumerated gradient, in each direction."""
    logits, beta, k, groups = double(0.4, -0.2, 0.1), 0.2, 4, 20_000
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    arms = torch.multinomial(p.expand(groups, 3), k, replacement=True, generator=torch.Generator().manual_seed(5))
    rewards = losses.kl_penalised(REWARDS[arms], log_p[arms], REFERENCE[arms], beta)
    advantages = losses.leave_one_out(rewards)
    scores = F.one_hot(arms, 3).double() - p  # grad log p
    sampled = (advantages[..., None] * scores).mean(1)
    expected = (p[:, None] * (REWARDS - beta * (log_p - REFERENCE))[:, None] * (torch.eye(3) - p)).sum(0)
    error = sampled.std(0) / math.sqrt(groups)
    assert ((sampled.mean(0) - expected).abs() < 4 * error).all()
    # The same numbers come from the loss itself.
    free = logits.clone().requires_grad_()
    loss = losses.reinforce(free.log_softmax(-1)[arms], advantages).mean()
    assert torch.allclose(-gradient(loss, free), sampled.mean(0), atol=1e-12)


def test_a_ratio_far_away_pulls_no_more() -> None:
    log_probs = double(-1.0, -1.0).requires_grad_()
    iterate = double(-1.5, -9.0)
    loss = losses.mirror_descent(log_probs, iterate, double(1.0, 1.0), double(0.0, 0.0), 0.1)
    pull = gradient(loss.sum(), log_probs)
    assert float(pull[0]) == pytest.approx(-math.exp(0.5)) and float(pull[1]) == 0
    assert float(loss.detach()[1]) == pytest.approx(-math.exp(losses.MAX_LOG_RATIO))


def test_no_gradient_reaches_the_iterate() -> None:
    log_p, old = double(0.4, -0.2, 0.1).requires_grad_(), double(0.3, -0.1, 0.1).requires_grad_()
    a, b, advantages = log_p.log_softmax(-1), old.log_softmax(-1), double(1.0, -1.0, 0.5)
    for loss in (
        losses.mirror_descent(a, b, advantages, torch.zeros(3), 0.1), losses.clipped(a, b, advantages),
        losses.k3(a, b), losses.exact_kl(a, b),
    ):  # fmt: skip
        reached = torch.autograd.grad(loss.sum(), (log_p, old), retain_graph=True, allow_unused=True)
        assert reached[0].abs().max() > 1e-3 and reached[1] is None


def test_clipping_takes_the_worse_of_both() -> None:
    log_probs, iterate = double(0.0, 0.0, 0.0, 0.0).log_softmax(-1), double(1.0, -1.0, 0.05, 0.0).log_softmax(-1)
    ratio = (log_probs - iterate).exp()
    found = losses.clipped(log_probs, iterate, double(1.0, 1.0, 1.0, -1.0))
    assert torch.allclose(found[:3], -ratio[:3].clamp(max=1.2))
    assert float(found[3]) == pytest.approx(float(ratio[3]))


def test_the_kl_of_whole_distributions_is_exact_and_its_estimate_agrees() -> None:
    p, q = double(0.2, 0.5, 0.3).log(), double(0.4, 0.4, 0.2).log()
    exact = float((p.exp() * (p - q)).sum())
    assert float(losses.exact_kl(p, q)) == pytest.approx(exact)
    assert float(losses.exact_kl(p, p)) == 0
    estimate = float((q.exp() * losses.k3(p, q)).sum())  # over arms of q: KL(q || p)
    assert estimate == pytest.approx(float((q.exp() * (q - p)).sum()))
