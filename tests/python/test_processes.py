"""fork() and other ways to start a process, from greenlets and beside threads that switch."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from helpers import FREE_THREADED, run_clean

# Scripts fork in processes that have threads. CPython 3.12+ warns of that.
PRELUDE = """
import os, sys, threading, warnings
from greenlet import _greenlet, error, getcurrent, greenlet, stacks

warnings.simplefilter("ignore", DeprecationWarning)

def fork(child):
    # Calls child() in a forked process. child() must end the process. Returns its exit code.
    pid = os.fork()
    if pid == 0:
        try:
            child()
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def echo(value=None):
    while True:
        value = getcurrent().parent.switch(value)

def use():
    # Greenlets work, in this thread and in others.
    def in_thread():
        family = [greenlet(echo) for _ in range(5)]
        for turn in range(5):
            assert [g.switch(turn) for g in family] == [turn] * 5
        results.append(getcurrent())

    results = []
    in_thread()
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert len(set(results)) == 2 and results[0] is getcurrent()
"""


def run(source: str, *, timeout: float = 30.0) -> str:
    return run_clean(PRELUDE + source, timeout=timeout)


def test_a_child_forked_in_a_greenlet_goes_on_there_with_all_greenlets() -> None:
    run(
        """
main = getcurrent()
other = greenlet(echo)
other.switch()
unstarted = greenlet(lambda: "started")

def body():
    me = getcurrent()

    def child():
        assert getcurrent() is me
        assert me.parent is main and main.gr_frame is not None
        other.parent = unstarted.parent = me
        assert other.switch("resumed") == "resumed"
        assert unstarted.switch() == "started"
        assert _greenlet.get_total_main_greenlets() == 1
        use()

    return fork(child)

assert greenlet(body).switch() == 0
use()
"""
    )


def test_parent_and_child_both_leave_the_greenlet_they_forked_in() -> None:
    printed = run(
        """
