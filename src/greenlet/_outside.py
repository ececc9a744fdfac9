"""``python -m greenlet ps|pstree|count|dump``: the greenlets of another process, or of a core file.

A process of the same version of CPython (3.14+) is asked; see ``_remote.py``. Otherwise, or if it
does not answer, its memory is read without its help, as that of a core file is; see
``_reader.py``.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from ._memory import CoreFile, OutsideError, Process, UnreadableError
from ._table import CUT_OFF, DAMAGE
from ._view import ThreadView, printable

__all__ = ["add_arguments", "run"]

MOST_SECONDS = 1e9  # of --watch
#: A process with more greenlets is not asked for them: it would wait until it has answered.
MOST_ASKED = 2000

WITHOUT_STACK = (
    "{} lacks the stacks of {:,} greenlets: gcore of gdb leaves out memory near guard pages "
    "on Linux 6.13 and newer; take core files by the kernel (kill -ABRT, ulimit -c), "
    "or by the command `greenlet gcore` of greenlet/gdb.py"
)

DAMAGED = "what is in {} does not fit together in {:,} places: it is damaged, and a part is shown"
OTHERS = (
    "process {} has greenlets in other interpreters, or of another greenlet that is loaded, too"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of these commands."""
    parser.add_argument("target", metavar="PID-or-CORE", help="a process, or a core file of one")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--no-group",
        action="store_true",
        help="pstree: show each greenlet, also those that are at the same place",
    )
    parser.add_argument(
        "--locals",
        action="store_true",
        help="local variables; only of processes that run the same Python as this, 3.14 or newer",
    )
    parser.add_argument(
        "--watch", metavar="S", type=float, help="show it again every S seconds, until Ctrl-C"
    )
    parser.add_argument(
        "--thread", metavar="T", help="of one thread: its number or name, or threading.get_ident()"
    )


