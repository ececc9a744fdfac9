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
from typing import Any, NamedTuple

from ._memory import CoreFile, OutsideError, Process, UnreadableError
from ._view import ThreadView

__all__ = ["add_arguments", "run"]


WITHOUT_STACK = (
    "{} lacks the stacks of {:,} greenlets: gcore of gdb leaves out memory near guard pages "
    "on Linux 6.13 and newer; take core files by the kernel (kill -ABRT, ulimit -c), "
    "or by the command `greenlet gcore` of greenlet/gdb.py"
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
    try:
        return _run(options)
    except OutsideError as failure:
        print(failure, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # As other tools do when `| head` has seen enough. Nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 0 if options.watch else 130


def _run(options: argparse.Namespace) -> int:
    if options.watch is not None and not options.watch > 0:
        raise OutsideError("--watch takes a number of seconds above zero")
    may_ask = True
    while True:
        found = look(options.target, options.locals, may_ask)
        text = "\n".join(_lines(options, _chosen(found.threads, options)))
        if options.watch is not None and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        print(text, flush=True)
        if found.warning:
            print(found.warning, file=sys.stderr)
        if options.watch is None:
            return 1 if found.warning else 0
        may_ask = found.has_answered
        time.sleep(options.watch)


class Found(NamedTuple):
    """What there is in a process or a core file."""

    threads: list[ThreadView]
    has_answered: bool = False
    """Whether the process itself has told it."""
    warning: str = ""
    """What is missing, and why."""


def look(target: str, variables: bool = False, may_ask: bool = True) -> Found:
    """Return the greenlets of a process or a core file; raise OutsideError if that cannot be."""
    return (
        _look_at_process(int(target), variables, may_ask)
        if target.isdecimal()
        else _look_at_core(target, variables)
    )


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
            f"{core.what} lacks memory that is needed ({failure}): it was cut off (ulimit -c), "
            "or /proc/PID/coredump_filter left memory out"
        ) from None
    except ValueError:
        raise OutsideError(f"what is in {core.what} does not fit together: it is damaged") from None
    lacks = WITHOUT_STACK.format(core.what, reader.without_stack) if reader.without_stack else ""
    return Found(threads, warning=lacks)


def _look_at_process(pid: int, variables: bool, may_ask: bool) -> Found:
    from . import _remote
    from ._reader import Reader

    process = Process(pid)
    try:
        reader = Reader(process)
        if may_ask and _remote.can_ask(reader.python_version, reader.is_free_threaded):
            told = _remote.ask(pid, variables=variables)
            if told is not None:
                return Found(told, has_answered=True)
        if variables:
            raise OutsideError(
                f"process {pid} does not tell its local variables: it is of another version of "
                "Python, does not allow remote debugging, or runs C code: leave out --locals"
            )
        threads = reader.snapshot()
        if process.has_ended():
            raise OutsideError(f"process {pid} has ended")
        return Found(threads)
    except (UnreadableError, ValueError):
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
        known = ", ".join(f"{thread.native_id} ({thread.name})" for thread in threads)
        raise OutsideError(
            f"no thread {options.thread} has used greenlets in {options.target}, but: {known}"
        )
    return chosen


def _lines(options: argparse.Namespace, threads: list[ThreadView]) -> Iterator[str]:
    from . import _view
    from .inspect import _wants_color

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
        color = _wants_color(sys.stdout)
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
        (f"thread {one['native_id']} {one['name']}", one["alive"], one["waiting"])
        for one in counted
    ]
    if len(rows) != 1:
        total = f"{len(rows):,} threads"
        rows.append((total, *(sum(one[key] for one in counted) for key in ("alive", "waiting"))))
    width = max(len(name) for name, _, _ in rows)
    for name, alive, waiting in rows:
        yield f"{name:<{width}}  {alive:>10,} greenlets  {waiting:>10,} waiting"
