"""Our losses against other people's: the numbers in posttraining.json are those of TRL, OpenRLHF, verl and Tunix.

They were made by make_posttraining.py in an environment of its own. Losses are compared in float64; where a model is
part of it, theirs and ours compute in float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pippin.data.chat import render
from pippin.data.loader import IGNORE
from pippin.interop.hf import load_hf
from pippin.model.cross_entropy import Targets
from pippin.model.transformer import Transformer
from pippin.training import losses
from pippin.training.policy import Response, ResponsePair, pair_responses, preference_loss, score_responses

MADE = json.loads(Path(__file__).with_name("posttraining.json").read_text(encoding="utf-8"))
TRL = MADE["trl"]
BETAS = ("0.05", "0.1", "0.5")


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(ours: Tensor, theirs: Any, within: float = 1e-9) -> None:
    torch.testing.assert_close(ours, double(theirs).view_as(ours), rtol=0, atol=within)


def test_the_peers_are_the_versions_that_the_documents_name() -> None:
    named = {"trl": "1.16.0", "openrlhf": "0.11.2", "verl": "0.9.1", "google-tunix": "0.1.7"}
    assert {name: MADE["versions"][name] for name in named} == named


# --- reinforcement ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", ["2", "4", "7"])
def test_leave_one_out_as_verl_and_tunix(k: str) -> None:
    ours = losses.leave_one_out(double(MADE["groups"][k]))
    for theirs in (MADE["verl"]["rloo"][k], MADE["verl"]["rloo_vectorized"][k], MADE["tunix"]["rloo"][k]):
        same(ours, theirs)


def test_leave_one_out_of_a_thousand_groups_as_verl_and_of_tunix_s_own_example() -> None:
    same(losses.leave_one_out(double(MADE["many_groups"])), MADE["verl"]["many"])
    assert MADE["tunix"]["rloo_1_to_6"] == [-1.5, 0.0, 1.5, -1.5, 0.0, 1.5]
    same(losses.leave_one_out(torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3)), MADE["tunix"]["rloo_1_to_6"])
    assert MADE["tunix"]["one_response"] == [0.0, 0.0]  # ours refuses: see test_losses


def sums(made: dict[str, Any], name: str) -> Tensor:
    """Log-probabilities of whole responses, from those of their tokens."""
    tokens, lengths = double(made[name]), torch.tensor(made["lengths"])
    return (tokens * (torch.arange(tokens.shape[-1]) < lengths[..., None])).sum(-1)


@pytest.mark.parametrize("beta", ["0.1", "0.5"])
def test_the_penalty_is_before_the_baseline_as_in_trl_and_not_as_in_openrlhf(beta: str) -> None:
    made = TRL["reinforcement"]
    policy, reference, rewards = sums(made, "policy"), sums(made, "reference"), double(made["rewards"])
    penalised = losses.kl_penalised(rewards, policy, reference, float(beta))
    ours = losses.leave_one_out(penalised.view(-1, made["samples"])).flatten()
    same(ours, made["advantages"][beta])
    theirs = double(MADE["openrlhf"]["advantages"][beta])
    assert ((ours - theirs).abs() > 0.01).float().mean() > 0.9
    after = losses.leave_one_out(rewards.view(-1, made["samples"])).flatten() - float(beta) * (policy - reference)
    torch.testing.assert_close(after, theirs, rtol=0, atol=1e-9)  # which is what the difference comes from

    moved = policy + sums(made, "moved")
    loss = losses.clipped(moved, policy, ours, made["epsilon"]).mean()  # what TRL calls RLOO clips as PPO does
    same(loss, made["loss"][beta])
    assert abs(float(-((moved - policy).exp() * ours).mean()) - made["loss"][beta]) > 1e-3  # it did clip


# --- preferences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_and_ipo_as_trl_and_openrlhf(beta: str) -> None:
    made = TRL["preferences"]
    chosen, rejected = sums(made, "policy") - sums(made, "reference")
    ours = losses.dpo(chosen, rejected, float(beta))
    same(ours, made["dpo"][beta])
    same(ours, MADE["openrlhf"]["dpo"][beta])
    lengths = torch.tensor(made["lengths"])
    by_length, summed = (losses.ipo(chosen, rejected, float(beta), given) for given in ((lengths[0], lengths[1]), None))
    same(by_length, made["ipo"][beta])
    same(summed, MADE["openrlhf"]["ipo"][beta])
    equal = (lengths == 1).all(0)  # where both sides have one token the two are the same
    assert torch.equal(by_length[equal], summed[equal]) and ((by_length - summed).abs()[~equal] > 0.01).all()


def test_dpo_has_tunix_s_golden_numbers() -> None:
    made = MADE["tunix"]["dpo"]
    chosen, rejected = 0.1 * double(made["ratios"]).view(2, 4)
    for smoothing, quoted in (("0.0", 0.753059), ("0.3", 0.925447)):  # as its own test has them, to 1e-5
        assert made["loss"][smoothing] == pytest.approx(quoted, abs=1e-5)
        # A pair that is taken for its reversal with probability e is a soft label of 1 - e.
        ours = losses.soft_preference(chosen, rejected, torch.full_like(chosen, 1 - float(smoothing)))
        same(ours.mean(), made["loss"][smoothing])
    same(losses.dpo(chosen / 0.1, rejected / 0.1, 0.1).mean(), made["loss"]["0.0"])


def test_the_reward_model_s_losses_as_trl_and_openrlhf() -> None:
    made = TRL["reward"]
    chosen, rejected, margins = (double(made[name]) for name in ("chosen", "rejected", "margins"))
    same(losses.soft_preference(chosen, rejected, torch.ones_like(chosen)), made["plain"])
    same(losses.margin_preference(chosen, rejected, margins), made["margin"])
    other = MADE["openrlhf"]["pairwise"]
    chosen, rejected, margins = (double(other[name]) for name in ("chosen", "rejected", "margin"))
    same(losses.soft_preference(chosen, rejected, torch.ones_like(chosen)).mean(), other["plain"])
    same(losses.margin_preference(chosen, rejected, margins).mean(), other["with_margin"])


# --- with a model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> list[Transformer]:
    """The two tiny models, policy and reference, from the weights that TRL's trainers had."""
    loaded = []
    for number, made in enumerate(TRL["models"]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(made["config"]))
        weights = {name: torch.tensor(values) for name, values in made["weights"].items()}
        save_file(weights, directory / "model.safetensors")
        loaded.append(load_hf(directory, torch.float32))
    return loaded


