"""See which greenlets there are, where they wait, and what holds a thread up.

``print_tree()`` shows all of them with their stacks. ``all_greenlets()``, ``describe()`` and
``stack()`` give the same to programs. They work from any thread, for greenlets of all threads of
the interpreter, whether the garbage collector knows them or not (``gc.freeze()``), and cost
programs nothing that do not call them.

From outside of a process, ``python -m greenlet`` shows the same.
"""

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CodeType, FrameType
from typing import IO, Any, NamedTuple, TypeAlias

from . import _get_ident, _greenlet, _variables, _view
from ._greenlet import greenlet
from ._view import FrameView, GreenletView, ThreadView
from ._watch import HeldUp, Watch, main_native_id

__all__ = [
    "Counts",
    "Description",
    "FrameView",
    "GreenletView",
    "HeldUp",
    "ThreadView",
    "Watch",
    "all_greenlets",
    "collected",
    "count",
    "describe",
    "dump",
    "dump_on_signal",
    "format_tree",
    "get_name",
    "no_dump_on_signal",
    "on_collected",
    "print_tree",
    "set_name",
    "snapshot",
    "stack",
    "to_json",
    "track_origin",
    "watch",
]


AnyThread: TypeAlias = int | str | threading.Thread

# The frames that are made for a look, by the address of their code and the line; with the code.
Known = dict[tuple[int, int], tuple[CodeType, FrameView]]


class Counts(NamedTuple):
    """Numbers of greenlets that have started and not finished, main greenlets included."""

    alive: int
    """All of them."""
    waiting: int
    """Those that are suspended."""
    running: int
    """Those that run: one in each thread."""
    by_thread: dict[int, int]
    """How many are alive in each thread that has used greenlets, by the thread's ident."""


class Description(NamedTuple):
    """What is known of a greenlet."""

    name: str
    """What ``get_name()`` says."""
    type: type[greenlet]
    """Its class."""
    state: str
    """``new``, ``running``, ``suspended``, ``dead``, or ``abandoned`` if its thread has ended."""
    is_main: bool
    """Whether it is the main greenlet of its thread."""
    thread: int | None
    """The ident of the thread that it has started in; None if it is in none (any more)."""
    native_id: int | None
    """The number that the operating system has given that thread."""
    thread_name: str | None
    """The name of that thread."""
    parent: greenlet | None
    """Its attribute ``parent``."""
    run: Callable[..., object] | None
    """What it runs, or is to run; None for main greenlets, and when it has finished."""
    stack_in_use: int
    """The bytes of C stack that it uses while suspended; otherwise 0. See ``_stack_saved``."""
    origin: tuple[FrameView, ...]
    """The frames that made it, the outermost first; empty unless ``track_origin()`` was on."""


def all_greenlets(thread: AnyThread | None = None) -> list[greenlet]:
    """Return all greenlets that have started and not finished: of all threads, or of one.

    The main greenlet of each thread comes first, and the others follow in the order of their start.
    A thread is given as a ``threading.Thread``, or by its ident, its native id or its name.
    ``ValueError`` if no thread of this ident, id or name has used greenlets. The list is complete
    for one moment: while it is made, no other thread runs Python. Greenlets of other interpreters
    are not in it.
    """
    ident = 0 if thread is None else _ident_of(thread)
    return [] if ident is None else [*_greenlet._list_greenlets(ident)]


def _ident_of(thread: AnyThread) -> int | None:
    """The ident of a thread; None for a Thread that has not used greenlets."""
    wanted: object = thread
    is_object = not isinstance(thread, (int, str))
    if not isinstance(thread, (int, str)):
        # Not its ident, which is the id of a greenlet where gevent has replaced threads.
        try:
            wanted = thread.native_id if thread.is_alive() else None
        except AttributeError:
            kind = type(thread).__name__
            raise TypeError(f"expected a thread, its ident or name, not {kind}") from None
    threads = [(ident, native) for ident, native, *_ in _greenlet._list_threads()]
    for ident, native_id in threads:
        if wanted in (ident, native_id, _thread_name(ident, native_id)):
            return ident
    if is_object:
        return None
    known = ", ".join(
        f"{native_id} {_thread_name(ident, native_id)}" for ident, native_id in threads
    )
    raise ValueError(f"no thread {thread} has used greenlets, but: {known}")


