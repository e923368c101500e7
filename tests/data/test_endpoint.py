"""The HTTP client: what it sends, what it makes of answers, and that a key goes nowhere else."""

from __future__ import annotations

import socket

import pytest
from tests.chat_server import chat_server

from pippin.data.endpoint import Endpoint, NoAnswer
from pippin.errors import UserError

QUESTION = [{"role": "user", "content": "How many?"}]


def test_a_request_has_what_was_asked_for() -> None:
    with chat_server(lambda body: "Seven.") as (url, requests):
        endpoint = Endpoint(url + "/", "small-1", key="secret")
        assert endpoint.ask(QUESTION, max_tokens=9, temperature=0.5, seed=2**40 + 3) == "Seven."
        Endpoint(url, "small-1").ask(QUESTION, max_tokens=9)
    assert requests[0] == {
        "path": "/v1/chat/completions",
        "key": "Bearer secret",
        "body": {"model": "small-1", "messages": QUESTION, "temperature": 0.5, "max_tokens": 9, "seed": 3},
    }
    assert requests[1]["key"] is None and "seed" not in requests[1]["body"]
    assert "secret" not in repr(endpoint)


def test_a_server_that_is_not_there_or_says_nothing() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(NoAnswer, match="no connection"):
            Endpoint(url, "m", attempts=2, pause_s=0.01).ask([], max_tokens=1)
        listening.listen()
        with pytest.raises(NoAnswer, match="no answer in time"):
            Endpoint(url, "m", timeout_s=0.1, attempts=1).ask([], max_tokens=1)


def test_a_redirect_is_not_followed_with_the_key() -> None:
    with chat_server(lambda body: 302) as (url, requests):
        with pytest.raises(NoAnswer, match="the server says 302"):
            Endpoint(url, "m", key="secret").ask(QUESTION, max_tokens=1)
    assert len(requests) == 1


@pytest.mark.parametrize("answer", [b"[" * 200_000, b"\xff\xfe", b"", b"[1]", b'{"choices": {"0": 1}}', b"7"])
def test_answers_that_are_none(answer: bytes) -> None:
    with chat_server(lambda body: answer) as (url, _):
        with pytest.raises(NoAnswer, match="not that of a chat server"):
            Endpoint(url, "m").ask(QUESTION, max_tokens=1)


def test_an_answer_can_always_be_written_as_utf8() -> None:
    with chat_server(lambda body: "seven \ud800 é") as (url, _):
        assert Endpoint(url, "m").ask(QUESTION, max_tokens=1) == "seven ? é"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://me:word@host/v1"])
def test_bad_addresses_are_one_line(url: str) -> None:
    with pytest.raises(UserError, match="url") as error:
        Endpoint(url, "m")
    assert "word" not in str(error.value).replace("password", "")
