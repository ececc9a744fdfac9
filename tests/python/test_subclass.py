"""Subclasses, attributes, weak references, copying: a greenlet as a Python object."""

from __future__ import annotations

import abc
import copy
import gc
import pickle
import sys
import weakref
from typing import Any

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from helpers import Unraisable, collect, to_parent


def test_a_greenlet_takes_attributes() -> None:
    g: Any = greenlet()
    g.name = "value"
    assert g.name == "value"
    assert g.__dict__ == {"name": "value"}
    del g.name
    assert not hasattr(g, "name")


def test_the_attributes_of_a_greenlet_can_be_replaced_as_a_whole() -> None:
    g: Any = greenlet()
    g.__dict__ = {"name": "value"}
    assert g.name == "value"


def test_the_dict_must_be_a_dict() -> None:
    g: Any = greenlet()
    with pytest.raises(TypeError):
        g.__dict__ = []
    assert g.__dict__ == {}


def test_the_dict_cannot_be_deleted() -> None:
    g: Any = greenlet()
    g.name = "value"
    with pytest.raises(TypeError):
        del g.__dict__
    assert g.name == "value"


def test_the_main_greenlet_takes_attributes() -> None:
    main: Any = getcurrent()
    main.name = "value"
    assert greenlet(lambda: main.name).switch() == "value"
    del main.name


def test_run_is_not_among_the_attributes() -> None:
    g = greenlet(lambda: None)
    assert "run" not in vars(g)
    assert "run" in dir(g)


def test_a_weak_reference_dies_with_its_greenlet() -> None:
    called: list[object] = []
    g = greenlet()
    reference = weakref.ref(g, called.append)
    assert reference() is g
    del g
    collect()
    assert reference() is None
    assert called == [reference]


def test_a_weak_reference_to_a_suspended_greenlet_dies_when_it_is_dropped() -> None:
    g = greenlet(to_parent)
    g.switch()
    reference = weakref.ref(g)
    assert reference() is g
    del g
    collect()
    assert reference() is None


