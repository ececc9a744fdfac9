"""A reference greenlet: plain Python, a thread for each greenlet, and a baton that they hand on.

Only the thread that holds the baton runs. So no stack is ever switched, and what a greenlet does
can be read here from top to bottom. It needs an interpreter with the GIL: there the last reference
to an object goes away at once, whichever thread drops it.

`_Thread` is a thread of the program. Its main greenlet runs in it, every other one in a thread of
the model's own.
"""

from __future__ import annotations

import _thread
import gc
import inspect
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

_UNSET = object()
NEW, ACTIVE, DEAD = "new", "active", "dead"
VANISHED = "Killing the greenlet because all references have vanished."


class GreenletExit(BaseException):
    """Ends a greenlet quietly."""


class EndOfThread(GreenletExit, SystemExit):
    """What a suspended greenlet gets from a collection, and at the end of its thread."""


class error(Exception):  # noqa: N801
    """A switch that cannot be."""


class Abandoned(BaseException):
    """Ends the threads of greenlets that nobody can reach any more, when a program is over."""


class _Value:
    """A message: what a switch brings."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], ended: bool = False) -> None:
        self.args, self.kwargs, self.ended = args, kwargs, ended

    def open(self) -> Any:
        if self.kwargs:
            return (self.args, self.kwargs) if self.args else self.kwargs
        return self.args[0] if len(self.args) == 1 else self.args


class _Problem:
    """A message: an exception to raise, made of its type and value when it is sent."""

    def __init__(self, typ: Any, value: Any = None, tb: Any = None) -> None:
        self.typ, self.value, self.tb = typ, value, tb

    def exception(self) -> BaseException:
        if not isinstance(self.typ, BaseException):
            if isinstance(self.value, self.typ):
                self.typ = self.value
            else:
                value = self.value
                args = () if value is None else value if isinstance(value, tuple) else (value,)
                try:
                    self.typ = self.typ(*args)
                except BaseException as failure:
                    self.typ = failure.with_traceback(None)
            self.value = None
        if self.tb is not None:
            self.typ.__traceback__, self.tb = self.tb, None
        return self.typ  # type: ignore[no-any-return]

    def open(self) -> Any:
        failure = self.exception()
        context = failure.__context__
        self.typ = self.value = self.tb = None  # or a traceback with this frame leads to itself
        try:
            raise failure
        finally:
            failure.__context__ = context  # an exception thrown is not chained to what is handled
            del failure, context

    def at_the_end(self) -> _Value | _Problem:
        """GreenletExit that nobody can catch is a value for the parent."""
        failure = self.exception()
        if not isinstance(failure, GreenletExit):
            return self
        self.typ = None
        return _Value((failure,), {}, ended=True)


_Message = _Value | _Problem


class _Stack:
    """Where a started greenlet waits: the thread refers to this, and not to the greenlet."""

    def __init__(self) -> None:
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.inbox: _Message | None = None
        self.ident = _thread.get_ident()
        self.done = _thread.allocate_lock()

    def wait(self) -> _Message:
        self.baton.acquire()
        message, self.inbox = self.inbox, None
        assert message is not None
        return message


class _Thread:
    """A thread of the program: who runs in it, and who is to be ended in it."""

    def __init__(self) -> None:
        self.current: greenlet = greenlet.__new__(greenlet, _main_of=self)
        self.current._stack = _Stack()
        self.main = self.current
        self.origin: greenlet | None = None
        self.trace: Any = None
        self.python_trace: Any = None
        self.pending: list[greenlet] = []
        self.dying: list[tuple[greenlet, greenlet]] = []  # with their parents until then
        self.kept: list[greenlet] = []
        # In the order of their starts, in which the end of the thread ends them.
        self.stacks: weakref.WeakValueDictionary[_Stack, greenlet] = weakref.WeakValueDictionary()
        self.ending = self.ended = self.abandoned = False

    def drain(self) -> None:
        """End the greenlets that others dropped or found unreachable."""
        while self.pending:
            box = [self.pending.pop(0)]
            box[0]._end()
            _let_go(box)

    def kills(self, one: greenlet) -> bool:
        return any(killed is one for killed, _ in self.dying)

    def arrive(self, message: _Message) -> _Message:
        """What the one who was switched to does first."""
        if sys.gettrace() is not self.python_trace:
            sys.settrace(self.python_trace)
        origin, self.origin = self.origin, None
        box = [message]
        del message  # a traceback may keep this frame, and must not keep the message
        if self.trace is not None:
            event = "switch" if isinstance(box[0], _Value) else "throw"
            pair = origin, self.current  # the callback's caller holds both
            problem = None
            try:
                self.trace(event, pair)
            except BaseException as failure:
                problem = _Problem(failure)
            if problem is not None:  # nothing is handled when the message goes
                problem.typ.__traceback__ = _without_ours(problem.typ.__traceback__)
                self.trace = None
                box = [problem]
                del problem
            del pair
        del origin
        return box.pop()

    def hand_over(self, box: list[Any], dying: bool = False) -> _Stack | None:
        """Give the baton to whoever gets this message; return where the caller waits for it.

        `box` holds the target and the message, so that nothing of them is held by a thread that
        goes on without the baton. What goes wrong on the way up from a greenlet that is `dying`
        is raised in the next parent.
        """
        target, message = box
        box.clear()
        if dying:
            self.current._finishing = True
        while target._state != ACTIVE or (dying and target is self.current):
            if target._state != NEW:
                if isinstance(message, _Problem):
                    message = message.at_the_end()
                target = target._parent
                continue
            problem = None
            try:
                run = target.run  # as an attribute: this may do anything
                self.belongs(target)
            except BaseException as failure:
                if not dying:
                    raise
                run, problem = None, _Problem(failure)
            if problem is not None:  # nothing is handled when it lets go of the others
                message = problem
                problem = None
                target = target._parent
                if self.kills(self.current) and isinstance(message.typ, GreenletExit):
                    # The greenlet that kills it waits, and gets the message.
                    target, message = self.current._parent, message.at_the_end()
                continue
            if target._state == NEW:
                target._run = None  # this may do anything, too
            if target._state == NEW:
                target._state, target._thread, target._stack = ACTIVE, self, _Stack()
                self.stacks[target._stack] = target
                if isinstance(message, _Value) and message.ended:
                    message = _Value((), {})  # GreenletExit starts a parent without arguments
                _thread.start_new_thread(_live, (self, target._stack, [run]))
            del run
        self.belongs(target)
        self.origin, self.current = self.current, target
        self.python_trace = sys.gettrace()
        stack, here = target._stack, self.origin._stack
        if dying:  # until now it may have waited, for one that it let go of
            self.origin._state, self.origin._stack = DEAD, None
        stack.inbox = message
        del target, message
        stack.baton.release()
        return here

    def send(self, target: greenlet, message: _Message) -> Any:
        self.drain()
        self.belongs(target)
        box = [target, message]
        del target, message
        here = self.hand_over(box)
        assert here is not None
        return self.arrive(here.wait()).open()

    def belongs(self, target: greenlet) -> None:
        if self.abandoned:
            raise Abandoned
        thread = target._home()
        if thread is not self:
            raise error(
                "cannot switch to a different thread (which happens to have exited)"
                if thread is None or thread.ended
                else "Cannot switch to a different thread"
            )


def _without_ours(tb: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback without the frames of this file."""
    if tb is None:
        return None
    below = _without_ours(tb.tb_next)
    if tb.tb_frame.f_code.co_filename == __file__:
        return below
    return types.TracebackType(below, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)