def gradient_norm(model: Transformer, loss: Tensor) -> float:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return float(torch.stack([part.square().sum() for part in found]).sum().sqrt())


class Words:
    """TRL's tokenizer of whole words, as a chat tokenizer of ours."""

    end_id = TRL["words"].index("<|end|>")

    def encode(self, text: str) -> list[int]:
        return [TRL["words"].index(word) for word in text.split()]

    def role_id(self, role: str) -> int:
        return int(TRL["words"].index(f"<|{role}|>"))


def test_fine_tuning_learns_the_tokens_that_trl_s_mask_has_at_its_loss(models: list[Transformer]) -> None:
    made = TRL["fine_tuning"]
    width = len(made["tokens"][0])
    tokens, targets = torch.zeros(3, width, dtype=torch.long), torch.full((3, width), IGNORE)
    for row, messages in enumerate(made["conversations"]):
        ids, mask = render(Words(), messages)
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels = [token if bit else IGNORE for token, bit in zip(ids, mask, strict=True)]
        assert labels == made["labels"][row][: len(ids)]
        targets[row, : len(ids) - 1] = torch.tensor(labels[1:])
    assert tokens.tolist() == made["tokens"]
    loss = models[0](tokens, targets=Targets(targets))
    assert int(loss.count) == 2 + 5 + 2 + 6
    mean = loss.total / loss.count  # over all tokens of the batch, not over rows
    assert float(mean.detach()) == pytest.approx(made["loss"], abs=1e-5)
    assert gradient_norm(models[0], mean) == pytest.approx(made["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_preferences_of_models_from_tokens_to_gradients_as_trl(models: list[Transformer], kind: Any) -> None:
    made = TRL["preference_models"]
    policy, reference = models
    sides = [Response(row["prompt_ids"], row[side]) for row in made["rows"] for side in ("chosen_ids", "rejected_ids")]
    scored = score_responses(reference, sides)
    sides = [side._replace(reference=value) for side, value in zip(sides, scored, strict=True)]
    pairs = [ResponsePair(str(n), sides[2 * n], sides[2 * n + 1]) for n in range(2)]
    loss = preference_loss(policy, kind, 0.1, True, pair_responses(pairs), 0)
    mean = loss.total / loss.count / (0.1 if kind == "ipo" else 1.0)  # ours is trained times tau
    assert float(mean.detach()) == pytest.approx(made[kind]["loss"], rel=1e-5)
    assert gradient_norm(policy, mean) == pytest.approx(made[kind]["gradient_norm"], rel=1e-5)
