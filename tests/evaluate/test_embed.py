"""The mean of hidden states is of the text's own tokens, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.model.reference import TINY, tiny_model

from pippin.errors import UserError
from pippin.evaluate.embed import mean_hidden_states


def test_padding_and_order_do_not_count() -> None:
    model = tiny_model()
    draw = torch.Generator().manual_seed(1)
    lengths = [3, 17, 1, 9, 17, 4]
    texts = [torch.randint(0, TINY.vocab_size, (n,), generator=draw).tolist() for n in lengths]
    together = mean_hidden_states(model, texts, batch_size=4)
    with torch.no_grad():
        alone = [model(torch.tensor([ids]), hidden_only=True)[0].mean(0).numpy() for ids in texts]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_long_texts_are_read_from_their_beginning_and_empty_ones_refused() -> None:
    model = tiny_model()
    ids = [1 + n % 50 for n in range(TINY.max_seq_len + 9)]
    found = mean_hidden_states(model, [ids, ids[: TINY.max_seq_len]])
    assert np.array_equal(found[0], found[1])
    with pytest.raises(UserError, match="sequence 1: has no tokens"):
        mean_hidden_states(model, [[1], []])
