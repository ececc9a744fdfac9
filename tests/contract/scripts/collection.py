"""Death by collection: what happens in a suspended greenlet that is garbage."""

from __future__ import annotations

import contextvars
import gc
import sys
import threading
import time
import weakref
from typing import Any

from behaviour import (
    Base,
    Deviation,
    Greenlet,
    GreenletExit,
    arguments,
    behaviour,
    dead,
    getcurrent,
    in_child_process,
    living_thread,
    pause,
    root,
    run,
    say,
    suspended,
    unraisable_reports,
)


def witness(*, tell_parent: Any = None) -> None:
    """A body that says how it ends."""
    try:
        pause()
    except BaseException as error:
        say("raised", repr(error), "parent known:", getcurrent().parent is tell_parent)
        raise
    finally:
        say("finally", "dead:", getcurrent().dead)


class Held:
    """An object whose end is visible."""


@behaviour
def the_last_reference_raises_greenlet_exit() -> None:
    made = suspended(witness)
    say("before")
    del made
    say("after")


@behaviour
def the_text_of_the_exception() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit as error:
            say(error.args)

    made = suspended(body)
    del made


@behaviour
def an_unstarted_greenlet_just_goes() -> None:
    made = Greenlet(lambda: say("runs"))
    reference = weakref.ref(made)
    del made
    say(reference())


@behaviour
def a_dead_greenlet_just_goes() -> None:
    made = dead()
    reference = weakref.ref(made)
    del made
    say(reference())


@behaviour
def locals_are_released() -> None:
    def body() -> None:
        held = Held()
        references.append(weakref.ref(held))
        pause()

    references: list[Any] = []
    made = suspended(body)
    say(references[0]() is not None)
    del made
    say(references[0]())


@behaviour
def the_parent_during_the_death_is_the_one_who_let_go() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            say(getcurrent().parent is killer, getcurrent().parent is root())

    held = [suspended(body)]
    killer = Greenlet(held.clear)
    killer.switch()
    say(killer.dead)


@behaviour
def the_parent_during_the_death_is_not_the_former_parent() -> None:
    former = suspended()
    made = suspended(lambda: witness(tell_parent=root()), former)
    del made
    say(former.dead, bool(former))


@behaviour
def the_value_of_the_body_goes_nowhere() -> None:
    def body() -> str:
        try:
            pause()
        except GreenletExit:
            return "ignored"
        return "never"

    made = suspended(body)
    del made
    say("after")


@behaviour
def another_exception_is_reported() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            raise KeyError("in finally")

    made = suspended(body)
    with unraisable_reports():
        del made
    say("after")


@behaviour
def system_exit_is_reported() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit:
            raise SystemExit(3) from None

    made = suspended(body)
    with unraisable_reports():
        del made
    say("after")


@behaviour
def another_greenlet_exit_is_not_reported() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit:
            raise GreenletExit("another") from None

    made = suspended(body)
    with unraisable_reports():
        del made
    say("after")


@behaviour
def a_subclass_of_greenlet_exit_is_not_reported() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit:
            raise type("Quiet", (GreenletExit,), {}) from None

    made = suspended(body)
    with unraisable_reports():
        del made
    say("after")


@behaviour
def an_exception_under_way_survives() -> None:
    made = suspended(witness)
    try:
        try:
            raise ValueError("under way")
        finally:
            del made
    except ValueError as error:
        say(repr(error), repr(error.__context__))


@behaviour
def the_exception_has_the_context_of_the_one_who_let_go() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit as error:
            say(repr(error.__context__))

    made = suspended(body)
    try:
        raise ValueError("handled")
    except ValueError:
        del made


@behaviour
def what_is_handled_is_untouched() -> None:
    made = suspended(witness)
    try:
        raise ValueError("handled")
    except ValueError:
        del made
        say(sys.exc_info()[0])
    say(sys.exc_info()[0])


@behaviour
def one_that_stores_itself_lives_on() -> None:
    def body() -> Any:
        try:
            pause()
        except GreenletExit:
            stored.append(getcurrent())
        return "end", pause("stored")

    stored: list[Any] = []
    made = suspended(body)
    reference = weakref.ref(made)
    del made
    say(len(stored), reference() is stored[0], stored[0].dead, bool(stored[0]))
    say(stored[0].switch("resumed"), stored[0].dead)


@behaviour
def one_that_stores_itself_can_be_killed_again() -> None:
    def body() -> None:
        for _ in range(2):
            try:
                pause()
            except GreenletExit:
                say("refused")
                stored.append(getcurrent())
        witness()

    stored: list[Any] = []
    made = suspended(body)
    del made
    stored.clear()
    say(len(stored))
    stored.clear()


