"""Tools that look at a thread from outside, or stop it: they see the greenlet that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import frames_are_instrumented_anew, run_clean, since

SWITCHING = """
import sys, threading, time
from greenlet import getcurrent, greenlet

main = getcurrent()

def spin_a():
    end = time.perf_counter() + 0.0005
    while time.perf_counter() < end:
        pass

def spin_b():
    end = time.perf_counter() + 0.0005
    while time.perf_counter() < end:
        pass

def body_a():
    while True:
        spin_a()
        main.switch()

def body_b():
    while True:
        list(map(lambda _: (spin_b(), main.switch()), [1]))

def body_deep(level=30):
    if level:
        body_deep(level - 1)
    else:
        while True:
            main.switch()

family = [greenlet(body_a), greenlet(body_b), greenlet(body_deep)]
"""


@since("profiling.sampling")
def test_the_sampling_profiler_sees_the_stack_of_the_greenlet_that_runs(tmp_path: Path) -> None:
    script, output = tmp_path / "switching.py", tmp_path / "stacks.txt"
    script.write_text(
        SWITCHING
        + """
end = time.perf_counter() + 1.5
while time.perf_counter() < end:
    for g in family:
        g.switch()
"""
    )
    command = [sys.executable, "-m", "profiling.sampling", "run", "--collapsed", "-o", str(output)]
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    if "ermission" in done.stderr + done.stdout:
        pytest.skip("this machine does not let a process read another one's memory")
    assert done.returncode == 0, done.stderr
    samples: dict[str, int] = {"spin_a": 0, "spin_b": 0}
    for line in output.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        names = [frame.rsplit(":", 2)[-2] for frame in stack.split(";") if ":" in frame]
        for innermost, body in (("spin_a", "body_a"), ("spin_b", "body_b")):
            if names and names[-1] == innermost:
                samples[innermost] += int(count)
                # A sample during a switch may be incomplete, but never mixes two stacks.
                assert body in names
                assert not {"body_a", "body_b", "body_deep"} & {*names} - {body}
                assert "<module>" not in names
    assert min(samples.values()) > 20, (samples, done.stderr)


def test_the_current_frames_are_those_of_the_greenlet_that_runs() -> None:
    printed = run_clean(
        SWITCHING
        + """
def names(frame):
    found = []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found

def look():
    return names(sys._current_frames()[threading.get_ident()])

def body():
    main.switch(look())
    return look()

for g in family:
    g.switch()
g = greenlet(body)
print(g.switch(), look(), names(family[2].gr_frame) == ["body_deep"] * 31, g.switch())
"""
    )
    assert printed == "['look', 'body'] ['look', '<module>'] True ['look', 'body']"


def test_the_current_exceptions_are_those_of_the_greenlet_that_runs() -> None:
    printed = run_clean(
        SWITCHING
        + """
def look():
    found = sys._current_exceptions()[threading.get_ident()]
    return repr(found[1] if isinstance(found, tuple) else found)  # a tuple before 3.12

def body(kind):
    try:
        raise kind("in a greenlet")
    except kind:
        main.switch(look())
        main.switch(look())
    return look()

a, b = greenlet(body), greenlet(body)
print(a.switch(KeyError), b.switch(ValueError), look())
try:
    raise IndexError("in main")
except IndexError:
    print(look(), a.switch(), b.switch(), look())
    print(a.switch(), look())
print(b.switch(), look())
"""
    )
    assert printed.splitlines() == [
        "KeyError('in a greenlet') ValueError('in a greenlet') None",
        "IndexError('in main') KeyError('in a greenlet') ValueError('in a greenlet')"
        " IndexError('in main')",
        "None IndexError('in main')",
        "None None",
    ]


@frames_are_instrumented_anew
@since("threading.setprofile_all_threads")
@pytest.mark.parametrize("kind", ["profile", "trace"])
def test_hooks_set_for_all_threads_see_greenlets_that_run_already(kind: str) -> None:
    printed = run_clean(
        f"KIND = {kind!r}"
        + SWITCHING
        + """
stop, ready = threading.Event(), threading.Barrier(4)
seen = set()

def hook(frame, event, arg):
    if frame.f_code.co_name in ("step", "deeper"):
        seen.add((threading.get_ident(), frame.f_code.co_name, event))
    return hook

def thread_body():
    parent = getcurrent()
    def deeper():
        pass
    def step():
        deeper()
    def body():
        while True:
            step()
            parent.switch()
    family = [greenlet(body) for _ in range(3)]
    for g in family:
        g.switch()
    ready.wait()
    while not stop.is_set():
        for g in family:
            g.switch()

threads = [threading.Thread(target=thread_body) for _ in range(3)]
for thread in threads:
    thread.start()
ready.wait()
install = getattr(threading, f"set{KIND}_all_threads")
wanted = {(thread.ident, name, event) for thread in threads for name in ("step", "deeper")
          for event in ("call", "return")}
install(hook)
deadline = time.monotonic() + 20
while not wanted <= seen and time.monotonic() < deadline:
    time.sleep(0.001)
install(None)
stop.set()
for thread in threads:
    thread.join()
print(wanted <= seen)
"""
    )
    assert printed == "True"


@since("sys.remote_exec")
def test_remote_code_runs_in_the_greenlet_that_runs(tmp_path: Path) -> None:
    remote = tmp_path / "remote.py"
    remote.write_text(
        "import sys\n"
        "from greenlet import getcurrent, greenlet\n"
        "me = getcurrent()\n"
        "assert greenlet(lambda: getcurrent().parent).switch() is me\n"
        "sys.modules['__main__'].seen.add(getattr(me, 'name', 'main'))\n"
    )
    printed = run_clean(
        SWITCHING
        + """
