"""Signals that arrive while a greenlet runs, and reports of faults from within one."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from helpers import run_clean, run_script

PRELUDE = """
import os, signal, sys, threading, time
from greenlet import getcurrent, greenlet

main = getcurrent()

def raise_signal(number=signal.SIGUSR1):
    signal.raise_signal(number)
    for _ in range(100):  # CPython calls handlers between two instructions
        pass
"""


def test_a_handler_runs_in_the_greenlet_that_runs() -> None:
    printed = run_clean(
        PRELUDE
        + """
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append((getcurrent(), frame.f_back)))

def body():
    raise_signal()

g = greenlet(body)
g.switch()
raise_signal()
assert seen[0][0] is g and seen[1][0] is main
print(seen[0][1].f_code.co_name, seen[0][1].f_back, seen[1][1].f_code.co_name)
"""
    )
    assert printed == "body None <module>"


def test_what_a_handler_raises_is_raised_in_the_greenlet_that_runs() -> None:
    printed = run_clean(
        PRELUDE
        + """
class Raised(Exception):
    pass

def handler(number, frame):
    raise Raised(getcurrent() is main)

signal.signal(signal.SIGUSR1, handler)

def catches():
    try:
        raise_signal()
    except Raised as caught:
        main.switch(str(caught))
    return "ended"

def lets_pass():
    raise_signal()

g = greenlet(catches)
print(g.switch())
other = greenlet(lets_pass)
try:
    other.switch()
except Raised as caught:
    print(caught, other.dead)
print(g.switch())
"""
    )
    assert printed.splitlines() == ["False", "False True", "ended"]


def test_a_handler_may_switch_and_goes_on_when_its_greenlet_is_resumed() -> None:
    """The handler runs in the greenlet that runs when the signal arrives."""
    printed = run_clean(
        PRELUDE
        + """
log = []

def handler(number, frame):
    log.append(("begin", getcurrent().name))
    getcurrent().parent.switch("from the handler")
    log.append(("end", getcurrent().name))

signal.signal(signal.SIGUSR1, handler)

def body():
    log.append(("before", getcurrent().name))
    raise_signal()
    log.append(("after", getcurrent().name))
    return "returned"

a, b = greenlet(body), greenlet(body)
a.name, b.name = "a", "b"
assert a.switch() == "from the handler"
assert b.switch() == "from the handler"
assert a.switch() == "returned"
assert b.switch() == "returned"
for name in "ab":
    assert [what for what, who in log if who == name] == ["before", "begin", "end", "after"]
print("done")
"""
    )
    assert printed == "done"


def test_a_handler_in_the_main_greenlet_may_start_and_resume_others() -> None:
    printed = run_clean(
        PRELUDE
        + """
def echo(value):
    while True:
        value = main.switch(value)

g = greenlet(echo)
g.switch(0)
seen = []

def handler(number, frame):
    seen.append(g.switch(len(seen)))
    seen.append(greenlet(lambda: "new").switch())

signal.signal(signal.SIGUSR1, handler)
raise_signal()
raise_signal()
print(seen)
"""
    )
    assert printed == "[0, 'new', 2, 'new']"


def test_a_timer_that_fires_all_the_time_does_not_disturb_switches() -> None:
    printed = run_clean(
        PRELUDE
        + """
fired = 0

def handler(number, frame):
    global fired
    fired = mine = fired + 1  # another handler may run before this line ends
    assert greenlet(lambda value: value + 1).switch(mine) == mine + 1

signal.signal(signal.SIGALRM, handler)

def body(total):
    for _ in range(100_000):
        total = main.switch(total + 1)
    return total

family = [greenlet(body) for _ in range(5)]
values = [0] * len(family)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while fired < 100:
    values = [g.switch(value) for g, value in zip(family, values)]
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(set(values)) == 1
print("done")
"""
    )
    assert printed == "done"


def test_a_handler_runs_in_the_main_thread_while_another_switches() -> None:
    printed = run_clean(
        PRELUDE
        + """
stop = threading.Event()
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: (seen.append(getcurrent()), stop.set()))

def thread_body():
    parent = getcurrent()
    def endless():
        while True:
            parent.switch()
    g = greenlet(endless)
    g.switch()
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    while not stop.is_set():
        g.switch()

thread = threading.Thread(target=thread_body)
thread.start()

def wait():
    while not stop.is_set():  # nothing wakes a join() of this thread
        time.sleep(0.001)

g = greenlet(wait)
g.switch()
thread.join()
print(seen == [g] or seen == [main])
"""
    )
    assert printed == "True"


def test_sigint_between_two_switches_ends_only_the_greenlet_that_runs() -> None:
    printed = run_clean(
        PRELUDE
        + """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT

def body():
    try:
        raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return "interrupted"

def waiting():
    main.switch()
    return "went on"

g = greenlet(waiting)
g.switch()
print(greenlet(body).switch(), g.switch())
"""
    )
    assert printed == "interrupted went on"


def test_a_wakeup_descriptor_and_sigwait_work_in_a_greenlet() -> None:
    printed = run_clean(
        PRELUDE
        + """
import socket
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
signal.signal(signal.SIGUSR1, lambda number, frame: None)

def body():
    raise_signal()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.raise_signal(signal.SIGUSR2)
    main.switch()
    return signal.sigwait([signal.SIGUSR2])