def test_greenlets_are_keys_by_identity() -> None:
    a, b = greenlet(), greenlet()
    table = weakref.WeakKeyDictionary({a: "a", b: "b"})
    assert table[a] == "a"
    assert a != b
    assert hash(a) != hash(b)
    del a
    collect()
    assert list(table.values()) == ["b"]


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_greenlet_cannot_be_copied_or_pickled(function: Any) -> None:
    with pytest.raises(TypeError, match=r"^cannot serialize 'greenlet\.greenlet' object$"):
        function(greenlet())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_greenlet_cannot_be_pickled_by_any_protocol(protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(greenlet(), protocol)


class Named(greenlet):
    def __init__(self, name: str, *args: Any) -> None:
        super().__init__(*args)
        self.name = name


def test_a_subclass_that_cannot_be_copied_is_named() -> None:
    with pytest.raises(TypeError, match="cannot serialize '.*Named' object"):
        copy.copy(Named("name"))


def test_a_subclass_may_take_arguments_of_its_own() -> None:
    g = Named("name", lambda: "ran")
    assert g.name == "name"
    assert g.switch() == "ran"


def test_an_instance_of_a_subclass_is_current_while_it_runs() -> None:
    g = Named("name", getcurrent)
    assert g.switch() is g


def test_a_subclass_may_override_switch_and_throw() -> None:
    log: list[str] = []

    class Logging(greenlet):
        def switch(self, *args: Any, **kwargs: Any) -> Any:
            log.append("switch")
            return super().switch(*args, **kwargs)

        def throw(self, *args: Any) -> Any:
            log.append("throw")
            return super().throw(*args)

    g = Logging(to_parent)
    g.switch()
    assert isinstance(g.throw(), GreenletExit)
    assert log == ["switch", "throw"]


def test_a_return_to_the_parent_does_not_call_an_overridden_switch() -> None:
    log: list[str] = []

    class Logging(greenlet):
        def switch(self, *args: Any, **kwargs: Any) -> Any:
            log.append("switch")
            return super().switch(*args, **kwargs)

    child = greenlet(lambda: "result")

    def run() -> Any:
        child.parent = getcurrent()
        return child.switch()

    assert Logging(run).switch() == "result"
    assert log == ["switch"]


def test_a_subclass_may_have_slots() -> None:
    class Slotted(greenlet):
        __slots__ = ("value",)

    g: Any = Slotted(lambda: g.value)
    g.value = "slot"
    assert g.switch() == "slot"
    g.other = "still has a dict"
    assert g.__dict__ == {"other": "still has a dict"}
    assert weakref.ref(g)() is g


def test_slots_of_a_dropped_greenlet_are_released() -> None:
    class Slotted(greenlet):
        __slots__ = ("value",)

    class Value:
        pass

    g: Any = Slotted(to_parent)
    g.value = Value()
    alive = weakref.ref(g.value)
    g.switch()
    del g
    collect()
    assert alive() is None


def test_a_subclass_may_have_a_del_method() -> None:
    log: list[str] = []

    class Deleted(greenlet):
        def __del__(self) -> None:
            log.append("del")

    for end in (lambda g: None, lambda g: g.switch(), lambda g: g.throw()):
        g = Deleted(lambda: None)
        end(g)
        del g
        collect()
    assert log == ["del"] * 3


def test_del_of_a_suspended_greenlet_runs_once_and_its_finally_blocks_too() -> None:
    log: list[str] = []

    class Deleted(greenlet):
        def __del__(self) -> None:
            log.append("del")

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append("finally")

    g = Deleted(run)
    g.switch()
    del g
    collect()
    assert sorted(log) == ["del", "finally"]


def test_del_may_resurrect_a_greenlet() -> None:
    survivors: list[greenlet] = []

    class Resurrecting(greenlet):
        def __del__(self) -> None:
            survivors.append(self)

    g = Resurrecting(lambda: "ran")
    del g
    collect()
    assert len(survivors) == 1
    assert survivors[0].switch() == "ran"


def test_an_exception_in_del_is_reported() -> None:
    class Failing(greenlet):
        def __del__(self) -> None:
            raise KeyError("in del")

    with Unraisable() as unraisable:
        g = Failing()
        del g
        collect()
    assert unraisable.types == [KeyError]


def test_a_metaclass_may_be_used() -> None:
    class Meta(type):
        @property
        def kind(cls) -> str:
            return f"made by {type(cls).__name__}"

    class Made(greenlet, metaclass=Meta):
        pass

    assert Made.kind == "made by Meta"
    assert Made(lambda: "ran").switch() == "ran"


def test_a_subclass_may_have_other_bases() -> None:
    class Mixin:
        def describe(self) -> str:
            return f"mixed into {type(self).__name__}"

    class Mixed(Mixin, greenlet):
        pass

    class AlsoMixed(greenlet, Mixin):
        pass

    assert Mixed().describe() == "mixed into Mixed"
    assert AlsoMixed(lambda: "ran").switch() == "ran"
    assert issubclass(Mixed, greenlet)


def test_a_base_with_another_layout_is_refused() -> None:
    with pytest.raises(TypeError, match="lay-?out conflict"):
        type("Both", (greenlet, int), {})


def test_a_deep_hierarchy_of_subclasses_works() -> None:
    kind: type[greenlet] = greenlet
    for level in range(50):
        kind = type(f"Level{level}", (kind,), {})
    assert kind(lambda: "ran").switch() == "ran"


def test_a_subclass_is_collected_with_its_greenlets() -> None:
    class Temporary(greenlet):
        pass

    g = Temporary(to_parent)
    g.switch()
    alive = weakref.ref(Temporary)
    del g, Temporary
    collect()
    assert alive() is None


def test_the_class_of_a_greenlet_may_be_assigned() -> None:
    class First(greenlet):
        pass

    class Second(greenlet):
        name = "second"

    g: Any = First(lambda: "ran")
    g.__class__ = Second
    assert g.name == "second"
    assert g.switch() == "ran"


def test_new_without_init_gives_a_greenlet_without_run() -> None:
    g = greenlet.__new__(greenlet)
    assert not g.dead
    assert g.parent is getcurrent()
    with pytest.raises(AttributeError, match="run"):
        g.switch()


def test_new_accepts_whatever_init_will_take() -> None:
    new: Any = Named.__new__
    assert new(Named, "name", "more", key="word").parent is getcurrent()


def test_properties_of_a_subclass_may_switch() -> None:
    class Switching(greenlet):
        @property
        def answer(self) -> Any:
            return greenlet(lambda: 42).switch()

    assert Switching().answer == 42


def test_a_greenlet_is_tracked_by_the_collector() -> None:
    assert gc.is_tracked(greenlet())
    assert gc.is_tracked(getcurrent())


def test_isinstance_and_type_names_hold() -> None:
    assert isinstance(getcurrent(), greenlet)
    assert f"{greenlet.__module__}.{greenlet.__qualname__}" == "greenlet.greenlet"
    assert sys.getsizeof(greenlet()) > 0


def test_the_object_is_three_pointers_long() -> None:
    # Compiled subclasses put their fields right behind head, weak references, dict and one pointer.
    kind: Any = greenlet
    pointer = tuple.__itemsize__
    assert kind.__basicsize__ == object.__basicsize__ + 3 * pointer
    assert kind.__weakrefoffset__ == object.__basicsize__
    assert kind.__dictoffset__ == object.__basicsize__ + pointer


def test_generic_aliases_and_doc_strings_exist() -> None:
    assert greenlet.__doc__
    for name in ("switch", "throw"):
        assert getattr(greenlet, name).__doc__


def test_a_class_with_abstract_methods_cannot_be_instantiated() -> None:
    class Plain(metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def method(self) -> None: ...

    class Abstract(greenlet, metaclass=abc.ABCMeta):
        @abc.abstractmethod
        def method(self) -> None: ...

    class Concrete(Abstract):
        def method(self) -> None: ...

    with pytest.raises(TypeError) as expected:
        Plain()  # type: ignore[abstract]
    for args in ((), (print,), (1, 2, 3)):
        with pytest.raises(TypeError) as raised:
            Abstract(*args)  # type: ignore[abstract]
        assert str(raised.value) == str(expected.value).replace("Plain", "Abstract")
    assert Concrete(lambda: 1).switch() == 1
    Abstract.__abstractmethods__ = frozenset()
    assert type(Abstract()) is Abstract  # type: ignore[abstract]
