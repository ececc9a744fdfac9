"""A frozen stack lies on the heap. Nothing that a program can see tells so, except for its memory.

The mode GREENLET_TEST_FREEZING freezes each stack as soon as it is left, so there every test of the
suite is one of these. Most of these freeze with stacks.freeze(), in child processes: not every
kernel gives the memory back, and without that nothing is frozen. There only the modes are tested.
"""

from __future__ import annotations

import _bisect
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import greenlet as greenlet_package
import pytest
from greenlet import greenlet, stacks
from helpers import (
    ADDRESS_SANITIZER,
    FREE_THREADED,
    THREAD_SANITIZER,
    TIME_SCALE,
    in_thread,
    run_clean,
    since,
    stacks_stay_in_place,
    to_parent,
)

pytestmark = [
    stacks_stay_in_place,
    pytest.mark.skipif(
        ADDRESS_SANITIZER or THREAD_SANITIZER,
        reason="builds with a sanitizer freeze nothing: it keeps notes about stacks",
    ),
]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ValueError) for name in ("", "a\0b", "a..b", "a/b", ".a", "_a-b", "\udc80")),
        (5, TypeError),
    ],
)
def test_what_is_no_name_is_not_allowed(name: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        stacks.allow_freezing(name)  # type: ignore[arg-type]


def can_freeze() -> bool:
    g = greenlet(to_parent)
    g.switch()
    frozen = stacks.freeze()
    g.switch()
    return frozen > 0


gives_back = pytest.mark.skipif(
    not in_thread(can_freeze), reason="this kernel does not give page tables back (Linux 6.14)"
)

COMMON = """
import contextvars, gc, os, sys, threading, time, traceback, weakref
from greenlet import GreenletExit, getcurrent, greenlet, stacks

main = getcurrent()

def wait(*values):
    return getcurrent().parent.switch(*values)

def freeze(expected):
    found = stacks.freeze()
    assert found == expected, (found, expected)
    return found

def page_tables():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmPTE:"))
"""


@gives_back
def test_a_frozen_greenlet_goes_on_where_it_waited() -> None:
    run_clean(
        COMMON
        + """
def deep(depth, kept):
    if depth:
        return [kept, deep(depth - 1, [kept])]
    return wait(kept)

family = [greenlet(deep) for _ in range(100)]
first = [g.switch(10, index) for index, g in enumerate(family)]
freeze(100)
assert stacks.statistics().frozen == 100
for turn in range(3):
    assert freeze(0) == 0
    for index, g in enumerate(family[:50]):
        result = g.switch("brought")
        for _ in range(10):
            kept, result = result
        assert result == "brought" and g.dead
    family = family[50:] + [greenlet(deep) for _ in range(50)]
    for index, g in enumerate(family[50:]):
        g.switch(10, index)
    stacks.freeze()
"""
    )


@gives_back
def test_what_is_not_suspended_is_not_frozen() -> None:
    run_clean(
        COMMON
        + """
new = greenlet(wait)
dead = greenlet(int)
dead.switch()
def run():
    freeze(0)
    return wait()
g = greenlet(run)
g.switch()
freeze(1)
freeze(0)
assert stacks.statistics().frozen == 1
assert [new.switch(), new.switch(5), g.switch(3)] == [(), 5, 3]
"""
    )


@gives_back
def test_frames_of_a_frozen_greenlet_are_seen_and_changed() -> None:
    run_clean(
        COMMON
        + """
def inner(x):
    y = [x]
    wait()
    return x, y

def outer():
    z = "z"
    return inner(1), z

g = greenlet(outer)
g.switch()
early = g.gr_frame
names = [f.f_code.co_name for f, _ in traceback.walk_stack(early)]
lines = [n for _, n in traceback.walk_stack(early)]
del early
gc.collect()
freeze(1)
frame = g.gr_frame
assert names[-3:] == ["wait", "inner", "outer"] or names[:3] == ["wait", "inner", "outer"]
assert [f.f_code.co_name for f, _ in traceback.walk_stack(frame)] == names
assert [n for _, n in traceback.walk_stack(frame)] == lines
assert frame.f_back.f_locals["y"] == [1]
frame.f_back.f_locals["y"].append(2)
late = frame.f_back
result = g.switch()
assert result == ((1, [1, 2]), "z"), result
assert late.f_locals["y"] == [1, 2] and late.f_back.f_locals["z"] == "z"
"""
    )


@gives_back
def test_frame_objects_that_were_made_before_follow_the_stack() -> None:
    run_clean(
        COMMON
        + f"""
def run(x):
    wait()
    return sys._getframe().f_locals["x"]

g = greenlet(run)
g.switch("x")
frame = g.gr_frame.f_back
# Without the GIL another thread might look at the frame at this moment.
freeze({0 if FREE_THREADED else 1})
assert frame.f_locals["x"] == "x" and frame.f_back is None
assert g.switch() == "x"
assert frame.f_locals["x"] == "x"
"""
    )


@gives_back
def test_a_generator_under_way_in_a_frozen_greenlet_is_frozen_with_it() -> None:
    run_clean(
        COMMON
        + f"""
def generate():
    yield wait()
    yield "second"

def run():
    return [*generate()]

g = greenlet(run)
g.switch()
freeze({0 if FREE_THREADED else 1})
gc.collect()
assert [f.f_code.co_name for f, _ in traceback.walk_stack(g.gr_frame)] == [
    "wait", "generate", "run"]
assert g.switch("first") == ["first", "second"]
"""
    )


@gives_back
def test_exceptions_and_context_variables_are_kept() -> None:
    # Tracebacks have the frames, which another thread may see without the GIL.
    run_clean(
        COMMON
        + f"expected = {0 if FREE_THREADED else 1}"
        + """
variable = contextvars.ContextVar("variable", default=0)
def run(value):
    variable.set(value)
    try:
        raise ValueError(value)
    except ValueError:
        wait()
        try:
            raise KeyError
        except KeyError as error:
            return variable.get(), error.__context__.args
g = greenlet(run)
g.switch(7)
freeze(expected)
assert g.gr_context[variable] == 7
assert g.switch() == (7, (7,))
thrown = greenlet(run)
thrown.switch(8)
freeze(expected)
try:
    thrown.throw(OSError("thrown"))
except OSError as error:
    assert str(error) == "thrown" and thrown.dead
else:
    raise AssertionError
"""
    )


@gives_back
def test_the_collector_sees_what_a_frozen_greenlet_refers_to() -> None:
    run_clean(
        COMMON
        + """
class Kept: pass
ended = []
def run(kept, cycle):
    try:
        wait()
    finally:
        ended.append(1)

def suspended(cycle):
    kept = Kept()
    g = greenlet(run)
    g.switch(kept, g if cycle else None)
    return g, weakref.ref(kept)

g, kept = suspended(False)
lost, of_lost = suspended(True)
freeze(2)
for _ in range(3):
    gc.collect()
assert kept() is not None and of_lost() is not None and not ended
del lost
for _ in range(3):
    gc.collect()
assert of_lost() is None and len(ended) == 1
del g
gc.collect()
assert kept() is None and len(ended) == 2
assert stacks.statistics().frozen == 0
"""
    )


@gives_back
def test_the_end_of_a_thread_kills_its_frozen_greenlets() -> None:
    run_clean(
        COMMON
        + """
ended = []
def run():
    try:
        wait()
    finally:
        ended.append(getcurrent())
def in_thread():
    mine.extend(greenlet(run) for _ in range(10))
    for g in mine:
        g.switch()
    freeze(10)
mine = []
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
assert len(ended) == 10 and all(g.dead for g in mine) and stacks.statistics().frozen == 0
"""
    )


@gives_back
def test_another_thread_sees_the_frames_of_a_frozen_greenlet() -> None:
    run_clean(
        COMMON
        + """
ready, seen = threading.Event(), threading.Event()
def in_thread():
    def run(value):
        wait()
        return value
    made.append(greenlet(run))
    made[0].switch("value")
    freeze(1)
    ready.set()
    seen.wait()
    results.append(made[0].switch())
made, results = [], []
thread = threading.Thread(target=in_thread)
thread.start()
ready.wait()
frame = made[0].gr_frame.f_back
assert frame.f_locals["value"] == "value"
seen.set()
thread.join()
assert results == ["value"] and frame.f_locals["value"] == "value"
"""
    )


@gives_back
@pytest.mark.skipif(not FREE_THREADED, reason="with a GIL no other thread runs during a thaw")
def test_what_another_thread_writes_into_a_frame_during_a_thaw_is_not_lost() -> None:
    run_clean(
        COMMON
        + """
import random, threading

def body(value):
    while True:
        getcurrent().parent.switch()

chance = random.Random(1)
delays = [chance.randrange(300) for _ in range(400)]
found = thawed = False
lost = []
frozen = 0

def write(g):
    global found
    local_variables = g.gr_frame.f_locals
    found = True
    number = 0
    while not thawed or number < 100:
        number += 1
        local_variables["value"] = [number]
        if local_variables["value"] != [number]:
            lost.append(number)

for round in range(400):
    g = greenlet(body)
    g.switch([0])
    frozen += stacks.freeze()
    found = thawed = False
    writer = threading.Thread(target=write, args=(g,))
    writer.start()
    while not found:  # without a wait, so that both threads run when the stack moves
        pass
    for _ in range(delays[round]):
        pass
    g.switch()
    thawed = True
    writer.join()
    assert not lost
    del g, writer
assert frozen
"""
    )


@gives_back
def test_a_child_process_thaws_what_its_parent_has_frozen() -> None:
    run_clean(
        COMMON
        + """
import warnings
warnings.simplefilter("ignore")
family = [greenlet(lambda index: (wait(), index)) for _ in range(50)]
for index, g in enumerate(family):
    g.switch(index)
freeze(50)
child = os.fork()
if child == 0:
    fine = all(g.switch("x") == ("x", index) for index, g in enumerate(family))
    os._exit(0 if fine else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert all(g.switch("x") == ("x", index) for index, g in enumerate(family))
"""
    )


@gives_back
def test_a_greenlet_that_waits_for_one_that_it_kills_is_not_frozen() -> None:
    run_clean(
        COMMON
        + f"""
def stubborn():
    try:
        wait()
    except GreenletExit:
        main.switch("caught")
def killer():
    g = greenlet(stubborn)
    g.switch()
    del g  # waits here
    return "killed"
k = greenlet(killer)
assert k.switch() == "caught"
# This freezes the greenlet that is killed; not on free-threaded builds, where its traceback lets
# other threads see its frames.
freeze({0 if FREE_THREADED else 1})
"""
    )


@gives_back
def test_what_is_under_way_in_a_collection_is_not_frozen() -> None:
    run_clean(
        COMMON
        + """
class Switches:
    def __del__(self):
        found.append(main.switch("in a collection"))
def run():
    lost = Switches()
    lost.itself = lost
    del lost
    gc.collect()
    return "collected"
gc.disable()
found = []
g = greenlet(run)
assert g.switch() == "in a collection"
freeze(0)
assert g.switch(5) == "collected" and found == [5]
"""
    )


@gives_back
@pytest.mark.skipif(not hasattr(_bisect, "__file__"), reason="_bisect is in the interpreter's file")
def test_a_module_is_allowed_by_its_whole_name() -> None:
    run_clean(
        COMMON
        + """
import bisect
g = greenlet(lambda: bisect.bisect([1, 2, 3], 2, key=lambda value: wait() or value))
g.switch()
freeze(0)
for name in "_bis", "isect", "bisect":
    stacks.allow_freezing(name)
    freeze(0)
stacks.allow_freezing("_bisect")
freeze(1)
while g:
    result = g.switch()
assert result == 2
"""
    )


@gives_back
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_ENABLE_SHARED")), reason="the interpreter is a library"
)
def test_a_program_that_has_the_interpreter_inside_freezes_nothing(tmp_path: Path) -> None:
    program = tmp_path / "embedding"
    shutil.copy(Path(sys.executable).resolve(), program)
    paths = [sysconfig.get_path("purelib"), str(Path(greenlet_package.__file__).parent.parent)]
    code = """if True:
        from greenlet import getcurrent, greenlet, stacks
        g = greenlet(lambda: getcurrent().parent.switch())
        g.switch()
        stacks.set_freezing(True)
        assert stacks.freeze() == 0 and not stacks.is_freezing_on()
    """
    environment = {
        **os.environ,
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    subprocess.run([program, "-c", code], check=True, timeout=60 * TIME_SCALE, env=environment)


@gives_back
def test_a_stack_with_code_of_select_is_frozen() -> None:
    run_clean(
        COMMON
        + """
import select
class Waits:
    def fileno(self):
        return wait()
polled = select.poll()
g = greenlet(lambda: polled.register(Waits(), select.POLLIN))
g.switch()
freeze(1)
ours, theirs = os.pipe()
os.write(theirs, b"x")
g.switch(ours)
assert polled.poll() == [(ours, select.POLLIN)]
"""
    )


@gives_back
def test_a_stack_with_code_of_other_libraries_is_not_frozen() -> None:
    run_clean(
        COMMON
        + """
import ctypes
Function = ctypes.CFUNCTYPE(ctypes.py_object)
callback = Function(lambda: wait())
g = greenlet(lambda: callback())
g.switch()
plain = greenlet(wait)
plain.switch()
freeze(1)
assert g.switch("brought") == "brought"
"""
    )


@gives_back
@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.maxsize < 1 << 32,
    reason="has the system calls of x86-64",
)
def test_if_the_system_refuses_the_guard_the_greenlet_stays_frozen() -> None:
    run_clean(
        COMMON
        + """
import ctypes, struct
def refuse(*numbers):
    # A filter of system calls (seccomp): these fail with EPERM.
    count = len(numbers)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # the number
    for index, number in enumerate(numbers):
        code.append(struct.pack("HBBI", 0x15, count - index, 0, number))  # if it is this one
    code += [struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), struct.pack("HBBI", 6, 0, 0, 0x00050001)]
    buffer = ctypes.create_string_buffer(b"".join(code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0, ctypes.get_errno()

MADVISE, MPROTECT, PROCESS_MADVISE = 28, 10, 440
family = [greenlet(wait) for _ in range(20)]
for g in family:
    g.switch(1)
child = greenlet(main.switch, family[3])
freeze(20)
child.switch()
refuse(MADVISE, MPROTECT, PROCESS_MADVISE)
# The first stack of each mapping has kept its guard.
refused = 0
for g in [*family] * 3:
    if g.dead:
        continue
    try:
        g.switch(2)
    except MemoryError as error:
        assert "guard" in str(error), error
        assert g.gr_frame.f_code.co_name == "wait" and not g.dead
        refused += 1
assert refused == 3 * stacks.statistics().frozen >= 3 * 10
# The child ends, and its parent cannot go on: the error goes to the parent of that.
try:
    child.switch()
except MemoryError:
    assert child.dead
else:
    raise AssertionError
sys.stderr = open(os.devnull, "w")
os._exit(0)
"""
    )


