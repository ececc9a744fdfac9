"""The extension module. Import its public names from ``greenlet``."""

from collections.abc import Callable
from types import CodeType
from typing import Any, ParamSpec, TypeVar

from . import (
    _C_API as _C_API,
    CLOCKS_PER_SEC as CLOCKS_PER_SEC,
    GREENLET_USE_CONTEXT_VARS as GREENLET_USE_CONTEXT_VARS,
    GREENLET_USE_GC as GREENLET_USE_GC,
    GREENLET_USE_STANDARD_THREADING as GREENLET_USE_STANDARD_THREADING,
    GREENLET_USE_TRACING as GREENLET_USE_TRACING,
    GreenletExit as GreenletExit,
    __version__ as __version__,
    enable_optional_cleanup as enable_optional_cleanup,
    error as error,
    get_clocks_used_doing_optional_cleanup as get_clocks_used_doing_optional_cleanup,
    getcurrent as getcurrent,
    gettrace as gettrace,
    greenlet as greenlet,
    settrace as settrace,
)

def get_pending_cleanup_count() -> int:
    """Return how many greenlets have lost their last reference in another thread, and wait for
    their own thread to end them.
    """

def get_total_main_greenlets() -> int:
    """Return how many threads of this interpreter have a main greenlet: those that have used
    greenlets.
    """

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

def call_on_thread_stack(
    function: Callable[_Parameters, _Result],
    /,
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    """Call a function on the stack of the OS thread; return what it returns.

    For code that compares the stack pointer with the bounds of the thread's stack: the JVM, R, V8,
    Qt's JavaScript, Rust's stacker. A greenlet's own stack lies outside of those bounds. The
    running greenlet stays the running one, and exceptions pass through. During the call, a switch
    to another greenlet of this thread, or a throw into one, raises ``greenlet.error``. In a main
    greenlet, or in such a call, this is an ordinary call.
    """

# The functions that greenlet.stacks wraps. The setters raise ValueError for values out of range.
_STACK_MIN_SIZE: int
_STACK_MAX_SIZE: int

def _stack_default_size() -> int: ...
def _set_stack_default_size(size: int | None, /) -> int | None: ...
def _set_stack_size(greenlet: greenlet, size: int | None, /) -> None: ...
def _stack_pool_bound() -> int: ...
def _set_stack_pool_bound(bound: int, /) -> None: ...
def _stack_statistics() -> tuple[int, int, int, int]: ...
def _stack_resident_bytes() -> int: ...
def _trim_stacks() -> int: ...
def _is_freezing_on() -> bool: ...
def _set_freezing(enable: bool, /) -> None: ...
def _freezing_bound() -> int: ...
def _set_freezing_bound(bound: int, /) -> None: ...
def _allow_freezing(name: str, /) -> None: ...
def _freeze_stacks() -> int: ...
def _report_overflow(enable: bool, /) -> None: ...

# The functions that greenlet.inspect wraps.
def _list_threads() -> tuple[tuple[int, int, greenlet, greenlet, int], ...]: ...
def _watch_threads() -> tuple[tuple[int, float, greenlet, int], ...]: ...
def _list_greenlets(ident: int, /) -> tuple[greenlet, ...]: ...
def _list_frames(greenlet: greenlet, /) -> tuple[tuple[CodeType, int, int], ...] | None: ...
def _describe(
    greenlet: greenlet, partial: object, member: object, /
) -> tuple[str, int, int, Any, int, bool, bool, str, Any]:
    """Return what there is to know; `partial` and `member` are functools.partial and its `func`."""

def _set_name(greenlet: greenlet, name: str | None, /) -> None: ...
def _track_origin(frames: int, /) -> int: ...
def _on_collected(callback: Callable[[greenlet], object] | None, /) -> object: ...
def _count_collected() -> int: ...
def _dump_on_signal(signum: int, descriptor: int, chain: bool, /) -> None: ...
def _no_dump_on_signal(signum: int, /) -> bool: ...
def _dump(descriptor: int, /) -> None: ...

# The functions that greenlet.timeline wraps.

def _timeline_start(limit: int, partial: object, member: object, /) -> None:
    """Begin to record; `partial` and `member` are functools.partial and its attribute `func`."""

def _timeline_stop() -> tuple[int, tuple[Any, ...], tuple[Any, ...]]:
    """End the recording and return it.

    The duration; of each thread ident, native id, name or None, begin, end or 0, the time on the
    processor at the beginning and at the end, how many switches are missing, since when, the
    address of the running greenlet, and the switches as bytes; of each greenlet the given name, the
    function's, the class's (each a str or None), address, thread and flags.
    """

def _timeline_discard() -> None: ...
def _timeline_is_recording() -> bool: ...