@behaviour
def one_that_stores_itself_and_ends_stays_as_a_dead_object() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit:
            stored.append(getcurrent())

    stored: list[Any] = []
    made = suspended(body)
    del made
    say(stored[0].dead, stored[0].parent is getcurrent())


@behaviour
def one_that_stores_itself_gets_its_parent_back() -> None:
    def body() -> Any:
        try:
            pause()
        except GreenletExit:
            stored.append(getcurrent())
        pause("away")

    stored: list[Any] = []
    former = suspended()
    made = suspended(body, former)
    del made
    say(stored[0].parent is former)


@behaviour
def one_that_refuses_to_die_is_kept() -> None:
    def body() -> None:
        try:
            pause()
        except GreenletExit:
            pause("refused")

    made = suspended(body)
    reference = weakref.ref(made)
    del made
    gc.collect()
    kept = reference()
    say(kept is not None, bool(kept))


@behaviour
def the_killer_waits_for_one_that_switches_away() -> None:
    def body() -> str:
        try:
            pause()
        except GreenletExit:
            stored.append(getcurrent())
        pause("away")
        return "ignored"

    stored: list[Any] = []
    held = [suspended(body)]

    def kill() -> str:
        held.clear()
        return "killed"

    killer = Greenlet(kill)
    say(killer.switch(), killer.dead, stored[0].parent is killer)
    say(stored[0].switch(), killer.dead, stored[0].dead)


@behaviour
def a_finally_block_may_switch_elsewhere_and_come_back() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            say("helper gives", Greenlet(lambda: "help").switch())

    made = suspended(body)
    del made
    say("after")


@behaviour
def a_weak_reference_is_dead_after_the_end() -> None:
    called: list[int] = []
    made = suspended(witness)
    reference = weakref.ref(made, lambda gone: called.append(1))
    del made
    say(reference(), called)


@behaviour
def a_del_method_sees_it_suspended() -> None:
    class Watched(Base):
        def __del__(self) -> None:
            say("del", self.dead, bool(self))

    made = Watched(witness)
    made.switch()
    del made
    say("after")


@behaviour
def a_del_method_runs_for_unstarted_and_dead_ones() -> None:
    class Watched(Base):
        def __del__(self) -> None:
            say("del", self.dead, bool(self))

    made = Watched(arguments)
    del made
    made = Watched(arguments)
    made.switch()
    del made


@behaviour
def a_del_method_may_bring_it_back() -> None:
    class Watched(Base):
        def __del__(self) -> None:
            stored.append(self)

    stored: list[Any] = []
    made = Watched(lambda: pause("first"))
    made.switch()
    del made
    say(stored[0].dead, stored[0].switch("second"), stored[0].dead)


@behaviour
def one_held_by_another_alone_dies_with_it() -> None:
    def owner() -> None:
        held = Greenlet(witness, root())
        held.switch()
        say("never", held)

    made = suspended(owner)
    say("before")
    del made
    say("after")


@behaviour
def one_dies_within_the_frame_that_lets_go() -> None:
    def owner() -> str:
        held = [suspended(witness, root())]
        del held
        return "owner goes on"

    say(Greenlet(owner).switch())
    say(Greenlet(owner).switch())


@behaviour
def a_chain_of_parents_is_released() -> None:
    made = Greenlet(arguments)
    first = weakref.ref(made)
    for _ in range(100):
        made = Greenlet(arguments, made)
    del made
    say(first())


@behaviour
def a_cycle_of_an_unstarted_greenlet_is_collected() -> None:
    made = Greenlet(arguments)
    made.myself = made
    reference = weakref.ref(made)
    del made
    gc.collect()
    say(reference())


@behaviour
def a_cycle_of_a_dead_greenlet_is_collected() -> None:
    made = dead()
    made.myself = made
    reference = weakref.ref(made)
    del made
    gc.collect()
    say(reference())


@behaviour
def a_cycle_through_run_is_collected() -> None:
    class Callable:
        def __call__(self) -> None: ...

    body: Any = Callable()
    body.owner = Greenlet(body)
    reference = weakref.ref(body)
    del body
    gc.collect()
    say(reference())


@behaviour
def gc_sees_what_an_unstarted_greenlet_holds() -> None:
    parent = Greenlet()
    made = Greenlet(arguments, parent)
    referents = gc.get_referents(made)
    say(any(one is arguments for one in referents), any(one is parent for one in referents))


