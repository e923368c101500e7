"""Makes posttraining.json, the numbers of other people's losses that test_posttraining.py holds ours to.

Not run by the tests. In an environment of its own, where the constraints keep torch the CPU build that tests use:

    pip install -c constraints.txt torch==2.13.0 transformers peft trl==1.16.0
    pip install -c constraints.txt jax flax optax
    pip install --no-deps openrlhf==0.11.2 verl==0.9.1 google-tunix==0.1.7
    python tests/parity/make_posttraining.py tests/parity/posttraining.json

The inputs are ours, drawn with a fixed seed; every number under "trl", "openrlhf", "verl" and "tunix" was computed by
that package's own code. TRL's trainers are made as a user makes them, around a tiny model; where a loss is asked for at
chosen log-probabilities, a model that answers with these takes the tiny one's place. Of the other three only the files
with the losses are imported: what else their packages import (Ray, DeepSpeed, vLLM) is not installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import sysconfig
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"HF_HUB_OFFLINE": "1", "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer, SFTConfig, SFTTrainer

RNG = np.random.default_rng(9)
TRAINING = {"use_cpu": True, "report_to": "none", "bf16": False, "gradient_checkpointing": False, "seed": 0}


def without_initialisers(*packages: str) -> None:
    """Make parts of installed packages importable without what their __init__ files import."""
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = [os.path.join(sysconfig.get_paths()["purelib"], *name.split("."))]
        sys.modules[name] = module


def draw(*shape: int, scale: float = 1.0) -> list[Any]:
    """Normal numbers with three digits, which JSON keeps as they are."""
    drawn: list[Any] = np.round(RNG.normal(0, scale, shape), 3).tolist()
    return drawn


def log_probs(*shape: int) -> list[Any]:
    drawn: list[Any] = (-np.round(RNG.gamma(2.0, 0.7, shape), 3)).tolist()
    return drawn


def double(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Given(nn.Module):
    """A model that answers with given numbers, whatever it reads."""

    def __init__(self, **answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, **_: Any) -> types.SimpleNamespace:
        return types.SimpleNamespace(**self.answer)


def scored(log_probs_BT: torch.Tensor) -> Given:
    """A language model that gives these log-probabilities; what the trainers only log is 0."""
    zero = torch.zeros_like(log_probs_BT)
    return Given(log_probs=log_probs_BT, entropy=zero, mean_logits=zero, is_top1=zero.bool())


WORDS = ("<pad>", "<eos>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>", "a", "b", "c", "d", "e", "f")
# The layout of our chat template, with the marks that TRL takes its mask of assistant tokens from.
TEMPLATE = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] ~ '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<|user|>", "<|assistant|>", "<|end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", chat_template=TEMPLATE
    )


def tiny(kind: Any = Qwen3ForCausalLM, seed: int = 3, **more: Any) -> Any:
    """A tiny model whose weights are multiples of 1/64."""
    config = Qwen3Config(
        vocab_size=len(WORDS), hidden_size=4, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        head_dim=4, intermediate_size=4, max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0,
        **more,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = kind(config).double()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            size = 0.25 if "norm" in name else 1.0
            tensor.copy_(torch.round(64 * (("norm" in name) + size * torch.randn_like(tensor))) / 64)
    return model


# --- TRL -------------------------------------------------------------------------------------------------------------


def preferences(folder: str) -> dict[str, Any]:
    """DPO and IPO of pairs of different lengths, from the log-probability of each token."""
    longest, pairs = 7, 6
    lengths = RNG.integers(1, longest + 1, (2, pairs)).tolist()
    found: dict[str, Any] = {
        "lengths": lengths,
        "policy": log_probs(2, pairs, longest),
        "reference": log_probs(2, pairs, longest),
        "dpo": {},
        "ipo": {},
    }
    data = Dataset.from_list([{"prompt": "a b", "chosen": " c d", "rejected": " e"}] * 2)
    for kind, name in (("sigmoid", "dpo"), ("ipo", "ipo")):
        for beta in (0.05, 0.1, 0.5):
            args = DPOConfig(folder, loss_type=[kind], beta=beta, **TRAINING)
            trainer = DPOTrainer(tiny(), tiny(), args, train_dataset=data, processing_class=tokenizer())
            losses = []
            for pair in range(pairs):  # one at a time, as the trainer gives the mean of a batch
                mask = torch.zeros(2, longest + 1, dtype=torch.long)  # the first place is the prompt
                for side in (0, 1):
                    mask[side, 1 : 1 + lengths[side][pair]] = 1
                given = [double(found[who])[:, pair] * mask[:, 1:] for who in ("policy", "reference")]
                trainer.ref_model = scored(given[1])
                inputs = {"input_ids": torch.ones_like(mask), "attention_mask": mask, "completion_mask": mask}
                losses.append(float(trainer.compute_loss(scored(given[0]), inputs)))
            found[name][str(beta)] = losses
    return found


def reinforcement(folder: str) -> dict[str, Any]:
    """RLOO's advantages with the penalty inside the reward, and its clipped loss after the policy moved."""
    prompts, samples, longest = 4, 3, 5
    rows = prompts * samples
    lengths = RNG.integers(1, longest + 1, rows).tolist()
    rewards = (RNG.integers(-32, 33, rows) / 16).tolist()  # TRL keeps rewards in float32, which holds these
    found: dict[str, Any] = {
        "samples": samples, "lengths": lengths, "rewards": rewards, "policy": log_probs(rows, longest),
        "reference": log_probs(rows, longest), "moved": draw(rows, longest, scale=0.3), "advantages": {}, "loss": {},
    }  # fmt: skip
    epsilon = found["epsilon"] = 0.2
    data = Dataset.from_list([{"prompt": "a b"}] * prompts)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    tiny().save_pretrained(f"{folder}/policy")  # the trainer reads its reference from where the policy came from
    for beta in (0.1, 0.5):
        args = RLOOConfig(
            folder, beta=beta, epsilon=epsilon, num_generations=samples, per_device_train_batch_size=rows, **TRAINING
        )
        policy = Qwen3ForCausalLM.from_pretrained(f"{folder}/policy").train()
        trainer = RLOOTrainer(policy, lambda **_: rewards, args, train_dataset=data, processing_class=tokenizer())
        given, reference = double(found["policy"]) * mask, double(found["reference"]) * mask
        # Generation and the two models answer with the given numbers; rewards to advantages is the trainer's.
        completions = [[6] * length for length in lengths]
        trainer._generate = lambda prompts, tokens=completions: ([[6, 7]] * len(prompts), tokens, [""] * len(prompts))
        trainer.model.forward, trainer.ref_model.forward = scored(given).forward, scored(reference).forward
        made = trainer._generate_and_score_completions([{"prompt": "a b"}] * rows)
        found["advantages"][str(beta)] = made["advantages"].tolist()
        moved = given + double(found["moved"]) * mask
        found["loss"][str(beta)] = float(trainer.compute_loss(scored(moved), made))
    return found


