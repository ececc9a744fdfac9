"""A client of debugpy's: as much of the Debug Adapter Protocol as a test needs."""

from __future__ import annotations

import json
import socket
import time
from typing import Any


class DebugSession:
    """A connection to a program that waits for one; the answers and events that come through it."""

    def __init__(self, port: int) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._thread = 0  # the one that has stopped last
        self._events: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        length = 0
        while line := self._file.readline().strip():
            length = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._file.read(length))
        if message["type"] == "event":
            self._events.append(message)
        return message

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; return its number."""
        self._number += 1
        request = {"seq": self._number, "type": "request"}
        data = json.dumps(request | {"command": command, "arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self._number

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request; return the body of its answer."""
        number = self.send(command, **arguments)
        while (message := self._read()).get("request_seq") != number:
            pass
        assert message["success"], message
        body: dict[str, Any] = message.get("body", {})
        return body

    def event(self, *names: str) -> dict[str, Any]:
        """Wait for an event of one of these names."""
        while not any(each["event"] in names for each in self._events):
            self._read()
        found = next(each for each in self._events if each["event"] in names)
        self._events.remove(found)
        return found

    def start(self, program: str, lines: list[int]) -> None:
        """Set breakpoints, and let the program run."""
        self.ask("initialize", adapterID="test", clientID="test")
        self.send("attach", justMyCode=False)
        self.event("initialized")
        breakpoints = [{"line": line} for line in lines]
        self.ask("setBreakpoints", source={"path": program}, breakpoints=breakpoints)
        self.ask("configurationDone")

    def stop(self, after: str = "") -> list[dict[str, Any]]:
        """Wait until the program stops; return its frames, or none at its end.

        `after` is a command to go on with first.
        """
        if after:
            self.ask(after, threadId=self._thread)
        event = self.event("stopped", "terminated")
        if event["event"] == "terminated":
            return []
        self._thread = event["body"]["threadId"]
        frames: list[dict[str, Any]] = self.ask("stackTrace", threadId=self._thread)["stackFrames"]
        return frames

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()