g = greenlet(body)
g.switch()
print(ours.recv(10) == bytes([signal.SIGUSR1]), g.switch() == signal.SIGUSR2)
signal.set_wakeup_fd(-1)
ours.close()
theirs.close()
"""
    )
    assert printed == "True True"


# --- faulthandler and alternate signal stacks -----------------------------------------------------

NESTED = """
import faulthandler

def innermost():
    REPORT

def middle():
    innermost()

def body():
    list(map(lambda _: middle(), [1]))

def sleeper():
    main.switch()

suspended = greenlet(sleeper)
suspended.switch()
greenlet(body).switch()
print("done")
"""

REPORTS: dict[str, str] = {
    "dump_traceback": "faulthandler.dump_traceback()",
    "dump_traceback of all threads": "faulthandler.dump_traceback(all_threads=True)",
    "dump_traceback_later": (
        "file = open(sys.argv[1], 'w+b'); faulthandler.dump_traceback_later(0.05, file=file)\n"
        "    while os.fstat(file.fileno()).st_size == 0: pass\n"
        "    end = time.monotonic() + 0.2  # until the whole report is written\n"
        "    while time.monotonic() < end: pass\n"
        "    file.seek(0); sys.stderr.write(file.read().decode())"
    ),
    "a registered signal": "faulthandler.register(signal.SIGUSR1); raise_signal()",
}


@pytest.mark.parametrize("way", REPORTS)
def test_faulthandler_reports_the_frames_of_the_greenlet_that_runs(
    way: str, tmp_path: Path
) -> None:
    program = PRELUDE + NESTED.replace("REPORT", REPORTS[way])
    outcome = run_script(program, args=[str(tmp_path / "report")])
    assert (outcome.returncode, outcome.stdout) == (0, "done\n")
    names = [line.rsplit(" ", 1)[-1] for line in outcome.stderr.splitlines() if " in " in line]
    names = [name for name in names if name not in ("raise_signal", "get_ident")]
    assert names[:4] == ["innermost", "middle", "<lambda>", "body"]
    assert "sleeper" not in names


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        ("faulthandler._sigsegv()", signal.SIGSEGV),
        ("os.abort()", signal.SIGABRT),
        ("faulthandler._sigfpe()", signal.SIGFPE),
        ("import ctypes; ctypes.string_at(8)", signal.SIGSEGV),
    ],
)
def test_a_fault_in_a_greenlet_is_reported_with_its_frames(fault: str, number: int) -> None:
    outcome = run_script(PRELUDE + NESTED.replace("REPORT", fault))
    assert outcome.returncode == -number
    assert "Fatal Python error" in outcome.stderr
    names = [line.rsplit(" ", 1)[-1] for line in outcome.stderr.splitlines() if ", line " in line]
    inner = names[names.index("innermost") :]
    assert inner[:4] == ["innermost", "middle", "<lambda>", "body"]


def test_a_stack_overflow_in_a_greenlet_hits_the_guard_and_is_reported(tmp_path: Path) -> None:
    """faulthandler's handler runs on its alternate stack, because the greenlet's stack is full."""
    (tmp_path / "overflow.c").write_text(
        """
        /* Recurses in C without end, which no check of the interpreter sees. */
        int descend(int level) {
          volatile char frame[1024];
          frame[level % 1024] = (char)level;
          return descend(level + 1) + frame[(level + 1) % 1024];
        }
        """
    )
    subprocess.run(
        ["gcc", "-O0", "-shared", "-fPIC", "-w", "-o", "overflow.so", "overflow.c"],
        cwd=tmp_path,
        check=True,
    )
    fault = f"import ctypes; ctypes.CDLL({str(tmp_path / 'overflow.so')!r}).descend(0)"
    outcome = run_script(PRELUDE + NESTED.replace("REPORT", fault))
    assert outcome.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in outcome.stderr
    names = [line.rsplit(" ", 1)[-1] for line in outcome.stderr.splitlines() if ", line " in line]
    inner = names[names.index("innermost") :]
    assert inner[:4] == ["innermost", "middle", "<lambda>", "body"]


def test_a_c_handler_on_an_alternate_stack_may_interrupt_a_greenlet() -> None:
    """faulthandler.register() chains on the alternate stack that faulthandler.enable() made."""
    outcome = run_script(
        PRELUDE
        + """
import faulthandler, tempfile

file = tempfile.TemporaryFile()
faulthandler.enable(file)
faulthandler.register(signal.SIGALRM, file, chain=False)

def body(value):
    for _ in range(10_000_000):
        value = main.switch(value)

g = greenlet(body)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
value = 0
deadline = time.monotonic() + 0.2
while time.monotonic() < deadline or file.seek(0, 2) == 0:
    value = g.switch(value + 1)
signal.setitimer(signal.ITIMER_REAL, 0)
file.seek(0)
print(b"most recent call first" in file.read())
"""
    )
    assert outcome == (0, "True\n", "")


def test_a_fatal_error_in_a_greenlet_names_what_happened() -> None:
    outcome = run_script(
        PRELUDE
        + NESTED.replace("REPORT", "import ctypes; ctypes.pythonapi.Py_FatalError(b'our words')")
    )
    assert outcome.returncode == -signal.SIGABRT
    assert "our words" in outcome.stderr
    assert "in innermost" in outcome.stderr
