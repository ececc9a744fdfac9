"""How a process ends while greenlets exist: the right exit code, nothing on stderr, no crash."""

from __future__ import annotations

import textwrap

import pytest
from helpers import run_clean, run_script

# Places in which a greenlet may be suspended when the interpreter exits. Each defines start().
PLACES: dict[str, str] = {
    "a call": """
        def start():
            main.switch()
    """,
    "directly in switch": """
        start = main.switch
    """,
    "a try block with finally": """
        def start():
            try:
                main.switch()
            finally:
                log.append("finally")
    """,
    "an exception handler": """
        def start():
            try:
                raise KeyError
            except KeyError:
                main.switch()
    """,
    "a generator": """
        def generator():
            yield main.switch()
        def start():
            list(generator())
    """,
    "a coroutine": """
        async def coroutine():
            main.switch()
        def start():
            coroutine().send(None)
    """,
    "an asynchronous generator": """
        async def generator():
            yield main.switch()
        async def coroutine():
            async for _ in generator():
                pass
        def start():
            coroutine().send(None)
    """,
    "a with block": """
        import contextlib
        @contextlib.contextmanager
        def manager():
            yield main.switch()
        def start():
            with manager():
                pass
    """,
    "sorted with a key": """
        def start():
            sorted([1, 2], key=lambda item: main.switch())
    """,
    "map within map": """
        def start():
            list(map(lambda _: list(map(lambda _: main.switch(), [1])), [1]))
    """,
    "re.sub with a function": """
        import re
        def start():
            re.sub("a", lambda match: main.switch(), "a")
    """,
    "a hash of a dict key": """
        class Key:
            def __hash__(self):
                main.switch()
                return 1
        def start():
            {}[Key()] = 1
    """,
    "a __del__ method": """
        class Deleted:
            def __del__(self):
                try:
                    main.switch()
                except BaseException:
                    pass  # an exception of a __del__ would be reported
        def start():
            Deleted()
    """,
    "an import": """
        import sys, types
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "no_such_module":
                    main.switch()
                return None
        sys.meta_path.insert(0, Finder())
        def start():
            try:
                import no_such_module
            except ImportError:
                pass
    """,
    "a class body": """
        def start():
            class Body:
                value = main.switch()
    """,
    "exec of source": """
        def start():
            exec("main.switch()", {"main": main})
    """,
    "a deep recursion": """
        def deep(level):
            if level:
                return deep(level - 1)
            main.switch()
        def start():
            deep(500)
    """,
    "a print": """
        import io
        class File(io.StringIO):
            def write(self, text):
                main.switch()
                return len(text)
        def start():
            print("text", file=File())
    """,
}

HOLDERS: dict[str, str] = {
    "a global": "kept = g",
    "nothing": "del g",
    "a cycle": "g.itself = g; del g",
    "a builtin module": "import builtins; builtins.kept = g; del g",
    "the main greenlet": "main.kept = g; del g",
    "another greenlet": (
        "h = greenlet(lambda held: main.switch()); h.switch(g); h.itself = h; del g, h"
    ),
    "itself": "g = None",
}


@pytest.mark.parametrize("place", PLACES)
def test_the_interpreter_exits_with_greenlets_suspended_anywhere(place: str) -> None:
    program = textwrap.dedent(PLACES[place])
    holders = "\n".join(f"g = greenlet(start)\ng.switch()\n{holder}" for holder in HOLDERS.values())
    printed = run_clean(
        f"from greenlet import getcurrent, greenlet\nmain = getcurrent()\nlog = []\n"
        f"{program}\n{holders}\nprint('end of the program')\n"
    )
    assert printed == "end of the program"


def test_the_interpreter_exits_from_within_a_greenlet() -> None:
    for way, code in (
        ("sys.exit(3)", 3),
        ("raise SystemExit(4)", 4),
        ("os._exit(5)", 5),
        ("sys.exit()", 0),
    ):
        outcome = run_script(
            f"""
            import os, sys
            from greenlet import greenlet

            def inner():
                {way}

            def run():
                greenlet(inner).switch()

            greenlet(run).switch()
            print("not reached")
            """
        )
        assert outcome == (code, "", ""), way


def test_sys_exit_in_a_greenlet_runs_the_finally_blocks_of_its_ancestors() -> None:
    outcome = run_script(
        """
        import sys
        from greenlet import greenlet

        def run():
            try:
                greenlet(lambda: sys.exit("bye")).switch()
            finally:
                print("finally")

        try:
            greenlet(run).switch()
        finally:
            print("finally in main")
        """
    )
    assert outcome == (1, "finally\nfinally in main\n", "bye\n")