def count() -> Counts:
    """Return how many greenlets there are. Takes as long as there are threads, not greenlets."""
    threads = _greenlet._list_threads()
    by_thread: dict[int, int] = {}
    for ident, _, _, _, started in threads:  # two of the same thread if it has two thread states
        by_thread[ident] = by_thread.get(ident, 0) + 1 + started
    alive = sum(by_thread.values())
    return Counts(alive, alive - len(threads), len(threads), by_thread)


def set_name(g: greenlet, name: str | None) -> None:
    """Set the name that tools show for it; ``TypeError`` if that is no str. None removes it."""
    _greenlet._set_name(g, name)


def get_name(g: greenlet) -> str:
    """Return the name of a greenlet: the first of these that there is.

    - what ``set_name()`` has set;
    - its attribute ``name``, if that is in its own ``__dict__``, a str, and not empty. So a name
      that a class computes does not count: gevent would number a greenlet when somebody asks;
    - the qualified name of the function that it runs or is to run, behind ``functools.partial``,
      bound methods, and gevent's and eventlet's ``spawn()``;
    - the name of its class.

    No Python code runs to find it. All tools here show this name.
    """
    name: str = _describe(g)[7]
    return name


def _describe(g: greenlet) -> tuple[Any, ...]:
    return _greenlet._describe(g, functools.partial, functools.partial.func)


def _text_of(subject: object, attribute: str) -> str | None:
    """An attribute, if it is a str. Attributes of classes may do anything."""
    with suppress(Exception):
        text = getattr(subject, attribute, None)
        if isinstance(text, str):
            return str.__str__(text)  # a str itself
    return None


def _type_name(subject: object) -> str:
    return str.__str__(type(subject).__qualname__)


# Not by an attribute of the greenlet: its class may have another one of that name.
_parent: Callable[[greenlet], greenlet | None] = greenlet.parent.__get__
_frame: Callable[[greenlet], FrameType | None] = greenlet.gr_frame.__get__


def _frames(found: Sequence[tuple[Any, int, int]] | None, known: Known) -> tuple[FrameView, ...]:
    """Frames, the outermost first, of what the extension module tells, the innermost first.

    Many greenlets are at the same places: `known` has those that a caller has made before.
    """
    frames = []
    for code, _, line in reversed(found or ()):
        key = (id(code), line)
        frame = known.get(key)
        if frame is None or frame[0] is not code:
            view = FrameView(code.co_qualname, code.co_filename, max(line, 0))
            frame = known[key] = (code, view)
        frames.append(frame[1])
    return tuple(frames)


def stack(g: greenlet) -> tuple[FrameView, ...]:
    """Return the Python frames of a greenlet, the outermost first.

    Also of a greenlet that is running, in this thread or another one. Those of a running main
    greenlet are the thread's. Empty for a greenlet that has not started or has finished.
    """
    return _frames(_greenlet._list_frames(g), {})


def describe(g: greenlet) -> Description:
    """Return what is known of a greenlet. It may be of any thread, and in any state."""
    found = _describe(g)
    state, ident, native_id, run, stack_in_use, is_main, _, _, origin = found
    return Description(
        name=found[7],
        type=type(g),
        state=state,
        is_main=is_main,
        thread=ident or None,
        native_id=native_id or None,
        thread_name=_thread_name(ident, native_id) if ident else None,
        parent=_parent(g),
        run=run,
        stack_in_use=stack_in_use,
        origin=_frames(origin, {}),
    )


def _thread_name(ident: int, native_id: int) -> str:
    # Not threading.enumerate(), which takes a lock that the caller may hold.
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    name = None if thread is None else _text_of(thread, "name")
    return name or ("MainThread" if native_id == main_native_id() else f"{ident:#x}")


