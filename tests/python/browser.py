"""A headless Chromium, driven through its debugging pipe: no driver has to be installed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

KEYS = {
    "ArrowUp": 38,
    "ArrowDown": 40,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
}


def find() -> str | None:
    """Return the program, or None if there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Failure(Exception):
    """The browser or the page has reported an error."""


class Browser:
    """One page in a browser. Errors and messages of its console are in `problems`."""

    def __init__(self, width: int = 1400, height: int = 900, *, dark: bool = False) -> None:
        program = find()
        assert program is not None
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def prepare() -> None:  # the browser reads from 3 and writes to 4
            # Both are moved away first: either may be 3 or 4.
            ends = [os.dup(to_browser), os.dup(from_browser)]
            while min(ends) < 5:
                ends = [os.dup(end) for end in ends]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--remote-debugging-pipe",
            f"--window-size={width},{height}",
            f"--user-data-dir={self._folder.name}",
        ]
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            preexec_fn=prepare,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        self.problems: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._folder.cleanup()

    # --- the protocol ---

    def call(self, method: str, /, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Failure(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self, seconds: float) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise Failure("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise Failure("the browser has ended")
            self._rest += data
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", details).get("description", str(details)))
        elif message.get("method") == "Log.entryAdded":
            text = parameters["entry"]["text"]
            # Keys of a test may come before the page is there.
            if not text.startswith("Autofocus processing was blocked"):
                self.problems.append(text)
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        return message

    # --- the page ---

    def open(self, path: Path, ready: str = "true", seconds: float = 60) -> None:
        """Open a file, and wait until the expression `ready` is true."""
        self.problems.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait(ready, seconds)

    def evaluate(self, expression: str) -> Any:
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise Failure(done["exceptionDetails"]["exception"].get("description", expression))
        return done["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > until:
                raise Failure(f"this does not become true: {expression} {self.problems}")
            time.sleep(0.05)

    def frame(self) -> None:
        """Wait until the page has drawn what it has to."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def move(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.frame()

    def click(self, x: float, y: float, *, count: int = 1) -> None:
        self.mouse("mouseMoved", x, y)
        for number in range(1, count + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.mouse(kind, x, y, button="left", clickCount=number)
        self.frame()

    def drag(
        self, begin: tuple[float, float], end: tuple[float, float], *, shift: bool = False
    ) -> None:
        modifiers = 8 if shift else 0
        self.mouse("mousePressed", *begin, button="left", clickCount=1, modifiers=modifiers)
        for step in range(1, 5):
            x, y = (a + (b - a) * step / 4 for a, b in zip(begin, end, strict=True))
            self.mouse("mouseMoved", x, y, button="left", buttons=1, modifiers=modifiers)
        self.mouse("mouseReleased", *end, button="left", clickCount=1, modifiers=modifiers)
        self.frame()

    def wheel(self, x: float, y: float, by: float, *, shift: bool = False) -> None:
        modifiers = 8 if shift else 0
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=by, modifiers=modifiers)
        self.frame()

    def press(self, key: str, *, shift: bool = False) -> None:
        about = {"key": key, "modifiers": 8 if shift else 0}
        if len(key) == 1:
            about |= {"text": key}
        else:
            about |= {"windowsVirtualKeyCode": KEYS[key]}
        if key == "Enter":
            about |= {"text": "\r"}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        about.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)
        self.frame()

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)
        self.frame()

    def screenshot(self, path: Path) -> None:
        self.frame()
        taken = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(taken["data"]))
