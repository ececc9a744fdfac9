"""Which greenlet goes on when a greenlet ends (its heir), if parents change during the search.

The lookup of an unstarted parent's `run` is Python code. It may change parents, so that the chain
leads back to the greenlet that ends, and it may switch away. Each case runs in a child process,
because the process would crash if a greenlet went on with its own, ended stack.
"""

from __future__ import annotations

import textwrap

import pytest
from helpers import only_free_threaded, run_clean

PRELUDE = """
    import gc
    from greenlet import GreenletExit, getcurrent, greenlet, settrace

    main = getcurrent()

    class Looked(greenlet):
        @property
        def run(self):
            return lookup(self)

    def outcome(g, *args):
        try:
            return g.switch(*args)
        except BaseException as error:
            return repr(error)
"""


def program(*parts: str) -> str:
    return "".join(textwrap.dedent(part) for part in (PRELUDE, *parts))


# What the lookup does, and what main must get. `a` ends with the result "mine"; `x` is its parent.
CASES = {
    "the parent's lookup makes the ending greenlet its parent": (
        """
        def lookup(self):
            a.parent = main
            x.parent = a
            raise ValueError("lookup")
        """,
        "ValueError('lookup')",
    ),
    "a dead greenlet leads back": (
        """
        dead = greenlet(lambda: None)
        dead.switch()
        def lookup(self):
            a.parent = main
            dead.parent = a
            x.parent = dead
            raise ValueError("lookup")
        """,
        "ValueError('lookup')",
    ),
    "a long chain of dead and unstarted greenlets leads back": (
        """
        chain = [greenlet((lambda: None) if i % 2 == 0 else None) for i in range(1000)]
        for g in chain[::2]:
            g.switch()
        for g in chain[1::2]:
            del g.run
        def lookup(self):
            a.parent = main
            parent = a
            for g in chain:
                g.parent = parent
                parent = g
            x.parent = parent
            raise ValueError("lookup")
        """,
        "AttributeError('run')",
    ),
    "the lookup raises GreenletExit, which a greenlet that has ended hands on as a value": (
        """
        def lookup(self):
            a.parent = main
            x.parent = a
            raise GreenletExit("lookup")
        """,
        "GreenletExit('lookup')",
    ),
    "the lookup lets the parent run and end, and then the result is as it was": (
        """
        depth = 0
        def lookup(self):
            global depth
            depth += 1
            if depth > 1:
                return lambda: None
            a.parent = main
            x.parent = a
            x.switch()
            assert x.dead
            return print
        """,
        "mine",
    ),
    "the new parent of the ending greenlet fails, too": (
        """
        y = Looked()
        def lookup(self):
            if self is y:
                raise KeyError("second")
            a.parent = y
            x.parent = a
            raise ValueError("first")
        """,
        "KeyError('second')",
    ),
    "it is led back again and again, for ever": (
        """
        y = Looked()
        def lookup(self):
            other = x if self is y else y
            other.parent = main
            a.parent = main
            self.parent = a
            a.parent = other
            raise ValueError("lookup")
        """,
        "ValueError('lookup')",
    ),
    "the lookup switches away and comes back before it leads back": (
        """
        def lookup(self):
            helper = greenlet(lambda: main.switch("away"))
            helper.switch()
            a.parent = main
            x.parent = a
            raise ValueError("lookup")
        """,
        "away",
    ),
}


@pytest.mark.parametrize("tracing", [False, True], ids=["untraced", "traced"])
@pytest.mark.parametrize(("lookup", "expected"), CASES.values(), ids=CASES)
def test_a_greenlet_that_ends_is_never_its_own_heir(
    lookup: str, expected: str, tracing: bool
) -> None:
    traced = "settrace(lambda *event: gc.collect())" if tracing else ""
    script = f"""
        {traced}
        a = greenlet(lambda: "mine")
        x = Looked()
        a.parent = x
        got = outcome(a)
        if got == "away":
            assert a.dead  # for Python code; it goes on in the lookup all the same
            assert outcome(a) == "ValueError('lookup')"
        print(got if isinstance(got, str) else repr(got))
        assert a.dead
    """
    assert run_clean(program(lookup, script)) == expected


def test_a_greenlet_that_fails_and_is_led_back_hands_on_the_error_of_the_lookup() -> None:
    assert (
        run_clean(
            program("""
    def lookup(self):
        a.parent = main
        x.parent = a
        raise ValueError("lookup")
    a = greenlet(lambda: 1 / 0)
    x = Looked()
    a.parent = x
    print(outcome(a))
    """)
        )
        == "ValueError('lookup')"
    )


def test_a_greenlet_killed_in_the_lookup_ends_quietly_and_its_parents_get_nothing() -> None:
    assert (
        run_clean(
            program("""
    heard = []
    def hear():
        try:
            heard.append(main.switch())
        except BaseException as error:
            heard.append(repr(error))
    p = greenlet(hear)
    p.switch()
    def lookup(self):
        main.switch("in the lookup")
        raise ValueError("lookup")
    for end in range(2):
        a = greenlet(lambda: "mine")
        a.parent = x = Looked(parent=p)
        print(a.switch())
        if end == 0:
            del a, x  # the last reference
        else:
            a.own = a  # found by a collection
            del a, x
            gc.collect()
    print(heard)
    """)
        )
        == "in the lookup\nin the lookup\n[]"
    )


def test_a_greenlet_killed_in_the_lookup_by_the_parent_looked_up_ends_for_that_parent() -> None:
    assert (
        run_clean(
            program("""
    def run():
        held.clear()
        return "has run on"
    def lookup(self):
        main.switch("in the lookup")
        raise ValueError("lookup")
    for end in range(2):
        x = Looked()
        held = [greenlet(lambda: "mine", x)]
        print(held[0].switch())
        if end == 1:
            held[0].own = held[0]  # found by a collection
            def run():
                held.clear()
                gc.collect()
                return "has run on"
        Looked.run = staticmethod(run)  # it starts while a greenlet looks it up
        print(outcome(x))
        Looked.run = property(lambda self: lookup(self))
    """)
        )
        == "in the lookup\nhas run on\nin the lookup\nhas run on"
    )


def test_a_greenlet_left_in_the_lookup_ends_with_its_thread() -> None:
    assert (
        run_clean(
            program("""
    import threading
    log = []
    def lookup(self):
        try:
            self.parent.switch()
        finally:
            log.append("ended")
    def work():
        global kept
        a = greenlet(lambda: "mine")
        a.parent = Looked()
        a.switch()
        kept = a
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print(log, kept.dead)
    """)
        )
        == "['ended'] True"
    )


@only_free_threaded
def test_other_threads_may_change_the_parents_of_greenlets_that_end() -> None:
    assert (
        run_clean(
            program("""
    import threading, time
    dead = [greenlet(lambda: None) for _ in range(2)]
    for g in dead:
        g.switch()
    current = None
    stop = False
    def shuffle():
        while not stop:
            g = current
            if g is None:
                continue
            for child, parent in (
                (g, main), (dead[0], g), (dead[0], main), (g, dead[0]), (dead[1], dead[0]),
                (g, dead[1]),
            ):
                try:
                    child.parent = parent
                except ValueError:
                    pass
    threads = [threading.Thread(target=shuffle) for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        g = greenlet(lambda: 1)
        g.parent = dead[0]
        current = g
        assert g.switch() == 1
    stop = True
    for thread in threads:
        thread.join()
    print("done")
    """)
        )
        == "done"
    )
