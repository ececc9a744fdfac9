"""Random programs of greenlets behave like a model of the contract that uses no greenlets.

A program gives every greenlet a script: a list of steps (switch, throw, set a parent, look, end).
The model interprets the scripts with a program counter for each greenlet. The real greenlets run
them as functions. Both log what every step delivered, and the two logs must be the same.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.strategies import SearchStrategy

Log: TypeAlias = list[tuple[Any, ...]]


class Thrown(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class Switch:
    """Switch to a greenlet; without `catch`, an exception that comes back ends the script."""

    target: int
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    catch: bool


@dataclasses.dataclass(frozen=True)
class Throw:
    target: int
    kind: type[BaseException]
    catch: bool


@dataclasses.dataclass(frozen=True)
class SetParent:
    child: int
    parent: int


@dataclasses.dataclass(frozen=True)
class Look:
    """Log the state of every greenlet."""


@dataclasses.dataclass(frozen=True)
class Return:
    value: Any


@dataclasses.dataclass(frozen=True)
class Raise:
    kind: type[BaseException]


Step: TypeAlias = Switch | Throw | SetParent | Look | Return | Raise


@dataclasses.dataclass(frozen=True)
class Program:
    """Script 0 is the main greenlet's; greenlet n has scripts[n] and the parent parents[n] < n."""

    scripts: tuple[tuple[Step, ...], ...]
    parents: tuple[int, ...]