def reward(folder: str) -> dict[str, Any]:
    """The reward model's loss, without and with a margin."""
    pairs = 6
    found: dict[str, Any] = {"chosen": draw(pairs, scale=2), "rejected": draw(pairs, scale=2)}
    found["margins"] = np.round(RNG.uniform(0, 1, pairs), 3).tolist()
    data = Dataset.from_list([{"chosen": "a b", "rejected": "a c"}] * 2)
    model = tiny(Qwen3ForSequenceClassification, num_labels=1)
    trainer = RewardTrainer(model, RewardConfig(folder, **TRAINING), train_dataset=data, processing_class=tokenizer())
    both = list(zip(found["chosen"], found["rejected"], found["margins"], strict=True))
    for name in ("plain", "margin"):
        found[name] = []
        for chosen, rejected, margin in both:
            inputs = {"attention_mask": torch.ones(2, 1)} | ({"margin": double([margin])} if name == "margin" else {})
            given = Given(logits=double([[chosen], [rejected]]))
            found[name].append(float(trainer.compute_loss(given, inputs)))
    return found


def fine_tuning(folder: str) -> dict[str, Any]:
    """SFT's loss on assistant tokens alone, of a tiny model and a batch of unequal conversations."""
    say = lambda role, content: {"role": role, "content": content}  # noqa: E731
    conversations = [
        [say("user", "a b"), say("assistant", "c"), say("user", "d"), say("assistant", "e f a b")],
        [say("user", "f e d c b a"), say("assistant", "b")],
        [say("user", "c"), say("assistant", "d d a c e")],
    ]
    trainer = SFTTrainer(
        tiny(), SFTConfig(folder, assistant_only_loss=True, per_device_train_batch_size=3, **TRAINING),
        train_dataset=Dataset.from_list([{"messages": messages} for messages in conversations]),
        processing_class=tokenizer(),
    )  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(3)])
    asked = {"conversations": conversations, "tokens": batch["input_ids"].tolist(), "labels": batch["labels"].tolist()}
    return asked | measured(trainer, batch)


