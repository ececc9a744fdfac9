"""What stacks reserve, and what happens under limits: little address space, locked memory.

Each test runs in a child process, because a process cannot take a limit back.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from greenlet import _greenlet
from helpers import (
    ADDRESS_SANITIZER,
    DEBUG_BUILD,
    FREE_THREADED,
    IN_USUAL,
    THREAD_SANITIZER,
    run_clean,
)

# --- what is reserved -----------------------------------------------------------------------------

ADDRESS_SPACE = """
import gc, os, resource
from child import address_space, resident
from greenlet import getcurrent, greenlet, stacks

def suspended(count):
    main = getcurrent()
    family = [greenlet(main.switch) for _ in range(count)]
    for g in family:
        g.switch()
    return family
"""


@pytest.mark.parametrize(("count", "mebibytes"), [(1, 50), (4, 90), (16, 350)])
def test_a_handful_of_greenlets_reserves_tens_of_mebibytes(count: int, mebibytes: int) -> None:
    script = """
suspended(0)
before = address_space()
family = suspended({count})
print((address_space() - before) >> 20)
"""
    assert int(run_clean(ADDRESS_SPACE + script.format(count=count))) <= mebibytes


def test_reservations_pass_by_whoever_counts_calls_of_mmap() -> None:
    # Memory profilers replace imported functions. They cannot replace what is not imported.
    path = _greenlet.__file__
    assert path is not None
    if ADDRESS_SANITIZER or THREAD_SANITIZER:
        pytest.skip("the sanitizer has to see the mappings")
    symbols = Path(path).read_bytes().split(b"\0")
    assert b"syscall" in symbols
    for name in (b"mmap", b"mmap64", b"munmap", b"mremap", b"madvise", b"prctl"):
        assert name not in symbols


# --- short of memory ------------------------------------------------------------------------------

# Sets a limit some MiB above what is in use; then starts as many greenlets as fit.
SHORT_OF_MEMORY = """
from child import set_limit
from greenlet import getcurrent, greenlet

main = getcurrent()
set_limit(%(resource)r, %(mebibytes)d)

family = []
message = None
try:
    while len(family) < 100_000:
        g = greenlet(main.switch)
        g.switch()
        family.append(g)
except MemoryError as error:
    message = str(error)
"""
LIMITS = ["RLIMIT_AS", "RLIMIT_DATA"]


def short_of_memory(mebibytes: int, limit: str = "RLIMIT_AS") -> str:
    return SHORT_OF_MEMORY % {"mebibytes": mebibytes, "resource": limit}


@pytest.mark.parametrize("limit", LIMITS)
def test_no_memory_for_a_stack_is_memory_error_and_the_program_goes_on(limit: str) -> None:
    run_clean(
        short_of_memory(512, limit)
        + """
# The greenlet that failed has not started, the others live, and freed stacks serve again.
assert message is not None
assert not g and not g.dead
del family[:10]
assert g.switch() == ()
assert all(family)
for g in family:
    g.switch("end")
assert all(g.dead for g in family)
assert greenlet(lambda: "goes on").switch() == "goes on"
"""
    )


@pytest.mark.parametrize("limit", LIMITS)
def test_the_memory_error_names_the_limit(limit: str) -> None:
    message = run_clean(short_of_memory(400, limit) + "print(message)")
    assert [name for name in LIMITS if name in message] == [limit]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_thousand_greenlets_fit_into_little_and_leave_some_to_others(limit: str) -> None:
    count = run_clean(
        short_of_memory(400, limit)
        + """