def _live(thread: _Thread, stack: _Stack, run: list[Any]) -> None:
    """The life of a greenlet, in a thread of its own."""
    stack.ident = _thread.get_ident()
    stack.done.acquire()
    _local.thread = thread
    box: list[Any] = [None, stack.wait()]
    problem = None
    try:
        box[1] = thread.arrive(box[1])
        if isinstance(box[1], _Problem):
            box[1].open()
        args, kwargs = [box[1].args], [box[1].kwargs]
        box[1] = None
        # When the call is over, the arguments go first, and then what was called.
        box[1] = _Value((run[0](*args.pop(), **kwargs.pop()),), {})
    except BaseException as failure:
        problem = _Problem(failure)
    if problem is not None:  # nothing is handled when the arguments go
        problem.typ.__traceback__ = _without_ours(problem.typ.__traceback__)
        box[1] = problem.at_the_end()
        del problem
    run.clear()
    if thread.abandoned:
        stack.done.release()
        return
    box[0] = thread.current._parent
    thread.hand_over(box, dying=True)


_local = threading.local()


def _here() -> _Thread:
    thread: _Thread | None = getattr(_local, "thread", None)
    if thread is None:
        thread = _local.thread = _Thread()
        threads.append(thread)
    return thread


threads: list[_Thread] = []


