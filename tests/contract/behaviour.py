"""What every script of behaviour shares: the registry, the transcript, and a few bodies to run.

A behaviour is a function decorated with `@behaviour` that reports what it sees by `say`. Each
behaviour runs in a thread of its own, so it begins with a fresh main greenlet, no trace callback
and an empty context. A script prints one line for each `say`, `NAME: TEXT`, the same on every run.
It imports the module named `greenlet` and does not ask whose it is.

Run one from this folder: `python -m scripts.switching [NAME ...]`. `contract_runner.py` compares.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

library: Any = importlib.import_module("greenlet")
extension: Any = importlib.import_module("greenlet._greenlet")
Greenlet: Any = library.greenlet
GreenletExit: Any = library.GreenletExit
getcurrent: Any = library.getcurrent

if TYPE_CHECKING:

    class Base:
        """The greenlet type as a base class of type Any, so that scripts may misuse it."""

        def __init__(self, *args: Any, **keywords: Any) -> None: ...
        def switch(self, *args: Any, **keywords: Any) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

else:
    Base = library.greenlet

Body = Callable[[], None]

#: A behaviour that does not end within this many seconds hangs.
TIME_LIMIT = 20.0


@dataclass(frozen=True)
class Deviation:
    """A behaviour in which we differ on purpose, with both transcripts in full.

    `on` names the interpreters where we differ (`3.14t`; empty for all). All values are literals,
    because the runner reads them from the syntax tree without importing the script.
    """

    reason: str
    ours: tuple[str, ...]
    published: tuple[str, ...]
    on: tuple[str, ...] = ()


_registry: dict[str, Body] = {}
_speaking: str | None = None


def _register(function: Body) -> Body:
    name = function.__name__
    if name in _registry:
        raise ValueError(f"two behaviours are named {name}")
    _registry[name] = function
    return function


@overload
def behaviour(function: Body) -> Body: ...
@overload
def behaviour(*, deviations: tuple[Deviation, ...]) -> Callable[[Body], Body]: ...
def behaviour(
    function: Body | None = None, *, deviations: tuple[Deviation, ...] = ()
) -> Body | Callable[[Body], Body]:
    """Register a function as a behaviour; `deviations` is for the runner alone."""
    return _register if function is None else _register(function)


def normalized(text: str) -> str:
    """Replace addresses, which differ between two runs, and make one line of the text."""
    text = re.sub(r"0x(\([a-z]+\)|[0-9a-fA-F]+)", "0x..", text)
    return text.replace("\n", "\\n").replace("\t", "\\t")


def say(*values: object) -> None:
    """Add a line to the transcript: strings as they are, everything else by `repr`."""
    if _speaking is None:
        return
    text = " ".join(value if isinstance(value, str) else repr(value) for value in values)
    sys.stdout.write(f"{_speaking}: {normalized(text)}\n")
    sys.stdout.flush()


def describe(error: BaseException) -> str:
    """The type and text of an exception."""
    return f"{type(error).__name__}: {error}"


def attempt(function: Callable[..., Any], *args: Any, **keywords: Any) -> str:
    """The `repr` of what the call returns, or the exception."""
    try:
        return repr(function(*args, **keywords))
    except BaseException as error:
        return "raised " + describe(error)


def functions_of(error: BaseException) -> list[str]:
    """The names of the functions in an exception's traceback, without this file's own."""
    return [
        entry.name
        for entry in traceback.extract_tb(error.__traceback__)
        if os.path.basename(entry.filename) != "behaviour.py"
    ]


def root() -> Any:
    """The main greenlet of this thread."""
    current = getcurrent()
    while current.parent is not None:
        current = current.parent
    return current


def pause(*values: Any) -> Any:
    """Switch to the main greenlet; used as a body, or called by one."""
    return root().switch(*values)


def arguments(*args: Any, **keywords: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A body that returns what it was started with."""
    return args, keywords


def fail() -> None:
    """A body that ends by an exception."""
    raise ValueError("failed")


def suspended(body: Callable[..., Any] = pause, parent: Any = None) -> Any:
    """A greenlet that has started and waits in `switch()`."""
    made = Greenlet(body, parent)
    made.switch()
    return made


def dead() -> Any:
    """A greenlet that has finished."""
    made = Greenlet(arguments)
    made.switch()
    return made


def listening(parent: Any = None) -> Any:
    """A suspended greenlet that reports to the main greenlet what reaches it, for ever."""

    def listen() -> None:
        message: tuple[Any, ...] = ()
        while True:
            try:
                message = ("received", root().switch(message))
            except GreenletExit as error:
                if "vanished" in str(error):
                    raise
                message = ("raised", repr(error))
            except BaseException as error:
                message = ("raised", repr(error), "context", repr(error.__context__))

    return suspended(listen, parent)


def in_thread(function: Callable[[], Any]) -> Any:
    """Call in a new thread and wait for its end; return the value or raise the exception."""
    outcome: list[Any] = []
    error: list[BaseException] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as raised:
            error.append(raised)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    # On some versions the published greenlet notices the end of a thread only after `join()`.
    time.sleep(0.05)
    if error:
        raise error[0]
    return outcome[0]


@contextmanager
def living_thread(setup: Callable[[], Any], finish: Body | None = None) -> Iterator[Any]:
    """A thread that has called `setup` and waits while the block runs; then it calls `finish`."""
    ready, leave = threading.Event(), threading.Event()
    outcome: list[Any] = []

    def live() -> None:
        outcome.append(setup())
        ready.set()
        leave.wait()
        if finish is not None:
            finish()

    thread = threading.Thread(target=live)
    thread.start()
    ready.wait()
    try:
        yield outcome.pop()
    finally:
        leave.set()
        thread.join()


@contextmanager
def unraisable_reports() -> Iterator[None]:
    """Say what reaches `sys.unraisablehook` while the block runs."""

    def hook(report: Any) -> None:
        say(
            "unraisable:",
            describe(report.exc_value),
            "in",
            functions_of(report.exc_value),
            "message",
            report.err_msg,
            "object",
            type(report.object).__name__,
        )

    before = sys.unraisablehook
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def in_child_process(source: str) -> None:
    """Run a program in a process of its own; say what it prints and how it ends."""
    outcome = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    say("prints", outcome.stdout.splitlines(), "ends with", outcome.returncode)
    say("complains", [line for line in outcome.stderr.splitlines() if "Warning" not in line])


def _run_one(name: str) -> None:
    """Run one behaviour in a thread of its own, and clean up for the next behaviour."""
    global _speaking

    def call() -> None:
        try:
            _registry[name]()
        except BaseException as error:
            say("ended by", describe(error))

    _speaking = name
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    if thread.is_alive():
        # The runner notices the missing behaviours and runs them one by one.
        os._exit(3)
    gc.collect()
    _speaking = None


def run() -> None:
    """Run the behaviours named on the command line, or all of them, in the order of the file."""
    # Collections run only where a behaviour asks for them.
    gc.disable()
    for name in sys.argv[1:] or list(_registry):
        _run_one(name)
