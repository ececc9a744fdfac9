"""`dead`, truth, `_stack_saved`, `__dict__`, `repr`, copying, weak references, in every state."""

from __future__ import annotations

import copy
import pickle
import weakref
from functools import partial
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
    run,
    say,
    suspended,
)


class Named(Base):
    """A subclass at module level, as `pickle` wants it."""


def note(called: list[int], gone: Any) -> None:
    """What a weak reference calls back."""
    called.append(1)


def delete(target: Any, name: str) -> None:
    delattr(target, name)


@behaviour
def dead_and_truth_follow_the_life() -> None:
    def body() -> None:
        say("running", made.dead, bool(made))
        pause()

    made = Greenlet(body)
    say("unstarted", made.dead, bool(made))
    made.switch()
    say("suspended", made.dead, bool(made))
    made.switch()
    say("dead", made.dead, bool(made))


@behaviour
def dead_is_a_bool() -> None:
    say(type(Greenlet().dead), type(dead().dead))


@behaviour
def a_main_greenlet_is_true_and_not_dead() -> None:
    say(getcurrent().dead, bool(getcurrent()))
    main = getcurrent()
    say(Greenlet(lambda: (main.dead, bool(main))).switch())


@behaviour
def a_greenlet_killed_before_its_start_is_dead() -> None:
    made = Greenlet(arguments)
    made.throw()
    say(made.dead, bool(made))


@behaviour
def the_read_only_attributes_refuse_to_be_set() -> None:
    for name in ("dead", "gr_frame", "_stack_saved"):
        say(attempt(setattr, Greenlet(), name, 1))


@behaviour
def the_read_only_attributes_refuse_to_be_deleted() -> None:
    for name in ("dead", "gr_frame", "_stack_saved"):
        say(attempt(delete, Greenlet(), name))


@behaviour
def only_a_suspended_greenlet_has_stack_saved() -> None:
    def body() -> None:
        say("running", made._stack_saved)
        pause()

    made = Greenlet(body)
    say("unstarted", made._stack_saved)
    made.switch()
    say("suspended", made._stack_saved > 0, type(made._stack_saved))
    made.switch()
    say("dead", made._stack_saved)


@behaviour
def a_suspended_main_greenlet_has_stack_saved() -> None:
    main = getcurrent()
    say(main._stack_saved, Greenlet(lambda: main._stack_saved > 0).switch(), main._stack_saved)


@behaviour
def a_parent_that_waits_for_its_child_has_stack_saved() -> None:
    def parent() -> Any:
        me = getcurrent()
        return Greenlet(lambda: (me._stack_saved > 0, me.dead, bool(me))).switch()

    say(Greenlet(parent).switch())


@behaviour
def any_attribute_can_be_set() -> None:
    made = Greenlet()
    made.extra = 1
    say(made.extra, made.__dict__, vars(made) is made.__dict__)
    del made.extra
    say(attempt(lambda: made.extra))


@behaviour
def a_main_greenlet_takes_attributes() -> None:
    main = getcurrent()
    main.extra = 1
    say(main.__dict__, Greenlet(lambda: main.extra).switch())


@behaviour
def attributes_live_on_in_every_state() -> None:
    made = Greenlet(lambda: (pause(getcurrent().extra), getcurrent().extra)[1])
    made.extra = 1
    say(made.switch())
    made.extra = 2
    say(made.switch(), made.extra)


@behaviour
def a_missing_attribute_is_named() -> None:
    say(attempt(lambda: Greenlet().missing))
    say(attempt(delete, Greenlet(), "missing"))


@behaviour
def the_dict_can_be_replaced_by_a_dict() -> None:
    made = Greenlet()
    replacement = {"extra": 1}
    made.__dict__ = replacement
    say(made.extra, made.__dict__ is replacement)


@behaviour
def the_dict_must_be_a_dict() -> None:
    made = Greenlet()
    wrong: list[Any] = [None, 5, [], ()]
    for value in wrong:
        say(attempt(setattr, made, "__dict__", value))


@behaviour
def the_dict_may_be_of_a_subclass() -> None:
    class Special(dict):  # type: ignore[type-arg]
        pass

    made = Greenlet()
    made.__dict__ = Special(extra=1)
    say(type(made.__dict__).__name__, made.extra)


@behaviour
def the_dict_cannot_be_deleted() -> None:
    say(attempt(delete, Greenlet(), "__dict__"))


