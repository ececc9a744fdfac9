"""Greenlets: lightweight cooperative tasks, each on a call stack of its own.

A greenlet runs until it calls ``switch()`` on another one and goes on from there when somebody
switches back to it. ``greenlet.stacks`` has the settings of the stacks they run on.
"""

from ._greenlet import (
    _C_API,
    GreenletExit,
    __version__,
    error,
    getcurrent,
    gettrace,
    greenlet,
    settrace,
)

# Reachable, but no part of what ``from greenlet import *`` gives.
from ._greenlet import CLOCKS_PER_SEC as CLOCKS_PER_SEC
from ._greenlet import GREENLET_USE_CONTEXT_VARS as GREENLET_USE_CONTEXT_VARS
from ._greenlet import GREENLET_USE_GC as GREENLET_USE_GC
from ._greenlet import GREENLET_USE_TRACING as GREENLET_USE_TRACING
from ._greenlet import enable_optional_cleanup as enable_optional_cleanup
from ._greenlet import (
    get_clocks_used_doing_optional_cleanup as get_clocks_used_doing_optional_cleanup,
)

__all__ = [  # noqa: RUF022 (in the order programs have always found)
    "__version__",
    "_C_API",
    "GreenletExit",
    "error",
    "getcurrent",
    "greenlet",
    "gettrace",
    "settrace",
]
