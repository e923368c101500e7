"""A small OpenAI-compatible server for tests: it answers what a function says, on this machine only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def chat_server(answer: Callable[[dict[str, Any]], object]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server's address, and the requests that it got: path, key, body.

    `answer` is given the body of a request, maybe by several threads at once; an int is a status, bytes are the whole
    answer, all else is the message's content.
    """
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({"path": self.path, "key": self.headers["Authorization"], "body": body})
            said = answer(body)
            data = said if isinstance(said, bytes) else json.dumps({"choices": [{"message": {"content": said}}]})
            self.send_response(said if isinstance(said, int) else 200)
            if said == 302:
                self.send_header("Location", f"{url}/elsewhere")
            self.end_headers()
            self.wfile.write(data.encode() if isinstance(data, str) else data)

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield url, requests
    finally:
        http.shutdown()
        http.server_close()
