"""Ask a process for its greenlets: it runs a script at the next opportunity (CPython 3.14+).

The process sees more than its memory shows: names that classes compute, local variables. But it
answers only if its main thread runs Python code within the time that this waits.
"""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._view import FrameView, GreenletView, ThreadView

__all__ = ["ask", "can_ask", "from_json"]

#: Seconds to wait for the answer to begin, and for its end.
PATIENCE = 1.0
#: The same, if its main thread waits for something in the kernel all the time.
PATIENCE_WITH_IDLE = 0.3
PREFIX = "greenlet-ask-"

# Runs in the process. Leaves nothing behind there, and takes its folder away if nobody waits.
SCRIPT = """
def _greenlet_answer():
    import json, os, shutil, sys
    folder = {folder!r}
    if os.path.exists(os.path.join(folder, "cancelled")):
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        os.close(os.open(os.path.join(folder, "begun"), os.O_CREAT | os.O_WRONLY | os.O_EXCL))
        if "greenlet" not in sys.modules:
            return
        from greenlet import inspect
        found = inspect.to_json(variables={variables!r})
        with open(os.path.join(folder, "part"), "x") as file:
            json.dump(found, file)
        os.rename(os.path.join(folder, "part"), os.path.join(folder, "answer"))
    except BaseException as failure:
        try:
            with open(os.path.join(folder, "failure"), "x") as file:
                file.write(repr(failure))
        except OSError:
            pass
try:
    _greenlet_answer()
finally:
    del _greenlet_answer
"""


def can_ask(version: tuple[int, int], is_free_threaded: bool) -> bool:
    """Whether this interpreter can make one of another version run a script."""
    return (
        hasattr(sys, "remote_exec")
        and sys.version_info[:2] == version
        and bool(sysconfig.get_config_var("Py_GIL_DISABLED")) == is_free_threaded
    )


def ask(pid: int, *, variables: bool = False) -> list[ThreadView] | None:
    """Return what the process tells of its greenlets; None if it does not answer in time."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
        # Would it find the script?
        for name in ("ns/mnt", "root"):
            if os.readlink(f"/proc/{pid}/{name}") != os.readlink(f"/proc/self/{name}"):
                return None
    except OSError:
        return None
    _clean(pid)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{pid}-"))
    script = folder / "script.py"
    keep = False
    try:
        script.write_text(SCRIPT.format(folder=str(folder), variables=variables))
        if owner != os.geteuid():
            os.chown(script, owner, -1)
            os.chown(folder, owner, -1)
        try:
            sys.remote_exec(pid, str(script))  # type: ignore[attr-defined,unused-ignore]
        except (OSError, RuntimeError):
            return None  # it does not allow it, or is of another release candidate
        found = _wait(folder, pid)
        # The process may still come to it. Then it takes the folder away.
        keep = not (folder / "begun").exists()
        if keep:
            (folder / "cancelled").touch()
        return found
    except OSError:
        return None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _clean(pid: int) -> None:
    """Remove what questions without an answer have left, if nobody will ever come to it."""
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        asked = old.name.removeprefix(PREFIX).partition("-")[0]
        # A process runs only the last script that it was told.
        if asked == str(pid) or not os.path.exists(f"/proc/{asked}"):
            with suppress(OSError):
                if (old / "cancelled").exists():
                    shutil.rmtree(old, ignore_errors=True)


def _runs_of(pid: int) -> str:
    """What changes when the main thread runs: its state, and how often it has waited."""
    try:
        with open(f"/proc/{pid}/task/{pid}/status") as file:
            return "".join(line for line in file if line.startswith(("State", "vol", "nonvol")))
    except OSError:
        return ""


def _wait(folder: Path, pid: int) -> list[ThreadView] | None:
    begin = time.monotonic()
    end, idle = begin + PATIENCE, begin + PATIENCE_WITH_IDLE
    at_first = _runs_of(pid)
    pause, has_begun = 0.001, False
    while True:
        if (folder / "answer").exists():
            return from_json(json.loads((folder / "answer").read_text()))
        if (folder / "failure").exists():
            return None
        now = time.monotonic()
        if not has_begun and (folder / "begun").exists():
            has_begun, end = True, end + 30 * PATIENCE  # reading of variables takes what it takes
        if now > end:
            return None
        if not has_begun and now > idle:
            # The main thread waits in the kernel and has not moved since: for a client, perhaps.
            if "running" not in at_first and _runs_of(pid) == at_first:
                return None
            idle = end
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def from_json(found: Sequence[Mapping[str, Any]]) -> list[ThreadView]:
    """The opposite of ``as_json()``."""

    def frames(stack: Sequence[Mapping[str, Any]]) -> tuple[FrameView, ...]:
        return tuple(
            FrameView(
                frame["function"],
                frame["file"],
                frame["line"],
                tuple(frame.get("variables", {}).items()),
            )
            for frame in stack
        )

    def greenlet(one: Mapping[str, Any]) -> GreenletView:
        known = {name: one[name] for name in GreenletView._fields if name in one}
        stack = frames(one["stack"])
        if stack and stack[-1].function == "_greenlet_answer":
            stack = stack[:-2]  # the script that asked
        known |= {"stack": stack, "origin": frames(one["origin"])}
        return GreenletView(**known)

    return [
        ThreadView(
            thread["ident"],
            thread["native_id"],
            thread["name"],
            [greenlet(one) for one in thread["greenlets"]],
        )
        for thread in found
    ]
