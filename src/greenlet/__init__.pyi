import _thread
from collections.abc import Callable
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final, Literal, TypeAlias, final, overload

from typing_extensions import disjoint_base

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

_allocate_lock = _thread.allocate_lock
_get_ident = _thread.get_ident
_start_new_thread = _thread.start_new_thread

__version__: Final[str]
"""The version of the interface, such as ``"3.7.0"``: numbers and dots only."""
__implementation__: Final = "own-stacks"
"""Which greenlet this is. The published one does not have this attribute.

The version of the distribution, as installers show it, has it as its label: ``3.7.0+ownstacks``.
"""
_C_API: Final[_Capsule]
"""The capsule of the C API: the table of its functions. ``PyGreenlet_Import()`` finds it."""

GREENLET_USE_GC: Final[int]
"""Always 1: suspended greenlets take part in garbage collection, on every version of CPython."""
GREENLET_USE_TRACING: Final[int]
"""Always 1: ``settrace()`` works."""
GREENLET_USE_CONTEXT_VARS: Final[int]
"""Always 1: every greenlet has a ``contextvars`` context of its own."""
GREENLET_USE_STANDARD_THREADING: Final[int]
"""Always 1: threads are the system's. The published one has this in ``_greenlet`` alone."""
CLOCKS_PER_SEC: Final[int]
"""How many units of ``get_clocks_used_doing_optional_cleanup()`` a second has."""

class GreenletExit(BaseException):
    """Ends the greenlet in which it is raised. The parent receives it as a value."""

class error(Exception):  # noqa: N801
    """Raised for a switch that is impossible, such as one to another thread's greenlet."""

# In the class below, the names of these two are those of its attributes.
_GreenletExit: TypeAlias = GreenletExit
_Error: TypeAlias = error

