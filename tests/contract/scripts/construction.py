"""Making greenlets: the constructor, `__new__` alone, and `__init__` again."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

from behaviour import (
    Base,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    dead,
    getcurrent,
    in_thread,
    pause,
    run,
    say,
    suspended,
)


def other(*args: Any) -> tuple[str, tuple[Any, ...]]:
    return "other", args


@behaviour
def both_arguments_are_optional() -> None:
    made = Greenlet()
    say(made.parent is getcurrent(), attempt(lambda: made.run), made.dead, bool(made))


@behaviour
def arguments_go_by_position() -> None:
    parent = Greenlet()
    made = Greenlet(arguments, parent)
    say(made.run is arguments, made.parent is parent)


@behaviour
def arguments_go_by_keyword() -> None:
    parent = Greenlet()
    made = Greenlet(parent=parent, run=arguments)
    say(made.run is arguments, made.parent is parent)


@behaviour
def a_parent_of_none_is_the_current_greenlet() -> None:
    say(Greenlet(arguments, None).parent is getcurrent())
    say(Greenlet(parent=None).parent is getcurrent())


@behaviour
def the_default_parent_is_the_greenlet_that_creates() -> None:
    def create() -> bool:
        return Greenlet().parent is getcurrent()

    say(Greenlet(create).switch())


@behaviour
def none_as_run_is_stored() -> None:
    made = Greenlet(None)
    say(attempt(lambda: made.run), attempt(made.switch), made.dead)


@behaviour
def run_need_not_be_callable_until_the_start() -> None:
    made = Greenlet(5)
    say(made.run, attempt(made.switch), made.dead)


@behaviour
def a_parent_of_another_type_is_refused() -> None:
    say(attempt(Greenlet, arguments, 1))
    say(attempt(Greenlet, arguments, "parent"))
    say(attempt(Greenlet, arguments, Greenlet))
    say(attempt(Greenlet, parent=1))


@behaviour
def a_third_argument_is_refused() -> None:
    say(attempt(Greenlet, arguments, None, 3))


@behaviour
def an_unknown_keyword_is_refused() -> None:
    say(attempt(Greenlet, wrong=1))


@behaviour
def an_argument_given_twice_is_refused() -> None:
    say(attempt(Greenlet, arguments, run=arguments))


@behaviour
def new_alone_makes_a_usable_greenlet() -> None:
    made = Greenlet.__new__(Greenlet)
    say(made.parent is getcurrent(), attempt(lambda: made.run))
    made.run = arguments
    say(made.switch(1, two=2))


@behaviour
def new_ignores_its_arguments() -> None:
    made = Greenlet.__new__(Greenlet, 1, 2, 3, four=4)
    say(made.parent is getcurrent(), attempt(lambda: made.run))


@behaviour
def new_refuses_a_type_that_is_no_greenlet() -> None:
    say(attempt(Greenlet.__new__, int))
    say(attempt(Greenlet.__new__))


@behaviour
def a_subclass_that_skips_init_works() -> None:
    class Skipping(Base):
        def __init__(self, value: int) -> None:
            self.value = value

        def run(self, *args: Any) -> Any:
            return self.value, args

    made = Skipping(7)
    say(made.parent is getcurrent(), made.switch(8))


@behaviour
def init_again_before_the_start_replaces_run() -> None:
    made = Greenlet(arguments)
    say(attempt(made.__init__, other), made.run is other, made.switch(1))


@behaviour
def init_again_without_run_keeps_it() -> None:
    made = Greenlet(arguments)
    say(attempt(made.__init__), made.run is arguments)


@behaviour
def init_again_with_none_stores_none() -> None:
    made = Greenlet(arguments)
    say(attempt(made.__init__, None), attempt(lambda: made.run))


@behaviour
def init_again_with_a_parent_alone_keeps_run() -> None:
    parent = Greenlet()
    made = Greenlet(arguments)
    say(attempt(made.__init__, parent=parent), made.parent is parent, made.run is arguments)


@behaviour
def init_again_with_run_alone_keeps_the_parent() -> None:
    parent = Greenlet()
    made = Greenlet(arguments, parent)
    say(attempt(made.__init__, other), made.parent is parent, made.run is other)


@behaviour
def init_again_with_a_parent_of_none_keeps_the_parent() -> None:
    parent = Greenlet()
    made = Greenlet(arguments, parent)
    say(attempt(made.__init__, other, None), made.parent is parent)


@behaviour
def init_again_with_a_wrong_parent_is_refused() -> None:
    parent = Greenlet()
    made = Greenlet(arguments, parent)
    say(attempt(made.__init__, other, 5), made.parent is parent)


@behaviour
def init_with_run_is_refused_after_the_start() -> None:
    made = suspended()
    say(attempt(made.__init__, arguments), attempt(made.__init__, None, getcurrent()))
    made.switch()
    say(attempt(made.__init__, arguments))


@behaviour
def init_with_run_is_refused_while_running() -> None:
    def body() -> str:
        return attempt(getcurrent().__init__, arguments)

    say(Greenlet(body).switch())


@behaviour
def init_without_arguments_does_nothing_after_the_start() -> None:
    made = suspended()
    say(attempt(made.__init__), made.dead, bool(made))
    say(attempt(dead().__init__))


@behaviour
def init_with_a_parent_alone_sets_it_after_the_start() -> None:
    parent = Greenlet(pause)
    made = suspended()
    say(attempt(made.__init__, parent=parent), made.parent is parent)


@behaviour
def init_of_a_main_greenlet_takes_nothing() -> None:
    main = getcurrent()
    say(attempt(main.__init__))
    say(attempt(main.__init__, arguments))
    say(attempt(main.__init__, None))
    say(attempt(main.__init__, parent=Greenlet()))


@behaviour
def making_a_greenlet_does_not_start_it() -> None:
    ran: list[int] = []
    made = Greenlet(lambda: ran.append(1))
    say(ran, made.dead, bool(made))


class Abstract(Base, metaclass=ABCMeta):
    @abstractmethod
    def last(self) -> None: ...

    @abstractmethod
    def first(self) -> None: ...


class Partly(Abstract):
    def last(self) -> None: ...


class Concrete(Partly):
    def first(self) -> None: ...


@behaviour
def a_class_with_abstract_methods_has_no_instances() -> None:
    for cls in (Abstract, Partly):
        for args in ((), (arguments,), (1, 2, 3)):
            say(attempt(cls, *args))
        say(attempt(cls.__new__, cls))
    say(type(Concrete(arguments)).__name__)


class Loud(Base):
    def __new__(cls, *args: Any) -> Any:
        say("new")
        made = super().__new__(cls, *args)
        say("made")
        return made

    def __init__(self, *args: Any) -> None:
        say("init")
        super().__init__(*args)
        say("initialized")


@behaviour
def making_a_greenlet_first_ends_those_that_other_threads_dropped() -> None:
    def drop_one() -> None:
        def end() -> None:
            try:
                pause()
            finally:
                say("ended")

        holder = [Greenlet(end)]
        holder[0].switch()
        in_thread(holder.clear)

    made = Greenlet(arguments)
    for make in (
        Greenlet,
        lambda: Greenlet(arguments, getcurrent()),
        lambda: Greenlet(run=arguments),
        lambda: Greenlet(1, 2),
        lambda: Greenlet(1, 2, 3),
        lambda: Greenlet.__new__(Greenlet),
        Loud,
        Abstract,
        lambda: Greenlet.__new__(Loud),
        made.__init__,
    ):
        drop_one()
        say(type(attempt(make)))
        getcurrent()
        say("next")


if __name__ == "__main__":
    run()