others = bytearray(20 << 20)
print(len(family))
"""
    )
    assert int(count) >= 1_000


@pytest.mark.parametrize("limit", LIMITS)
def test_the_first_greenlets_under_a_limit_have_large_stacks(limit: str) -> None:
    run_clean(
        f"""
        import sys
        from child import set_limit
        from greenlet import greenlet

        sys.setrecursionlimit(100_000)

        def deep(level):
            return 0 if level == 0 else next(map(deep, [level - 1])) + 1

        set_limit({limit!r}, 400)
        assert greenlet(deep).switch({IN_USUAL}) == {IN_USUAL}
        """
    )


@pytest.mark.parametrize("limit", LIMITS)
def test_stacks_that_other_threads_keep_are_given_back_before_a_memory_error(limit: str) -> None:
    run_clean(
        f"""
        import threading
        from child import set_limit
        from greenlet import getcurrent, greenlet

        def suspended(count):
            main = getcurrent()
            family = [greenlet(main.switch) for _ in range(count)]
            for g in family:
                g.switch()
            return family

        def body():
            for g in suspended(200):  # their stacks stay in the pool of this thread
                g.switch()
            pooled.set()
            done.wait()
            for g in suspended(10):
                g.switch()

        set_limit({limit!r}, 800)
        threading.stack_size(1 << 20)
        done = threading.Event()
        for _ in range(6):
            pooled = threading.Event()
            threading.Thread(target=body, daemon=True).start()
            pooled.wait()
        family = suspended(2_000)
        for g in family:
            g.switch()
        family.clear()
        done.set()
        """,
        env={"MALLOC_ARENA_MAX": "1"},  # without it each thread reserves 64 MiB for malloc()
    )


def test_short_of_address_space_smaller_stacks_serve() -> None:
    # No stack of the default size fits, so each greenlet that started has a smaller one.
    set_size = "from greenlet import stacks; stacks.set_default_size(1 << 30)\n"
    count = int(run_clean(set_size + short_of_memory(512) + "print(len(family))"))
    assert count >= 1


def test_no_memory_while_greenlets_nest_is_memory_error_in_each_caller() -> None:
    run_clean(
        """
        from child import set_limit
        from greenlet import getcurrent, greenlet

        set_limit("RLIMIT_AS", 256)
        depth = 0

        def run():
            global depth
            depth += 1
            greenlet(run).switch()

        try:
            greenlet(run).switch()
        except (MemoryError, RecursionError):
            pass
        else:
            raise AssertionError("neither bound held")
        assert depth > 5
        assert greenlet(lambda: "goes on").switch() == "goes on"
        """
    )


# --- memory that is locked ------------------------------------------------------------------------

LOCKED = (
    ADDRESS_SPACE
    + """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
CURRENT, FUTURE, ONFAULT = 1, 2, 4

def lock(flags):
    if libc.mlockall(flags) != 0:
        print("refused")  # RLIMIT_MEMLOCK: a process without privileges may lock only little
        sys.exit()
"""
)
# Their allocator, mimalloc, cannot give back locked memory, and takes that for its own fault.
survives_mlockall = pytest.mark.skipif(
    FREE_THREADED and DEBUG_BUILD, reason="CPython's allocator ends the process after mlockall()"
)


@survives_mlockall
@pytest.mark.parametrize("flags", ["FUTURE", "CURRENT | FUTURE", "CURRENT | FUTURE | ONFAULT"])
def test_reservations_use_no_memory_after_mlockall(flags: str) -> None:
    run_clean(
        LOCKED
        + f"""
lock({flags})
before = resident()
family = suspended(100)
grown = resident() - before
assert grown < 4 << 20, grown

def deep(level):
    return 0 if level == 0 else next(map(deep, [level - 1])) + 1

assert greenlet(deep).switch(300) == 300
for g in family:
    g.switch()
family.clear()
# Locked memory of stacks that no greenlet uses can be given back.
stacks.set_pool_bound(0)
before = stacks.resident_bytes()
for g in suspended(1000):
    g.switch()
assert stacks.resident_bytes() - before < 1 << 20
"""
    )


@survives_mlockall
@pytest.mark.parametrize("flags", ["CURRENT", "CURRENT | FUTURE", "CURRENT | ONFAULT"])
def test_mlockall_does_not_fill_existing_stacks(flags: str) -> None:
    # The kernel fills what it locks, up to the next guard.
    run_clean(
        LOCKED
        + f"""
family = suspended(100)
before = stacks.resident_bytes()
lock({flags})
family += suspended(100)
grown = stacks.resident_bytes() - before
assert grown < 4 << 20, grown
for g in family:
    g.switch()
"""
    )


def test_a_limit_on_locked_memory_does_not_bound_reservations() -> None:
    run_clean(
        LOCKED
        + """
if os.geteuid() == 0:
    os.setuid(65534)
limit = 4 << 20, 4 << 20
resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
assert libc.mlockall(FUTURE) == 0
before = resident()
family = suspended(100)
assert resident() - before < 4 << 20
for g in family:
    g.switch()
"""
    )