@behaviour
def collecting_leaves_suspended_greenlets_alone() -> None:
    def body() -> Any:
        held = [Held()]
        pause()
        return len(held)

    made = suspended(body)
    for _ in range(3):
        gc.collect()
    say(made.dead, made.switch())


@behaviour
def a_collection_inside_a_greenlet_is_safe() -> None:
    waiting = [suspended(lambda: pause()) for _ in range(10)]
    Greenlet(gc.collect).switch()
    say([made.switch(number) for number, made in enumerate(waiting)])


@behaviour(
    deviations=(
        Deviation(
            reason="What a collected cycle held ends as it does on every other build.",
            ours=(
                "raised GreenletExit('Killing the greenlet because all references have vanished.') "
                "parent known: False",
                "finally dead: False",
                "collected",
            ),
            published=("collected",),
            on=("3.14t", "3.15t"),
        ),
    )
)
def a_greenlet_dropped_in_a_cycle_of_others_ends() -> None:
    class Node:
        pass

    node: Any = Node()
    node.myself = node
    node.made = suspended(witness)
    del node
    gc.collect()
    say("collected")


@behaviour
def one_dropped_in_another_thread_ends_in_its_own() -> None:
    held: list[Any] = []
    order: list[str] = []

    def body() -> None:
        try:
            pause()
        finally:
            order.append("finally in owner: " + str(threading.current_thread() is owner[0]))

    owner: list[Any] = []

    def setup() -> None:
        owner.append(threading.current_thread())
        held.append(suspended(body))

    def finish() -> None:
        order.append("owner goes on")
        getcurrent()
        order.append("owner has asked")

    with living_thread(setup, finish):
        held.clear()
        order.append("dropped")
    say(order)


@behaviour
def one_dropped_in_another_thread_ends_at_the_owners_next_switch() -> None:
    held: list[Any] = []
    order: list[str] = []

    def body() -> None:
        try:
            pause()
        finally:
            order.append("finally")

    def finish() -> None:
        order.append("owner goes on")
        switch()
        order.append("owner has switched")

    switch: Any = None

    def setup() -> None:
        nonlocal switch
        held.append(suspended(body))
        switch = Greenlet(arguments).switch

    with living_thread(setup, finish):
        held.clear()
        order.append("dropped")
    say(order)


@behaviour
def an_unstarted_one_dropped_in_another_thread_just_goes() -> None:
    held: list[Any] = []

    def setup() -> None:
        held.append(Greenlet(arguments))

    with living_thread(setup):
        reference = weakref.ref(held[0])
        held.clear()
        say(reference())


@behaviour
def nothing_is_pending_when_nothing_was_dropped() -> None:
    # In a process of its own: the published greenlet is slow with what other behaviours dropped.
    in_child_process(
        "import greenlet\n"
        "from greenlet import _greenlet\n"
        "held = greenlet.greenlet(greenlet.getcurrent().switch)\n"
        "held.switch()\n"
        "print(_greenlet.get_pending_cleanup_count())\n"
    )


@behaviour
def a_greenlet_suspended_at_exit_is_no_trouble() -> None:
    in_child_process(
        "import greenlet\n"
        "main = greenlet.getcurrent()\n"
        "made = greenlet.greenlet(lambda: main.switch())\n"
        "made.switch()\n"
        "print('end')\n"
    )


@behaviour
def exiting_inside_a_greenlet_ends_the_program() -> None:
    in_child_process(
        "import greenlet, sys\ngreenlet.greenlet(lambda: sys.exit(7)).switch()\nprint('never')\n"
    )


@behaviour
def an_uncaught_exception_of_a_greenlet_ends_the_program() -> None:
    in_child_process(
        "import greenlet, sys\n"
        "sys.excepthook = lambda kind, error, trace: print('hook', kind.__name__, error)\n"
        "def body():\n"
        "    raise ValueError('uncaught')\n"
        "greenlet.greenlet(body).switch()\n"
        "print('never')\n"
    )


@behaviour
def exit_functions_may_use_greenlets() -> None:
    in_child_process(
        "import atexit, greenlet\n"
        "main = greenlet.getcurrent()\n"
        "made = greenlet.greenlet(lambda: main.switch())\n"
        "made.switch()\n"
        "def last():\n"
        "    print('current is main', greenlet.getcurrent() is main)\n"
        "    print('resumed', made.switch('value'), made.dead)\n"
        "    print(greenlet.greenlet(lambda: 'new').switch())\n"
        "atexit.register(last)\n"
    )


