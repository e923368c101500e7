"""The engine against its torch twin, and what must not change a sequence: chunks, threads, neighbours, cached pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pippin.device.engine import Adapter, Engine, Event, Model
from pippin.errors import UserError
from pippin.generate import generate
from tests.device.models import SMALL, VARIANTS, add_adapter, tokens, twin, write


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return Model(directory)


@pytest.fixture(scope="module")
def adapter_dirs(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        add_adapter(directory, tmp_path_factory.mktemp("adapter"), rank, seed)
        for seed, rank in enumerate((2, 20), start=1)
    ]


@pytest.fixture(scope="module")
def adapters(model: Model, adapter_dirs: list[Path]) -> list[Adapter]:
    return [Adapter(model, path) for path in adapter_dirs]


def run(engine: Engine, wanted: int | None = None) -> dict[int, list[Event]]:
    """Step until nothing is pending; the events of each request."""
    events: dict[int, list[Event]] = {}
    while engine.pending():
        for event in engine.step():
            events.setdefault(event.request, []).append(event)
    assert wanted is None or len(events) == wanted
    return events


# --- against torch


@pytest.mark.parametrize("name", VARIANTS)
def test_logits(name: str, tmp_path: Path) -> None:
    config = VARIANTS[name]
    folder = write(tmp_path, config)
    prompt = tokens(config, 45)
    with torch.inference_mode():
        right = twin(folder)(torch.tensor([prompt]))[0].numpy()
    loaded = Model(folder)
    largest = np.abs(right).max()
    for mode, kv, bound in (
        ("exact", "float32", 2e-5),
        ("exact", "bfloat16", 2e-2),
        ("exact", "int8", 5e-2),
        ("fast", "bfloat16", 1e-1),
    ):
        found = Engine(loaded, mode=mode, kv=kv).logits(prompt, 45)
        assert np.abs(found - right).max() <= bound * largest, (mode, kv)


def test_greedy_text_is_torchs(model: Model, directory: Path) -> None:
    torch_model = twin(directory)
    prompts = [tokens(SMALL, n, seed=n) for n in (3, 17, 40)]
    engine = Engine(model, mode="exact")
    settings = {"max_tokens": 60, "stop_ids": ()}
    assert generate(engine, None, prompts, **settings) == generate(torch_model, None, prompts, **settings)


def test_scores_are_log_softmax_of_logits(model: Model) -> None:
    engine = Engine(model, mode="exact", prefill_chunk=7)
    text = tokens(SMALL, 30)
    logits = torch.tensor(engine.logits(text, 30)).double().log_softmax(-1)
    right = logits[:-1].gather(1, torch.tensor(text[1:])[:, None])[:, 0].numpy()
    assert np.abs(engine.score(text) - right).max() < 1e-6
    number = engine.submit(text, max_tokens=3)
    first = run(engine)[number][0]
    assert first.logprob == pytest.approx(float(logits[-1].max()), abs=1e-6)


def test_adapters(model: Model, directory: Path, adapters: list[Adapter], adapter_dirs: list[Path]) -> None:
    from pippin.interop.peft import load_adapter

    torch_model = twin(directory)
    for _, linear in torch_model.linears():
        linear.add_adapters(2, 20)
    for slot, path in enumerate(adapter_dirs):
        load_adapter(torch_model, slot, path)
    engine = Engine(model, mode="exact")
    prompt = tokens(SMALL, 25)
    plain = engine.logits(prompt, 25)
    for slot, adapter in enumerate(adapters):
        with torch.inference_mode():
            right = torch_model(torch.tensor([prompt]), slots_B=torch.tensor([slot]))[0].numpy()
        found = engine.logits(prompt, 25, adapter)
        assert np.abs(found - right).max() <= 2e-5 * np.abs(right).max()
        assert np.abs(found - plain).max() > 0.01 * np.abs(right).max()


# --- what must not change a sequence


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("kv", ["float32", "bfloat16", "int8"])
def test_chunks_and_threads_change_no_bit(model: Model, adapters: list[Adapter], mode: str, kv: str) -> None:
    prompt = tokens(SMALL, 70)
    right = Engine(model, mode=mode, kv=kv, threads=1, prefill_chunk=128).logits(prompt, 70, adapters[1])
    for threads, chunk in ((1, 1), (2, 7), (5, 33)):
        found = Engine(model, mode=mode, kv=kv, threads=threads, prefill_chunk=chunk).logits(prompt, 70, adapters[1])
        assert np.array_equal(found, right), (threads, chunk)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_neighbours_change_no_token(model: Model, adapters: list[Adapter], mode: str) -> None:
    """Eight sequences with mixed adapters at once and one by one: the same tokens and the same probabilities."""
    jobs = [(tokens(SMALL, 5 + 9 * i, seed=i), (None, *adapters)[i % 3], i) for i in range(8)]
    settings = {"max_tokens": 20, "temperature": 0.8, "top_p": 0.95}

    def alone(prompt: list[int], adapter: Adapter | None, seed: int) -> list[Event]:
        engine = Engine(model, mode=mode)
        engine.submit(prompt, adapter=adapter, seed=seed, **settings)
        return run(engine)[1]

    together = Engine(model, mode=mode, max_sequences=5, prefill_chunk=16)
    numbers = [together.submit(prompt, adapter=adapter, seed=seed, **settings) for prompt, adapter, seed in jobs]
    events = run(together)
    for number, job in zip(numbers, jobs, strict=True):
        assert [event[1:] for event in events[number]] == [event[1:] for event in alone(*job)]


def test_a_cached_beginning_is_reused_and_changes_nothing(model: Model, adapters: list[Adapter]) -> None:
    engine = Engine(model, mode="fast")
    prompt = tokens(SMALL, 60)

    def ask(more: list[int], adapter: Adapter | None = None) -> tuple[list[Event], int]:
        before = engine.stats()["reused_tokens"]
        number = engine.submit(prompt + more, max_tokens=12, adapter=adapter)
        return [e[1:] for e in run(engine)[number]], engine.stats()["reused_tokens"] - before

    first, reused = ask([])
    assert reused == 0
    assert ask([]) == (first, 48)  # three pages of 16; the last token is always computed
    answer = [event[0] for event in first]
    assert ask(answer)[1] == 64  # the answer's pages too
    assert ask([], adapters[0])[1] == 0  # an adapter's keys and values are its own
    other = Engine(model, mode="fast")
    other.submit(prompt + answer, max_tokens=12)
    assert ask(answer)[0] == [e[1:] for e in run(other)[1]]


def test_pages_come_back_and_old_ones_are_given_up(model: Model) -> None:
    engine = Engine(model, kv_tokens=96, max_sequences=4)
    for seed in range(12):
        number = engine.submit(tokens(SMALL, 50, seed), max_tokens=30)
        alone = Engine(model)
        alone.submit(tokens(SMALL, 50, seed), max_tokens=30)
        assert [e[1:] for e in run(engine)[number]] == [e[1:] for e in run(alone)[1]]
        assert engine.stats()["pages_used"] == 0
    # More than fits at once: requests wait for room, and all are served.
    numbers = [engine.submit(tokens(SMALL, 40, seed), max_tokens=20) for seed in range(6)]
    events = run(engine)
    assert [len(events[number]) for number in numbers] == [20] * 6
    assert engine.stats()["pages"] == 6


def test_a_prompt_does_not_stall_running_streams(model: Model) -> None:
    engine = Engine(model, prefill_chunk=8)
    stream = engine.submit(tokens(SMALL, 4), max_tokens=40)
    engine.step()
    long = engine.submit(tokens(SMALL, 100), max_tokens=2)
    waited = 0
    while True:
        events = engine.step()
        assert sum(event.request == stream for event in events) == 1  # one token a step, whatever is beside
        if any(event.request == long for event in events):
            break
        waited += 1
    assert waited == 100 // 8


# --- how an answer ends


def endings(engine: Engine, prompt: list[int], **settings: object) -> tuple[list[int | None], Event]:
    number = engine.submit(prompt, **settings)
    events = run(engine)[number]
    return [event.token for event in events], events[-1]


def test_endings(model: Model) -> None:
    engine = Engine(model, mode="exact")
    prompt = tokens(SMALL, 10)
    free, last = endings(engine, prompt, max_tokens=30)
    assert (len(free), last.finish) == (30, "length")
    stop = max(free, key=free.index)  # the one that came up last
    assert free.index(stop) > 0
    cut, last = endings(engine, prompt, max_tokens=30, stop_ids=[stop])
    assert (cut, last.finish) == (free[: free.index(stop) + 1], "stop_id")


def test_stop_texts(model: Model) -> None:
    engine = Engine(model, mode="exact")
    prompt = tokens(SMALL, 10)
    with pytest.raises(UserError, match="was not told the text"):
        engine.submit(prompt, max_tokens=3, stop=["x"])
    names = [f"<{token}>".encode() for token in range(SMALL.vocab_size)]
    engine.set_text(names)
    free, _ = endings(engine, prompt, max_tokens=30)
    text = b"".join(names[token or 0] for token in free).decode()
    for begin, end in ((9, 13), (20, 31), (0, 1)):
        stop = text[begin:end]
        found, last = endings(engine, prompt, max_tokens=30, stop=["never said", stop])
        shown = b"".join(names[token or 0] for token in found)[: last.settled].decode()
        assert last.finish == "stop_text"
        assert shown == text[: text.index(stop)]
    # What may still become a stop text is not settled before the end.
    number = engine.submit(prompt, max_tokens=8, stop=[text[:12] + "!"])
    settled = [event.settled for event in run(engine)[number]]
    assert settled[0] == 0
    assert settled[-1] == len(b"".join(names[token or 0] for token in free[:8]))


def test_cancel(model: Model) -> None:
    engine = Engine(model, max_sequences=1)
    running, waiting = (engine.submit(tokens(SMALL, 5), max_tokens=50) for _ in range(2))
    assert [event.request for event in engine.step()] == [running]
    engine.cancel(running)
    engine.cancel(waiting)
    ended = [event for event in engine.step() if event.finish]
    assert {(event.request, event.token, event.finish) for event in ended} == {
        (running, None, "cancelled"), (waiting, None, "cancelled"),
    }  # fmt: skip
    assert engine.pending() == 0
    assert engine.stats()["pages_used"] == 0
    engine.cancel(running)
    engine.cancel(99)
    assert engine.step() == []


def test_a_stream_that_is_left_is_cancelled(model: Model) -> None:
    engine = Engine(model)
    stream: Iterator[int] = engine.stream(tokens(SMALL, 5), max_tokens=50)
    next(stream)
    stream.close()
    engine.step()
    assert engine.pending() == 0


# --- one clear line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: value 0"),
        ({"max_tokens": 250}, "exceed the model's max_seq_len 256"),
        ({"temperature": -1.0}, "temperature: must be"),
        ({"temperature": float("nan")}, "temperature: must be"),
        ({"top_k": -1}, "top_k: value -1"),
        ({"top_p": 0.0}, "top_p: must be"),
        ({"min_p": 1.5}, "min_p: must be"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: must be"),
        ({"speculate": "draft"}, "the engine has no draft model"),
        ({"stop": [""]}, "an empty text would stop everything"),
        ({"prompt": []}, "prompt: is empty"),
        ({"prompt": [1, 90]}, "token id 90 is outside 0..89"),
        ({"prompt": [-1]}, "token id -1 is outside"),
        ({"prompt": [2**40]}, "outside 32 bits"),
    ],
)
def test_a_wrong_request_is_one_line(model: Model, settings: dict, message: str) -> None:
    engine = Engine(model)
    given = {"prompt": tokens(SMALL, 10), "max_tokens": 5} | settings
    with pytest.raises(UserError, match=message) as raised:
        engine.submit(given.pop("prompt"), **given)
    assert "\n" not in str(raised.value)
    assert engine.pending() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": -1}, "threads: value -1"),
        ({"threads": 1000}, "threads: value 1000"),
        ({"mode": "quick"}, "mode: value 'quick'"),
        ({"kv": "int4"}, "kv: value 'int4'"),
        ({"kernels": "mmx"}, "kernels: value 'mmx': not usable on this processor; choose one of .*portable"),
        ({"max_sequences": 0}, "max_sequences: value 0"),
        ({"prefill_chunk": 0}, "prefill_chunk: value 0"),
        ({"kv_tokens": -5}, "kv_tokens: value -5"),
        ({"kv_tokens": 2**39}, "kv_tokens: "),
    ],
)
def test_a_wrong_engine_is_one_line(model: Model, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Engine(model, **settings)
    assert "\n" not in str(raised.value)


def test_adapters_of_other_models_are_refused(model: Model, adapter_dirs: list[Path], tmp_path: Path) -> None:
    other = Model(write(tmp_path / "other", seed=9))
    with pytest.raises(UserError, match="trained on another base"):
        Adapter(other, adapter_dirs[0])
    (tmp_path / "unsigned").mkdir()
    for file in adapter_dirs[0].iterdir():
        if file.name != "pippin.json":
            (tmp_path / "unsigned" / file.name).write_bytes(file.read_bytes())
    adapter = Adapter(other, tmp_path / "unsigned")  # of another tool, so unchecked, and it fits the shape
    with pytest.raises(UserError, match="opened for another model"):
        Engine(model).submit([1], max_tokens=1, adapter=adapter)
    with pytest.raises(UserError, match="no such directory"):
        Adapter(model, tmp_path / "absent")


def test_models_outlive_their_handles(directory: Path, adapter_dirs: list[Path]) -> None:
    engine = Engine(Model(directory))
    number = engine.submit(tokens(SMALL, 20), max_tokens=9, adapter=Adapter(engine.model, adapter_dirs[0]))
    events: list[Event] = []
    while engine.pending():
        events += engine.step()  # the adapter's Python object is gone by now
    assert len(events) == 9
    assert {event.request for event in events} == {number}