def body():
    pid = os.fork()
    getcurrent().parent.switch(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else "child"

g = greenlet(body)
if g.switch() == 0:
    use()
    assert g.switch() == "child" and g.dead
    sys.exit(7)
use()
print(g.switch())
"""
    )
    assert printed == "7"


def test_a_fork_of_a_fork_of_a_fork() -> None:
    printed = run(
        """
def body(level):
    g = greenlet(echo)
    g.switch(level)
    code = fork(lambda: greenlet(body).switch(level - 1)) if level else 0
    use()
    assert g.switch(level) == level
    assert code == 0
    print(level, flush=True)

greenlet(body).switch(3)
"""
    )
    assert printed.split() == ["0", "1", "2", "3"]


def test_a_finally_block_of_a_greenlet_runs_once_in_each_process() -> None:
    printed = run(
        """
def body():
    try:
        getcurrent().parent.switch()
    finally:
        print("finally", os.getpid() == parent, flush=True)

parent = os.getpid()
g = greenlet(body)
g.switch()

def child():
    global g
    del g

assert fork(child) == 0
del g
"""
    )
    assert printed.splitlines() == ["finally False", "finally True"]


def test_greenlets_dropped_before_the_fork_do_not_wait_for_their_threads_in_the_child() -> None:
    printed = run(
        """
dropped, made, leave = [], threading.Event(), threading.Event()

def thread_body():
    g = greenlet(lambda: getcurrent().parent.switch())
    g.switch()
    dropped.append(g)
    del g
    made.set()
    leave.wait()
    getcurrent()

thread = threading.Thread(target=thread_body)
thread.start()
made.wait()
dropped.clear()

def child():
    assert _greenlet.get_pending_cleanup_count() == 0

print(_greenlet.get_pending_cleanup_count(), fork(child))
leave.set()
thread.join()
print(_greenlet.get_pending_cleanup_count())
"""
    )
    # Free-threaded interpreters themselves hand an object back to its thread.
    assert printed.split() == ["0" if FREE_THREADED else "1", "0", "0"]


def test_greenlets_of_other_threads_are_dead_in_the_child() -> None:
    printed = run(
        """
theirs, ran = {}, []
made, leave = threading.Event(), threading.Event()

def body():
    try:
        getcurrent().parent.switch()
    finally:
        ran.append(os.getpid())

def thread_body():
    held = [greenlet(body) for _ in range(3)]
    for g in held:
        g.switch()
    finished = greenlet(lambda: None)
    finished.switch()
    theirs.update(main=getcurrent(), suspended=held[0], unstarted=greenlet(int), dead=finished)
    theirs["inside"] = greenlet(lambda: (made.set(), leave.wait()))
    theirs["inside"].switch()

thread = threading.Thread(target=thread_body)
thread.start()
made.wait()

def child():
    assert {name: g.dead for name, g in theirs.items()} == {
        "main": True, "suspended": True, "unstarted": False, "dead": True, "inside": True,
    }
    for g in theirs.values():
        assert not g and g.gr_frame is None and g._stack_saved == 0 and repr(g)
        try:
            g.switch()
        except error as refused:
            assert str(refused).startswith("cannot switch to a different thread (which happens")
        else:
            assert False
    assert "(thread exited) dead" in repr(theirs["suspended"])
    assert _greenlet.get_total_main_greenlets() == 1
    assert _greenlet.get_pending_cleanup_count() == 0
    theirs.clear()
    import gc
    gc.collect()
    use()
    assert ran == []

assert fork(child) == 0
assert not theirs["suspended"].dead
leave.set()
thread.join()
assert ran == [os.getpid()] * 3
print("done")
"""
    )
    assert printed == "done"


def test_the_child_of_another_thread_goes_on_with_that_threads_greenlets() -> None:
    run(
        """
main = getcurrent()
of_main = greenlet(echo)
of_main.switch()
codes = []

def thread_body():
    mine = greenlet(echo)
    mine.switch()

    def body():
        def child():
            assert main.dead and of_main.dead
            me = getcurrent()
            assert me.parent.parent is None and not me.parent.dead
            mine.parent = me
            assert mine.switch("mine") == "mine"
            assert threading.current_thread() is threading.main_thread()
            use()

        return fork(child)

    codes.append(greenlet(body).switch())
    codes.append(mine.switch(0))

thread = threading.Thread(target=thread_body)
thread.start()
thread.join()
assert codes == [0, 0], codes
assert of_main.switch("main") == "main"
"""
    )


def test_the_child_of_another_thread_ends_with_that_thread() -> None:
    printed = run(
        """
def body():
    try:
        getcurrent().parent.switch(os.fork())
    finally:
        print("finally", os.getpid() == parent, flush=True)

def thread_body():
    g = greenlet(body)
    pid = g.switch()
    if pid:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    kept.append(g)

parent = os.getpid()
kept = []
thread = threading.Thread(target=thread_body)
thread.start()
thread.join()
"""
    )
    assert printed.splitlines() == ["finally False", "0", "finally True"]


def test_forks_while_other_threads_switch_create_kill_and_drop() -> None:
    run(
        """
import gc

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
stop = threading.Event()
shared = []

def switcher():
    family = [greenlet(echo) for _ in range(5)]
    while not stop.is_set():
        for g in family:
            g.switch(1)

def maker():
    while not stop.is_set():
        g = greenlet(echo)
        g.switch(1)
        shared.append(g)  # for other threads to drop
        greenlet(echo).switch(2)
        if len(shared) > 20:
            shared.clear()

def threads():
    while not stop.is_set():
        thread = threading.Thread(target=lambda: greenlet(echo).switch())
        thread.start()
        thread.join()

def child():
    use()
    if GIL:  # without a GIL a thread that is gone may have locked the list, a matter of CPython's
        shared.clear()
    gc.collect()
    assert _greenlet.get_total_main_greenlets() == 1
    assert greenlet(lambda: fork(use)).switch() == 0

workers = [threading.Thread(target=body) for body in (switcher, maker, threads)]
for worker in workers:
    worker.start()
mine = greenlet(echo)
mine.switch()
codes = []
for turn in range(8):
    codes.append(greenlet(lambda: fork(child)).switch() if turn % 2 else fork(child))
    assert mine.switch(turn) == turn
stop.set()
for worker in workers:
    worker.join()
assert codes == [0] * 8, codes
""",
        timeout=60,
    )


def test_functions_registered_for_forks_may_switch() -> None:
    printed = run(
        """
g = greenlet(echo)
g.switch()

def switching(name):
    def function():
        log.append(g.switch(name) + greenlet(lambda: "!").switch())
    return function

log = []
os.register_at_fork(
    before=switching("before"), after_in_parent=switching("parent"),
    after_in_child=switching("child"),
)

def child():
    print(*log, flush=True)

# echo() answers the main greenlet, in which it began
assert fork(child) == 0
print(*log)
"""
    )
    assert printed.splitlines() == ["before! child!", "before! parent!"]


MODULE = """
import os, threading
from greenlet import getcurrent, greenlet

main = getcurrent()
family = [greenlet(lambda value: main.switch(value)) for _ in range(3)]


def work(count):
    def body(total):
        for _ in range(count):
            total += getcurrent().parent.switch(total)
        return total

    g = greenlet(body)
    total = g.switch(0)
    while not g.dead:
        total = g.switch(1)
    left = greenlet(getcurrent().switch)
    left.switch()
    left.itself = left
    return total


def send(connection, count):
    connection.send(greenlet(work).switch(count))
    connection.close()
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing_works_from_a_greenlet(method: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    printed = run_clean(
        f"""
        import multiprocessing, warnings
        from concurrent import futures
        import module
        from greenlet import greenlet

        warnings.simplefilter("ignore", DeprecationWarning)

        def body():
            context = multiprocessing.get_context({method!r})
            mine, theirs = context.Pipe()
            process = context.Process(target=module.send, args=(theirs, 5))
            process.start()
            print(mine.recv())
            process.join()
            print(process.exitcode)
            with context.Pool(2) as pool:
                print(pool.map(module.work, range(8)))
            with futures.ProcessPoolExecutor(2, mp_context=context) as executor:
                print(list(executor.map(module.work, range(8))))
            return "done"

        if __name__ == "__main__":
            for g in module.family:
                g.switch(1)
            print(greenlet(body).switch())
        """,
        env={"PYTHONPATH": path},
        timeout=60,
    )
    answers = str([*range(8)])
    assert printed.splitlines() == ["5", "0", answers, answers, "done"]


def test_programs_are_started_from_a_greenlet() -> None:
    printed = run(
        """
import subprocess

def body():
    command = [sys.executable, "-c", "import greenlet; print(greenlet.getcurrent().parent)"]
    print(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    # With preexec_fn, subprocess calls fork() instead of vfork().

    done = subprocess.run(
        [sys.executable, "-c", "raise SystemExit(3)"], preexec_fn=lambda: greenlet(echo).switch(),
    )
    print(done.returncode)
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(4)"], os.environ)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other = greenlet(lambda: process.communicate(b"text")[0])
    print(other.switch().decode())
    print(os.system("exit 5") >> 8)
    return "done"

print(greenlet(body).switch())
use()
"""
    )
    assert printed.splitlines() == ["None", "3", "4", "text", "5", "done"]


def test_a_greenlet_that_waits_in_a_pipe_of_a_child_process_may_be_left_at_exit() -> None:
    run(
        """
import subprocess

warnings.simplefilter("ignore", ResourceWarning)  # debug builds warn of what is left open at exit
command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
process = subprocess.Popen(command, stdin=subprocess.PIPE)

def body():
    with process:
        getcurrent().parent.switch()

g = greenlet(body)
g.switch()
g.itself = g
"""
    )


def test_a_child_replaces_itself_inside_a_greenlet() -> None:
    printed = run(
        """
def child():
    arguments = [sys.executable, "-c", "print('replaced')"]
    greenlet(lambda: os.execv(sys.executable, arguments)).switch()

print(greenlet(lambda: fork(child)).switch())
"""
    )
    assert printed.splitlines() == ["replaced", "0"]
