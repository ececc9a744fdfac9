"""Threads: whose greenlet may be switched to where, and what is left when a thread ends."""

from __future__ import annotations

import threading
from typing import Any

from behaviour import (
    Deviation,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    dead,
    fail,
    getcurrent,
    in_child_process,
    in_thread,
    library,
    living_thread,
    pause,
    run,
    say,
    suspended,
)


def one_of_each() -> dict[str, Any]:
    """Greenlets of the calling thread, one in each state."""
    return {
        "main": getcurrent(),
        "unstarted": Greenlet(arguments),
        "suspended": suspended(),
        "dead": dead(),
    }


def set_parent(target: Any, value: Any) -> None:
    target.parent = value


@behaviour
def every_thread_has_its_main_greenlet() -> None:
    here = getcurrent()
    there = in_thread(getcurrent)
    say(here is there, here.parent, there.parent)


@behaviour
def greenlets_run_in_a_thread() -> None:
    say(in_thread(lambda: Greenlet(arguments).switch(1)))


@behaviour
def a_thread_may_run_inside_a_greenlet() -> None:
    say(Greenlet(lambda: in_thread(lambda: Greenlet(arguments).switch(1))).switch())


@behaviour
def switching_to_another_threads_greenlet_is_an_error() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, attempt(made.switch, 1))


@behaviour
def throwing_at_another_threads_greenlet_is_an_error() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, attempt(made.throw))
            say(state, attempt(made.throw, ValueError("thrown")))


@behaviour(
    deviations=(
        Deviation(
            reason="The checks have one order on all builds.",
            ours=(
                "main raised TypeError: exceptions must be classes, or instances, not int",
                "unstarted raised TypeError: exceptions must be classes, or instances, not int",
                "suspended raised TypeError: exceptions must be classes, or instances, not int",
                "dead raised TypeError: exceptions must be classes, or instances, not int",
            ),
            published=(
                "main raised error: Cannot switch to a different thread",
                "unstarted raised error: Cannot switch to a different thread",
                "suspended raised error: Cannot switch to a different thread",
                "dead raised error: Cannot switch to a different thread",
            ),
            on=("3.14t", "3.15t"),
        ),
    )
)
def throw_checks_its_arguments_before_the_thread() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, attempt(made.throw, 1).split("\n")[0])


@behaviour
def the_error_is_raised_in_a_child_too() -> None:
    with living_thread(getcurrent) as main:
        say(Greenlet(lambda: attempt(main.switch)).switch())


@behaviour
def the_error_is_of_the_librarys_type() -> None:
    with living_thread(getcurrent) as main:
        try:
            main.switch()
        except library.error as error:
            say(type(error) is library.error, str(error).splitlines()[0])


@behaviour
def a_refused_switch_changes_nothing() -> None:
    outcome: list[Any] = []
    with living_thread(one_of_each, lambda: None) as theirs:
        for made in theirs.values():
            attempt(made.switch, 1)
        outcome = [(state, made.dead, bool(made)) for state, made in theirs.items()]
    say(outcome)


@behaviour
def attributes_of_another_threads_greenlets_are_readable() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, made.dead, bool(made), made.gr_frame is not None, made.parent is None)


@behaviour
def stack_saved_of_another_threads_greenlets_is_readable() -> None:
    with living_thread(one_of_each) as theirs:
        for state in ("unstarted", "suspended", "dead"):
            say(state, theirs[state]._stack_saved > 0)


@behaviour
def repr_of_another_threads_greenlets() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, repr(made))


@behaviour
def the_frames_of_another_threads_greenlet_are_readable() -> None:
    def body() -> None:
        value = 7
        deeper()
        del value

    def deeper() -> None:
        pause()

    with living_thread(lambda: suspended(body)) as made:
        frame = made.gr_frame
        say(frame.f_code.co_name, frame.f_back.f_code.co_name)
        say(frame.f_back.f_back.f_locals["value"])


@behaviour
def a_parent_of_another_thread_may_be_set_before_the_start() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            child = Greenlet(arguments)
            say(state, attempt(set_parent, child, made), child.parent is made)


@behaviour
def a_parent_of_another_thread_may_be_given_to_the_constructor() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, Greenlet(arguments, made).parent is made)


@behaviour
def a_started_greenlet_gets_no_parent_of_another_thread() -> None:
    with living_thread(one_of_each) as theirs:
        for made in (suspended(), dead()):
            say(attempt(set_parent, made, theirs["main"]), made.parent is getcurrent())
            say(attempt(set_parent, made, theirs["suspended"]), made.parent is getcurrent())


@behaviour
def another_threads_greenlet_gets_a_parent_here_only_before_the_start() -> None:
    with living_thread(one_of_each) as theirs:
        for state, made in theirs.items():
            say(state, attempt(set_parent, made, getcurrent()))


@behaviour
def a_child_of_another_threads_greenlet_cannot_be_started_here() -> None:
    with living_thread(one_of_each) as theirs:
        for state in ("main", "suspended"):
            child = Greenlet(arguments, theirs[state])
            say(state, attempt(child.switch), child.dead)
            say(state, attempt(child.throw, ValueError("thrown")), child.dead)


@behaviour
def an_unstarted_greenlet_moves_with_its_parent() -> None:
    with living_thread(lambda: Greenlet(lambda: threading.current_thread().name)) as made:
        made.parent = getcurrent()
        say(made.switch() == threading.current_thread().name, made.dead)