def track_origin(frames: int = 1) -> int:
    """Note for each greenlet that is made from now on the frames that make it; 0 turns it off.

    ``frames`` is how many, the innermost ones, at most 100. Returns what was set before. It is off
    at first. A greenlet that is made takes some 100 ns longer for each frame, and keeps the code
    objects alive. Any other number raises ``ValueError``.
    """
    if not 0 <= frames <= 100:
        raise ValueError(f"cannot note {frames} frames of each greenlet (0 to 100)")
    return _greenlet._track_origin(frames)


def snapshot(thread: AnyThread | None = None, *, variables: bool = False) -> list[ThreadView]:
    """Return all greenlets as plain data, by thread; with ``variables``, local variables as text.

    Variables are those of suspended greenlets. Their ``repr()`` is called for this, but for huge
    strings and containers. On free-threaded builds they are those of the calling thread's greenlets
    alone: greenlets of other threads might go on at that moment.
    """
    threads = {ident: native for ident, native, _, _, _ in _greenlet._list_threads()}
    found: dict[int, list[GreenletView]] = {}
    known: Known = {}
    for g in all_greenlets(thread):
        ident, view = _view_of(g, known, variables=variables)
        found.setdefault(ident, []).append(view)
    main = main_native_id()
    # What has finished since the list was made is in no thread.
    return [
        ThreadView(ident, native_id, _thread_name(ident, native_id), found[ident])
        for ident, native_id in sorted(threads.items(), key=lambda ids: ids[1] != main)
        if ident in found
    ]


def _view_of(g: greenlet, known: Known, *, variables: bool = False) -> tuple[int, GreenletView]:
    """The ident of its thread, or 0, and the greenlet as plain data."""
    found = _describe(g)
    state, ident, _, _, stack_in_use, is_main, _, _, origin = found
    parent = _parent(g)
    frames = _without_own(_frames(_greenlet._list_frames(g), known))
    if variables and (ident == _get_ident() or _variables.has_gil()):
        frames = _variables.of_frames(_frame(g)) or frames
    return ident, GreenletView(
        id=id(g),
        name=found[7],
        type=_type_name(g),
        state=state,
        is_main=is_main,
        parent=0 if parent is None else id(parent),
        stack=frames,
        stack_in_use=stack_in_use,
        origin=_frames(origin, known),
    )


def _without_own(frames: tuple[FrameView, ...]) -> tuple[FrameView, ...]:
    """The frames without those of this module, whose __file__ PyInstaller's programs change."""
    end, own = len(frames), _without_own.__code__.co_filename
    while end and frames[end - 1].file == own:
        end -= 1
    return frames[:end]


def format_tree(
    thread: AnyThread | None = None, *, group: bool = True, variables: bool = False
) -> str:
    """Return all greenlets with their stacks as text, children below their parents.

    The outermost frame comes first. Greenlets of one parent that are at the same place are shown
    together, unless ``group`` is false. With ``variables`` each frame has its local variables; see
    ``snapshot()``.
    """
    return "\n".join(_view.format_tree(snapshot(thread, variables=variables), group=group))


def print_tree(
    thread: AnyThread | None = None,
    *,
    group: bool = True,
    variables: bool = False,
    file: IO[str] | None = None,
) -> None:
    """Print what ``format_tree()`` returns, in colour on a terminal.

    The environment variables ``NO_COLOR`` and ``FORCE_COLOR`` decide about colour.
    """
    file = sys.stdout if file is None else file
    lines = _view.format_tree(
        snapshot(thread, variables=variables), group=group, color=_view.wants_color(file)
    )
    for line in lines:
        print(line, file=file)


def to_json(thread: AnyThread | None = None, *, variables: bool = False) -> Any:
    """Return all greenlets as lists, dicts, strings and numbers, for ``json.dumps()``."""
    return _view.as_json(snapshot(thread, variables=variables))


# --- by a signal ---

_files: dict[int, IO[Any]] = {}  # that signals write to; not to be closed meanwhile


