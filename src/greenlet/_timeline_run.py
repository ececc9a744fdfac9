"""What ``python -m greenlet trace`` does: runs the program, and saves the recording at its end."""

import argparse
import atexit
import functools
import io
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from typing import Any, NoReturn

from . import _timeline_files, getcurrent, greenlet, timeline


def tell(text: str) -> None:
    if sys.stderr is not None:
        print(f"greenlet trace: {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    outputs = options.output or [default_output(options.program)]
    limit = timeline.DEFAULT_LIMIT if options.limit is None else options.limit
    for path in outputs:
        try:
            _timeline_files.writer_of(path)
        except ValueError as problem:
            tell(f"{problem}")
            return 2
        folder = os.path.dirname(path) or "."
        if not os.access(folder, os.W_OK) or os.path.isdir(path):
            tell(f"cannot write {path}")
            return 2
    if limit < 1:
        tell(f"cannot keep {limit} switches")
        return 2
    # The program may change the working directory.
    ending = Ending([os.path.abspath(path) for path in outputs], quiet=options.quiet)
    if options.module:
        return run_module(options.program, options.arguments, ending, limit)
    return run_file(options.program, options.arguments, ending, limit)


def default_output(program: str) -> str:
    name = os.path.basename(os.path.abspath(program))
    return f"{name.removesuffix('.py')}-timeline.html"


# --- the program ----------------------------------------------------------------------------------


def new_main(**names: object) -> types.ModuleType:
    """Put a module in the place of the one that this command is."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], **names)
    sys.modules["__main__"] = main
    return main


def run_module(name: str, arguments: Sequence[str], ending: "Ending", limit: int) -> int:
    import runpy

    sys.argv[:] = ["-m", *arguments]
    new_main()
    ending.title = name
    ending.begin(limit)
    run_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]
    with_clean_traceback(lambda: run_as_main(name))
    return 0


def run_file(path: str, arguments: Sequence[str], ending: "Ending", limit: int) -> int:
    import pkgutil
    import runpy
    from importlib.machinery import SourceFileLoader

    sys.argv[:] = [path, *arguments]
    ending.title = os.path.basename(path)
    if pkgutil.get_importer(path) is not None:  # a folder or an archive with a __main__.py
        sys.path[: 0 if sys.flags.safe_path else 1] = [os.path.abspath(path)]
        new_main()
        ending.begin(limit)
        run_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]
        with_clean_traceback(lambda: run_as_main("__main__", False))
        return 0
    absolute = os.path.abspath(path)
    try:
        with io.open_code(absolute) as file:
            code: Any = pkgutil.read_code(file)  # of a .pyc
        with io.open_code(absolute) as file:
            source = file.read()
    except OSError as problem:
        print(
            f"{sys.executable}: can't open file {absolute!r}:"
            f" [Errno {problem.errno}] {problem.strerror}",
            file=sys.stderr,
        )
        return 2
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(absolute))
    names: dict[str, object] = {"__file__": absolute}
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    if sys.version_info < (3, 15):
        names["__cached__"] = None
    main = new_main(**names, __loader__=SourceFileLoader("__main__", absolute))

    def execute() -> None:
        # Compiled here, so that the traceback of a SyntaxError is clean, too.
        exec(code or compile(source, absolute, "exec", dont_inherit=True), main.__dict__)

    ending.begin(limit)
    with_clean_traceback(execute)
    return 0


def with_clean_traceback(execute: Any) -> None:
    """Run the program. If it raises, what Python prints has no frames of this command."""
    try:
        execute()
    except SystemExit:
        raise
    except BaseException as error:
        traceback = error.__traceback__
        ours = {__file__, "<frozen runpy>"}
        while traceback is not None and traceback.tb_frame.f_code.co_filename in ours:
            traceback = traceback.tb_next
        show = sys.excepthook

        def hook(kind: Any, value: Any, _: object) -> Any:
            return show(kind, value.with_traceback(traceback), traceback)

        # Python calls it when the exception has left this command, whose frames are in the
        # traceback by then. It also finds the exit status.
        sys.excepthook = hook
        raise


# --- its end --------------------------------------------------------------------------------------


class Ending:
    """Stops the recording and saves it when the program ends, in whichever way."""

    def __init__(self, outputs: Sequence[str], *, quiet: bool) -> None:
        self.outputs = outputs
        self.quiet = quiet
        self.title = ""
        self.process = os.getpid()
        self.is_done = False

    def begin(self, limit: int) -> None:
        # What is registered later runs earlier: first those of the program, then ours, and then
        # the one that discards recordings.
        timeline._prepare()
        atexit.register(self.finish)
        leave = os._exit

        @functools.wraps(leave)
        def finish_and_leave(status: int) -> NoReturn:
            self.finish()
            leave(status)

        os._exit = finish_and_leave
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self.finish_by_signal)
        timeline.start(limit=limit)

    def finish_by_signal(self, number: int, _: object) -> None:
        self.finish()
        signal.signal(number, signal.SIG_DFL)
        os.kill(self.process, number)

    def finish(self) -> None:
        if self.is_done or os.getpid() != self.process:  # the child of a fork
            return
        self.is_done = True
        try:
            recording = timeline.stop()
        except (RuntimeError, MemoryError) as problem:
            tell(f"nothing is saved: {problem or 'no memory is left'}")
            return
        recording.title = self.title
        if not self.quiet:
            tell(summary(recording))
        for path in self.outputs:
            try:
                begin = time.perf_counter()
                _timeline_files.writer_of(path)(recording, path)
            except (OSError, MemoryError) as problem:
                tell(f"cannot write {path}: {problem}")
                continue
            if not self.quiet:
                size = os.path.getsize(path)
                took = time.perf_counter() - begin
                tell(f"{os.path.relpath(path)} has {size / 1e6:.1f} MB (written in {took:.1f} s)")


def plural(count: int, what: str) -> str:
    ending = "" if count == 1 else "es" if what.endswith("ch") else "s"
    return f"{count:,} {what}{ending}"


def summary(recording: timeline.Recording) -> str:
    """Say what was recorded, and what that cost."""
    lines = [
        f"{plural(recording.switches, 'switch')} of {plural(len(recording.greenlets), 'greenlet')}"
        f" in {plural(len(recording.threads), 'thread')}, {recording.duration / 1e9:.3f} s"
    ]
    if recording.complete_until is not None:
        lines.append(
            f"the limit was reached after {recording.complete_until / 1e9:.3f} s:"
            f" {plural(recording.lost, 'later switch')} are not in the recording (see --limit)"
        )
    if recording.switches:
        without, with_it = cost_of_switch()
        extra = max(with_it - without, 0)
        share = extra * recording.switches / max(recording.duration, 1)
        lines.append(
            f"recording took about {extra:.0f} ns a switch (measured now: {without:.0f} ns without,"
            f" {with_it:.0f} ns with it), {share:.1%} of the time"
        )
    return "\n  ".join(lines)


def cost_of_switch(switches: int = 4_000) -> tuple[float, float]:
    """Return the nanoseconds of a switch, without and with a recording, as they are here and now.

    Each is the fastest of several runs: other programs can only make them slower.
    """
    main = getcurrent()

    def answer() -> None:
        switch = main.switch
        while True:
            switch()

    def once() -> float:
        switch = other.switch
        begin = time.perf_counter_ns()
        for _ in range(switches // 2):
            switch()
        return (time.perf_counter_ns() - begin) / switches

    other = greenlet(answer)
    other.switch()
    without = with_it = float("inf")
    for _ in range(20):
        without = min(without, once())
        timeline.start(limit=2 * switches)
        with_it = min(with_it, once())
        timeline._discard()
    return without, with_it
