"""Several adapters in one batch over a palettized base: each row as if it were alone, and swaps that touch nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pippin.compress.palettize import palettize
from pippin.generate import generate
from pippin.model.config import ModelConfig
from pippin.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, d_head=16, d_ff=48, max_seq_len=48)
SLOTS = (-1, 0, 1)


def adapter(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter that does a lot, for every projection."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: linear.weight.shape for name, linear in Transformer(CONFIG).linears()}
    return {
        name: (torch.randn(4, width, generator=generator), 0.3 * torch.randn(out, 4, generator=generator))
        for name, (out, width) in shapes.items()
    }


def swap(model: Transformer, slot: int, seed: int, scale: float) -> None:
    values = adapter(seed)
    for name, linear in model.linears():
        linear.load_adapter(slot, *values[name], scale)


@pytest.fixture
def model() -> Transformer:
    """A packed model of 4 and 2 bits with two adapters of different scale and rank."""
    torch.manual_seed(0)
    packed = Transformer(CONFIG, torch.float32).requires_grad_(False)
    palettize(packed, {name: 2 if "up" in name else 4 for name, _ in packed.linears()})
    for _, linear in packed.linears():
        linear.add_adapters(2, 6)
    swap(packed, 0, 1, 0.5)
    swap(packed, 1, 2, 0.25)
    return packed


def test_one_batch_equals_three_runs(model: Transformer) -> None:
    tokens_BT = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(3))
    together = model(tokens_BT, slots_B=torch.tensor(SLOTS))
    for row, slot in enumerate(SLOTS):
        slots = None if slot < 0 else torch.tensor([slot])
        alone = model(tokens_BT[row : row + 1], slots_B=slots)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)
    same = model(tokens_BT[:1].expand(3, -1), slots_B=torch.tensor(SLOTS))
    assert all((same[i] - same[j]).abs().max() > 0.1 for i, j in ((0, 1), (0, 2), (1, 2)))  # each does its own thing


def test_one_batch_generates_what_three_runs_do(model: Transformer) -> None:
    prompts = [[5, 9, 11, 3], [5, 9, 11, 3], [5, 9, 11, 3], [7, 8], [7, 8], [7, 8]]  # ragged: rows are padded
    slots = [*SLOTS, *SLOTS]
    settings = {"max_tokens": 12, "stop_ids": ()}
    together = generate(model, None, prompts, slots_B=slots, **settings)
    alone = [
        generate(model, None, [prompt], slots_B=None if slot < 0 else [slot], **settings)[0]
        for prompt, slot in zip(prompts, slots, strict=True)
    ]
    assert together == alone
    assert len({tuple(row) for row in together[:3]}) == 3


def storages(model: Transformer) -> dict[str, int]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


def test_a_swap_moves_no_storage_and_leaves_the_base_and_other_slots(model: Transformer) -> None:
    before, values = storages(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    swap(model, 1, 9, 2.0)
    assert storages(model) == before
    for name, tensor in model.state_dict().items():
        if "lora" not in name:
            assert torch.equal(tensor, values[name]), name
        else:
            assert torch.equal(tensor[0], values[name][0]), name
            assert not torch.equal(tensor[1], values[name][1]), name


@pytest.mark.slow
def test_swaps_and_choices_keep_one_graph(model: Transformer) -> None:
    tokens_BT = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(4))
    graphs = []

    def count(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    for seed, slots in enumerate([(-1, 0, 1), (1, 1, 0), (-1, -1, -1)]):
        swap(model, 1, 20 + seed, 0.5 / (1 + seed))
        slots_B = torch.tensor(slots)
        torch.testing.assert_close(compiled(tokens_BT, slots_B=slots_B), model(tokens_BT, slots_B=slots_B))
    assert len(graphs) == 1
    torch.compiler.reset()
