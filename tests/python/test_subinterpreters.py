"""Several interpreters in one process: each has a module, types and greenlets of its own."""

from __future__ import annotations

import textwrap

import pytest
from helpers import (
    DEBUG_BUILD,
    FREE_THREADED,
    THREAD_SANITIZER,
    VERSION,
    memory_is_given_back,
    run_clean,
    since,
)

# What the scripts start with.
PRELUDE = """
    import sys, textwrap, threading
    from child import Interpreter, resident_now, run_threads
    from greenlet import getcurrent, greenlet, stacks

    USE = textwrap.dedent('''
        from greenlet import GreenletExit, error, getcurrent, greenlet, settrace

        main = getcurrent()
        assert main.parent is None

        def run(value):
            ended = []
            try:
                while True:
                    value = main.switch(value)
            except GreenletExit:
                ended.append(value)
            finally:
                assert ended == [9]

        settrace(lambda event, pair: None)
        family = [greenlet(run) for _ in range(20)]
        for i in range(10):
            assert [g.switch(i) for g in family] == [i] * 20
        settrace(None)
        family[0].throw()
        assert family[0].dead
        family[1].itself = family[1]
        del family[:5]
    ''')
    USE_THREADS = USE + textwrap.dedent('''
        import threading

        def in_thread():
            family = [greenlet(getcurrent().switch) for _ in range(5)]
            for g in family:
                g.switch()
            family[0].itself = family[0]
            try:
                late.switch()
            except error:
                seen.append("another thread")

        def late():
            seen.append("late")

        late = greenlet(late)
        seen = []
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        late.switch()
        assert seen == ["another thread", "late"], seen
    ''')
"""

KINDS = ["own GIL", "shared GIL"] if VERSION >= (3, 12) else ["shared GIL"]


def run_with_interpreters(kind: str, source: str, *, timeout: float = 30.0) -> str:
    own_gil = kind == "own GIL"
    program = textwrap.dedent(PRELUDE) + f"\nOWN_GIL = {own_gil}\n" + textwrap.dedent(source)
    return run_clean(program, timeout=timeout)