def dump_on_signal(signum: int, file: IO[Any] | None = None, *, chain: bool = False) -> None:
    """Write all greenlets with their frames when the process gets a signal.

    As ``faulthandler.register()`` does: in the signal handler itself, so also while a thread hangs
    in C code, in which no Python code runs. ``file`` is stderr, or any file with a descriptor; keep
    it open. With ``chain`` the handler that the signal had before is called afterwards. ``OSError``
    for a signal that cannot be handled, or that tells of a crash (``faulthandler.enable()`` is for
    these); ``RuntimeError`` if ``sys.stderr`` is None and no file is given. A second call for a
    signal changes the file.

    The signal handler reads the memory of threads that run. In rare cases it reads what is being
    changed; it checks pointers before it follows them, but cannot be as safe as ``print_tree()``.
    """
    file = _or_stderr(file)
    _greenlet._dump_on_signal(signum, file.fileno(), chain)
    _files[signum] = file


def _or_stderr(file: IO[Any] | None) -> IO[Any]:
    file = sys.stderr if file is None else file
    if file is None:
        raise RuntimeError("sys.stderr is None, so a file is needed")
    return file


def no_dump_on_signal(signum: int) -> bool:
    """Undo ``dump_on_signal()``. False if it was not called for this signal.

    This puts the previous handler back, unless another one has been set since.
    """
    undone = _greenlet._no_dump_on_signal(signum)
    _files.pop(signum, None)
    return undone


def dump(file: IO[Any] | None = None) -> None:
    """Write at once what ``dump_on_signal()`` writes: for code that may not allocate."""
    _greenlet._dump(_or_stderr(file).fileno())


# --- what leaks ---


def collected() -> int:
    """Return how many suspended greenlets the garbage collector has found and ended.

    Such a greenlet was lost: nothing could switch to it any more. It was in a reference cycle, or a
    cycle referred to it; otherwise it would have ended when its last reference went away.
    """
    return _greenlet._count_collected()


def on_collected(
    callback: Callable[[GreenletView], object] | None,
) -> Callable[[GreenletView], object] | None:
    """Set a function that is called for each greenlet that the garbage collector ends.

    It is called before GreenletExit is raised in the greenlet, in the greenlet's thread, with what
    there is to know: name, class, stack, and where it was made if ``track_origin()`` is on. It
    must not switch. What it raises goes to ``sys.unraisablehook``. Returns the function that was
    set before, or None; None removes it.
    """
    old = _greenlet._on_collected(None if callback is None else _Report(callback))
    return old.callback if isinstance(old, _Report) else None


class _Report:
    """What the extension module calls with the greenlet itself."""

    def __init__(self, callback: Callable[[GreenletView], object]) -> None:
        self.callback = callback

    def __call__(self, g: greenlet) -> None:
        self.callback(_view_of(g, {})[1])


# --- what holds a thread up ---


def watch(seconds: float, callback: Callable[[HeldUp], object]) -> Watch:
    """Call ``callback`` when a greenlet holds its thread for ``seconds`` without a switch.

    A greenlet does so that computes, or calls a function that blocks the thread, while others wait
    to go on. The callback gets a ``HeldUp``; ``print`` will do. It is called in a thread of the
    watch's own, and once more after each further ``seconds``. What it raises goes to
    ``sys.unraisablehook``.

    Greenlets that schedule others are left out: gevent's and eventlet's hubs, and whatever greenlet
    other code has made a parent. They wait for events. So are threads in which no greenlet waits
    but the main one, as those of thread pools.

    A look takes a few microseconds for each thread. On free-threaded builds it stops the other
    threads for that long. A switch is not slower, but for the first one after a look.
    Raises ``ValueError`` unless ``seconds`` is greater than zero.
    """
    if not seconds > 0:
        raise ValueError(f"cannot watch every {seconds} seconds")
    return Watch(seconds, callback, _held_up)


def _held_up(ident: int, running: greenlet, started: int, seconds: float) -> HeldUp | None:
    frames, found = stack(running), _describe(running)
    state, native_id, is_main = found[0], found[2], found[5]
    # The parent waits for this one to end or to switch, and for nothing else.
    waiting = started - (0 if is_main else 1)
    if not frames or state != "running" or waiting == 0:
        return None  # the thread has switched since, or no other greenlet waits for it
    name, thread_name = found[7], _thread_name(ident, native_id)
    return HeldUp(running, name, seconds, ident, thread_name, waiting, frames)
