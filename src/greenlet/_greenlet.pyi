"""The extension module. Import its public names from ``greenlet``."""

from . import (
    _C_API as _C_API,
    CLOCKS_PER_SEC as CLOCKS_PER_SEC,
    GREENLET_USE_CONTEXT_VARS as GREENLET_USE_CONTEXT_VARS,
    GREENLET_USE_GC as GREENLET_USE_GC,
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
    """Return how many greenlets are queued for another thread to finish."""

def get_total_main_greenlets() -> int:
    """Return how many threads have a main greenlet."""

# What greenlet.stacks wraps; see there. The setters raise ValueError when out of range.
def _stack_default_size() -> int: ...
def _set_stack_default_size(size: int, /) -> None: ...
def _stack_pool_bound() -> int: ...
def _set_stack_pool_bound(bound: int, /) -> None: ...
def _stack_statistics() -> tuple[int, int, int]: ...
def _stack_resident_bytes() -> int: ...
def _trim_stacks() -> int: ...
