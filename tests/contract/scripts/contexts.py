"""`gr_context` and context variables: each greenlet has a context of its own."""

from __future__ import annotations

import contextvars
from contextvars import Context, ContextVar, copy_context
from typing import Any

from behaviour import (
    Greenlet,
    arguments,
    attempt,
    behaviour,
    dead,
    getcurrent,
    in_thread,
    living_thread,
    pause,
    run,
    say,
    suspended,
)

variable: ContextVar[Any] = ContextVar("variable", default="default")


def set_context(target: Any, value: Any) -> None:
    target.gr_context = value


def delete_context(target: Any) -> None:
    del target.gr_context


@behaviour
def a_new_greenlet_has_no_context() -> None:
    say(Greenlet(arguments).gr_context)


@behaviour
def a_new_greenlet_starts_with_an_empty_context() -> None:
    variable.set("main's")
    say(Greenlet(variable.get).switch(), variable.get())


@behaviour
def a_value_set_in_a_greenlet_stays_there() -> None:
    def body() -> Any:
        variable.set("child's")
        pause()
        return variable.get()

    variable.set("main's")
    made = suspended(body)
    say(variable.get())
    variable.set("main's again")
    say(made.switch(), variable.get())


@behaviour
def siblings_do_not_see_each_others_values() -> None:
    def body(value: str) -> Any:
        variable.set(value)
        pause()
        return variable.get()

    first, second = Greenlet(body), Greenlet(body)
    first.switch("first")
    second.switch("second")
    say(first.switch(), second.switch(), variable.get())


@behaviour
def a_greenlet_that_never_used_a_variable_keeps_no_context() -> None:
    say(suspended().gr_context)


@behaviour
def the_context_of_a_suspended_greenlet_is_readable() -> None:
    def body() -> None:
        variable.set("child's")
        pause()

    context = suspended(body).gr_context
    say(type(context) is Context, context.get(variable), len(context))


@behaviour
def the_context_of_the_running_greenlet_is_readable() -> None:
    def body() -> Any:
        before = getcurrent().gr_context
        variable.set("child's")
        context = getcurrent().gr_context
        return before, context[variable], context is getcurrent().gr_context

    say(Greenlet(body).switch())


@behaviour
def the_context_of_the_main_greenlet_is_readable() -> None:
    variable.set("main's")
    say(getcurrent().gr_context[variable])


@behaviour
def the_context_of_a_suspended_main_greenlet_is_readable() -> None:
    variable.set("main's")
    main = getcurrent()
    say(Greenlet(lambda: main.gr_context[variable]).switch())


@behaviour
def a_context_can_be_given_before_the_start() -> None:
    variable.set("main's")
    made = Greenlet(variable.get)
    made.gr_context = copy_context()
    say(made.switch(), variable.get())


@behaviour
def a_context_given_is_the_context_used() -> None:
    context = copy_context()
    made = Greenlet(lambda: variable.set("child's"))
    made.gr_context = context
    say(made.gr_context is context)
    made.switch()
    say(context[variable], variable.get())


@behaviour
def two_greenlets_may_share_a_context() -> None:
    context = copy_context()
    first = Greenlet(lambda: variable.set("first's"))
    second = Greenlet(variable.get)
    first.gr_context = second.gr_context = context
    first.switch()
    say(second.switch())


@behaviour
def a_context_can_be_given_while_suspended() -> None:
    def body() -> Any:
        variable.set("child's")
        pause()
        return variable.get()

    made = suspended(body)
    other = copy_context()
    other.run(variable.set, "other")
    made.gr_context = other
    say(made.gr_context is other, made.switch())


@behaviour
def a_context_can_be_taken_while_suspended() -> None:
    def body() -> Any:
        variable.set("child's")
        pause()
        return variable.get()

    made = suspended(body)
    made.gr_context = None
    say(made.gr_context, made.switch())


@behaviour
def a_context_can_be_given_while_running() -> None:
    def body() -> Any:
        variable.set("first")
        first = getcurrent().gr_context
        getcurrent().gr_context = None
        seen = [variable.get(), getcurrent().gr_context]
        getcurrent().gr_context = first
        return [*seen, variable.get(), getcurrent().gr_context is first]

    say(Greenlet(body).switch())


@behaviour
def a_variable_read_after_the_context_was_replaced_is_not_stale() -> None:
    def body() -> Any:
        seen = [variable.get()]
        for number in range(3):
            context = Context()
            context.run(variable.set, number)
            getcurrent().gr_context = context
            seen.append(variable.get())
        return seen

    say(Greenlet(body).switch())