import os

seen = set()
for g in family:
    g.name = "a greenlet"
try:
    sys.remote_exec(os.getpid(), sys.argv[1])
except PermissionError:
    print("not permitted")
    raise SystemExit
deadline = time.monotonic() + 20
turn = 0
while seen != {"main", "a greenlet"} and time.monotonic() < deadline:
    turn += 1
    def ask():
        sys.remote_exec(os.getpid(), sys.argv[1])
        for _ in range(100):
            pass
    if turn % 2:
        ask()
    else:
        g = greenlet(ask)
        g.name = "a greenlet"
        g.switch()
    for g in family:
        g.switch()
print(*sorted(seen))
""",
        args=[str(remote)],
    )
    if printed == "not permitted":
        pytest.skip("this machine does not let a process write to one's memory")
    assert printed == "a greenlet main"


DEBUGGED = """
import io, pdb, sys
from greenlet import getcurrent, greenlet

main = getcurrent()

def body(value):
    inner = value + 1          # first line of body
    received = main.switch(inner)
    last = received + 1        # after the switch
    return last

def debugged():
    g = greenlet(body)
    first = g.switch(1)        # start
    between = first
    second = g.switch(10)      # resume
    return second

def session(*commands):
    output = io.StringIO()
    commands = io.StringIO("\\n".join([*commands, "continue", ""]))
    return pdb.Pdb(stdin=commands, stdout=output, nosigint=True, readrc=False), output

def run(*commands):
    debugger, output = session(*commands)
    assert debugger.runcall(debugged) == 11
    return [line[3:] for line in output.getvalue().splitlines() if line.startswith("-> ")]

def called_in_a_greenlet():
    debugger, output = session("where", "p received, inner", "next", "next", "next")
    def body(value):
        inner = value + 1
        received = main.switch(inner)
        debugger.set_trace()
        received += 1
        return received
    g = greenlet(body)
    g.switch(1)
    assert g.switch(10) == 11
    sys.settrace(None)
    return output.getvalue().splitlines()
"""


def pdb_session(folder: Path, expression: str) -> list[str]:
    """Evaluate an expression in a program that has DEBUGGED as a module; return what it shows."""
    (folder / "debugged.py").write_text(DEBUGGED)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    printed = run_clean(
        f"from debugged import *; print(*{expression}, sep='\\n')", env={"PYTHONPATH": path}
    )
    return [line.split("#")[0].strip() for line in printed.splitlines()]


def test_pdb_steps_over_switches(tmp_path: Path) -> None:
    shown = pdb_session(tmp_path, "run(*['next'] * 6)")
    steps = [
        "g = greenlet(body)",
        "first = g.switch(1)",
        "between = first",
        "second = g.switch(10)",
        "return second",
        "return second",
    ]
    start = shown.index("g = greenlet(body)")
    # After the program has returned, pdb of 3.13.0 also shows its own position.
    assert shown[start : start + len(steps)] == steps


@frames_are_instrumented_anew
def test_pdb_steps_into_a_greenlet_that_starts_and_out_of_it_again(tmp_path: Path) -> None:
    shown = pdb_session(tmp_path, "run('next', *['step'] * 6)")
    assert shown[shown.index("first = g.switch(1)") :] == [
        "first = g.switch(1)",
        "def body(value):",
        "inner = value + 1",
        "received = main.switch(inner)",
        "between = first",
        "second = g.switch(10)",
        "last = received + 1",
    ]


def test_pdb_called_in_a_greenlet_shows_its_frames_and_steps_on_there(tmp_path: Path) -> None:
    shown = pdb_session(tmp_path, "called_in_a_greenlet()")
    assert "(Pdb) (10, 2)" in shown
    assert "(Pdb) --Return--" in shown
    # The stack ends where the greenlet began, so there is no frame of the main greenlet.
    stops = [line for line in shown if "debugged.py(" in line]
    assert len(stops) >= 4  # 3.13 stops at the call of set_trace() already
    assert all("body()" in line for line in stops)
    lines = [line for line in shown if line.startswith("-> ")]
    assert lines[-3:] == ["-> received += 1", "-> return received", "-> return received"]


@pytest.mark.parametrize("hook", ["settrace", "setprofile", "monitoring"])
def test_what_starts_while_a_trace_function_runs_goes_on_when_it_has_returned(hook: str) -> None:
    # CPython does not instrument code that a trace function calls. On 3.15 an exception in such
    # code crashed later, because the code lacked the data that instrumented code has.
    if hook == "monitoring" and not hasattr(sys, "monitoring"):
        return
    run_clean(
        """
        import sys
        from greenlet import greenlet, getcurrent

        main = getcurrent()

        def body():
            def inner():
                main.switch()
                raise ValueError
            for _ in range(3):
                try:
                    inner()
                except ValueError:
                    pass

        def start(*args):
            if not g:
                g.switch()
            return start

        def traced():
            pass

        g = greenlet(body)
        hook = sys.argv[1]
        if hook == "monitoring":
            events = sys.monitoring.events
            sys.monitoring.use_tool_id(2, "test")
            sys.monitoring.register_callback(2, events.PY_START, start)
            sys.monitoring.register_callback(2, events.RAISE, lambda *args: None)
            sys.monitoring.set_events(2, events.PY_START | events.RAISE)
        else:
            getattr(sys, hook)(start)
        traced()
        assert g
        while g:
            g.switch()
        """,
        args=[hook],
    )
