"""The stacks of greenlets: settings, statistics, and calls on the thread's own stack.

Every greenlet runs on a stack region of its own. A region reserves address space; memory is used
only for the pages that calls have touched. When a greenlet finishes, its region goes to a pool of
its thread, and the next greenlet that starts in this thread gets it.

Memory follows use. A greenlet that went deep and has been waiting for a second or longer keeps only
the pages that its suspended calls use. Its thread gives the others back now and then, when a
greenlet starts or goes on, or when it runs the garbage collector. Pools keep a few MiB in all.
``trim()`` gives back at once. On Linux 6.14 and newer, where a thread has more than 1,000
greenlets, idle stacks move to the heap until their greenlets go on: they are *frozen*.

CPython 3.14 and newer compare the stack pointer with the bounds of the stack, so recursion raises
``RecursionError`` on a stack of any size. 3.12 and 3.13 count nested C calls, and allow fewer of
them on a stack smaller than 8 MiB; 3.11 has ``sys.setrecursionlimit()`` alone.

The environment variable ``GREENLET_STACK_SIZE``, read when greenlet is imported, sets the default
size: a number of bytes, or of KiB, MiB or GiB with the suffix K, M or G. Any other value, or one
out of range, is ignored with a ``RuntimeWarning``. ``GREENLET_REPORT_OVERFLOW=1`` does the same as
``report_overflow()`` at that moment; ``GREENLET_FREEZING=0`` the same as ``set_freezing(False)``.
"""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Final, NamedTuple, ParamSpec, TypeVar

from . import _greenlet

__all__ = [
    "MAX_SIZE",
    "MIN_SIZE",
    "StackStatistics",
    "allow_freezing",
    "call_on_thread_stack",
    "freeze",
    "get_default_size",
    "get_freezing_bound",
    "get_pool_bound",
    "is_freezing_on",
    "on_thread_stack",
    "report_overflow",
    "resident_bytes",
    "set_default_size",
    "set_freezing",
    "set_freezing_bound",
    "set_pool_bound",
    "set_size",
    "statistics",
    "trim",
]