def getcurrent() -> greenlet:
    thread = _here()
    thread.drain()
    return thread.current


def settrace(callback: Any) -> Any:
    thread = _here()
    previous, thread.trace = thread.trace, callback
    return previous


def gettrace() -> Any:
    return _here().trace


class greenlet:  # noqa: N801
    """A call stack that can be left and entered again."""

    __slots__ = (  # noqa: RUF023
        "__dict__",
        "__weakref__",
        "_state",
        "_run",
        "_parent",
        "_thread",
        "_stack",
        "_context",
        "_refused",
        "_finalized",
        "_finishing",
        "_scheduler",
    )
    _SLOTS = __slots__[2:]
    _state: str
    _run: tuple[Any] | None
    _parent: Any
    _thread: _Thread | None
    _stack: _Stack | None
    _context: Context | None
    _refused: bool
    _finalized: bool
    _finishing: bool  # its run is over, and it looks for the greenlet that goes on
    _scheduler: bool

    def __new__(cls, *args: Any, _main_of: _Thread | None = None, **kwargs: Any) -> greenlet:
        self = object.__new__(cls)
        self._state = NEW if _main_of is None else ACTIVE
        self._run = self._stack = self._context = None
        self._thread = _main_of
        self._refused = self._finalized = self._finishing = self._scheduler = False
        self._parent = getcurrent() if _main_of is None else None
        return self

    def __init__(self, run: Any = _UNSET, parent: Any = None) -> None:
        if run is not _UNSET:
            self._not_started()
            self._run = (run,)
        if parent is not None:
            greenlet.parent.__set__(self, parent)  # type: ignore[attr-defined]

    def __init_subclass__(cls) -> None:
        if (user := cls.__dict__.get("__del__")) is not None:

            def finalize(self: greenlet) -> None:
                # The frames that called this may outlive it, so this one keeps no reference to it.
                known, box, references = weakref.ref(self), [self], sys.getrefcount(self)
                was_finalized, self._finalized = self._finalized, True
                del self
                if not was_finalized:
                    _attempt(lambda: user(box.pop()))
                box.clear()
                # Not if something refers to it again. (Python does not finalize it another time.)
                if (again := known()) is not None and sys.getrefcount(again) < references:
                    greenlet.__del__(again)
                    del again

            cls.__del__ = finalize  # type: ignore[method-assign]

    def switch(self, /, *args: Any, **kwargs: Any) -> Any:
        return _here().send(self, _Value(args, kwargs))

    def throw(self, typ: Any = GreenletExit, val: Any = None, tb: Any = None, /) -> Any:
        if tb is not None and not isinstance(tb, types.TracebackType):
            raise TypeError("throw() third argument must be a traceback object")
        if isinstance(typ, BaseException):
            if val is not None:
                raise TypeError("instance exception may not have a separate value")
        elif not (isinstance(typ, type) and issubclass(typ, BaseException)):
            name = type(typ).__name__
            raise TypeError(f"exceptions must be classes, or instances, not {name}")
        message = _Problem(typ, val, tb)
        message.exception()
        del typ, val, tb  # or a traceback with this frame leads to itself
        return _here().send(self, message)

    @property
    def run(self) -> Any:
        if self._run is None:
            self._not_main()
            raise AttributeError("run")
        return self._run[0]

    @run.setter
    def run(self, value: Any) -> None:
        self._not_started()
        self._run = (value,)

    @run.deleter
    def run(self) -> None:
        self._not_started()
        self._run = None

    def _not_main(self) -> None:
        if self._parent is None:
            raise AttributeError("Main greenlets do not have a run attribute.")

    def _not_started(self) -> None:
        self._not_main()
        if self._state != NEW:
            raise AttributeError("run cannot be set after the start of the greenlet")

    @property
    def parent(self) -> Any:
        return self._parent

    @parent.setter
    def parent(self, parent: Any) -> None:
        if self._parent is None:
            raise AttributeError("cannot set the parent of a main greenlet")
        if not isinstance(parent, greenlet):
            name = type(parent).__name__
            raise TypeError(f"GreenletChecker: Expected any type of greenlet, not {name}")
        if any(one is self for one in parent._line()):
            raise ValueError("cyclic parent chain")
        if self._state != NEW and parent._home() is not self._thread:
            raise ValueError("parent cannot be on a different thread")
        if parent is not _here().current:
            parent._scheduler = True
        self._parent = parent

    def _line(self) -> Iterator[greenlet]:
        """The greenlet and all its ancestors."""
        one: greenlet | None = self
        while one is not None:
            yield one
            one = one._parent

    def _home(self) -> _Thread | None:
        """The thread in which it runs, or would start."""
        return next((one._thread for one in self._line() if one._state != NEW), None)

    @property
    def _lives(self) -> bool:
        return self._state == ACTIVE and not (self._thread is not None and self._thread.ended)

    @property
    def dead(self) -> bool:
        return self._state != NEW and not self

    def __bool__(self) -> bool:
        return self._lives and not self._finishing

    @property
    def gr_context(self) -> Context | None:
        return self._context

    @gr_context.setter
    def gr_context(self, context: Context | None) -> None:
        self._context = context

    def frames(self) -> list[types.FrameType]:
        """The frames of a suspended greenlet, the innermost one first."""
        if self._stack is None or not self._lives:
            return []
        frame = sys._current_frames().get(self._stack.ident)
        found = []
        while frame is not None:
            found.append(frame)
            frame = frame.f_back
        return found

    # --- the end of greenlets that nobody refers to

    def __del__(self) -> None:
        if not self._lives or self._parent is None:
            return
        # Python finalizes an object once. Another one takes its place, and may be dropped again.
        # It takes all with it: what this one kept until it is freed would end too late.
        heir = object.__new__(type(self))
        heir.__dict__ = self.__dict__
        for cls in type(self).__mro__:
            slots = cls.__dict__.get("_SLOTS") or cls.__dict__.get("__slots__", ())
            for name in slots:
                if hasattr(self, name):
                    setattr(heir, name, getattr(self, name))
                    delattr(self, name)
        thread, stack = heir._thread, heir._stack
        assert thread is not None
        assert stack is not None
        self._state = DEAD
        thread.stacks[stack] = heir
        if heir._refused or (thread.ending and heir._scheduler):
            thread.kept.append(heir)
        elif thread is _here():
            thread.drain()
            heir._end()
        else:
            thread.pending.append(heir)
        box = [heir]
        del heir
        _let_go(box)

    def _end(self, kind: type[GreenletExit] = GreenletExit) -> None:
        thread = _here()
        if self._state != ACTIVE:
            return
        killer, former = thread.current, self._parent
        self._parent = killer
        death = kind(VANISHED)
        death.__context__ = sys.exception()
        message = _Problem(death)
        del death
        held = self, former
        thread.dying.append(held)
        _attempt(lambda: thread.send(self, message))  # noqa: F821
        thread.dying.remove(held)
        # Not if it has got another parent, or has become an ancestor of the former one.
        if self._parent is killer and all(one is not self for one in former._line()):
            self._parent = former
        # A traceback may outlive this frame. It must not keep the greenlet.
        del self, killer, former, held