@gives_back
def test_freezing_works_again_when_files_can_be_opened_again() -> None:
    """To find out what the kernel can do, and which code is on a stack, takes a file descriptor."""
    run_clean(
        COMMON
        + """
import resource, time

greenlets = [greenlet(wait) for _ in range(5)]
for g in greenlets:
    g.switch()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
freeze(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
time.sleep(0.3)
freeze(5)
for g in greenlets:
    g.switch()
"""
    )


def test_modules_are_allowed_by_their_names() -> None:
    stacks.allow_freezing("greenlet._no_such_module")
    with pytest.raises(TypeError):
        stacks.allow_freezing(5)  # type: ignore[arg-type]


def test_the_settings_can_be_read_and_changed() -> None:
    run_clean(
        COMMON
        + """
was_on = stacks.is_freezing_on()
stacks.set_freezing(False)
assert not stacks.is_freezing_on()
assert stacks.get_freezing_bound() == 1000 == stacks.set_freezing_bound(5)
assert stacks.get_freezing_bound() == 5
try:
    stacks.set_freezing_bound(-1)
except ValueError:
    pass
"""
    )


def test_freezing_is_on_by_default_where_the_kernel_can_and_the_environment_turns_it_off() -> None:
    source = "from greenlet import stacks; print(stacks.is_freezing_on())"
    shown = [run_clean(source, env={"GREENLET_FREEZING": value}) for value in ("0", "1", "yes")]
    assert shown == ["False", str(in_thread(can_freeze)), shown[1]]


