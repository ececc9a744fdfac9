"""`run`: reading, writing and deleting it, and its lookup at the start."""

from __future__ import annotations

import weakref
from typing import Any

from behaviour import (
    Base,
    Greenlet,
    arguments,
    attempt,
    behaviour,
    dead,
    getcurrent,
    pause,
    root,
    run,
    say,
    suspended,
)


def set_run(target: Any, value: Any) -> None:
    target.run = value


def delete_run(target: Any) -> None:
    del target.run


@behaviour
def run_can_be_set_and_read_before_the_start() -> None:
    made = Greenlet()
    made.run = arguments
    say(made.run is arguments, made.__dict__)


@behaviour
def reading_an_unset_run_raises() -> None:
    say(attempt(lambda: Greenlet().run), hasattr(Greenlet(), "run"))


@behaviour
def run_can_be_replaced_before_the_start() -> None:
    made = Greenlet(pause)
    made.run = arguments
    say(made.switch(1))


@behaviour
def run_can_be_deleted_before_the_start() -> None:
    made = Greenlet(arguments)
    say(attempt(delete_run, made), attempt(lambda: made.run))


@behaviour
def deleting_an_unset_run_is_silent() -> None:
    made = Greenlet()
    say(attempt(delete_run, made), attempt(delete_run, made))


@behaviour
def a_start_without_run_raises_and_can_be_repeated() -> None:
    made = Greenlet()
    say(attempt(made.switch), made.dead, bool(made))
    made.run = arguments
    say(attempt(made.switch, 1, two=2), made.dead)


@behaviour
def a_start_after_run_was_deleted_raises() -> None:
    made = Greenlet(arguments)
    del made.run
    say(attempt(made.switch), made.dead)


@behaviour
def a_run_that_is_not_callable_kills() -> None:
    for value in (None, 5, "text"):
        made = Greenlet()
        made.run = value
        say(attempt(made.switch), made.dead)


@behaviour
def run_is_gone_while_running() -> None:
    def body() -> tuple[str, ...]:
        me = getcurrent()
        return (
            attempt(lambda: me.run),
            attempt(set_run, me, arguments),
            attempt(delete_run, me),
        )

    say(*Greenlet(body).switch())


@behaviour
def run_is_gone_while_suspended() -> None:
    made = suspended()
    say(attempt(lambda: made.run), hasattr(made, "run"))
    say(attempt(set_run, made, arguments))
    say(attempt(delete_run, made))


@behaviour
def run_is_gone_when_dead() -> None:
    made = dead()
    say(attempt(lambda: made.run))
    say(attempt(set_run, made, arguments))
    say(attempt(delete_run, made))


@behaviour
def run_is_gone_after_a_throw_before_the_start() -> None:
    made = Greenlet(arguments)
    made.throw()
    say(attempt(lambda: made.run), attempt(set_run, made, arguments))


@behaviour
def the_start_lets_go_of_run() -> None:
    class Callable:
        def __call__(self) -> None:
            pause()

    body = Callable()
    gone = weakref.ref(body)
    made = Greenlet(body)
    del body
    say(gone() is not None)
    made.switch()
    made.switch()
    say(gone() is None, made.dead)


@behaviour
def a_main_greenlet_has_no_run() -> None:
    main = getcurrent()
    say(attempt(lambda: main.run))
    say(attempt(set_run, main, arguments))
    say(attempt(delete_run, main))


@behaviour
def a_method_run_of_a_subclass_is_the_body() -> None:
    class WithMethod(Base):
        def run(self, *args: Any) -> Any:
            return self is getcurrent(), args

    made = WithMethod()
    say(made.switch(1, 2), made.dead)


@behaviour
def a_method_run_stays_readable_after_the_end() -> None:
    class WithMethod(Base):
        def run(self) -> None:
            say("while running", self.run == getcurrent().run)

    made = WithMethod()
    made.switch()
    say(made.dead, made.run == WithMethod.run.__get__(made))


@behaviour
def a_method_run_wins_over_the_constructors() -> None:
    class WithMethod(Base):
        def run(self) -> str:
            return "method"

    made = WithMethod(arguments)
    say(made.switch(), made.__dict__)


@behaviour
def an_instance_attribute_wins_over_a_method_run() -> None:
    class WithMethod(Base):
        def run(self) -> str:
            return "method"

    made: Any = WithMethod()
    made.run = arguments
    say("run" in made.__dict__, made.switch(3))


@behaviour
def an_instance_attribute_run_of_a_subclass_stays_after_the_start() -> None:
    class WithMethod(Base):
        def run(self) -> str:
            return "method"

    made: Any = WithMethod()
    made.run = pause
    made.switch()
    say("run" in made.__dict__)


@behaviour
def run_may_be_a_static_method() -> None:
    class WithStatic(Base):
        run = staticmethod(arguments)

    say(WithStatic().switch(3))


@behaviour
def run_may_be_a_class_method() -> None:
    class WithClassMethod(Base):
        @classmethod
        def run(cls, value: int) -> Any:
            return cls.__name__, value

    say(WithClassMethod().switch(3))


@behaviour
def a_class_attribute_run_of_none_kills() -> None:
    class WithNone(Base):
        run = None

    made = WithNone()
    say(attempt(made.switch), made.dead)


@behaviour
def an_exception_of_the_lookup_reaches_the_caller() -> None:
    class Raising(Base):
        @property
        def run(self) -> Any:
            raise KeyError("lookup")

    made = Raising()
    say(attempt(made.switch, 1), made.dead, bool(made))
    say(attempt(made.switch, 1))


