from collections.abc import Callable
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final, Literal, TypeAlias, final, overload

from . import inspect as inspect, stacks as stacks

__all__ = [
    "__version__",
    "_C_API",
    "GreenletExit",
    "error",
    "getcurrent",
    "greenlet",
    "gettrace",
    "settrace",
]

_TraceCallback: TypeAlias = Callable[
    [Literal["switch", "throw"], tuple[greenlet, greenlet]], object
]

@final
class _Capsule: ...

def _allocate_lock() -> Any: ...
def _get_ident() -> int: ...
def _start_new_thread(function: Callable[..., object], args: tuple[Any, ...], /) -> int: ...

__version__: Final[str]
"""The version of the interface, such as ``"3.7.0"``: numbers and dots only."""
__implementation__: Final = "own-stacks"
"""Which greenlet this is. The published one does not have this attribute.

The version of the distribution, as installers show it, has it as its label: ``3.7.0+ownstacks``.
"""
_C_API: Final[_Capsule]
"""The capsule ``greenlet._C_API``: the table of the C API (``greenlet/greenlet.h``)."""

GREENLET_USE_GC: Final[int]
"""Always 1: suspended greenlets take part in garbage collection."""
GREENLET_USE_TRACING: Final[int]
"""Always 1: ``settrace`` works."""
GREENLET_USE_CONTEXT_VARS: Final[int]
"""Always 1: every greenlet has a ``contextvars`` context of its own."""
GREENLET_USE_STANDARD_THREADING: Final[int]
"""Always 1: each thread has greenlets of its own. (The published package has it in ``_greenlet``.)"""
CLOCKS_PER_SEC: Final[int]
"""The unit of ``get_clocks_used_doing_optional_cleanup()``."""

class GreenletExit(BaseException):
    """Ends the greenlet in which it is raised. The parent receives it as a value."""

class error(Exception):  # noqa: N801
    """Raised for a switch that is impossible, such as one to another thread's greenlet."""

class greenlet:  # noqa: N801
    """A task with a call stack of its own. It runs when another greenlet switches to it.

    ``greenlet(run=None, parent=None)``: the first switch calls ``run`` with its arguments. When
    ``run`` finishes, the parent goes on. Without ``parent``, the running greenlet is the parent.
    """

    GreenletExit: ClassVar[type[GreenletExit]]
    error: ClassVar[type[error]]

    run: Callable[..., Any]
    """What the first switch calls. It can be set and deleted until then, and is gone afterwards."""

    def __init__(
        self, run: Callable[..., Any] | None = None, parent: greenlet | None = None
    ) -> None: ...
    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Run this greenlet, and return what the next switch back to the caller brings.

        No argument arrives as ``()``, one positional argument as itself, several as a tuple,
        keywords alone as a dict, and both as ``(args, kwargs)``. A greenlet that has not started
        calls ``run`` with them. If the greenlet is dead, its nearest living ancestor receives them.
        """

    @overload
    def throw(
        self,
        typ: type[BaseException] = ...,
        val: object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise an exception (by default ``GreenletExit``) where this greenlet waits.

        Otherwise like ``switch``. A greenlet that has not started dies of the exception, and its
        parent receives it.
        """

    @overload
    def throw(
        self, typ: BaseException, val: None = None, tb: TracebackType | None = None, /
    ) -> Any:
        """Raise this exception where this greenlet waits."""

    @property
    def parent(self) -> greenlet | None:
        """The greenlet that goes on when this one finishes; ``None`` only for a main greenlet."""

    @parent.setter
    def parent(self, parent: greenlet) -> None: ...
    @property
    def dead(self) -> bool:
        """Whether its run has finished, or its thread has ended."""

    @property
    def gr_frame(self) -> FrameType | None:
        """The innermost frame of a suspended greenlet; otherwise ``None``."""

    @property
    def gr_context(self) -> Context | None:
        """The ``contextvars`` context in which it runs; ``None`` while it has none."""

    @gr_context.setter
    def gr_context(self, context: Context | None) -> None: ...
    @property
    def _stack_saved(self) -> int:
        """The bytes of C stack that it uses while it is suspended; otherwise 0."""

    def __bool__(self) -> bool:
        """Whether it is active: started and not dead."""

    @staticmethod
    def getcurrent() -> greenlet:
        """Return the running greenlet of this thread."""

    @staticmethod
    def settrace(
        callback: _TraceCallback | None, /, *, all_threads: bool = False
    ) -> _TraceCallback | None:
        """Set this thread's trace callback, or that of all threads; return the previous one."""

    @staticmethod
    def gettrace() -> _TraceCallback | None:
        """Return this thread's trace callback."""

def get_include() -> str:
    """Return the folder for a compiler's ``-I``, in which ``<greenlet/greenlet.h>`` is.

    For the build of an extension module that uses the C API: put it into the ``include_dirs`` of a
    ``setuptools.Extension``. The header comes from this installation, and it is the same for every
    version of CPython. ``python -m greenlet --includes`` prints the compiler's option.

    The published greenlet (3.5 at least) does not have this function.
    """

def getcurrent() -> greenlet:
    """Return the running greenlet of this thread. At first that is its main greenlet."""

def settrace(
    callback: _TraceCallback | None, /, *, all_threads: bool = False
) -> _TraceCallback | None:
    """Set this thread's trace callback and return the previous one. ``None`` removes it.

    With ``all_threads`` it is the callback of all threads of the interpreter that have none of
    their own, from their next switch on, and of threads that use greenlets later.

    After each switch the callback is called in the target with ``"switch"`` or ``"throw"`` and the
    pair ``(origin, target)``. If it raises, it is removed and the target gets the exception.
    """

def gettrace() -> _TraceCallback | None:
    """Return this thread's trace callback, or ``None``."""

def enable_optional_cleanup(enabled: bool, /) -> None:
    """Kept for compatibility: sets what ``get_clocks_used_doing_optional_cleanup`` returns."""

def get_clocks_used_doing_optional_cleanup() -> int | None:
    """Kept for compatibility: 0, or ``None`` after ``enable_optional_cleanup(False)``."""
