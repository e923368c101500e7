"""A model behind an OpenAI-compatible chat server: the one HTTP client, for graders, writers and judges."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pippin.errors import UserError

LARGEST_ANSWER = 4 << 20  # bytes that are read of one


class NoAnswer(Exception):
    """A request got no answer; the message says why in a few words, the same for the same cause."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Urllib would send the key along to wherever the server points."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Endpoint:
    """A chat server and one model of it. May be called by several threads at once.

    Attributes:
        url: up to and with the version, such as "http://localhost:8000/v1".
        model: as the server calls it.
        key: of the server, or ""; it is sent, and written nowhere.
        timeout_s: of one attempt. An attempt that times out, is refused for the moment (429) or fails at the server
            (5xx) is made again, `attempts` in all, after 1, 2, 4 ... s.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    attempts: int = 3
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url: value {self.url!r}: not an address; give one such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise UserError("url: holds a name or password; give the key by itself")
        if not self.model:
            raise UserError("model: value '': give the name that the server knows it by")
        if self.attempts < 1 or not self.timeout_s > 0:
            raise UserError(f"attempts, timeout_s: {self.attempts}, {self.timeout_s}: at least 1, and above 0")

    def ask(
        self, messages: Sequence[Mapping[str, object]], *, max_tokens: int, temperature: float = 0.0,
        seed: int | None = None,
    ) -> str:  # fmt: skip
        """One answer to a conversation; half characters in it become "?".

        Args:
            seed: sent where given, modulo 2**31; not every server heeds it.

        Raises:
            NoAnswer: none after all attempts, or one that is not that of a chat server.
        """
        body = {"model": self.model, "messages": list(messages), "temperature": temperature, "max_tokens": max_tokens}
        if seed is not None:
            body["seed"] = seed % 2**31
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        reason = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            try:
                with _OPENER.open(request, timeout=self.timeout_s) as response:
                    return _content(response.read(LARGEST_ANSWER))
            except urllib.error.HTTPError as error:
                reason = f"the server says {error.code}"
                if error.code != 429 and error.code < 500:
                    break
            except TimeoutError:
                reason = "no answer in time"
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                cause = getattr(error, "reason", error)
                late = isinstance(cause, TimeoutError)
                reason = "no answer in time" if late else f"no connection ({type(cause).__name__})"
        raise NoAnswer(reason)


def _content(data: bytes) -> str:
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise NoAnswer("the answer is not that of a chat server") from None
    if not isinstance(content, str):
        raise NoAnswer("the answer has no text")
    return content.encode(errors="replace").decode()