MIN_SIZE: Final[int] = _greenlet._STACK_MIN_SIZE
"""The smallest size of a stack, in bytes: 256 KiB."""
MAX_SIZE: Final[int] = _greenlet._STACK_MAX_SIZE
"""The largest size of a stack, in bytes: 1 GiB."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

if TYPE_CHECKING:
    # Here, because checkers do not see our _greenlet.pyi beside the distribution types-greenlet.
    def call_on_thread_stack(
        function: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result: ...

else:
    from ._greenlet import call_on_thread_stack

# Flags of the code of generators, coroutines and asynchronous generators. The module inspect has
# names for them, but takes long to import.
_RUNS_LATER = 0x20 | 0x80 | 0x200


class StackStatistics(NamedTuple):
    """Numbers of stack regions."""

    reserved: int
    """Mapped regions: in use or pooled."""
    in_use: int
    """Regions of greenlets that have started and not finished."""
    pooled: int
    """Regions that are kept for reuse."""
    frozen: int = 0
    """Greenlets whose stacks lie on the heap; their regions are in use."""


def get_default_size() -> int:
    """Return how many bytes of C stack a greenlet gets, at least, that starts now in this thread.

    If no default was set: as many as the thread's own stack has, in whole MiB, and at least 8 MiB;
    on 32-bit systems 1 MiB.
    (The limit RLIMIT_STACK, ``ulimit -s``, is the size of the main thread's stack.)
    """
    return _greenlet._stack_default_size()


def set_default_size(size: int | None) -> int | None:
    """Set the bytes of C stack for greenlets that start from now on, in all threads.

    Returns what was set before, or None. The size None removes the setting: greenlets then have
    stacks as large as their thread's stack, see ``get_default_size()``.

    The size is rounded up to whole pages. It is address space, not memory. A stack may be larger by
    about a quarter. It may be smaller if address space is short, but not smaller than ``MIN_SIZE``.
    A size out of range raises ``ValueError``.
    """
    return _greenlet._set_stack_default_size(size)


def set_size(greenlet: _greenlet.greenlet, size: int | None) -> None:
    """Set the bytes of C stack for one greenlet that has not started; None for the default.

    For a few greenlets that recurse deeply, in a program whose other greenlets do not. Regions of
    such a size are not pooled. The size is rounded up to 64 KiB. As with ``set_default_size()`` the
    stack may be larger or, if address space is short, smaller. A size out of range, or a greenlet
    that has started, raises ``ValueError``.
    """
    _greenlet._set_stack_size(greenlet, size)


def get_pool_bound() -> int:
    """Return how many regions each thread may keep for reuse.

    A thread may keep fewer: the pools of all threads together keep a few MiB of memory.
    """
    return _greenlet._stack_pool_bound()


def set_pool_bound(bound: int) -> int:
    """Set how many regions each thread may keep for reuse; return the previous number.

    A negative number raises ``ValueError``.
    """
    previous = _greenlet._stack_pool_bound()
    _greenlet._set_stack_pool_bound(bound)
    return previous


def statistics() -> StackStatistics:
    """Count the regions of this process. Fast: adds up the counts of each thread."""
    return StackStatistics(*_greenlet._stack_statistics())


def resident_bytes() -> int:
    """Return how many bytes of all regions are backed by memory.

    Slow: asks the kernel about every page of every region. While other threads run the result is
    approximate. It is zero if there is no memory for the question. The resident size of the process
    (RES in top) has these bytes in it.
    """
    return _greenlet._stack_resident_bytes()


def trim() -> int:
    """Give back at once the memory that stacks do not need; return how many bytes that were.

    This is the memory of unused pages of the calling thread's suspended greenlets, and of the
    thread's pool. It does not matter how long the greenlets have been waiting. Regions of no thread
    are unmapped.
    """
    return _greenlet._trim_stacks()


def is_freezing_on() -> bool:
    """Return whether this process may freeze stacks of greenlets that have been idle for seconds.

    A frozen stack lies on the heap, in one piece, and costs less memory. It moves back when the
    greenlet goes on. False if it was turned off, if the kernel cannot give page tables back (Linux
    before 6.14), and in a program whose file has CPython and other libraries in it. True does not
    mean that each stack can be frozen: see ``statistics().frozen``.
    """
    return _greenlet._is_freezing_on()


def set_freezing(enable: bool) -> None:
    """Turn the freezing of idle stacks on or off, in all threads. What is frozen stays so.

    On by default, where the system can (Linux 6.14). ``GREENLET_FREEZING=0`` turns it off.
    """
    _greenlet._set_freezing(enable)


def get_freezing_bound() -> int:
    """Return how many started greenlets a thread may have before it freezes idle ones."""
    return _greenlet._freezing_bound()


def set_freezing_bound(bound: int) -> int:
    """Set that number; return the previous one. A negative number raises ``ValueError``."""
    previous = _greenlet._freezing_bound()
    _greenlet._set_freezing_bound(bound)
    return previous


def allow_freezing(name: str, /) -> None:
    """Let stacks be frozen in which C code of an extension module waits for a switch.

    The name is as in an import: ``"package.module"``. By default a stack with C code of other
    modules than CPython's interpreter, ``_socket``, ``select``, greenlet and gevent (without libuv)
    is not frozen.
    Allow a module only if none of its functions that wait for a switch lets other code use the
    address of one of its local variables meanwhile. It holds for the whole process, and for good;
    greenlets that wait already are looked at again. What is not a name, or names joined by dots,
    raises ``ValueError``. Nobody checks that the module exists.
    """
    if isinstance(name, str) and not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"not the name of a module: {name!r}")
    _greenlet._allow_freezing(name)


def freeze() -> int:
    """Freeze at once what may be frozen in the calling thread; return how many greenlets that were.

    It does not matter how long they have been waiting, nor whether freezing is on.
    """
    return _greenlet._freeze_stacks()


def report_overflow(enable: bool = True) -> None:
    """Say so on stderr when a greenlet has used up its C stack, before the process ends by SIGSEGV.

    For recursion in C that CPython does not see. The sentence names the thread and the size of the
    stack. After it the fault goes to the handler that SIGSEGV and SIGBUS had when this was called,
    ``faulthandler``'s for example, or ends the process as always. So call this after
    ``faulthandler.enable()``: a handler that is installed later comes first, and may end the
    process before there is a sentence. Call it before other threads start greenlets: they get a
    stack for signal handlers (64 KiB, if they have none) when they take stacks from the reserve.

    Off by default. ``report_overflow(False)`` leaves faults alone again. Raises ``OSError`` if the
    system refuses the handler.
    """
    _greenlet._report_overflow(enable)


def on_thread_stack(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a function: each call of it becomes a ``call_on_thread_stack``.

    A generator function or a coroutine function raises ``TypeError``. The call of one only makes an
    object. The body runs later, on the stack of the code that resumes the object.
    """
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & _RUNS_LATER:
        raise TypeError(f"{function!r} does not run when it is called")

    @wraps(function)
    def on_thread_stack(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        return call_on_thread_stack(function, *args, **kwargs)

    return on_thread_stack