@gives_back
@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="with 32 bits stacks share page tables")
def test_the_memory_of_frozen_stacks_is_given_back_with_their_page_tables() -> None:
    run_clean(
        COMMON
        + """
before = page_tables()
family = [greenlet(wait) for _ in range(2000)]
for g in family:
    g.switch()
used, resident = page_tables() - before, stacks.resident_bytes()
assert used > 2000 * 4000 and resident > 2000 * 4000
freeze(2000)
assert page_tables() - before < used / 10
assert stacks.resident_bytes() < resident / 20
assert [g.switch(5) for g in family] == [5] * 2000
"""
    )


@gives_back
def test_what_is_idle_is_frozen_if_there_is_more_than_the_bound() -> None:
    run_clean(
        COMMON
        + """
def others_until(condition):
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        g = greenlet(wait)
        g.switch()
        busy.switch()
        g.switch()
        time.sleep(0.01)
    assert condition(), stacks.statistics()

stacks.set_freezing_bound(50)
busy = greenlet(lambda: [main.switch() for _ in range(10**9)])
busy.switch()
few = [greenlet(wait) for _ in range(40)]
for g in few:
    g.switch()
begin = time.monotonic()
others_until(lambda: time.monotonic() > begin + 4)
assert stacks.statistics().frozen == 0
family = [greenlet(wait) for _ in range(60)]
for g in family:
    g.switch()
others_until(lambda: stacks.statistics().frozen == 100)
assert [g.switch(1) for g in family + few] == [1] * 100
"""
    )