def delivered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a waiting greenlet receives for the arguments of a switch."""
    if kwargs:
        return (args, kwargs) if args else kwargs
    return args[0] if len(args) == 1 else args


def written(value: Any) -> Any:
    """A value as the logs hold it: exceptions by their kind."""
    return type(value).__name__ if isinstance(value, BaseException) else value


# --- the real thing


def run_real(program: Program) -> Log:
    log: Log = []
    count = len(program.scripts)
    family: list[greenlet] = [getcurrent()]
    family.extend(greenlet() for _ in range(1, count))
    for index in range(1, count):
        family[index].parent = family[program.parents[index]]

    def perform(who: int) -> Any:
        for position, step in enumerate(program.scripts[who]):
            match step:
                case Switch(target, args, kwargs, catch):
                    try:
                        value = family[target].switch(*args, **dict(kwargs))
                    except BaseException as error:
                        log.append((who, position, "raised", written(error)))
                        if not catch:
                            raise
                    else:
                        log.append((who, position, "received", written(value)))
                case Throw(target, kind, catch):
                    try:
                        value = family[target].throw(kind)
                    except BaseException as error:
                        log.append((who, position, "raised", written(error)))
                        if not catch:
                            raise
                    else:
                        log.append((who, position, "received", written(value)))
                case SetParent(child, parent):
                    try:
                        family[child].parent = family[parent]
                    except (ValueError, AttributeError) as error:
                        log.append((who, position, "refused", str(error)))
                    else:
                        log.append((who, position, "parent set"))
                case Look():
                    states = [(bool(g), g.dead, g is getcurrent()) for g in family]
                    parents = [
                        None,
                        *[family.index(g.parent) for g in family[1:] if g.parent is not None],
                    ]
                    log.append((who, position, states, parents))
                case Return(value):
                    return value
                case Raise(kind):
                    raise kind
        return ("end of", who)

    def runner(who: int) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(arg, GreenletExit) for arg in args):
                args = ()  # see Model.begin
            log.append((who, "started", args, kwargs))
            return perform(who)

        return run

    for index in range(1, count):
        family[index].run = runner(index)
    try:
        log.append(("main ended with", written(perform(0))))
    except BaseException as error:
        log.append(("main ended by", written(error)))
    for index in range(1, count):
        if family[index]:
            family[index].parent = family[0]
    while any(family[1:]):  # greenlets that catch it may start others
        for g in filter(None, family[1:]):
            try:
                g.throw()
            except BaseException:
                pass
    log.append(("at the end", [(bool(g), g.dead) for g in family[1:]]))
    return log


# --- the model


@dataclasses.dataclass
class Greenlet:
    """One greenlet of the model: its state, its parent and how far its script has come."""

    parent: int
    state: str = "new"  # new, active, dead
    position: int = 0


@dataclasses.dataclass(frozen=True)
class Value:
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()

    @property
    def as_seen(self) -> Any:
        return delivered(self.args, dict(self.kwargs))


@dataclasses.dataclass(frozen=True)
class Problem:
    kind: type[BaseException]


Message: TypeAlias = Value | Problem


class Model:
    """The contract of switch, throw, parents and death, as a machine with one program counter."""

    def __init__(self, program: Program) -> None:
        self.scripts = program.scripts
        self.family = [Greenlet(parent) for parent in program.parents]
        self.family[0].state = "active"
        self.log: Log = []
        self.result: tuple[Any, ...] | None = None

    def run(self) -> Log:
        who, message = 0, None
        while self.result is None:
            who, message = self.step(who, message)
        self.log.append(self.result)
        for g in self.family[1:]:
            if g.state == "active":
                self.log.append(("left over",))
        return self.log

    def step(self, who: int, message: Message | None) -> tuple[int, Message | None]:
        """Let greenlet `who` go on with `message`; return the greenlet that goes on next."""
        g = self.family[who]
        if message is not None:
            waited = self.scripts[who][g.position]
            assert isinstance(waited, Switch | Throw)
            if isinstance(message, Problem):
                self.log.append((who, g.position, "raised", message.kind.__name__))
                if not waited.catch:
                    return self.end(who, message)
            else:
                self.log.append((who, g.position, "received", written(message.as_seen)))
            g.position += 1
        while g.position < len(self.scripts[who]):
            match self.scripts[who][g.position]:
                case Switch(target, args, kwargs, _):
                    return self.deliver(target, Value(args, kwargs))
                case Throw(target, kind, _):
                    return self.throw(target, kind)
                case SetParent(child, parent):
                    self.set_parent(who, child, parent)
                case Look():
                    self.look(who)
                case Return(value):
                    return self.end(who, Value((value,)))
                case Raise(kind):
                    return self.end(who, Problem(kind))
            g.position += 1
        return self.end(who, Value((("end of", who),)))

    def end(self, who: int, message: Message) -> tuple[int, Message | None]:
        """Greenlet `who` has ended; its parent gets the value, or the exception is raised there."""
        if who == 0:
            if isinstance(message, Problem):
                self.result = ("main ended by", message.kind.__name__)
            else:
                self.result = ("main ended with", message.as_seen)
            return 0, None
        g = self.family[who]
        g.state = "dead"
        if isinstance(message, Problem):
            return self.throw(g.parent, message.kind, rising=True)
        return self.deliver(g.parent, message)

    def living(self, who: int) -> int:
        """`who` if it is not dead, or the nearest ancestor that is not dead."""
        while self.family[who].state == "dead":
            who = self.family[who].parent
        return who

    def deliver(self, target: int, value: Value) -> tuple[int, Message | None]:
        who = self.living(target)
        if self.family[who].state == "new":
            return self.begin(who, value)
        return who, value

    def begin(self, who: int, value: Value) -> tuple[int, Message | None]:
        self.family[who].state = "active"
        args = value.args
        if any(isinstance(arg, GreenletExit) for arg in args):
            args = ()  # the contract leaves open what a child's GreenletExit passes to a new parent
        self.log.append((who, "started", args, dict(value.kwargs)))
        return who, None

    def throw(
        self, target: int, kind: type[BaseException], *, rising: bool = False
    ) -> tuple[int, Message | None]:
        """Raise in `target`. If it cannot run, GreenletExit becomes a value for the parent."""
        g = self.family[target]
        if issubclass(kind, GreenletExit) and (rising or g.state == "dead"):
            return self.deliver(g.parent if not rising else target, Value((kind(),)))
        if g.state == "active":
            return target, Problem(kind)
        g.state = "dead"
        return self.throw(g.parent, kind, rising=True)

    def set_parent(self, who: int, child: int, parent: int) -> None:
        position = self.family[who].position
        if child == 0:
            message = "cannot set the parent of a main greenlet"
        elif self.is_ancestor(child, of=parent):
            message = "cyclic parent chain"
        else:
            self.family[child].parent = parent
            self.log.append((who, position, "parent set"))
            return
        self.log.append((who, position, "refused", message))

    def is_ancestor(self, who: int, *, of: int) -> bool:
        while of != 0:
            if of == who:
                return True
            of = self.family[of].parent
        return False

    def look(self, who: int) -> None:
        states = [
            (g.state == "active", g.state == "dead", index == who)
            for index, g in enumerate(self.family)
        ]
        parents = [None, *[g.parent for g in self.family[1:]]]
        self.log.append((who, self.family[who].position, states, parents))


# --- random programs

KINDS: list[type[BaseException]] = [Thrown, GreenletExit, KeyboardInterrupt]
VALUES = st.one_of(st.integers(0, 99), st.none(), st.just(()), st.just((1, 2)))


def steps(count: int) -> SearchStrategy[Step]:
    someone = st.integers(0, count - 1)
    switches = st.builds(
        Switch,
        target=someone,
        args=st.lists(VALUES, max_size=2).map(tuple),
        kwargs=st.sampled_from([(), (), (("a", 1),)]),
        catch=st.booleans(),
    )
    return st.one_of(
        switches,
        switches,
        st.builds(Throw, target=someone, kind=st.sampled_from(KINDS), catch=st.booleans()),
        st.builds(SetParent, child=someone, parent=someone),
        st.builds(Look),
        st.builds(Return, value=VALUES),
        st.builds(Raise, kind=st.sampled_from(KINDS)),
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    count = draw(st.integers(2, 6))
    scripts = [
        tuple(draw(st.lists(steps(count), max_size=8 if index else 14))) for index in range(count)
    ]
    parents = [0, *[draw(st.integers(0, index - 1)) for index in range(1, count)]]
    return Program(tuple(scripts), tuple(parents))


def without_the_end(log: Log) -> Log:
    """The log up to the end of the main script; the real log goes on with how the rest ended."""
    for index, entry in enumerate(log):
        if entry[0] in ("main ended with", "main ended by"):
            return log[: index + 1]
    raise AssertionError("the main script has no end")


def compare(program: Program) -> None:
    real = run_real(program)
    assert without_the_end(real) == without_the_end(Model(program).run())
    label, states = real[-1]
    assert label == "at the end"
    assert not any(active for active, _ in states)


ANY_SPEED = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(ANY_SPEED, max_examples=120)
@given(programs())
def test_a_random_program_does_what_the_model_says(program: Program) -> None:
    compare(program)


@pytest.mark.stress
@settings(ANY_SPEED, max_examples=3_000)
@given(programs())
def test_thousands_of_random_programs_do_what_the_model_says(program: Program) -> None:
    compare(program)


# --- random orders of life and death


@dataclasses.dataclass(frozen=True)
class Act:
    what: str
    index: int


ACTS = st.lists(
    st.builds(
        Act,
        what=st.sampled_from(["create", "resume", "drop", "throw", "collect"]),
        index=st.integers(0, 9),
    ),
    max_size=60,
)


@settings(ANY_SPEED, max_examples=100)
@given(ACTS)
def test_every_started_greenlet_ends_exactly_once_in_whatever_order_they_go(
    acts: Sequence[Act],
) -> None:
    started = 0
    ended: list[int] = []

    def run(number: int, turns: int) -> int:
        try:
            total = 0
            for turn in range(turns):
                total += main.switch(turn)
            return total
        finally:
            ended.append(number)

    main = getcurrent()
    slots: dict[int, greenlet] = {}
    expected_turn: dict[int, int] = {}
    for act in acts:
        g = slots.get(act.index)
        if act.what == "create":
            g = slots[act.index] = greenlet(run)
            assert g.switch(started, act.index + 1) == 0
            expected_turn[act.index] = 1
            started += 1
        elif g is None:
            continue
        elif act.what == "resume" and not g.dead:
            result = g.switch(2)
            turn = expected_turn[act.index]
            assert result == (turn if turn <= act.index else 2 * turn)
            assert g.dead == (turn > act.index)
            expected_turn[act.index] += 1
        elif act.what == "throw":
            assert isinstance(g.throw(), GreenletExit)
            assert g.dead
        elif act.what == "drop":
            del slots[act.index]
        elif act.what == "collect":
            gc.collect(0)
        g = None
        alive = sum(1 for g in slots.values() if g)
        g = None
        assert len(ended) == started - alive
    slots.clear()
    assert sorted(ended) == list(range(started))