def preference_models(folder: str) -> dict[str, Any]:
    """DPO and IPO of two tiny models, from texts to gradients."""
    texts = [("a b", " c d", " e"), ("f", " a b c d e f", " b b")]
    data = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in texts])
    found: dict[str, Any] = {}
    for kind, name in (("sigmoid", "dpo"), ("ipo", "ipo")):
        args = DPOConfig(folder, loss_type=[kind], beta=0.1, **TRAINING)
        trainer = DPOTrainer(tiny(), tiny(seed=4), args, train_dataset=data, processing_class=tokenizer())
        rows = [trainer.train_dataset[row] for row in range(len(texts))]
        found["rows"] = [{key: row[key] for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]
        found[name] = measured(trainer, trainer.data_collator(rows))
    return found


def measured(trainer: Any, batch: dict[str, Any]) -> dict[str, float]:
    """The trainer's loss of a batch, and the length of its gradient."""
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    squares = [parameter.grad.square().sum() for parameter in trainer.model.parameters()]
    return {"loss": loss.item(), "gradient_norm": float(torch.stack(squares).sum().sqrt())}


def as_read(model: Any) -> dict[str, Any]:
    """What a model directory holds."""
    config = {key: value for key, value in model.config.to_dict().items() if key in CONFIG}
    weights = {name: tensor.tolist() for name, tensor in model.named_parameters()}
    return {"config": config | {"architectures": [type(model).__name__]}, "weights": weights}


CONFIG = {
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings", "tie_word_embeddings",
    "rms_norm_eps", "rope_parameters", "hidden_act", "attention_bias",
}  # fmt: skip


# --- the others ------------------------------------------------------------------------------------------------------


def openrlhf(pairs: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """Its DPO, IPO of sums, pairwise loss, and advantages whose penalty comes after the baseline."""
    names = ("", ".models", ".trainer", ".trainer.ppo_utils", ".trainer.ray", ".utils")
    without_initialisers(*(f"openrlhf{name}" for name in names))
    for name in ("ray", "deepspeed", "openrlhf.trainer.ray.launcher"):  # what starts its processes
        sys.modules[name] = mock.MagicMock()
    from openrlhf.models.loss import DPOLoss, PairWiseLoss
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    sums = {}
    for who in ("policy", "reference"):
        tokens, lengths = double(pairs[who]), torch.tensor(pairs["lengths"])
        sums[who] = (tokens * (torch.arange(tokens.shape[-1]) < lengths[..., None])).sum(-1)
    found: dict[str, Any] = {"dpo": {}, "ipo": {}}
    for name in ("dpo", "ipo"):
        for beta in (0.05, 0.1, 0.5):
            loss = DPOLoss(beta, ipo=name == "ipo")
            each = zip(*sums["policy"], *sums["reference"], strict=True)
            found[name][str(beta)] = [float(loss(*(value[None] for value in pair))[0]) for pair in each]

    rewards = PairWiseLoss()
    chosen, rejected, margin = double([1.5, -0.3]), double([0.25, 0.5]), double([1.0, 1 / 3])
    found["pairwise"] = {
        "chosen": chosen.tolist(), "rejected": rejected.tolist(), "margin": margin.tolist(),
        "plain": float(rewards(chosen, rejected)), "with_margin": float(rewards(chosen, rejected, margin)),
    }  # fmt: skip

    space = types.SimpleNamespace
    longest = len(group["policy"][0])
    mask = torch.arange(longest) < torch.tensor(group["lengths"])[:, None]
    kl = (double(group["policy"]) - double(group["reference"])) * mask
    found["advantages"] = {}
    for beta in (0.1, 0.5):
        args = space(
            rollout=space(n_samples_per_prompt=group["samples"]), reward=space(clip_range=None),
            algo=space(advantage=space(estimator="rloo", gamma=1.0)),
        )  # fmt: skip
        maker = RemoteExperienceMaker(None, None, None, None, space(value=beta), space(args=args), None)
        rows = len(group["rewards"])
        experience = Experience(
            rewards=double(group["rewards"]), kl=kl.clone(), action_mask=mask, index=list(range(rows))
        )
        maker.compute_advantages_and_returns([experience])
        found["advantages"][str(beta)] = experience.advantages[:, 0].tolist()  # of the whole response: its first token
    return found


def verl(groups: dict[str, list[list[float]]], many: list[list[int]]) -> dict[str, Any]:
    """RLOO's advantages in a loop, and vectorised; of many groups only those of the loop are kept."""
    without_initialisers("verl", "verl.trainer", "verl.trainer.ppo", "verl.workers")
    helpers = ("verl.utils", "verl.utils.torch_functional", "verl.utils.import_utils")
    for name in ("omegaconf", "verl.trainer.config", "verl.workers.config", *helpers):
        sys.modules[name] = mock.MagicMock()  # settings, and helpers of other losses
    from verl.trainer.ppo import core_algos

    def advantages(name: str, rewards: Any) -> list[list[float]]:
        rows = double(rewards)
        given = {
            "token_level_rewards": rows.reshape(-1, 1).clone(),
            "response_mask": torch.ones(rows.numel(), 1),
            "index": np.repeat(np.arange(len(rows)), rows.shape[1]),
        }
        made: torch.Tensor = core_algos.get_adv_estimator_fn(name)(**given)[0]
        listed: list[list[float]] = made.reshape(rows.shape).tolist()
        return listed

    found: dict[str, Any] = {
        name: {k: advantages(name, group) for k, group in groups.items()} for name in ("rloo", "rloo_vectorized")
    }
    return found | {"many": np.round(advantages("rloo", many), 12).tolist()}


def tunix(groups: dict[str, list[list[float]]]) -> dict[str, Any]:
    """RLOO's advantages, and DPO with and without label smoothing at the numbers of its own test."""
    names = ("", ".rl", ".sft", ".sft.dpo", ".generate")
    without_initialisers(*(f"tunix{name}" for name in names))
    for name in ("tunix.sft.utils", "tunix.generate.tokenizer_adapter"):
        sys.modules[name] = mock.MagicMock()
    sys.modules["tunix.sft.peft_trainer"] = mock.MagicMock(PeftTrainer=object, TrainingConfig=object)
    import jax.numpy as jnp
    from tunix.rl import algo_core
    from tunix.sft.dpo import dpo_trainer

    found: dict[str, Any] = {
        "rloo": {
            k: [algo_core.compute_rloo_advantages(jnp.array(rewards), int(k)).tolist() for rewards in group]
            for k, group in groups.items()
        },
        "rloo_1_to_6": algo_core.compute_rloo_advantages(jnp.arange(1.0, 7.0), 3).tolist(),
        "one_response": algo_core.compute_rloo_advantages(jnp.array([1.0, 2.0]), 1).tolist(),
    }
    drawn = np.random.RandomState(0)
    policy, reference = (drawn.normal(0, 5, (8, 4)).sum(-1) for _ in range(2))
    given = types.SimpleNamespace(
        input_ids=None, positions=None, attention_mask=None, logits_to_keep=None, completion_mask=None, images=None,
        ref_chosen_logps=reference[:4], ref_rejected_logps=reference[4:],
    )  # fmt: skip
    with mock.patch.object(dpo_trainer, "compute_logps", return_value=(jnp.array(policy[:4]), jnp.array(policy[4:]))):
        found["dpo"] = {
            "ratios": (policy - reference).tolist(),
            "loss": {
                str(smoothing): float(dpo_trainer.dpo_loss_fn(None, given, beta=0.1, label_smoothing=smoothing)[0])
                for smoothing in (0.0, 0.3)
            },
        }
    return found


def main() -> None:
    packages = ("torch", "transformers", "trl", "openrlhf", "verl", "google-tunix", "jax")
    groups = {str(k): draw(5, k, scale=2) for k in (2, 4, 7)}
    many = RNG.integers(0, 10, (1_000, 3)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        trl = {
            "preferences": preferences(folder),
            "reinforcement": reinforcement(folder),
            "reward": reward(folder),
            "words": WORDS,
            "models": [as_read(tiny()), as_read(tiny(seed=4))],
            "fine_tuning": fine_tuning(folder),
            "preference_models": preference_models(folder),
        }
    made = {
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "groups": groups,
        "many_groups": many,
        "trl": trl,
        "openrlhf": openrlhf(trl["preferences"], trl["reinforcement"]),
        "verl": verl(groups, many),
        "tunix": tunix(groups),
    }
    Path(sys.argv[1]).write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