@gives_back
def test_what_is_idle_is_frozen_where_the_same_few_switch_and_none_starts() -> None:
    run_clean(
        COMMON
        + """
stacks.set_freezing_bound(50)
def tick():
    while True:
        main.switch()
tickers = [greenlet(tick) for _ in range(10)]
family = [greenlet(wait) for _ in range(1000)]
for g in tickers + family:
    g.switch()
gc.disable()
end = time.monotonic() + 60
while stacks.statistics().frozen < 1000 and time.monotonic() < end:
    for g in tickers:
        g.switch()
    time.sleep(0.002)
assert stacks.statistics().frozen == 1000, stacks.statistics()
assert [g.switch(1) for g in family] == [1] * 1000
"""
    )


@gives_back
@pytest.mark.skipif(not hasattr(_bisect, "__file__"), reason="_bisect is in the interpreter's file")
def test_what_was_refused_is_frozen_after_its_module_is_allowed() -> None:
    run_clean(
        COMMON
        + """
import bisect
stacks.set_freezing_bound(50)
def ask():
    bisect.bisect([1, 2, 3], 2, key=lambda value: wait() or value)
busy = greenlet(lambda: [main.switch() for _ in range(10**9)])
busy.switch()
family = [greenlet(ask) for _ in range(100)]
others = [greenlet(wait) for _ in range(100)]
for g in family + others:
    g.switch()
def until_frozen(count):
    end = time.monotonic() + 60
    while stacks.statistics().frozen < count and time.monotonic() < end:
        busy.switch()
        time.sleep(0.001)
    assert stacks.statistics().frozen == count, stacks.statistics()
until_frozen(100)
end = time.monotonic() + 2
while time.monotonic() < end:
    busy.switch()
    time.sleep(0.001)
until_frozen(100)
stacks.allow_freezing("_bisect")
until_frozen(200)
"""
    )