@disjoint_base
class greenlet:  # noqa: N801
    """A task with a call stack of its own. It runs when another greenlet switches to it.

    The first switch calls ``run`` with its arguments. ``run`` may also be set later, or be a method
    of a subclass. When it finishes, ``parent`` goes on with what it returns or raises. Without a
    parent, or with None, the running greenlet is the parent. A parent that is no greenlet raises
    ``TypeError``.

    An object is true while it is active: started and not dead. When the last reference to a
    suspended greenlet goes away, ``GreenletExit`` is raised in it, in its own thread, so that its
    ``finally`` blocks run. Greenlets cannot be copied or pickled: ``TypeError``.
    """

    GreenletExit: ClassVar[type[_GreenletExit]]
    """The same class as ``greenlet.GreenletExit``."""
    error: ClassVar[type[_Error]]
    """The same class as ``greenlet.error``."""

    run: Callable[..., Any]
    """What the first switch calls. It can be set and deleted until then, and is gone afterwards.

    To read it when it is gone or was never set, to set it after the start, or to set that of a main
    greenlet raises ``AttributeError``.
    """

    def __init__(
        self, run: Callable[..., Any] | None = None, parent: greenlet | None = None
    ) -> None: ...
    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Run this greenlet, and return what the next switch back to the caller brings.

        A greenlet that has not started calls ``run(*args, **kwargs)``. One that waits in
        ``switch()`` receives ``()`` for no argument, one positional argument as itself, several as
        a tuple, keywords alone as a dict, and both as ``(args, kwargs)``. If the greenlet is dead,
        its nearest living ancestor receives them; if that is the caller, they are returned at once.

        Raises whatever is thrown into the caller while it waits. The switch itself raises
        ``greenlet.error`` if this greenlet belongs to another thread, or is needed by a call on the
        thread's stack; ``AttributeError`` if it has no ``run`` to start with; ``MemoryError`` if
        there is no room for its stack. Then the caller goes on, and the greenlet is as it was.
        """

    @overload
    def throw(
        self,
        typ: type[BaseException] = ...,
        val: object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Switch to this greenlet, and raise an exception where it waits.

        The exception is a class (by default ``GreenletExit``) with an optional value, or an
        instance; ``tb`` becomes its traceback. A greenlet that has not started dies of it, without
        a call of ``run``, and its parent receives the exception. If the greenlet is dead, its
        nearest living ancestor receives it. There a ``GreenletExit`` is a value, and is not raised.

        Returns and raises as ``switch()`` does; ``TypeError`` if the arguments are no exception.
        """

    @overload
    def throw(
        self, typ: BaseException, val: None = None, tb: TracebackType | None = None, /
    ) -> Any: ...
    @property
    def parent(self) -> greenlet | None:
        """The greenlet that goes on when this one finishes. None only for a main greenlet.

        It can be set at any time: ``ValueError`` if this makes a cycle, or if this greenlet has
        started and the other one is of another thread; ``TypeError`` if the other one is no
        greenlet; ``AttributeError`` for a main greenlet, and if it is deleted.
        """

    @parent.setter
    def parent(self, parent: greenlet) -> None: ...
    @property
    def dead(self) -> bool:
        """Whether it has finished, or the thread that it has started in has ended."""

    @property
    def gr_frame(self) -> FrameType | None:
        """The innermost frame of a suspended greenlet; None for any other.

        Its ``f_back`` leads through all frames of the greenlet. It may be read from other threads.
        """

    @property
    def gr_context(self) -> Context | None:
        """The ``contextvars.Context`` in which it runs; None while it has none.

        A new greenlet has none; CPython makes an empty one when a variable is set, or the context
        is copied. It can be set, also to None: ``TypeError`` for anything else. ``ValueError``,
        also to read it, while the greenlet runs in another thread. It cannot be deleted:
        ``AttributeError``.
        """

    @gr_context.setter
    def gr_context(self, context: Context | None) -> None: ...
    @property
    def _stack_saved(self) -> int:
        """How many bytes of C stack it uses while it is suspended; otherwise 0.

        Of a main greenlet, the bytes since its thread first used greenlets, or 1 if the thread has
        returned from there: its whole stack is the thread's.
        """

    def __bool__(self) -> bool:
        """Whether it is active: started and not dead."""

    @staticmethod
    def getcurrent() -> greenlet:
        """The same as ``greenlet.getcurrent()``."""

    @staticmethod
    def settrace(
        callback: _TraceCallback | None, /, *, all_threads: bool = False
    ) -> _TraceCallback | None:
        """The same as ``greenlet.settrace()``."""

    @staticmethod
    def gettrace() -> _TraceCallback | None:
        """The same as ``greenlet.gettrace()``."""

def get_include() -> str:
    """Return the folder for a compiler's ``-I``, in which ``<greenlet/greenlet.h>`` is.

    For the build of an extension module that uses the C API: put it into the ``include_dirs`` of a
    ``setuptools.Extension``. The header comes from this installation, and it is the same for every
    version of CPython. ``python -m greenlet --includes`` prints the compiler's option.

    The published greenlet (3.5 at least) does not have this function.
    """

def getcurrent() -> greenlet:
    """Return the running greenlet of this thread. At first that is its main greenlet.

    ``RuntimeError`` while the interpreter finalizes.
    """

def settrace(
    callback: _TraceCallback | None, /, *, all_threads: bool = False
) -> _TraceCallback | None:
    """Set the trace callback of this thread, and return the one that was set before, or None.

    None removes it. With ``all_threads`` it is the callback of all threads of the interpreter that
    have none of their own, from their next switch on, and of threads that use greenlets later.

    After each switch it is called in the target: ``callback(event, (origin, target))``. The event
    is ``"switch"``, or ``"throw"`` if an exception was thrown. If the callback raises, it is
    removed (for that thread), and the exception is raised in the target.
    """

def gettrace() -> _TraceCallback | None:
    """Return the trace callback of this thread, or None."""

def enable_optional_cleanup(enabled: bool, /) -> None:
    """Kept for compatibility: sets what ``get_clocks_used_doing_optional_cleanup()`` returns."""

def get_clocks_used_doing_optional_cleanup() -> int | None:
    """Kept for compatibility: return 0, or None after ``enable_optional_cleanup(False)``."""