@behaviour
def an_attribute_error_of_the_lookup_keeps_its_text() -> None:
    class Raising(Base):
        @property
        def run(self) -> Any:
            raise AttributeError("lookup")

    made = Raising()
    say(attempt(made.switch), made.dead)


@behaviour
def the_lookup_goes_through_getattribute_in_the_caller() -> None:
    class Looking(Base):
        def __getattribute__(self, name: str) -> Any:
            if name == "run":
                say("looked up in main:", getcurrent() is main)
            return super().__getattribute__(name)

    main = getcurrent()
    made = Looking(arguments)
    say(made.switch(1))


@behaviour
def the_lookup_goes_through_getattr() -> None:
    class Looking(Base):
        def __getattr__(self, name: str) -> Any:
            say("asked for", name)
            return arguments

    say(Looking().switch(1))


@behaviour
def a_lookup_that_starts_the_greenlet_loses() -> None:
    class Switching(Base):
        lookups = 0

        @property
        def run(self) -> Any:
            Switching.lookups += 1
            if Switching.lookups == 1:
                say("inner switch gave", self.switch("inner"))
                return lambda *args: say("the loser ran")

            def winner(*args: Any) -> str:
                say("winner started with", args)
                say("winner received", pause("from winner"))
                return "end of winner"

            return winner

    made = Switching()
    say(made.switch("outer", "second"), made.dead, Switching.lookups)


@behaviour
def a_lookup_that_starts_and_ends_the_greenlet_loses() -> None:
    class Switching(Base):
        lookups = 0

        @property
        def run(self) -> Any:
            Switching.lookups += 1
            if Switching.lookups == 1:
                say("inner switch gave", self.switch("inner"))
                return lambda *args: say("the loser ran")
            return arguments

    made = Switching()
    say(made.switch("outer", "second"), made.dead, Switching.lookups)


@behaviour
def a_lookup_may_suspend_its_starter() -> None:
    class Leaving(Base):
        @property
        def run(self) -> Any:
            if getcurrent() is not main:
                pause("away")
            return arguments

    main = getcurrent()
    made = Leaving()
    starter = Greenlet(lambda: ("starter", made.switch("starter's")))
    say(starter.switch(), made.dead, bool(made))
    say(made.switch("main's"), made.dead)
    say(starter.switch(), starter.dead)


@behaviour
def a_lookup_that_throws_into_the_greenlet_kills_it() -> None:
    class Throwing(Base):
        lookups = 0

        @property
        def run(self) -> Any:
            Throwing.lookups += 1
            if Throwing.lookups == 1:
                say("throw", attempt(self.throw, ValueError("early")))
            return arguments

    made = Throwing()
    say(attempt(made.switch, 1), made.dead, Throwing.lookups)


@behaviour
def a_lookup_may_set_the_parent() -> None:
    class Moving(Base):
        @property
        def run(self) -> Any:
            self.parent = parent
            return arguments

    parent = Greenlet(lambda *args: ("parent", args))
    made = Moving()
    say(made.switch(1), made.dead, parent.dead)


@behaviour
def a_lookup_may_set_run_on_the_instance() -> None:
    class Storing(Base):
        def __getattribute__(self, name: str) -> Any:
            if name == "run":
                Greenlet.run.__set__(self, pause)
                return arguments
            return super().__getattribute__(name)

    made = Storing()
    say(made.switch(1), made.dead)


@behaviour
def throwing_before_the_start_looks_run_up() -> None:
    class Looking(Base):
        @property
        def run(self) -> Any:
            say("looked up")
            return lambda: say("ran")

    made = Looking()
    say(attempt(made.throw, KeyError("thrown")), made.dead)


@behaviour
def throwing_before_the_start_without_run_raises_and_does_not_kill() -> None:
    made = Greenlet()
    say(attempt(made.throw, KeyError("thrown")), made.dead)
    say(attempt(made.throw), made.dead)


@behaviour
def throwing_before_the_start_raises_what_the_lookup_raises() -> None:
    class Raising(Base):
        @property
        def run(self) -> Any:
            raise OSError("lookup")

    made = Raising()
    say(attempt(made.throw, KeyError("thrown")), made.dead)
    say(attempt(made.throw), made.dead)


@behaviour
def the_body_may_be_any_callable() -> None:
    class Callable:
        def __call__(self, *args: Any) -> Any:
            return "called", args

    say(Greenlet(Callable()).switch(1))
    say(Greenlet(len).switch("four"))
    say(Greenlet(int).switch("12"))
    say(Greenlet([3, 1, 2].index).switch(2))


@behaviour
def the_switch_of_another_greenlet_may_be_the_body() -> None:
    inner = Greenlet(arguments)
    outer = Greenlet(inner.switch)
    say(outer.switch(1, two=2), inner.dead, outer.dead)


@behaviour
def wrong_arguments_of_the_body_kill_it() -> None:
    def body(one: int) -> int:
        return one

    made = Greenlet(body)
    say(attempt(made.switch).split("body()")[-1], made.dead)


@behaviour
def the_body_sees_itself_as_current() -> None:
    def body() -> tuple[bool, bool]:
        return getcurrent() is made, getcurrent().parent is root()

    made = Greenlet(body)
    say(made.switch(), getcurrent() is root())


@behaviour
def the_descriptor_run_refuses_other_objects() -> None:
    say(attempt(Greenlet.run.__get__, 1))


@behaviour
def a_greenlet_is_dead_while_its_parents_run_is_looked_up_at_its_end() -> None:
    class Parent(Base):
        @property
        def run(self) -> Any:
            say(getcurrent() is child, child.dead, bool(child), repr(child).endswith("dead>"))
            return arguments

    child = Greenlet(lambda: 5, Parent())
    say(child.switch(), child.dead)


if __name__ == "__main__":
    run()