def run(options: argparse.Namespace) -> int:
    """Run a command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # none, or one that a caller has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(options)
    except OutsideError as failure:
        print(printable(str(failure), 10_000), file=sys.stderr)
        return 1
    except BrokenPipeError:
        # As other tools do when `| head` has seen enough.
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return 0 if options.watch else 130


def _drop_output() -> None:
    """Let the interpreter flush at its end what cannot be written."""
    with suppress(AttributeError, OSError):  # there may be no stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: argparse.Namespace) -> int:
    if options.watch is not None and not 0 < options.watch <= MOST_SECONDS:
        raise OutsideError("--watch takes a number of seconds above zero")
    # To count, its memory is enough.
    may_ask = options.command != "count"
    variables = options.locals and may_ask
    while True:
        found = look(options.target, variables, may_ask)
        text = "\n".join(_lines(options, _chosen(found.threads, options)))
        if options.watch is not None and _is_terminal():
            text = f"\033[H\033[2J{text}"
        try:
            print(text, flush=True)
        except BrokenPipeError:
            raise
        except OSError as failure:
            _drop_output()
            raise OutsideError(f"cannot write: {failure.strerror}") from None
        if found.warning:
            print(printable(found.warning, 10_000), file=sys.stderr)
        if options.watch is None:
            return 1 if found.warning else 0
        may_ask = found.has_answered
        time.sleep(options.watch)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


class Found(NamedTuple):
    """What there is in a process or a core file."""

    threads: list[ThreadView]
    has_answered: bool = False
    """Whether the process itself has told it."""
    warning: str = ""
    """What is missing, and why."""


def look(target: str, variables: bool = False, may_ask: bool = True) -> Found:
    """Return the greenlets of a process or a core file; raise OutsideError if that cannot be."""
    if not target.removeprefix("-").isdecimal():
        return _look_at_core(target, variables)
    if not target.isdecimal() or len(target) > 20:
        raise OutsideError(f"there is no process {printable(target)}")
    return _look_at_process(int(target), variables, may_ask)


def _look_at_core(path: str, variables: bool) -> Found:
    from ._reader import Reader

    if variables:
        raise OutsideError("a core file does not show local variables: leave out --locals")
    core = CoreFile(path)
    try:
        reader = Reader(core)
        threads = reader.snapshot()
    except UnreadableError as failure:
        raise OutsideError(
            f"{core.what} lacks memory that is needed ({failure}): {CUT_OFF}"
        ) from None
    except DAMAGE:
        raise OutsideError(f"what is in {core.what} does not fit together: it is damaged") from None
    warning = ""
    if reader.damages:
        warning = DAMAGED.format(core.what, reader.damages)
    elif reader.without_stack:
        warning = WITHOUT_STACK.format(core.what, reader.without_stack)
    return Found(threads, warning=warning)


def _look_at_process(pid: int, variables: bool, may_ask: bool) -> Found:
    from . import _remote
    from ._reader import Reader

    process = Process(pid)
    try:
        reader = Reader(process)
        can_ask = _remote.can_ask(reader.python_version, reader.is_free_threaded)
        if may_ask and can_ask:
            # It would tell those of its main interpreter alone.
            is_all = reader.is_of_one_interpreter()
            if variables or (is_all and reader.count_started() <= MOST_ASKED):
                told = _remote.ask(process.pid, variables=variables)
                if told is not None:
                    return Found(told, True, "" if is_all else OTHERS.format(pid))
        if variables:
            why = (
                "it does not allow remote debugging, or its main thread runs no Python code now, "
                "as while it waits for the kernel"
                if can_ask
                else "only one of the same version of Python as this command does, from 3.14 on"
            )
            raise OutsideError(
                f"process {pid} does not tell its local variables: {why}; leave out --locals"
            )
        threads = reader.snapshot()
        if process.has_ended():
            raise OutsideError(f"process {pid} has ended")
        return Found(threads)
    except DAMAGE:
        if process.has_ended():
            raise OutsideError(f"process {pid} has ended") from None
        raise OutsideError(f"process {pid} changes too fast to be read: try again") from None
    finally:
        process.close()


def _chosen(threads: list[ThreadView], options: argparse.Namespace) -> list[ThreadView]:
    """The threads that --thread names."""
    if not threads:
        raise OutsideError(f"no thread has used greenlets in {options.target}")
    if options.thread is None:
        return threads
    try:
        number = int(options.thread, 0)
    except ValueError:
        number = -1
    chosen = [
        thread
        for thread in threads
        if number in (thread.native_id, thread.ident) or thread.name == options.thread
    ]
    if not chosen:
        known = ", ".join(f"{thread.native_id} ({printable(thread.name)})" for thread in threads)
        raise OutsideError(
            f"no thread {options.thread} has used greenlets in {options.target}, but: {known}"
        )
    return chosen


def _lines(options: argparse.Namespace, threads: list[ThreadView]) -> Iterator[str]:
    from . import _view
    from ._view import wants_color

    if options.json or options.command == "dump":
        if options.command == "count":
            yield json.dumps([*map(_counts, threads)], indent=1)
        else:
            yield json.dumps(_view.as_json(threads), indent=1)
    elif options.command == "ps":
        yield from _view.format_list(threads)
    elif options.command == "count":
        yield from _count_lines(threads)
    else:
        color = sys.stdout is not None and wants_color(sys.stdout)
        yield from _view.format_tree(threads, group=not options.no_group, color=color)


def _counts(thread: ThreadView) -> dict[str, Any]:
    waiting = sum(one.state == "suspended" for one in thread.greenlets)
    return {
        "ident": thread.ident,
        "native_id": thread.native_id,
        "name": thread.name,
        "alive": len(thread.greenlets),
        "waiting": waiting,
    }


def _count_lines(threads: list[ThreadView]) -> Iterator[str]:
    counted = [*map(_counts, threads)]
    rows = [
        (f"thread {one['native_id']} {printable(one['name'])}", one["alive"], one["waiting"])
        for one in counted
    ]
    if len(rows) != 1:
        total = f"{len(rows):,} threads"
        rows.append((total, *(sum(one[key] for one in counted) for key in ("alive", "waiting"))))
    width = max(len(name) for name, _, _ in rows)
    for name, alive, waiting in rows:
        yield f"{name:<{width}}  {alive:>10,} greenlets  {waiting:>10,} waiting"