@gives_back
@pytest.mark.parametrize("size", [256 << 10, 1 << 20, 2 << 20, 4 << 20, 6 << 20, 16 << 20])
def test_stacks_of_any_size_are_frozen(size: int) -> None:
    run_clean(
        COMMON
        + f"""
stacks.set_default_size({size})
family = [greenlet(wait) for _ in range(300)]
for g in family:
    g.switch()
before = stacks.resident_bytes()
freeze(300)
assert stacks.resident_bytes() < before / 4, (before, stacks.resident_bytes())
for g in family[::2]:
    assert g.switch(1) == 1
del family[::2]
freeze(0)
assert [g.switch(2) for g in family] == [2] * 150
"""
    )


@since("concurrent.interpreters")
@gives_back
def test_interpreters_that_run_at_once_freeze_stacks_of_the_same_mappings() -> None:
    run_clean(
        COMMON
        + '''
from child import Interpreter, run_threads
SOURCE = """
from greenlet import getcurrent, greenlet, stacks
main = getcurrent()
for turn in range(40):
    family = [greenlet(main.switch) for _ in range(30)]
    for g in family:
        g.switch()
    stacks.freeze()
    assert [g.switch(5) for g in family[::2]] == [5] * 15
    stacks.freeze()
    assert [g.switch(6) for g in family[1::2]] == [6] * 15
"""
interpreters = [Interpreter() for _ in range(4)]
run_threads(*(lambda each=each: each.run(SOURCE) for each in interpreters))
for each in interpreters:
    each.close()
''',
        timeout=60,
    )


