"""Greenlets: lightweight cooperative tasks, each on a call stack of its own.

A greenlet runs until it calls ``switch()`` on another one and goes on from there when somebody
switches back to it. ``greenlet.stacks`` has the settings of the stacks they run on.
"""

from ._greenlet import (
    _C_API,
    CLOCKS_PER_SEC,
    GREENLET_USE_CONTEXT_VARS,
    GREENLET_USE_GC,
    GREENLET_USE_TRACING,
    GreenletExit,
    __version__,
    enable_optional_cleanup,
    error,
    get_clocks_used_doing_optional_cleanup,
    getcurrent,
    gettrace,
    greenlet,
    settrace,
)

__all__ = [
    "CLOCKS_PER_SEC",
    "GREENLET_USE_CONTEXT_VARS",
    "GREENLET_USE_GC",
    "GREENLET_USE_TRACING",
    "_C_API",
    "GreenletExit",
    "__version__",
    "enable_optional_cleanup",
    "error",
    "get_clocks_used_doing_optional_cleanup",
    "getcurrent",
    "gettrace",
    "greenlet",
    "settrace",
]