@pytest.mark.parametrize("kind", KINDS)
def test_greenlets_work_in_another_interpreter(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        other = Interpreter(OWN_GIL)
        other.run(USE_THREADS)
        other.close()
        exec(USE_THREADS)
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_interpreter_has_types_a_capsule_and_counts_of_its_own(kind: str) -> None:
    printed = run_with_interpreters(
        kind,
        """
        PRINT = '''
            import greenlet
            from greenlet import _greenlet
            for one in (
                greenlet.greenlet, greenlet.error, greenlet.GreenletExit, greenlet._C_API,
                greenlet.getcurrent(),
            ):
                print(id(one))
            print(f"worlds {_greenlet.get_total_main_greenlets()}", flush=True)
        '''
        others = [Interpreter(OWN_GIL) for _ in range(3)]
        for other in others:
            other.run(PRINT)
        exec(textwrap.dedent(PRINT))
        for other in others:
            other.close()
        """,
    )
    lines = printed.splitlines()
    assert lines.count("worlds 1") == 4
    addresses = [line for line in lines if not line.startswith("worlds")]
    assert len(addresses) == 4 * 5
    assert len(set(addresses)) == 4 * 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_greenlet_may_use_another_interpreter_and_its_greenlets(kind: str) -> None:
    printed = run_with_interpreters(
        kind,
        """
        main = getcurrent()
        others = [Interpreter(OWN_GIL) for _ in range(3)]

        def run(other):
            for _ in range(3):
                other.run(USE)
                main.switch()
            other.close()
            return "done"

        family = [greenlet(run) for _ in others]
        for g, other in zip(family, others):
            g.switch(other)
        for _ in range(2):
            for g in family:
                assert g.switch() == ()
                assert getcurrent() is main
        print([g.switch() for g in family])
        """,
    )
    assert printed == "['done', 'done', 'done']"


@pytest.mark.parametrize("kind", KINDS)
def test_a_greenlet_starts_right_after_its_thread_was_in_another_interpreter(kind: str) -> None:
    # A new stack must not take over what the other interpreter left in the thread.
    run_with_interpreters(
        kind,
        """
        other = Interpreter(OWN_GIL)

        def visit():
            other.run("import greenlet; greenlet.getcurrent()")
            return "visited"

        class Looked(greenlet):
            @property
            def run(self):
                visit()
                return lambda: "ran"

        assert Looked().switch() == "ran"

        parent = greenlet(lambda result: (result, getcurrent() is parent))
        assert greenlet(visit, parent).switch() == ("visited", True)

        class Closing(greenlet):
            @property
            def run(self):
                other.close()
                return lambda: "ran"

        visit()
        assert Closing().switch() == "ran"
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_greenlets_wait_while_their_thread_is_in_another_interpreter(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        def run():
            value = None
            while True:
                value = getcurrent().parent.switch(value)

        g = greenlet(run)
        g.switch()
        other = Interpreter(OWN_GIL)
        for i in range(10):
            other.run(f"import greenlet; greenlet.greenlet(lambda: {i}).switch()")
            assert g.switch(i) == i
            assert getcurrent() is g.parent
        other.close()
        assert g.switch("still") == "still"
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_interpreters_come_and_go_in_a_loop(kind: str) -> None:
    """The thread states of such interpreters have the same ids, and often the same addresses."""
    in_use = run_with_interpreters(
        kind,
        """
        for _ in range(10):
            other = Interpreter(OWN_GIL)
            other.run(USE_THREADS)
            other.run(USE_THREADS)
            other.close()
            assert getcurrent().parent is None
            assert greenlet(lambda: "here").switch() == "here"
        print(stacks.statistics().in_use)
        """,
        timeout=60,
    )
    if VERSION >= (3, 12):
        # Each run has a thread state of its own. The end of the thread state ends its greenlets.
        assert in_use == "0"


@pytest.mark.parametrize("kind", KINDS)
def test_an_interpreter_may_end_with_greenlets_suspended(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        LEAVE = USE + textwrap.dedent('''
        import builtins, sys

        class Late:
            def __init__(self):
                self.functions = [getcurrent, greenlet, lambda: greenlet(int).switch()]
            def __del__(self):
                for function in self.functions:
                    try:
                        function()
                    except BaseException:
                        pass

        builtins.kept = family
        sys.late = Late()
        main.late = Late()
        family[0].late = Late()
        ''')
        for _ in range(5):
            other = Interpreter(OWN_GIL)
            other.run(LEAVE)
            other.close()
        left = Interpreter(OWN_GIL)
        left.run(LEAVE)
        if sys.version_info >= (3, 14):
            left.close()  # CPython would report it at exit
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_greenlets_that_wait_behind_c_functions_end_with_their_interpreter(kind: str) -> None:
    """Nothing else finds them: the variables of the C function hold what their frames refer to."""
    run_with_interpreters(
        kind,
        """
        import os

        LEAVE = textwrap.dedent('''
        import os
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        def run():
            try:
                sorted([2, 1], key=lambda number: (main.switch(), number)[1])
            finally:
                os.write(%d, b"ended")

        family = [greenlet(run) for _ in range(3)]
        for g in family:
            g.switch()
        ''')
        read, write = os.pipe()
        for _ in range(3):
            other = Interpreter(OWN_GIL)
            other.run(LEAVE % write)
            other.close()
            assert os.read(read, 100) == b"ended" * 3
            assert stacks.statistics().in_use == 0, stacks.statistics()
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_several_interpreters_work_at_once_in_threads(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        failures = []

        def work():
            try:
                for _ in range(3):
                    other = Interpreter(OWN_GIL)
                    other.run(USE_THREADS)
                    exec(USE_THREADS, {})
                    other.close()
                    assert greenlet(lambda: getcurrent().parent).switch() is getcurrent()
            except BaseException as failure:
                failures.append(failure)

        run_threads(*[work] * 4)
        if failures:
            raise failures[0]
        """,
        timeout=60,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_interpreter_may_be_ended_by_another_thread_than_the_one_that_used_it(kind: str) -> None:
    """It does not import threading, which before 3.13 would wait for the first thread for ever."""
    run_with_interpreters(
        kind,
        """
        import queue

        jobs, results = queue.Queue(), queue.Queue()

        def worker():
            g = greenlet(lambda: [getcurrent().parent.switch(i) for i in range(1_000)])
            g.switch()
            for count in range(1, 1_000):
                source = jobs.get()
                if source is None:
                    return
                other = Interpreter(OWN_GIL)
                other.run(source)
                results.put(other)
                assert g.switch() == count

        threads = [threading.Thread(target=worker) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            for _ in threads:
                jobs.put(USE)
            for _ in threads:
                other = results.get()
                other.run("import greenlet; greenlet.greenlet(lambda: None).switch()")
                other.close()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join()
        """,
        timeout=60,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_interpreter_may_be_used_by_several_threads_in_turns(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        other = Interpreter(OWN_GIL)
        other.run("rounds = []")
        for _ in range(10):
            thread = threading.Thread(target=other.run, args=(USE + "rounds.append(getcurrent())",))
            thread.start()
            thread.join()
        other.run("assert len(rounds) == 10")
        other.close()
        """,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(
    DEBUG_BUILD, reason="CPython asserts in debug builds that a thread that ends does not leave"
)
def test_a_finally_block_of_a_dying_thread_may_use_another_interpreter(kind: str) -> None:
    printed = run_with_interpreters(
        kind,
        """
        log = []

        def run():
            try:
                getcurrent().parent.switch()
            finally:
                other = Interpreter(OWN_GIL)
                other.run(USE)
                log.append(getcurrent() in family)
                log.append(greenlet(lambda: "new").switch())
                other.close()
                log.append(getcurrent() in family)

        family = []

        def body():
            family.extend(greenlet(run) for _ in range(3))
            for g in family:
                g.switch()

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        print(len(log), set(log) == {True, "new"}, [g.dead for g in family])
        """,
    )
    assert printed == "9 True [True, True, True]"


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_the_stacks_are_those_of_the_process(kind: str) -> None:
    run_with_interpreters(
        kind,
        """
        other = Interpreter(OWN_GIL)
        stacks.set_pool_bound(7)
        other.run('''
            from greenlet import stacks
            assert stacks.get_pool_bound() == 7
            stacks.set_default_size(1 << 20)
        ''')
        other.close()
        assert stacks.get_default_size() == 1 << 20
        """,
    )


def test_a_second_import_in_one_interpreter_does_not_disturb_another() -> None:
    run_with_interpreters(
        KINDS[0],
        """
        other = Interpreter(OWN_GIL)
        other.run('''
            import sys
            import greenlet as first
            for name in [name for name in sys.modules if name.split(".")[0] == "greenlet"]:
                del sys.modules[name]
            import greenlet as second
            assert first is not second
            assert first.greenlet is second.greenlet
            assert first.getcurrent() is second.getcurrent()
        ''')
        import greenlet as here
        assert here.getcurrent() is getcurrent()
        other.close()
        """,
    )


@since("concurrent.interpreters")
def test_greenlets_work_in_concurrent_interpreters() -> None:
    printed = run_clean(
        """
        from concurrent import futures, interpreters
        from greenlet import getcurrent, greenlet

        def work(count):
            from greenlet import getcurrent, greenlet

            def body(total):
                for _ in range(count):
                    total += getcurrent().parent.switch(total)
                return total

            g = greenlet(body)
            g.switch(0)
            while not g.dead:
                total = g.switch(1)
            return total

        other = interpreters.create()
        print(greenlet(lambda: other.call(work, 10)).switch())
        thread = other.call_in_thread(work, 10)
        thread.join()
        other.close()
        with futures.InterpreterPoolExecutor(max_workers=2) as executor:
            print(list(executor.map(work, [1, 2, 3, 4])))
        print(getcurrent().parent)
        """,
        timeout=60,
    )
    assert printed == "10\n[1, 2, 3, 4]\nNone"


# The stacks on which an interpreter is used. CPython must know the bounds of each stack: it
# deallocates objects and ends deep recursions by them.
PLACES = """
    def on_own_stack(function):
        function()

    def in_a_greenlet(function):
        greenlet(function).switch()

    def in_a_greenlet_of_a_greenlet(function):
        greenlet(lambda: greenlet(function).switch()).switch()

    def in_a_small_greenlet(function):
        size = stacks.get_default_size()
        stacks.set_default_size(1 << 19)
        greenlet(function).switch()
        stacks.set_default_size(size)

    def in_a_thread(function):
        run_threads(lambda: greenlet(function).switch())

    def deep_in_a_greenlet(function):
        def down(level):
            return function() if level == 0 else sorted([level - 1], key=down)
        greenlet(lambda: [None for _ in [0] if down(200)]).switch()

    def resident():
        return resident_now() >> 20
"""
NAMES_OF_PLACES = [
    "on_own_stack",
    "in_a_greenlet",
    "in_a_greenlet_of_a_greenlet",
    "in_a_small_greenlet",
    "in_a_thread",
    "deep_in_a_greenlet",
]


def run_in_place(kind: str, source: str, *, before: str = "") -> str:
    prelude = "".join(textwrap.dedent(part) for part in (before, PRELUDE, PLACES))
    return run_clean(
        f"{prelude}\nOWN_GIL = {kind == 'own GIL'}\n{textwrap.dedent(source)}", timeout=60
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", NAMES_OF_PLACES)
def test_objects_of_another_interpreter_are_deallocated_on_every_stack(
    kind: str, place: str
) -> None:
    printed = run_in_place(
        kind,
        f"""
        def use():
            other = Interpreter(OWN_GIL)
            for _ in range(3):
                other.run('''
                    class Dropped:
                        def __del__(self):
                            print("dropped", flush=True)
                    [Dropped()]
                ''')
            other.close()
            print("closed", flush=True)

        {place}(use)
        {place}(use)
        on_own_stack(use)
        """,
    )
    assert printed.split() == ["dropped", "dropped", "dropped", "closed"] * 3


# Sorts within sorts without end, and lists within lists, whose deallocations nest.
DEEP = """
    import sys
    sys.setrecursionlimit(1_000_000)

    def deep(level):
        return sorted([level], key=lambda level: deep(level + 1))

    try:
        deep(0)
    except RecursionError:
        print("bounded", flush=True)
    nested = None
    for _ in range(300_000):
        nested = [nested]
"""


@pytest.mark.skipif(
    VERSION < (3, 14),
    reason="before, CPython counts calls, and crashes on a thread's own stack, too",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", NAMES_OF_PLACES)
def test_deep_recursion_in_another_interpreter_is_bounded_on_every_stack(
    kind: str, place: str
) -> None:
    printed = run_in_place(
        kind,
        f"""
        def use():
            other = Interpreter(OWN_GIL)
            other.run({DEEP!r})
            other.close()
            print("closed", flush=True)

        {place}(use)
        {place}(use)
        on_own_stack(use)
        """,
    )
    assert printed.split() == ["bounded", "closed"] * 3


# With a GIL an interpreter that ends leaves little memory. Without one it leaves nearly all.
interpreters_leave_nothing = pytest.mark.skipif(
    FREE_THREADED, reason="free-threaded CPython loses the memory of interpreters that end anywhere"
)


@memory_is_given_back
@interpreters_leave_nothing
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", NAMES_OF_PLACES)
def test_an_interpreter_that_ends_on_any_stack_leaves_nothing(kind: str, place: str) -> None:
    """No Python code may run in it then."""
    printed = run_in_place(
        kind,
        f"""
        def close_all():
            for other in others:
                other.close()

        before = None
        for _ in range(4):
            others = [Interpreter(OWN_GIL) for _ in range(10)]
            for other in others:
                other.run("data = [b'x' * 10_000_000]")
            {place}(close_all)
            before = before or resident()
        print(resident() - before)
        """,
    )
    assert int(printed) < 150  # of 300


@memory_is_given_back
@interpreters_leave_nothing
@pytest.mark.parametrize("place", NAMES_OF_PLACES)
def test_an_interpreter_that_is_older_than_greenlet_leaves_nothing(place: str) -> None:
    printed = run_in_place(
        KINDS[0],
        f"""
        def close_all():
            for number in others:
                module.destroy(number)

        before = resident()
        {place}(close_all)
        print(before, resident())
        """,
        before="""
            import sys
            if sys.version_info >= (3, 13):
                import _interpreters as module
                run = module.exec
            else:
                import _xxsubinterpreters as module
                run = module.run_string
            others = [module.create() for _ in range(20)]
            for number in others:
                run(number, "data = [b'x' * 10_000_000]")
        """,
    )
    before, after = map(int, printed.split())
    assert before > 200
    assert after < before - 100


@since("concurrent.interpreters")
@pytest.mark.skipif(THREAD_SANITIZER, reason="ThreadSanitizer keeps what is freed for a while")
@pytest.mark.parametrize("place", NAMES_OF_PLACES)
def test_what_another_interpreter_was_given_before_is_deallocated_on_every_stack(
    place: str,
) -> None:
    """No Python code runs in it."""
    printed = run_in_place(
        KINDS[0],
        f"""
        def use():
            other = Interpreter(OWN_GIL)
            for count in range(200):
                values = {{"value": (count, b"x" * 1_000_000)}}
                other._module.set___main___attrs(other.id, values)
            other.close()

        {place}(use)
        before = resident()
        {place}(use)
        print(resident() - before)
        """,
    )
    assert int(printed) < 100  # of 200


@since("concurrent.interpreters")
def test_interpreters_nest_with_greenlets_of_each() -> None:
    printed = run_in_place(
        KINDS[0],
        """
        SOURCE = '''
            import _interpreters
            from greenlet import getcurrent, greenlet

            class Dropped:
                def __init__(self, depth):
                    self.depth = depth

                def __del__(self):
                    print(self.depth, end=" ", flush=True)

            def use(depth):
                [Dropped(depth)]
                if depth > 0:
                    other = _interpreters.create("isolated")
                    source = f"SOURCE = {SOURCE!r}; exec(SOURCE); enter({depth - 1})"
                    failure = _interpreters.exec(other, source)
                    assert failure is None, failure.errdisplay
                    _interpreters.destroy(other)
                getcurrent().parent.switch()
                [Dropped(depth)]

            def enter(depth):
                g = greenlet(use)
                g.switch(depth)
                g.switch()
                assert g.dead
                [Dropped(depth)]
        '''
        SOURCE = textwrap.dedent(SOURCE)
        exec(SOURCE)
        enter(4)
        """,
    )
    assert printed.split() == [*"43210", *"0011223344"]
