from collections.abc import Callable
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final, Literal, TypeAlias, final, overload

from . import stacks as stacks

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

__version__: Final[str]
_C_API: Final[_Capsule]
"""The capsule ``greenlet._C_API``: the table of the C API (``greenlet/greenlet.h``)."""

GREENLET_USE_GC: Final[int]
"""Always 1: suspended greenlets take part in garbage collection."""
GREENLET_USE_TRACING: Final[int]
"""Always 1: ``settrace`` works."""
GREENLET_USE_CONTEXT_VARS: Final[int]
"""Always 1: every greenlet has a ``contextvars`` context of its own."""
CLOCKS_PER_SEC: Final[int]
"""The unit of ``get_clocks_used_doing_optional_cleanup()``."""

class GreenletExit(BaseException):
    """Ends the greenlet it is raised in, quietly: its parent gets it as a value."""

class error(Exception):  # noqa: N801
    """A switch that cannot be: to another thread's greenlet, for instance."""

class greenlet:  # noqa: N801
    """A task with a call stack of its own, which runs when somebody switches to it.

    ``greenlet(run=None, parent=None)``: the first switch calls ``run`` with that switch's
    arguments; when it ends, its parent goes on. The parent is the running greenlet unless given.
    """

    GreenletExit: ClassVar[type[GreenletExit]]
    error: ClassVar[type[error]]

    run: Callable[..., Any]
    """What the first switch calls. Gone from the start on; it can be set or deleted until then."""

    def __init__(
        self, run: Callable[..., Any] | None = None, parent: greenlet | None = None
    ) -> None: ...
    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Run this greenlet, and return what the next switch back to the caller brings.

        No argument arrives as ``()``, one positional argument as itself, several as a tuple,
        keywords alone as a dict, and both as ``(args, kwargs)``. A greenlet that has not started
        gets them as the arguments of ``run``. The nearest living ancestor of a dead one gets them.
        """

    @overload
    def throw(
        self,
        typ: type[BaseException] = ...,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """Raise an exception (``GreenletExit`` unless given) where this greenlet waits.

        Otherwise like ``switch``. One that has not started dies of it, and its parent gets it.
        """

    @overload
    def throw(self, typ: BaseException, val: None = None, tb: TracebackType | None = None) -> Any:
        """Raise this exception where this greenlet waits."""

    @property
    def parent(self) -> greenlet | None:
        """Who goes on when this greenlet ends; ``None`` for a main greenlet only."""

    @parent.setter
    def parent(self, parent: greenlet) -> None: ...
    @property
    def dead(self) -> bool:
        """Whether it has ended, or its thread has."""

    @property
    def gr_frame(self) -> FrameType | None:
        """The innermost frame if suspended, else ``None``."""

    @property
    def gr_context(self) -> Context | None:
        """The ``contextvars`` context it runs in; ``None`` for an empty one not made yet."""

    @gr_context.setter
    def gr_context(self, context: Context | None) -> None: ...
    @property
    def _stack_saved(self) -> int:
        """Bytes of its C stack in use while it is suspended, else 0."""

    def __bool__(self) -> bool:
        """Whether it is active: started and not dead."""

    @staticmethod
    def getcurrent() -> greenlet:
        """Return the running greenlet of this thread."""

    @staticmethod
    def settrace(callback: _TraceCallback | None, /) -> _TraceCallback | None:
        """Set this thread's trace callback and return the previous one."""

    @staticmethod
    def gettrace() -> _TraceCallback | None:
        """Return this thread's trace callback."""

def getcurrent() -> greenlet:
    """Return the running greenlet of this thread: its main greenlet outside of any other."""

def settrace(callback: _TraceCallback | None, /) -> _TraceCallback | None:
    """Set this thread's trace callback (``None``: none) and return the previous one.

    After each switch it is called in the target with ``"switch"`` or ``"throw"`` and the pair
    ``(origin, target)``. If it raises, tracing is turned off and the target gets the exception.
    """

def gettrace() -> _TraceCallback | None:
    """Return this thread's trace callback, or ``None``."""

def enable_optional_cleanup(enabled: bool, /) -> None:
    """Kept for compatibility: whether ``get_clocks_used_doing_optional_cleanup`` counts."""

def get_clocks_used_doing_optional_cleanup() -> int | None:
    """Kept for compatibility: an int, or ``None`` after ``enable_optional_cleanup(False)``."""
