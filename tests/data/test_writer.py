"""Writers: a server's order, failures and seeds; calls that are kept over a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.chat_server import chat_server

from pippin.data.endpoint import Endpoint
from pippin.data.writer import EndpointWriter, KeptWriter
from pippin.errors import UserError


def ask(text: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(text)}]


def endpoint(url: str) -> Endpoint:
    return Endpoint(url, "small-1", attempts=1, pause_s=0.01)


class Counting:
    """A writer that says what it was asked with which seed, and counts."""

    name = "counting"

    def __init__(self, empty: Callable[[str], bool] = lambda text: False) -> None:
        self.asked: list[str] = []
        self.empty = empty

    def write(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], *, n: int = 1, max_tokens: int,
        temperature: float = 1.0, seed: int = 0,
    ) -> list[list[str]]:  # fmt: skip
        texts = [messages[-1]["content"] for messages in conversations]
        self.asked += texts
        return [
            [f"{text}/{place}/{sample}/{seed}" if not self.empty(text) else "" for sample in range(n)]
            for place, text in enumerate(texts)
        ]


def test_a_server_is_asked_in_parallel_and_order_is_kept() -> None:
    together, lock = threading.Barrier(3, timeout=120), threading.Lock()
    seen: list[int] = []

    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        together.wait()  # fails unless three requests are here at the same time
        with lock:
            seen.append(body["seed"])
        return f"to {text}"

    with chat_server(answer) as (url, requests):
        writer = EndpointWriter(endpoint(url), workers=3)
        found = writer.write([ask(i) for i in range(6)], n=2, max_tokens=5, temperature=0.7, seed=1)
    assert found == [[f"to {i}"] * 2 for i in range(6)]
    assert len(set(seen)) == 12, "every sample has a seed of its own"
    assert {request["body"]["temperature"] for request in requests} == {0.7}
    assert {request["body"]["max_tokens"] for request in requests} == {5}


def test_seeds_are_the_same_again_and_others_for_another_seed() -> None:
    with chat_server(lambda body: str(body["seed"])) as (url, _):
        writer = EndpointWriter(endpoint(url))
        first = writer.write([ask(1), ask(2)], n=2, max_tokens=5, seed=1)
        assert writer.write([ask(1), ask(2)], n=2, max_tokens=5, seed=1) == first
        assert writer.write([ask(1), ask(2)], n=2, max_tokens=5, seed=2) != first


def test_failures_give_nothing_until_they_are_too_many() -> None:
    with chat_server(lambda body: 400 if int(body["messages"][0]["content"]) % 2 else "yes") as (url, _):
        found = EndpointWriter(endpoint(url)).write([ask(i) for i in range(30)], max_tokens=5)
        assert found == [["" if i % 2 else "yes"] for i in range(30)]
    with chat_server(lambda body: 400 if int(body["messages"][0]["content"]) >= 5 else "yes") as (url, requests):
        with pytest.raises(UserError, match=r"small-1: the last 10 requests failed \(the server says 400\)"):
            EndpointWriter(endpoint(url), workers=2).write([ask(i) for i in range(200)], max_tokens=5)
        assert len(requests) < 40
    with chat_server(lambda body: 401) as (url, _):
        with pytest.raises(UserError, match=r"the last 2 requests failed \(the server says 401\)"):
            EndpointWriter(endpoint(url)).write([ask(1), ask(2)], max_tokens=5)
        assert EndpointWriter(endpoint(url)).write([], max_tokens=5) == []


def test_kept_calls_are_not_made_again(tmp_path: Path) -> None:
    path, first = tmp_path / "calls.jsonl", Counting()
    questions = [ask(i) for i in range(10)]
    done: list[int] = []
    writer = KeptWriter(first, path, group=4, progress=done.append)
    texts = writer.write(questions, n=2, max_tokens=5, seed=3)
    assert [row[0].split("/")[0] for row in texts] == [str(i) for i in range(10)]
    assert len({row[0].rpartition("/")[2] for row in texts}) == 3, "a seed for each group"
    assert (writer.calls, writer.kept, sum(done)) == (20, 0, 20)

    again = Counting()
    reader = KeptWriter(again, path, group=4)
    assert reader.write(questions, n=2, max_tokens=5, seed=3) == texts
    assert (again.asked, reader.calls, reader.kept) == ([], 0, 20)
    for changed in ({"seed": 4}, {"n": 1}, {"max_tokens": 6}, {"temperature": 0.5}):
        assert KeptWriter(again, tmp_path / "other", group=4).write(questions, **{"n": 2, "max_tokens": 5} | changed)
        before = len(again.asked)
        KeptWriter(again, path, group=4).write(questions, **{"n": 2, "max_tokens": 5, "seed": 3} | changed)
        assert len(again.asked) == before + 10, f"{changed} is another question"
    other = Counting()
    other.name = "another"
    KeptWriter(other, path, group=4).write(questions, n=2, max_tokens=5, seed=3)
    assert len(other.asked) == 10


def test_a_group_with_an_empty_text_is_asked_again(tmp_path: Path) -> None:
    path, questions = tmp_path / "calls.jsonl", [ask(i) for i in range(8)]
    assert KeptWriter(Counting(lambda text: text == "5"), path, group=4).write(questions, max_tokens=5)[5] == [""]
    again = Counting()
    assert KeptWriter(again, path, group=4).write(questions, max_tokens=5)[5][0].startswith("5/")
    assert again.asked == ["4", "5", "6", "7"]
    path.unlink()
    for _ in range(2):
        silent = Counting(lambda text: True)
        assert KeptWriter(silent, path, group=4, keep_empty=True).write(questions, max_tokens=5) == [[""]] * 8
    assert silent.asked == []


def test_the_limit_ends_it_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    path, first, questions = tmp_path / "calls.jsonl", Counting(), [ask(i) for i in range(10)]
    with pytest.raises(UserError, match="max_calls=9: reached after 8 calls, which are kept"):
        KeptWriter(first, path, group=2, max_calls=9).write(questions, n=2, max_tokens=5)
    assert len(first.asked) == 4
    second = Counting()
    with pytest.raises(UserError, match="max_calls=19: reached after 16 calls"):
        KeptWriter(second, path, group=2, max_calls=19).write(questions, n=2, max_tokens=5)
    KeptWriter(second, path, group=2, max_calls=20).write(questions, n=2, max_tokens=5)
    assert second.asked == [str(i) for i in range(4, 10)]


def test_an_end_that_a_kill_cut_short_is_asked_again(tmp_path: Path) -> None:
    path, questions = tmp_path / "calls.jsonl", [ask(i) for i in range(6)]
    texts = KeptWriter(Counting(), path, group=2).write(questions, max_tokens=5)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        writer = Counting()
        assert KeptWriter(writer, path, group=2).write(questions, max_tokens=5) == texts
        assert len(writer.asked) == 6 - 2 * whole[:cut].count(b"\n")
        assert path.read_bytes() == whole
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(UserError, match="calls.jsonl:1: not a finished call"):
        KeptWriter(Counting(), path)


KILLED = """
import sys
from pippin.data.endpoint import Endpoint
from pippin.data.writer import EndpointWriter, KeptWriter
writer = KeptWriter(EndpointWriter(Endpoint(sys.argv[1], "small-1"), workers=2), sys.argv[2], group=2)
writer.write([[{"role": "user", "content": str(i)}] for i in range(20)], max_tokens=5)
"""


def test_a_killed_process_costs_one_group(tmp_path: Path) -> None:
    path, stuck = tmp_path / "calls.jsonl", threading.Event()

    def answer(body: dict[str, Any]) -> str:
        if int(body["messages"][0]["content"]) >= 14 and not stuck.is_set():
            stuck.wait(300)
        return f"to {body['messages'][0]['content']}"

    with chat_server(answer) as (url, requests):
        child = subprocess.Popen([sys.executable, "-c", KILLED, url, str(path)])
        while not path.exists() or path.read_bytes().count(b"\n") < 7:
            assert child.poll() is None
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        stuck.set()
        before = len(requests)
        writer = KeptWriter(EndpointWriter(endpoint(url), workers=2), path, group=2)
        found = writer.write([ask(i) for i in range(20)], max_tokens=5)
        assert found == [[f"to {i}"] for i in range(20)]
        assert (writer.kept, writer.calls) == (14, 6)
        later = [int(request["body"]["messages"][0]["content"]) for request in requests[before:]]
        assert set(later) == set(range(14, 20))
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers: value 0"):
        EndpointWriter(Endpoint("http://localhost:1/v1", "m"), workers=0)
    with pytest.raises(UserError, match="group: value 0"):
        KeptWriter(Counting(), tmp_path / "calls.jsonl", group=0)
