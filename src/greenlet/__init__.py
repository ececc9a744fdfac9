"""Greenlets: lightweight cooperative tasks, each on a call stack of its own.

A greenlet runs until it calls ``switch()`` on another one. It goes on from there when a greenlet
switches back to it. ``greenlet.stacks`` has the settings of the stacks,
``greenlet.inspect`` shows which greenlets there are and where they wait.

``__version__`` is the version of the interface, with numbers and dots only.
``__implementation__`` is ``"own-stacks"`` here; the published greenlet does not have it.
"""

# As they are now: gevent and eventlet replace these functions by some that make and wait for
# greenlets, and they import greenlet before. What needs a thread of the system takes them here.
from _thread import (
    allocate_lock as _allocate_lock,  # noqa: F401
    get_ident as _get_ident,  # noqa: F401
    start_new_thread as _start_new_thread,  # noqa: F401
)

from . import _greenlet

# Names `X as X` are public, but ``from greenlet import *`` does not import them.
from ._greenlet import (
    _C_API,
    CLOCKS_PER_SEC as CLOCKS_PER_SEC,
    GREENLET_USE_CONTEXT_VARS as GREENLET_USE_CONTEXT_VARS,
    GREENLET_USE_GC as GREENLET_USE_GC,
    GREENLET_USE_STANDARD_THREADING as GREENLET_USE_STANDARD_THREADING,
    GREENLET_USE_TRACING as GREENLET_USE_TRACING,
    GreenletExit,
    __version__,
    enable_optional_cleanup as enable_optional_cleanup,
    error,
    get_clocks_used_doing_optional_cleanup as get_clocks_used_doing_optional_cleanup,
    getcurrent,
    gettrace,
    greenlet,
    settrace,
)

# Which greenlet this is. In the distribution's version it is the label: 3.7.0+ownstacks.
__implementation__ = "own-stacks"

# What `from greenlet import *` has always imported.
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


def get_include() -> str:
    """Return the folder for a compiler's ``-I``, in which ``<greenlet/greenlet.h>`` is.

    For the build of an extension module that uses the C API: put it into the ``include_dirs`` of a
    ``setuptools.Extension``. The header comes from this installation, and it is the same for every
    version of CPython. ``python -m greenlet --includes`` prints the compiler's option.

    The published greenlet (3.5 at least) does not have this function.
    """
    from os.path import dirname, join

    return join(dirname(_greenlet.__file__), "include")


# These are imported at their first use: they import modules that take longer than all of this
# package.
_AT_FIRST_USE = ("inspect", "stacks")


def __getattr__(name: str) -> object:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_AT_FIRST_USE})
