"""`parent`: reading and writing it, cycles, and where an end goes after it was changed."""

from __future__ import annotations

from typing import Any

from behaviour import (
    Base,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    dead,
    fail,
    getcurrent,
    listening,
    pause,
    root,
    run,
    say,
    suspended,
)


def set_parent(target: Any, value: Any) -> None:
    target.parent = value


def delete_parent(target: Any) -> None:
    del target.parent


@behaviour
def a_parent_can_be_set() -> None:
    parent, child = Greenlet(), Greenlet()
    say(attempt(set_parent, child, parent), child.parent is parent)


@behaviour
def a_parent_can_be_set_in_every_state() -> None:
    parent = Greenlet()
    for child in (Greenlet(), suspended(), dead()):
        say(attempt(set_parent, child, parent), child.parent is parent)


@behaviour
def a_parent_may_be_in_every_state() -> None:
    for parent in (Greenlet(), suspended(), dead(), getcurrent()):
        child = Greenlet()
        say(attempt(set_parent, child, parent), child.parent is parent)


@behaviour
def a_parent_cannot_be_deleted() -> None:
    say(attempt(delete_parent, Greenlet()))
    say(attempt(delete_parent, suspended()))
    say(attempt(delete_parent, dead()))
    say(attempt(delete_parent, getcurrent()))


@behaviour
def a_parent_must_be_a_greenlet() -> None:
    child = Greenlet()
    for value in (None, 1, "text", object(), Greenlet):
        say(attempt(set_parent, child, value), child.parent is getcurrent())


@behaviour
def a_subclass_instance_is_a_parent() -> None:
    class Special(Base):
        pass

    child, parent = Greenlet(), Special()
    say(attempt(set_parent, child, parent), child.parent is parent)


@behaviour
def a_greenlet_cannot_be_its_own_parent() -> None:
    child = Greenlet()
    say(attempt(set_parent, child, child), child.parent is getcurrent())


@behaviour
def a_cycle_of_two_is_refused() -> None:
    first = Greenlet()
    second = Greenlet(parent=first)
    say(attempt(set_parent, first, second), first.parent is getcurrent())


@behaviour
def a_cycle_of_many_is_refused() -> None:
    chain = [Greenlet()]
    for _ in range(20):
        chain.append(Greenlet(parent=chain[-1]))
    say(attempt(set_parent, chain[0], chain[-1]))
    say(attempt(set_parent, chain[10], chain[15]))
    say(attempt(set_parent, chain[15], chain[10]), chain[15].parent is chain[10])


@behaviour
def a_cycle_of_dead_greenlets_is_refused() -> None:
    first = dead()
    second = dead()
    second.parent = first
    say(attempt(set_parent, first, second))


@behaviour
def the_running_greenlet_may_change_its_parent_but_not_to_itself() -> None:
    def body() -> tuple[str, str]:
        child = Greenlet()
        return attempt(set_parent, getcurrent(), getcurrent()), attempt(
            set_parent, getcurrent(), child
        )

    say(Greenlet(body).switch())


@behaviour
def a_main_greenlet_has_no_parent_and_gets_none() -> None:
    main = getcurrent()
    say(main.parent)
    for value in (Greenlet(), main, None, 1):
        say(attempt(set_parent, main, value))


@behaviour
def a_parent_set_while_running_receives_the_end() -> None:
    def body() -> str:
        getcurrent().parent = receiver
        return "value"

    receiver = listening()
    say(Greenlet(body).switch())


@behaviour
def a_parent_set_while_suspended_receives_the_end() -> None:
    receiver = listening()
    child = suspended()
    child.parent = receiver
    say(child.switch("value"))


@behaviour
def a_parent_set_while_suspended_receives_the_exception() -> None:
    receiver = listening()

    def body() -> None:
        pause()
        fail()

    child = suspended(body)
    child.parent = receiver
    say(child.switch())


@behaviour
def an_end_goes_to_the_parent_not_to_the_caller() -> None:
    receiver = listening()
    child = Greenlet(lambda: "value", receiver)
    caller = Greenlet(lambda: ("caller got", child.switch()))
    say(caller.switch(), caller.dead, bool(caller))


@behaviour
def an_exception_goes_to_the_parent_not_to_the_caller() -> None:
    receiver = listening()
    child = Greenlet(fail, receiver)
    caller = Greenlet(lambda: ("caller got", child.switch()))
    say(caller.switch(), caller.dead)


@behaviour
def parents_nest() -> None:
    def nest(depth: int) -> Any:
        return depth if depth == 0 else (depth, Greenlet(nest).switch(depth - 1))

    say(Greenlet(nest).switch(4))


@behaviour
def a_dead_parent_stays_readable() -> None:
    parent = Greenlet(arguments)
    child = Greenlet(arguments, parent)
    parent.switch()
    say(parent.dead, child.parent is parent)


@behaviour
def the_parent_of_a_dead_greenlet_stays() -> None:
    parent = Greenlet()
    child = dead()
    child.parent = parent
    say(child.parent is parent, child.dead)


@behaviour
def a_property_named_parent_is_not_used_by_the_end() -> None:
    class Hiding(Base):
        @property
        def parent(self) -> str:
            return "hidden"

    made = Hiding(lambda: 3)
    say(made.parent, made.switch())


@behaviour
def a_method_named_switch_is_not_used_by_the_end() -> None:
    class Hiding(Base):
        def switch(self, *args: Any) -> Any:
            say("never called", args)

        def throw(self, *args: Any) -> Any:
            say("never called", args)

    receiver = Hiding(arguments)
    say(Greenlet(lambda: 5, receiver).switch())
    receiver = Hiding(arguments)
    say(attempt(Greenlet(fail, receiver).switch), receiver.dead)


@behaviour
def the_current_greenlet_is_the_root_of_its_children() -> None:
    say(root() is getcurrent(), Greenlet(lambda: root() is getcurrent()).switch())


if __name__ == "__main__":
    run()