def _let_go(box: list[greenlet]) -> None:
    """Drop a greenlet; if this is the last reference, it has refused to end, and stays as it is."""
    known = weakref.ref(box[0])
    box[0]._refused = True
    box.clear()
    if (living := known()) is not None:
        living._refused = False


def _attempt(function: Callable[[], object]) -> None:
    """Call it, and report what it raises."""
    problem = None
    try:
        function()
    except BaseException as failure:
        problem = failure
    if problem is not None:  # nothing is handled when the hook lets go of frames
        problem.__traceback__ = _without_ours(problem.__traceback__)
        report: Any = types.SimpleNamespace(exc_type=type(problem), exc_value=problem)
        sys.unraisablehook(report)
        del problem, report  # or a traceback with this frame leads to itself


# --- context variables


class Context:
    def __init__(self) -> None:
        self.values: dict[ContextVar, Any] = {}
        self.entered = False

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        if self.entered:
            raise RuntimeError("cannot enter context: it is already entered")
        outer, getcurrent()._context, self.entered = getcurrent()._context, self, True
        handled = sys.exception()
        try:
            return function(*args)
        finally:
            if getcurrent()._context is not self:
                failure = RuntimeError(
                    "cannot exit context: thread state references a different context object"
                )
                failure.__context__ = handled
                problem = _Problem(failure)
                del failure, handled  # or a traceback with this frame leads to itself
                problem.open()
            getcurrent()._context, self.entered = outer, False
            handled = None  # or a traceback with this frame keeps it