@behaviour
def a_greenlet_made_for_another_thread_starts_there() -> None:
    here = getcurrent()
    say(in_thread(lambda: attempt(Greenlet(arguments, here).switch)).split("\n")[0])
    made = in_thread(lambda: Greenlet(arguments, here))
    say(made.switch(1), made.dead)


@behaviour
def the_main_greenlet_of_a_thread_that_ended_is_dead() -> None:
    made = in_thread(getcurrent)
    say(made.dead, bool(made), made.parent, made.gr_frame, made._stack_saved)


@behaviour
def a_suspended_greenlet_of_a_thread_that_ended_is_dead() -> None:
    made = in_thread(suspended)
    say(made.dead, bool(made), made.gr_frame, made._stack_saved)


@behaviour
def an_unstarted_greenlet_of_a_thread_that_ended_is_not_dead() -> None:
    made = in_thread(lambda: Greenlet(arguments))
    say(made.dead, bool(made), made.run is arguments)


@behaviour
def repr_of_the_greenlets_of_a_thread_that_ended() -> None:
    for state, made in in_thread(one_of_each).items():
        say(state, repr(made))


@behaviour
def switching_to_a_thread_that_ended_is_an_error() -> None:
    for state, made in in_thread(one_of_each).items():
        say(state, attempt(made.switch), made.dead)


@behaviour
def throwing_at_a_thread_that_ended_is_an_error() -> None:
    for state, made in in_thread(one_of_each).items():
        say(state, attempt(made.throw), made.dead)
        say(state, attempt(made.throw, ValueError("thrown")), made.dead)


@behaviour
def the_parent_in_a_thread_that_ended_stays() -> None:
    theirs = in_thread(one_of_each)
    for state in ("unstarted", "suspended", "dead"):
        say(state, theirs[state].parent is theirs["main"])


@behaviour
def the_context_of_a_thread_that_ended_is_readable() -> None:
    theirs = in_thread(one_of_each)
    for state in ("unstarted", "suspended", "dead"):
        say(state, attempt(lambda state=state: theirs[state].gr_context))


@behaviour(
    deviations=(
        Deviation(
            reason="A thread that has ended runs nothing, so nothing stands in the way of reading.",
            ours=("None",),
            published=(
                "raised ValueError: "
                "cannot get context of a greenlet that is running in a different thread",
            ),
        ),
    )
)
def the_context_of_the_main_greenlet_of_a_thread_that_ended() -> None:
    made = in_thread(getcurrent)
    say(attempt(lambda: made.gr_context))


@behaviour
def an_unstarted_greenlet_of_a_thread_that_ended_works_under_a_living_parent() -> None:
    made = in_thread(lambda: Greenlet(arguments))
    made.parent = getcurrent()
    say(made.switch(5), made.dead, repr(made))


@behaviour
def a_child_of_a_thread_that_ended_cannot_be_started() -> None:
    for state in ("main", "unstarted", "suspended", "dead"):
        child = Greenlet(arguments, in_thread(one_of_each)[state])
        say(state, attempt(child.switch), child.dead)


@behaviour
def a_child_of_a_thread_that_ended_works_after_it_moves() -> None:
    child = Greenlet(arguments, in_thread(getcurrent))
    child.parent = getcurrent()
    say(child.switch(1))


@behaviour(
    deviations=(
        Deviation(
            reason="A thread that ends gives its suspended greenlets GreenletExit, in that thread, "
            "so that their finally blocks run and their stacks are given back.",
            ours=("finally", "True", "deleted"),
            published=("True", "deleted"),
        ),
    )
)
def a_greenlet_left_suspended_by_a_thread_that_ended() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            say("finally")

    made = in_thread(lambda: suspended(body))
    say(made.dead)
    del made
    say("deleted")


@behaviour
def a_greenlet_held_by_its_thread_alone_ends_with_the_function() -> None:
    def body() -> None:
        try:
            pause()
        finally:
            say("finally in", threading.current_thread() is thread)

    def work() -> None:
        made = suspended(body)
        say("waiting", bool(made))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@behaviour
def tracing_is_of_one_thread() -> None:
    library.settrace(arguments)
    say(in_thread(library.gettrace), library.gettrace() is arguments)
    library.settrace(None)


@behaviour
def a_thread_that_ends_while_it_traces_leaves_nothing() -> None:
    def work() -> Any:
        library.settrace(arguments)
        return Greenlet(arguments).switch(1)

    say(in_thread(work), library.gettrace())


@behaviour
def the_number_of_main_greenlets_follows_the_threads() -> None:
    in_child_process(
        "import greenlet, threading, time\n"
        "count = greenlet._greenlet.get_total_main_greenlets\n"
        "greenlet.getcurrent()\n"
        "print(count())\n"
        "def work():\n"
        "    print(count())\n"
        "    greenlet.getcurrent()\n"
        "    print(count())\n"
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
        "time.sleep(0.1)\n"
        "greenlet.getcurrent()\n"
        "print(count())\n"
    )


@behaviour
def an_exception_in_a_greenlet_of_a_thread_stays_there() -> None:
    say(in_thread(lambda: attempt(Greenlet(fail).switch)))


@behaviour
def the_current_greenlet_of_a_greenlet_that_crossed_threads_is_never_mixed() -> None:
    def body() -> bool:
        return in_thread(lambda: getcurrent().parent is None) and getcurrent().parent is main

    main = getcurrent()
    say(Greenlet(body).switch())


if __name__ == "__main__":
    run()