def test_an_unhandled_exception_in_a_greenlet_ends_the_program_with_its_traceback() -> None:
    outcome = run_script(
        """
        from greenlet import greenlet

        def inner():
            raise KeyError("unhandled")

        def run():
            greenlet(inner).switch()

        greenlet(run).switch()
        """
    )
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    lines = outcome.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "KeyError: 'unhandled'"
    positions = [outcome.stderr.index(name) for name in ("in <module>", "in run", "in inner")]
    assert positions == sorted(positions)


def test_an_unhandled_exception_with_greenlets_suspended_ends_the_program() -> None:
    outcome = run_script(
        """
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        kept = [greenlet(main.switch) for _ in range(10)]
        for g in kept:
            g.switch()
        raise KeyError("unhandled")
        """
    )
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[-1] == "KeyError: 'unhandled'"


def test_an_atexit_function_may_create_and_switch_greenlets() -> None:
    printed = run_clean(
        """
        import atexit
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        g = greenlet(lambda: (main.switch("first"), "second")[1])
        g.switch()

        @atexit.register
        def at_exit():
            print(g.switch(), g.dead)
            print(greenlet(lambda value: value + 1).switch(1))
            print(getcurrent() is main)
        """
    )
    assert printed.split("\n") == ["second True", "2", "True"]


def test_an_atexit_function_runs_after_sys_exit_in_a_greenlet() -> None:
    outcome = run_script(
        """
        import atexit, sys
        from greenlet import getcurrent, greenlet

        atexit.register(lambda: print(greenlet(lambda: "at exit").switch()))
        greenlet(lambda: sys.exit(2)).switch()
        """
    )
    assert outcome == (2, "at exit\n", "")


def test_finalizers_at_teardown_may_ask_for_the_current_greenlet_and_switch() -> None:
    outcome = run_script(
        """
        import sys
        from greenlet import getcurrent, greenlet

        class Late:
            def __init__(self):
                self.getcurrent, self.greenlet = getcurrent, greenlet
                self.write = sys.stdout.write

            def __del__(self):
                for function in (
                    self.getcurrent,
                    self.greenlet,
                    lambda: self.greenlet(int).switch(),
                    lambda: self.greenlet(int).throw(),
                ):
                    try:
                        function()
                    except BaseException:
                        pass
                self.write("finalized\\n")

        late = Late()
        late.cycle = late
        sys.modules["late"] = Late()
        import builtins
        builtins.late = Late()
        """
    )
    assert outcome.returncode == 0
    assert outcome.stdout == "finalized\n" * 3
    assert outcome.stderr == ""


def test_finalizers_at_teardown_may_use_the_c_api() -> None:
    """Each entry returns or raises, although parts of the interpreter are gone."""
    outcome = run_script(
        """
        import ctypes, sys
        from ctypes import PYFUNCTYPE, c_int, c_void_p, py_object
        import greenlet

        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = c_void_p, [py_object, ctypes.c_char_p]
        table = (c_void_p * 12).from_address(get(greenlet._C_API, b"greenlet._C_API"))
        create = PYFUNCTYPE(py_object, py_object, c_void_p)(table[3])
        current = PYFUNCTYPE(py_object)(table[4])
        throw = PYFUNCTYPE(py_object, py_object, py_object, c_void_p, c_void_p)(table[5])
        switch = PYFUNCTYPE(py_object, py_object, c_void_p, c_void_p)(table[6])
        set_parent = PYFUNCTYPE(c_int, py_object, py_object)(table[7])
        questions = [PYFUNCTYPE(c_int, py_object)(table[index]) for index in (8, 9, 10)]
        parent = PYFUNCTYPE(py_object, py_object)(table[11])

        def attempts(g, suspended, main):
            yield current
            yield lambda: create(int, None)
            yield lambda: switch(create(int, None), None, None)
            yield lambda: switch(g, None, None)
            yield lambda: throw(suspended, KeyError, None, None)
            yield lambda: set_parent(g, main)
            yield lambda: parent(g)
            for question in questions:
                for asked in (g, suspended, main):
                    yield lambda: question(asked)

        class Late:
            def __init__(self):
                self.main = current()
                self.g = create(int, None)
                self.suspended = greenlet.greenlet(self.main.switch)
                self.suspended.switch()
                self.attempts = list(attempts(self.g, self.suspended, self.main))
                self.write = sys.stdout.write

            def __del__(self):
                failed = set()
                for attempt in self.attempts:
                    try:
                        attempt()
                    except BaseException as failure:
                        failed.add(type(failure).__name__)
                self.write(f"{sorted(failed)}\\n")

        late = Late()
        late.cycle = late
        sys.modules["late"] = Late()
        import builtins
        builtins.late = Late()
        """
    )
    # What was thrown comes back. Only the current greenlet is no longer available.
    assert outcome == (0, "['KeyError', 'RuntimeError']\n" * 3, "")