@behaviour
def instances_may_hide_methods() -> None:
    made = Greenlet(arguments)
    made.switch = "hidden"
    say(made.switch, Greenlet.switch(made, 1))


@behaviour
def a_copy_is_refused() -> None:
    for made in (Greenlet(), suspended(), dead(), getcurrent()):
        say(attempt(copy.copy, made), attempt(copy.deepcopy, made))


@behaviour
def a_copy_of_a_subclass_is_refused_by_its_name() -> None:
    say(attempt(copy.copy, Named()), attempt(copy.deepcopy, Named()))


@behaviour
def pickling_is_refused() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        say(protocol, attempt(pickle.dumps, Greenlet(), protocol))


@behaviour
def pickling_a_subclass_is_refused_by_its_name() -> None:
    say(attempt(pickle.dumps, Named()))


@behaviour
def getstate_is_refused() -> None:
    say(attempt(Greenlet().__getstate__), attempt(Named().__getstate__))


@behaviour
def the_type_itself_can_be_pickled() -> None:
    say(pickle.loads(pickle.dumps(Greenlet)) is Greenlet)


@behaviour
def equality_is_identity() -> None:
    one, two = Greenlet(arguments), Greenlet(arguments)
    say(one == one, one == two, hash(one) == hash(one), len({one, two, one}))


@behaviour
def there_is_no_order() -> None:
    say(attempt(lambda: Greenlet() < Greenlet()))


@behaviour
def repr_of_an_unstarted_greenlet() -> None:
    say(repr(Greenlet()))


@behaviour
def repr_of_the_running_greenlet() -> None:
    say(Greenlet(lambda: repr(getcurrent())).switch())


@behaviour
def repr_of_a_suspended_greenlet() -> None:
    say(repr(suspended()))


@behaviour
def repr_of_a_dead_greenlet() -> None:
    say(repr(dead()))


@behaviour
def repr_of_a_greenlet_killed_before_its_start() -> None:
    made = Greenlet(arguments)
    made.throw()
    say(repr(made))


@behaviour
def repr_of_the_running_main_greenlet() -> None:
    say(repr(getcurrent()))


@behaviour
def repr_of_a_suspended_main_greenlet() -> None:
    main = getcurrent()
    say(Greenlet(lambda: repr(main)).switch())


@behaviour
def repr_of_a_parent_that_waits_for_its_child() -> None:
    def parent() -> Any:
        me = getcurrent()
        return Greenlet(lambda: repr(me)).switch()

    say(Greenlet(parent).switch())


@behaviour
def repr_of_a_subclass_has_its_name() -> None:
    say(repr(Named()), str(Named()))


@behaviour
def a_subclass_may_replace_repr() -> None:
    class Told(Base):
        def __repr__(self) -> str:
            return "told"

    say(repr(Told()))


@behaviour
def repr_shows_the_address() -> None:
    made = Greenlet()
    say(f"object at {id(made):#x} " in repr(made))


@behaviour
def greenlets_of_one_thread_share_the_otid() -> None:
    def otid(target: Any) -> str:
        return repr(target).split("otid=")[1].split(")")[0]

    say(otid(suspended()) == otid(getcurrent()) == otid(suspended()))


@behaviour
def a_greenlet_can_be_weakly_referenced() -> None:
    made = Greenlet()
    reference = weakref.ref(made)
    say(reference() is made, weakref.getweakrefcount(made))
    del made
    say(reference())


@behaviour
def a_weak_reference_calls_back() -> None:
    for make in (Greenlet, dead):
        called: list[int] = []
        made = make()
        reference = weakref.ref(made, partial(note, called))
        say(called, reference() is made)
        del made
        say(called, reference())


@behaviour
def a_weak_reference_survives_the_end() -> None:
    made = suspended()
    reference = weakref.ref(made)
    made.switch()
    say(reference() is made, made.dead)


@behaviour
def a_greenlet_is_a_weak_key() -> None:
    keys: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
    made = suspended()
    keys[made] = 1
    say(len(keys), keys[made])
    made.switch()
    del made
    say(len(keys))


@behaviour
def the_class_of_an_instance_can_be_changed_to_a_sibling() -> None:
    class Other(Base):
        pass

    made: Any = Named()
    say(attempt(setattr, made, "__class__", Other), type(made).__name__)


@behaviour
def the_class_of_a_plain_greenlet_cannot_be_changed() -> None:
    say(attempt(setattr, Greenlet(), "__class__", Named))


if __name__ == "__main__":
    run()