def copy_context() -> Context:
    copied = Context()
    copied.values.update(_context().values)
    return copied


def _context() -> Context:
    me = getcurrent()
    if me._context is None:
        me._context = Context()
    return me._context


class ContextVar:
    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, default: Any = None) -> Any:
        return _context().values.get(self, default)

    def set(self, value: Any) -> tuple[Context, bool, Any]:
        context = _context()
        token = context, self in context.values, context.values.get(self)
        context.values[self] = value
        return token

    def reset(self, token: tuple[Context, bool, Any]) -> None:
        context, was_set, value = token
        if context is not _context():
            raise ValueError("token was created in a different Context")
        if was_set:
            context.values[self] = value
        else:
            del context.values[self]


# --- what the interpreter does by itself for the real thing


def set_python_trace(function: Any) -> None:
    """sys.settrace: of the whole thread of the program."""
    sys.settrace(function)


def end_thread() -> None:
    """The thread of the program that calls this ends."""
    thread = _here()
    thread.ending = True
    for _ in range(10):
        for one in list(thread.stacks.values()):
            if one._lives and not one._scheduler:
                one._end(EndOfThread)
    thread.ended = True
    sys.settrace(None)


def collect(roots: list[Any]) -> None:
    """End the suspended greenlets that nothing running and no root leads to."""
    handled = sys._current_exceptions()
    reached: set[int] = set()
    ahead: list[Any] = list(roots)
    for thread in threads:
        if not thread.ended:
            ahead += [thread.main, thread.current, thread.trace, *thread.kept]
            ahead += [*thread.dying, *thread.pending]
    while ahead:
        found = ahead.pop()
        if id(found) in reached or isinstance(found, type | types.ModuleType | _Thread | _Stack):
            continue
        reached.add(id(found))
        if isinstance(found, greenlet):
            ahead += [found._parent, found._run, found._context, found.__dict__]
            if found._lives and found._stack is not None:
                ahead.append(handled.get(found._stack.ident))
            for frame in found.frames():
                code = frame.f_code
                if code.co_flags & inspect.CO_OPTIMIZED and code.co_filename != __file__:
                    variables = frame.f_locals
                    ahead += variables.values()
                    if isinstance(variables, dict):
                        variables.clear()  # up to 3.12 the frame keeps this copy
        elif isinstance(found, types.FunctionType):
            ahead += [found.__closure__, found.__defaults__]
        else:
            ahead += gc.get_referents(found)
    for thread in threads:
        lost = [one for one in thread.stacks.values() if one._lives and id(one) not in reached]
        if thread is not _here() and not thread.ended:
            thread.pending += lost
        while lost and thread is _here():
            lost.pop()._end(EndOfThread)
    del thread, lost
    gc.collect()


def suspended() -> list[greenlet]:
    """The suspended greenlets of this thread of the program."""
    thread = _here()
    return [one for one in list(thread.stacks.values()) if one and one is not thread.current]


def abandon() -> None:
    """End the threads of the model that still wait, when a program is over."""
    stacks = {}
    for thread in threads:
        thread.abandoned, thread.trace = True, None
        for one in [*thread.stacks.values(), *thread.kept, *thread.pending]:
            if one._state == ACTIVE and one is not thread.current:
                one._state = DEAD
                stacks[id(one._stack)] = one._stack
        thread.kept.clear()
        thread.pending.clear()
    for stack in stacks.values():
        assert stack is not None
        stack.inbox = _Problem(Abandoned())
        stack.baton.release()
        stack.done.acquire(timeout=5)
    threads.clear()
    if hasattr(_local, "thread"):
        del _local.thread