def test_a_greenlet_that_is_dropped_at_teardown_runs_its_finally_block_or_nothing() -> None:
    outcome = run_script(
        """
        from greenlet import getcurrent, greenlet

        def run(print):
            try:
                getcurrent().parent.switch()
            finally:
                print("finally")

        kept = greenlet(run)
        kept.switch(print)
        """
    )
    assert outcome.returncode == 0
    assert outcome.stdout in ("", "finally\n")
    assert outcome.stderr == ""


def test_the_interpreter_exits_with_thousands_of_suspended_greenlets() -> None:
    run_clean(
        """
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def run(index):
            local = [index, lambda: local, type("Kind", (), {})]
            main.switch()

        kept = [greenlet(run) for _ in range(5_000)]
        for index, g in enumerate(kept):
            g.switch(index)
        """
    )


def test_the_interpreter_exits_after_threads_that_left_suspended_greenlets() -> None:
    run_clean(
        """
        from child import run_threads
        from greenlet import getcurrent, greenlet

        kept = []

        def body():
            for _ in range(100):
                g = greenlet(getcurrent().switch)
                g.switch()
                kept.append(g)

        run_threads(*[body] * 10)
        """
    )


@pytest.mark.parametrize("state", ["waiting", "switching", "in a greenlet"])
def test_the_interpreter_exits_while_a_daemon_thread_uses_greenlets(state: str) -> None:
    bodies = {
        "waiting": "g.switch(); ready.set(); time.sleep(600)",
        "switching": "\n".join(
            ["g.switch()", "    ready.set()", "    while True: g.switch()"],
        ),
        "in a greenlet": "greenlet(lambda: (ready.set(), time.sleep(600))).switch()",
    }
    source = """
import threading, time
from greenlet import getcurrent, greenlet

ready = threading.Event()

def endless(parent):
    while True:
        parent.switch()

def body():
    main = getcurrent()
    g = greenlet(lambda: endless(main))
    BODY

threading.Thread(target=body, daemon=True).start()
ready.wait()
time.sleep(0.02)
print("exiting")
"""
    for _ in range(3):
        assert run_clean(source.replace("BODY", bodies[state])) == "exiting"


def test_a_thread_that_outlives_the_main_program_may_go_on_switching() -> None:
    printed = run_clean(
        """
        import threading, time
        from greenlet import getcurrent, greenlet

        def body():
            main = getcurrent()
            def run():
                for value in range(100):
                    main.switch(value)
                    time.sleep(0.0005)
                return "done"
            g = greenlet(run)
            while not g.dead:
                result = g.switch()
            print(result)

        threading.Thread(target=body).start()
        """
    )
    assert printed == "done"


def test_keyboard_interrupt_in_a_greenlet_ends_the_program() -> None:
    outcome = run_script(
        """
        import os, signal, time
        from greenlet import greenlet

        # A background job of a shell ignores SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def run():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            finally:
                print("finally")

        greenlet(run).switch()
        """
    )
    assert outcome.returncode == -2
    assert outcome.stdout == "finally\n"
    assert outcome.stderr.splitlines()[-1].startswith("KeyboardInterrupt")


def test_a_trace_callback_left_at_exit_is_harmless() -> None:
    run_clean(
        """
        from greenlet import getcurrent, greenlet, settrace

        log = []
        settrace(lambda event, pair: log.append(event))
        g = greenlet(getcurrent().switch)
        g.switch()
        g.itself = g
        """
    )


def test_a_module_imported_and_never_used_is_harmless() -> None:
    run_clean("import greenlet")
    run_clean("import greenlet; greenlet.getcurrent()")
    run_clean("import greenlet; greenlet.greenlet()")


def test_the_exit_code_of_a_forked_child_that_leaves_from_a_greenlet_is_right() -> None:
    printed = run_clean(
        """
        import os, warnings
        from greenlet import getcurrent, greenlet

        main = getcurrent()
        kept = greenlet(lambda: (main.switch(), 7)[1])
        kept.switch()

        def run():
            pid = os.fork()
            if pid == 0:
                os._exit(kept.switch() if main.dead is False and kept else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        kept.parent = g = greenlet(run)
        print(g.switch())
        """
    )
    assert printed == "7"


def test_a_forked_child_may_finish_the_program_within_its_greenlet() -> None:
    printed = run_clean(
        """
        import os, sys
        from greenlet import getcurrent, greenlet

        def run():
            pid = os.fork()
            if pid == 0:
                getcurrent().parent.switch("child")
                sys.exit(9)
            getcurrent().parent.switch(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        g = greenlet(run)
        result = g.switch()
        if result == "child":
            g.switch()
        print(result)
        """
    )
    assert printed == "9"
