"""The stacks greenlets run on: settings of the whole process, and statistics.

Every greenlet runs on a stack region of its own. A region reserves address space; memory is used
only for the pages that calls have touched. The region of a greenlet that ended is kept in a pool
of its thread and given to the next one that starts there.

Memory follows use. A greenlet that went deep and has been waiting for a second or longer keeps only
the pages that it is in the middle of; its thread sees to that now and then, when one of its
greenlets starts, ends or goes on. Pools keep a few MiB in all.
"""

from typing import NamedTuple

from . import _greenlet

__all__ = [
    "StackStatistics",
    "get_default_size",
    "get_pool_bound",
    "resident_bytes",
    "set_default_size",
    "set_pool_bound",
    "statistics",
    "trim",
]


class StackStatistics(NamedTuple):
    """How many stack regions there are."""

    reserved: int
    """Regions mapped: those in use and those pooled."""
    in_use: int
    """Regions that belong to a greenlet which has started and not ended."""
    pooled: int
    """Regions kept for reuse."""


def get_default_size() -> int:
    """Return the least bytes of C stack that a greenlet which starts now gets. At first 8 MiB."""
    return _greenlet._stack_default_size()


def set_default_size(size: int) -> int:
    """Set the bytes of C stack for greenlets that start from now on; return the previous value.

    The size is rounded up to whole pages. It is address space, not memory. A stack may be larger,
    by about a quarter, or smaller where address space is short. A size out of range raises
    ``ValueError``.
    """
    previous = _greenlet._stack_default_size()
    _greenlet._set_stack_default_size(size)
    return previous


def get_pool_bound() -> int:
    """Return how many regions each thread keeps for reuse at most; memory may allow fewer."""
    return _greenlet._stack_pool_bound()


def set_pool_bound(bound: int) -> int:
    """Set how many regions each thread keeps for reuse at most; return the previous value.

    A negative number raises ``ValueError``.
    """
    previous = _greenlet._stack_pool_bound()
    _greenlet._set_stack_pool_bound(bound)
    return previous


def statistics() -> StackStatistics:
    """Count the regions of this process. Fast: adds up what each thread has counted."""
    return StackStatistics(*_greenlet._stack_statistics())


def resident_bytes() -> int:
    """Return the bytes of all regions that are backed by memory.

    Slow: asks the kernel about every page of every region. About right while other threads run;
    zero where there is no memory to find out.
    """
    return _greenlet._stack_resident_bytes()


def trim() -> int:
    """Give back at once what the stacks do not need, and return how many bytes of memory that were.

    These are the unused pages of the calling thread's suspended greenlets, however short they have
    been waiting, and its pool. Regions that no thread has are unmapped.
    """
    return _greenlet._trim_stacks()
