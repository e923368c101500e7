"""A headless Chromium spoken to over its own pipe (the DevTools protocol, one JSON message up to each zero byte).

No driver and no socket: the browser of the system is enough.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_SILENCE_S = 120  # a browser that says nothing for so long is stuck


def find() -> str | None:
    """The browser of this system."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one tab. Use as a context manager.

    Args:
        home: an empty folder for its profile; downloads go to `home / "downloads"`.
    """

    def __init__(self, home: Path, width: int = 1400, height: int = 1000) -> None:
        path = find()
        assert path is not None
        self.downloads = home / "downloads"
        self.downloads.mkdir(parents=True)
        self.errors: list[str] = []  # what went wrong on the page: exceptions, refusals of its policy
        ours = [os.pipe(), os.pipe()]
        # Away from 3 and 4, which the browser's ends are to become.
        to_browser, from_ours, from_browser, to_ours = (
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for pair in ours for fd in pair
        )
        for pair in ours:
            for fd in pair:
                os.close(fd)
        self._write, self._read = from_ours, from_browser
        arguments = [
            path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
            f"--user-data-dir={home / 'profile'}", f"--window-size={width},{height}", "about:blank",
        ]  # fmt: skip
        self._pid = os.posix_spawn(
            path, arguments, {**os.environ, "HOME": str(home)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, to_browser, 3),
                (os.POSIX_SPAWN_DUP2, to_ours, 4),
            ],
            setpgroup=0,
        )  # fmt: skip
        os.close(to_browser)
        os.close(to_ours)
        self._number, self._kept = 0, b""
        self._session: str | None = None
        self._downloads_done = 0
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            if answer.get("method") == "Browser.downloadProgress":
                self._downloads_done += answer["params"]["state"] == "completed"
            elif answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(str(answer["params"]["entry"]["text"]))

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._kept:
            ready, _, _ = select.select([self._read], [], [], _SILENCE_S)
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._kept += data
        first, self._kept = self._kept.split(b"\0", 1)
        return dict(json.loads(first))

    def open(self, file: Path, fragment: str = "") -> None:
        """Load a page from a file, to its end."""
        self.call("Page.navigate", url="about:blank")
        self.errors.clear()
        self.call("Page.navigate", url=file.resolve().as_uri() + fragment)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        # A page that still glides to its place when a click is aimed is missed.
        self.js("void (document.documentElement.style.scrollBehavior = 'auto')")

    def js(self, expression: str) -> Any:
        """The value of an expression on the page; a promise's, once it is kept."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{expression}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + _SILENCE_S
        while not self.js(condition):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """A real click into the middle of an element, when it is in sight and stands still."""
        aim = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;"
            " return e.contains(document.elementFromPoint(x, y)) ? [x, y] : null; })()"
        )
        end = time.monotonic() + _SILENCE_S
        before, where = None, self.js(aim)
        while where is None or where != before:
            assert time.monotonic() < end, f"{selector}: hidden or never still"
            time.sleep(0.02)
            before, where = where, self.js(aim)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    def key(self, key: str, control: bool = False) -> None:
        """A key pressed and let go, on whatever has the focus."""
        text = {"text": key} if len(key) == 1 and not control else {}
        codes = {"ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "modifiers": 2 if control else 0, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def fill(self, selector: str, value: str) -> None:
        """Put a value into a field, as typing or dragging would."""
        self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus({{preventScroll: true}});"
            f" e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('input', {bubbles: true}));"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def downloaded(self, name: str) -> bytes:
        """The bytes of a download, when it is whole; it is removed, so that the next has the name."""
        end = time.monotonic() + _SILENCE_S
        while not self._downloads_done:  # an empty file has the name before
            assert time.monotonic() < end, f"{name} was not downloaded"
            time.sleep(0.02)
            self.js("0")
        self._downloads_done -= 1
        data = (self.downloads / name).read_bytes()
        (self.downloads / name).unlink()
        return data

    def screenshot(self, file: Path, width: int, height: int, dark: bool = False) -> None:
        """A picture of the page from its top, in a window of the given size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        file.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