@behaviour
def a_variable_read_on_both_sides_is_not_stale() -> None:
    def body() -> None:
        for number in range(3):
            variable.set(("child", number))
            say(variable.get(), pause())
            say(variable.get())

    made = suspended(body)
    for number in range(3):
        variable.set(("main", number))
        made.switch()
        say(variable.get())


@behaviour
def a_context_can_be_given_to_the_main_greenlet() -> None:
    variable.set("main's")
    before = getcurrent().gr_context
    getcurrent().gr_context = None
    say(variable.get())
    getcurrent().gr_context = before
    say(variable.get())


@behaviour
def a_context_can_be_given_to_a_dead_greenlet() -> None:
    made = dead()
    context = copy_context()
    made.gr_context = context
    say(made.gr_context is context)
    made.gr_context = None
    say(made.gr_context)


@behaviour
def a_dead_greenlet_keeps_its_context() -> None:
    def body() -> None:
        variable.set("child's")

    made = Greenlet(body)
    made.switch()
    say(type(made.gr_context).__name__, made.gr_context[variable])


@behaviour
def a_context_must_be_a_context_or_none() -> None:
    wrong: list[Any] = [1, "text", {}, Context]
    for value in wrong:
        say(attempt(set_context, Greenlet(), value))
        say(attempt(set_context, getcurrent(), value))


@behaviour
def a_context_cannot_be_deleted() -> None:
    say(attempt(delete_context, Greenlet()))
    say(attempt(delete_context, getcurrent()))


@behaviour
def a_greenlet_may_be_suspended_inside_a_context() -> None:
    context = Context()

    def enter() -> Any:
        variable.set("inside")
        pause()
        return variable.get()

    def body() -> Any:
        variable.set("outside")
        inside = context.run(enter)
        return inside, variable.get()

    made = suspended(body)
    say(made.gr_context is context, variable.get())
    say(made.switch())


@behaviour
def a_context_in_which_another_greenlet_waits_cannot_be_entered() -> None:
    context = Context()
    made = suspended(lambda: context.run(pause))
    say(attempt(context.run, arguments))
    made.switch()
    say(attempt(context.run, arguments))


@behaviour
def a_context_entered_by_the_main_greenlet_may_be_given_to_another() -> None:
    context = Context()

    def inside() -> Any:
        made = Greenlet(lambda: variable.set("child's"))
        made.gr_context = context
        made.switch()
        return variable.get()

    say(context.run(inside), variable.get())


@behaviour
def a_greenlet_started_inside_a_context_does_not_inherit_it() -> None:
    context = Context()

    def inside() -> Any:
        variable.set("inside")
        return Greenlet(variable.get).switch(), variable.get()

    say(context.run(inside))


@behaviour
def a_token_is_of_the_context_it_was_made_in() -> None:
    def body() -> Any:
        return attempt(variable.reset, token).split(" was created")[-1]

    token = variable.set("main's")
    say(Greenlet(body).switch())


@behaviour
def a_token_can_be_used_after_a_switch() -> None:
    def body() -> Any:
        token = variable.set("child's")
        pause()
        variable.reset(token)
        return variable.get()

    say(suspended(body).switch())


@behaviour
def a_thread_has_contexts_of_its_own() -> None:
    variable.set("main's")
    say(in_thread(lambda: Greenlet(variable.get).switch()))


@behaviour
def the_context_of_a_thread_that_runs_elsewhere_is_refused() -> None:
    with living_thread(getcurrent) as main:
        say(attempt(lambda: main.gr_context))
        say(attempt(set_context, main, None))


@behaviour
def the_context_of_a_greenlet_suspended_elsewhere_is_readable() -> None:
    def body() -> None:
        variable.set("theirs")
        pause()

    with living_thread(lambda: suspended(body)) as made:
        say(made.gr_context[variable])


@behaviour
def the_context_of_a_greenlet_suspended_elsewhere_can_be_set() -> None:
    with living_thread(suspended) as made:
        say(attempt(set_context, made, copy_context()), type(made.gr_context).__name__)


@behaviour
def copy_context_copies_the_greenlets() -> None:
    def body() -> Any:
        variable.set("child's")
        return contextvars.copy_context()

    variable.set("main's")
    say(Greenlet(body).switch()[variable])


if __name__ == "__main__":
    run()