@behaviour
def functions_registered_before_the_import_may_use_greenlets() -> None:
    in_child_process(
        "import atexit, sys\n"
        "def last():\n"
        "    print('current is main', greenlet.getcurrent() is main)\n"
        "    print('resumed', made.switch('value'), made.dead, sys.is_finalizing())\n"
        "atexit.register(last)\n"
        "import greenlet\n"
        "main = greenlet.getcurrent()\n"
        "made = greenlet.greenlet(lambda: main.switch())\n"
        "made.switch()\n"
    )


@behaviour
def there_is_no_current_greenlet_while_the_interpreter_finalizes() -> None:
    in_child_process(
        "import greenlet, sys\n"
        "class Late:\n"
        "    def __del__(self, getcurrent=greenlet.getcurrent, sys=sys, print=print):\n"
        "        print('finalizing', sys.is_finalizing(), flush=True)\n"
        "        try:\n"
        "            print(getcurrent(), flush=True)\n"
        "        except BaseException as error:\n"
        "            print(type(error).__name__, error, flush=True)\n"
        "sys.modules['late'] = Late()\n"
    )


@behaviour
def greenlets_still_switch_while_the_interpreter_finalizes() -> None:
    in_child_process(
        "import greenlet, sys\n"
        "class Late:\n"
        "    def __del__(self, greenlet=greenlet.greenlet, sys=sys, print=print):\n"
        "        made = greenlet(lambda *args: ('body', args))\n"
        "        print(sys.is_finalizing(), made.switch(1), made.dead, flush=True)\n"
        "sys.modules['late'] = Late()\n"
    )


@behaviour(
    deviations=(
        Deviation(
            reason="A collection at exit ends the greenlets that it finds, "
            "as any other collection does.",
            ours=("prints ['finally'] ends with 0", "complains []"),
            published=("prints [] ends with 0", "complains []"),
        ),
    )
)
def a_greenlet_of_a_module_that_is_suspended_at_exit() -> None:
    in_child_process(
        "import greenlet\n"
        "main = greenlet.getcurrent()\n"
        "def body(main=main, print=print):\n"
        "    try:\n"
        "        main.switch()\n"
        "    finally:\n"
        "        print('finally', flush=True)\n"
        "made = greenlet.greenlet(body)\n"
        "made.switch()\n"
    )


@behaviour
def a_program_may_end_inside_a_greenlet_with_others_waiting() -> None:
    in_child_process(
        "import greenlet, sys\n"
        "main = greenlet.getcurrent()\n"
        "waiting = [greenlet.greenlet(lambda: main.switch()) for _ in range(10)]\n"
        "for made in waiting: made.switch()\n"
        "def body():\n"
        "    print('leaving')\n"
        "    sys.exit(0)\n"
        "greenlet.greenlet(body).switch()\n"
    )


@behaviour
def a_daemon_thread_in_a_greenlet_is_no_trouble_at_exit() -> None:
    in_child_process(
        "import greenlet, threading, time\n"
        "started = threading.Event()\n"
        "def body():\n"
        "    started.set()\n"
        "    while True: time.sleep(0.001)\n"
        "threading.Thread(target=lambda: greenlet.greenlet(body).switch(), daemon=True).start()\n"
        "started.wait()\n"
        "print('end')\n"
    )


@behaviour
def a_fork_keeps_the_greenlets_of_the_forking_thread() -> None:
    in_child_process(
        "import greenlet, os\n"
        "main = greenlet.getcurrent()\n"
        "made = greenlet.greenlet(lambda: main.switch())\n"
        "made.switch()\n"
        "child = os.fork()\n"
        "if child: print('child ended with', os.waitpid(child, 0)[1], flush=True)\n"
        "print(made.switch('value'), made.dead, greenlet.getcurrent() is main, flush=True)\n"
        "if not child: os._exit(0)\n"
    )


@behaviour
def waiting_does_not_end_a_greenlet() -> None:
    made = suspended(witness)
    time.sleep(0.01)
    gc.collect()
    say(made.dead)
    made.switch()


@behaviour
def a_greenlet_that_goes_lets_go_in_this_order() -> None:
    class Telling:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self) -> None:
            pass

        def __del__(self) -> None:
            say(self.name)

    class Parent(Base):
        def __del__(self) -> None:
            say("parent")

    variable: Any = contextvars.ContextVar("variable")
    context = contextvars.Context()
    context.run(variable.set, Telling("context"))
    made = Greenlet(Telling("run"), Parent())
    made.attribute = Telling("attribute")
    made.gr_context = context
    del context
    del made


if __name__ == "__main__":
    run()
