"""Ask a process for its greenlets: it runs a script at the next opportunity (CPython 3.14+).

The process sees more than its memory shows: names that classes compute, local variables. But it
answers only if its main thread runs Python code within the time that this waits.
"""

import json
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._memory import status_of
from ._view import FrameView, GreenletView, ThreadView

__all__ = ["ask", "can_ask"]

#: Seconds to wait for the answer to begin, and for its end.
PATIENCE = 1.0
#: The same, if its main thread waits for something in the kernel all the time.
PATIENCE_WITH_IDLE = 0.3
#: A folder is named by this, the number of the process, "-", the asker's number, "-", and a suffix.
PREFIX = "greenlet-ask-"
MOST_BYTES = 1 << 30  # of an answer

# Runs in the process, and leaves no names behind there. Whoever makes the file "begun" first has
# the folder: this script, or the command, when it has waited for long enough. Then this script only
# takes the folder away; also if the command has been killed.
SCRIPT = """
def _greenlet_answer():
    import os, sys
    folder, asker = {folder!a}, "/proc/{asker}"
    def path(name):
        return os.path.join(folder, name)
    def remove():
        for name in ("script.py", "begun", "part", "answer", "failure"):
            try:
                os.unlink(path(name))
            except OSError:
                pass
        os.rmdir(folder)
    try:
        if not os.path.exists(asker):
            return remove()
        try:
            os.close(os.open(path("begun"), os.O_CREAT | os.O_WRONLY | os.O_EXCL))
        except FileExistsError:
            return remove()
        try:
            if "greenlet" not in sys.modules:
                raise ImportError("greenlet")
            import json
            from greenlet import inspect
            frames = {{}}
            def pack(stack):
                return [frames.setdefault(frame, len(frames)) for frame in stack]
            found = [
                (thread.ident, thread.native_id, thread.name, [
                    (one.id, one.name, one.type, one.state, one.is_main, one.parent,
                     pack(one.stack), one.stack_in_use, pack(one.origin))
                    for one in thread.greenlets
                ])
                for thread in inspect.snapshot(variables={variables!r})
            ]
            with open(path("part"), "x", encoding="ascii") as file:
                file.write(json.dumps([[*frames], found]))
            os.rename(path("part"), path("answer"))
        except BaseException:
            os.close(os.open(path("failure"), os.O_CREAT | os.O_WRONLY | os.O_EXCL))
        if not os.path.exists(asker):
            remove()
    except BaseException:
        pass  # the program shall not notice
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
        asker = os.readlink("/proc/self")
        if asker != str(os.getpid()):
            return None  # /proc has the numbers of another namespace: pid is another process here
        owner = int(status_of(pid, "Uid")[3])  # by whose rights it opens files
        # Would it find the script?
        for name in ("ns/mnt", "root"):
            if os.readlink(f"/proc/{pid}/{name}") != os.readlink(f"/proc/self/{name}"):
                return None
        _clean(pid, asker)
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{pid}-{asker}-"))
    except (OSError, LookupError):
        return None
    # Its owner may be another user, who may put anything in its place.
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    may_come = False
    try:
        text = SCRIPT.format(folder=str(folder), asker=asker, variables=variables)
        script = folder / "script.py"
        script.write_text(text, encoding="ascii")
        if owner != os.geteuid():
            os.chown(script, owner, -1)
            os.chown(folder, owner, -1)
        may_come = True  # also if a signal ends this now
        try:
            sys.remote_exec(pid, str(script))  # type: ignore[attr-defined,unused-ignore]
        except (OSError, RuntimeError, ValueError):
            # It does not allow it, or is of another release candidate, or the path is too long.
            may_come = False
            return None
        return _wait(place, pid)
    except OSError:
        return None
    finally:
        # The process may still come to it. Then it takes the folder away.
        if not (may_come and _claim(place)):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(place)


def _claim(place: int) -> bool:
    """Whether the process has not begun to answer. Then it never will."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        if {"answer", "failure"} & {*os.listdir(place)}:
            return False
        os.close(os.open("begun", flags, 0o600, dir_fd=place))
    except OSError:
        return False
    return True


def _clean(pid: int, self: str) -> None:
    """Remove what questions without an answer have left, if nobody will ever come to it."""
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        asked, asker = [*old.name.removeprefix(PREFIX).split("-"), ""][:2]
        # A process runs only the last script that it was told.
        is_over = asked == str(pid) or not os.path.exists(f"/proc/{asked}")
        if is_over and (asker == self or not os.path.exists(f"/proc/{asker}")):
            shutil.rmtree(old, ignore_errors=True)


def _runs_of(pid: int) -> str:
    """What changes when the main thread runs: its state, and how often it has waited."""
    try:
        with open(f"/proc/{pid}/task/{pid}/status", errors="replace") as file:
            return "".join(line for line in file if line.startswith(("State", "vol", "nonvol")))
    except OSError:
        return ""


def _wait(place: int, pid: int) -> list[ThreadView] | None:
    begin = time.monotonic()
    end, idle = begin + PATIENCE, begin + PATIENCE_WITH_IDLE
    at_first = _runs_of(pid)
    pause, has_begun = 0.001, False
    while True:
        names = os.listdir(place)
        if "answer" in names:
            return _read(place)
        if "failure" in names:
            return None
        now = time.monotonic()
        if not has_begun and "begun" in names:
            has_begun, end = True, end + 30 * PATIENCE  # reading of variables takes what it takes
        if now > end:
            return None
        if has_begun:
            if _has_stopped(pid):
                return None
        elif now > idle:
            # The main thread waits in the kernel and has not moved since: for a client, perhaps.
            if "running" not in at_first and _runs_of(pid) == at_first:
                return None
            idle = end
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def _has_stopped(pid: int) -> bool:
    """Whether the process has ended, or a signal or a debugger has stopped it."""
    found = _runs_of(pid).partition("State:")[2].split()[:1]
    return not found or found[0] in "TtZX"


def _read(place: int) -> list[ThreadView] | None:
    """The answer, of which another user may have made anything; None if it is none."""
    # O_NONBLOCK: not to wait for who writes to it, if it is a pipe.
    file = os.open("answer", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    with open(file, "rb") as answer:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return None
        with suppress(ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return _unpack(*json.loads(answer.read(MOST_BYTES)))
    return None


def _unpack(packed: Sequence[Any], threads: Sequence[Any]) -> list[ThreadView]:
    """What the script packs. Values are of the types that are expected, whoever has made them.

    ValueError, TypeError, LookupError or AttributeError if that cannot be.
    """
    frames = [
        FrameView(
            str(function),
            str(file),
            int(line),
            tuple((str(name), str(text)) for name, text in variables),
        )
        for function, file, line, variables in packed
    ]

    def stack_of(numbers: Sequence[int]) -> tuple[FrameView, ...]:
        stack = tuple(frames[number] for number in numbers)
        # Without the script that asked.
        return stack[:-2] if stack and stack[-1].function == "_greenlet_answer" else stack

    def greenlet(one: Sequence[Any]) -> GreenletView:
        number, name, kind, state, is_main, parent, stack, stack_in_use, origin = one
        return GreenletView(
            int(number),
            str(name),
            str(kind),
            str(state),
            bool(is_main),
            int(parent),
            stack_of(stack),
            int(stack_in_use),
            stack_of(origin),
        )

    return [
        ThreadView(int(ident), int(native_id), str(name), [greenlet(one) for one in greenlets])
        for ident, native_id, name, greenlets in threads
    ]