@gives_back
def test_threads_freeze_and_thaw_stacks_of_the_same_mappings() -> None:
    run_clean(
        COMMON
        + """
from child import run_threads
def work():
    home = getcurrent()
    for turn in range(60):
        family = [greenlet(home.switch) for _ in range(30)]
        for g in family:
            g.switch()
        stacks.freeze()
        assert [g.switch(5) for g in family[::2]] == [5] * 15
        stacks.freeze()
        assert [g.switch(6) for g in family[1::2]] == [6] * 15
run_threads(*[work] * 4)
""",
        timeout=60,
    )


@gives_back
def test_mlockall_does_not_fill_the_address_space_of_frozen_stacks() -> None:
    run_clean(
        COMMON
        + """
import ctypes
family = [greenlet(wait) for _ in range(100)]
for g in family:
    g.switch(1)
freeze(100)
before = stacks.resident_bytes()
CURRENT = 1
if ctypes.CDLL(None).mlockall(CURRENT) == 0:  # otherwise it is not allowed here
    grown = stacks.resident_bytes() - before
    assert grown < 4 << 20, grown
assert [g.switch(2) for g in family] == [2] * 100
"""
    )


FILES = ("switch", "throw", "run", "death", "frames", "generators", "exceptions", "collection")


@pytest.mark.parametrize("mode", ["1", "drop"])
def test_a_part_of_the_suite_runs_with_every_suspended_stack_frozen(mode: str) -> None:
    folder = Path(__file__).parent
    files = [str(folder / f"test_{name}.py") for name in FILES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        env={**os.environ, "GREENLET_TEST_FREEZING": mode},
        capture_output=True,
        text=True,
        timeout=240 * TIME_SCALE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_mode_freezes_what_is_left() -> None:
    source = COMMON + "g = greenlet(wait)\ng.switch()\nprint(stacks.statistics().frozen)"
    assert run_clean(source, env={"GREENLET_TEST_FREEZING": "1"}) == "1"
    assert run_clean(source) == "0"
