"""Greenlets in the memory of a process, found by the debug table of the extension module.

``docs/internals/debug-table.md`` explains the table. It tells all that depends on a version of
greenlet or of CPython, so this reads processes of other versions than its own. A process may go on
while it is read: then pointers lead anywhere. So each one is checked, loops have bounds, and what
does not fit together is read again.

This imports nothing of the package but what lies beside it without an extension module, as
``greenlet/gdb.py`` uses it in the Python of gdb.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

from ._frames import Frames
from ._memory import Memory, OutsideError, UnreadableError
from ._objects import Objects
from ._table import DAMAGE, Record, Table, TornError
from ._view import FrameView, GreenletView, ThreadView

__all__ = ["Reader"]

T = TypeVar("T")

MOST_THREADS = 1_000_000
MOST_GREENLETS = 50_000_000
ATTEMPTS = 6
LOOKS = 5
#: Seconds until the next attempt, for a process that goes on.
PAUSE = 0.0005
#: Seconds that all pauses of a snapshot may take.
MOST_PAUSES = 1.0


class ThreadFound(NamedTuple):
    ident: int
    native_id: int
    interpreter: int
    greenlets: list[GreenletView]


class Reader:
    """All greenlets of a process, as ``greenlet.inspect.snapshot()`` gives them there."""

    def __init__(self, memory: Memory, table: Table | None = None) -> None:
        self.memory = memory
        # For each greenlet that is loaded besides, such as that of another folder.
        self._others: list[Reader] = []
        if table is None:
            table, *others = Table.all_in(memory)
            self._others = [Reader(memory, each) for each in others]
        self.table = table
        self.objects = Objects(memory, table)
        version = table["python.version"]
        self.python_version = (version >> 24 & 0xFF, version >> 16 & 0xFF)
        self.is_free_threaded = bool(table["python.free_threaded"])
        self._thread = Record(
            table,
            thread__module="Q",
            thread__state="Q",
            thread__main="Q",
            thread__running="Q",
            thread__first_started="Q",
        )
        self._greenlet = Record(
            table,
            greenlet__object="Q",
            greenlet__thread="Q",
            greenlet__state="B",
            greenlet__is_main="B",
            greenlet__next="Q",
            greenlet__parent="Q",
            greenlet__run="Q",
            greenlet__notes="Q",
            greenlet__stack_pointer="Q",
            greenlet__stack_boundary="Q",
        )
        self.frames = Frames(memory, table, self.objects)
        self._ident = Record(
            table,
            thread_state__ident="Q",
            thread_state__native_id="Q",
            thread_state__interpreter="Q",
        )
        self._states = {table[f"state.{name}"]: name for name in ("new", "running", "dead")}
        self._states[table["state.abandoned"]] = "abandoned"
        # Frames of a frozen greenlet are on the heap, and its C stack is not in place.
        self._frozen = table.entries.get("state.frozen")
        self._return_address = table.entries.get("register.rip") or table["register.pc"]
        self._greenlet_type = 0
        #: How many greenlets the last snapshot shows without their stacks, which it could not read,
        self.without_stack = 0
        #: and how often it found what cannot be: memory that the program has overwritten.
        self.damages = 0
        self._shown: set[int] = set()
        self._paused = 0.0

    # --- the whole ---

    def snapshot(self) -> list[ThreadView]:
        """Return the greenlets of all threads. A process that goes on may change meanwhile."""
        found = self._snapshot()
        for other in self._others:
            found += other.snapshot()
            self.without_stack += other.without_stack
            self.damages += other.damages
        found.sort(key=lambda thread: thread.native_id != self.memory.main_thread)
        return found

    def is_of_one_interpreter(self) -> bool:
        """Whether it is all that an interpreter of the process could tell."""
        found = {
            (reader, interpreter)
            for reader in (self, *self._others)
            for interpreter in self._insist(reader._interpreters)
        }
        return len(found) <= 1

    def count_started(self) -> int:
        """How many there are without the main ones. Takes as long as there are threads."""
        return sum(
            reader.objects.field(address, "thread.stacks")
            for reader in (self, *self._others)
            for address in self._insist(reader.threads)
        )

    def _interpreters(self) -> set[int]:
        field = self.objects.field
        states = {field(address, "thread.state") for address in self.threads()}
        return {field(state, "thread_state.interpreter") for state in states}

    def _snapshot(self) -> list[ThreadView]:
        self.objects = Objects(self.memory, self.table)
        self.frames = Frames(self.memory, self.table, self.objects)
        self.without_stack = self.damages = 0
        self._shown.clear()
        self._paused = 0.0
        found = []
        names: dict[int, dict[int, str]] = {}
        for address in self._insist(self.threads):
            thread = self._insist(partial(self._read_thread, address))
            if thread is None:
                continue
            if thread.interpreter not in names:
                names[thread.interpreter] = self._thread_names(thread.interpreter)
            is_main = thread.native_id == self.memory.main_thread
            unnamed = "MainThread" if is_main else f"{thread.ident:#x}"  # without threading
            name = names[thread.interpreter].get(thread.ident, unnamed)
            found.append(ThreadView(thread.ident, thread.native_id, name, thread.greenlets))
            self._shown.update(one.id for one in thread.greenlets)
        return found

    def threads(self) -> list[int]:
        """The addresses of the Threads that belong to living threads."""
        found: list[int] = []
        seen: set[int] = set()
        address = self.objects.word(self.table.address("threads"))
        while address and address not in seen and len(seen) < MOST_THREADS:
            seen.add(address)
            if self.objects.field(address, "thread.module"):
                found.append(address)
            address = self.objects.field(address, "thread.next")
        return found

    def _attempts(self) -> Iterator[None]:
        """Once for each attempt, with a pause after those that fail; at least once.

        All pauses together have a limit: a program may change all the time.
        """
        yield
        for attempt in range(1, ATTEMPTS):
            if not self.memory.is_live or self._paused > MOST_PAUSES:
                return
            if self.memory.has_ended():
                raise OutsideError(f"{self.memory.what} has ended")
            time.sleep(PAUSE * attempt)
            self._paused += PAUSE * attempt
            yield

    def _insist(self, look: Callable[[], T]) -> T:
        """What `look` returns, in one of some attempts; raises what the last one raises."""
        failure: Exception = TornError()
        for _ in self._attempts():
            try:
                return look()
            except DAMAGE as failed:
                failure = failed
        raise failure

    def _read_thread(self, address: int) -> ThreadFound | None:
        module, state, main = self._thread.read(self.memory, address)[:3]
        if not module:
            return None  # has ended meanwhile
        ident, native_id, interpreter = self._ident.read(self.memory, state)
        if not self._greenlet_type:
            main_object = self.objects.field(main, "greenlet.object")
            self._greenlet_type = self.objects.type_of(main_object)
        views = (
            self._read_greenlet(block, address, state) for block in [main, *self.started(address)]
        )
        return ThreadFound(ident, native_id, interpreter, [view for view in views if view])

    def started(self, thread: int) -> list[int]:
        """The control blocks of the started greenlets of a Thread."""
        blocks: dict[int, None] = {}
        for _ in self._attempts():
            blocks = {}
            block = self.objects.field(thread, "thread.first_started")
            while block and block not in blocks and len(blocks) < MOST_GREENLETS:
                try:
                    fields = self._greenlet.read(self.memory, block)
                except DAMAGE:
                    break
                if fields[1] != thread:
                    break  # it has finished, and is in another list or in none
                blocks[block] = None
                block = fields[4]
            if not block:
                break
        if block and not self.memory.is_live:
            self.damages += 1  # the greenlets behind this one cannot be found
        return [*blocks]

    def _thread_names(self, interpreter: int) -> dict[int, str]:
        try:
            pairs = self._insist(lambda: self.objects.python_threads(interpreter))
        except DAMAGE:
            return {}
        return self.objects.thread_names(pairs)

    # --- a greenlet ---

    def _read_greenlet(self, block: int, thread: int, thread_state: int) -> GreenletView | None:
        """None if it has finished meanwhile."""
        view = None
        for _ in self._attempts():
            try:
                before = self._greenlet.read(self.memory, block)
                if not self._is_in(before, thread):
                    return None
                view = self._view_of(block, before, thread_state)
                if not self.memory.is_live:
                    return view
                # The same state, stack pointer and so on: it has not run, or is where it was.
                if self._greenlet.read(self.memory, block) == before:
                    return view
            except DAMAGE:
                pass
        if view is not None:
            return view  # one that fits together, though it goes on
        try:
            fields = self._greenlet.read(self.memory, block)
            if not self._is_in(fields, thread):
                return None
            view = self._view_of(block, fields, 0)
        except DAMAGE:
            self.damages += 1
            return None
        if view.state == "suspended" and not self._has_c_stack(fields):
            self.without_stack += 1
        else:
            self.damages += 1
        return view

    def _has_c_stack(self, fields: tuple[int, ...]) -> bool:
        try:
            return fields[2] == self._frozen or bool(
                self.objects.word(fields[8] + self._return_address)
            )
        except DAMAGE:
            return False

    def _is_in(self, fields: tuple[int, ...], thread: int) -> bool:
        return fields[1] == thread and self._states.get(fields[2]) != "dead"

    def _view_of(self, block: int, fields: tuple[int, ...], thread_state: int) -> GreenletView:
        """Without a stack if no thread state is given."""
        number, thread, state, is_main, _, parent, run, notes, pointer, boundary = fields
        name = self.objects.field(notes, "notes.name") if notes else 0
        origin = self.objects.field(notes, "notes.origin") if notes else 0
        shown = self._states.get(state, "suspended")
        if self.objects.field(number, "greenlet_object.greenlet") != block:
            raise TornError
        stack: tuple[FrameView, ...] = ()
        if thread_state and shown == "running":
            stack = self._insist(lambda: self._frames_of_running(block, thread, thread_state))
        elif thread_state and shown == "suspended":
            if not self._has_c_stack(fields):
                raise TornError  # a core file without it
            stack = self.frames.behind(self.frames.of_suspended(block))
        in_use = boundary - pointer if pointer < boundary else 1
        kind = self.objects.type_of(number)
        return GreenletView(
            id=number,
            name=self._name(number, kind, bool(is_main), run, name, stack),
            type=self._type_name(kind),
            state=shown,
            is_main=bool(is_main),
            parent=parent,
            stack=stack,
            stack_in_use=in_use if shown == "suspended" else 0,
            origin=self._origin(origin) if origin else (),
        )

    def _frames_of_running(
        self, block: int, thread: int, thread_state: int
    ) -> tuple[FrameView, ...]:
        def still_runs() -> None:
            # Several times: a thread that switches all the time may be back at this moment.
            for _ in range(LOOKS if self.memory.is_live else 0):
                if self.objects.field(thread, "thread.running") != block:
                    raise TornError

        still_runs()
        frame = self.frames.of_running(thread_state)
        still_runs()  # otherwise this may be the frame of another greenlet
        found = self.frames.behind(frame)
        still_runs()
        return found

    def _type_name(self, kind: int) -> str:
        try:
            return self.objects.type_name(kind)
        except UnreadableError:  # a core file, and the extension module is not on this machine
            return "greenlet" if kind == self._greenlet_type else f"{kind:#x}"

    def _name(
        self,
        number: int,
        kind: int,
        is_main: bool,
        run: int,
        name: int,
        stack: tuple[FrameView, ...],
    ) -> str:
        objects = self.objects
        if name:
            return objects.string(name)
        if kind != self._greenlet_type:
            try:
                attributes = objects.field(number, "greenlet_object.dict")
                found = objects.get(attributes, "name") if attributes else 0
                if found and objects.is_string(found) and (text := objects.string(found)):
                    return text
            except DAMAGE:
                pass
        if is_main:
            return "main"
        try:
            called = objects.callable_name(run) if run else ""
        except DAMAGE:
            called = ""
        if not called and run and stack:
            called = stack[0].function
        return called or self._type_name(kind)

    def _origin(self, address: int) -> tuple[FrameView, ...]:
        objects, found = self.objects, []
        for item in objects.items(address):
            code, _, line = objects.items(item)
            known, _ = self.frames.code_at(code)
            found.append(FrameView(known.function, known.file, objects.integer(line)))
        return tuple(reversed(found))

    def registers(self, greenlet: GreenletView) -> dict[str, int]:
        """The registers with which a suspended greenlet goes on, by the names of debuggers."""
        for other in self._others:
            if greenlet.id in other._shown:
                return other.registers(greenlet)
        block = self.objects.field(greenlet.id, "greenlet_object.greenlet")
        if self._greenlet.read(self.memory, block)[2] == self._frozen:
            raise ValueError("it is frozen, because it has been idle")
        pointer = self.objects.field(block, "greenlet.stack_pointer")
        found = {
            name.partition(".")[2]: self.objects.word(pointer + offset)
            for name, offset in self.table.entries.items()
            if name.startswith("register.")
        }
        return found | {"sp": pointer + self.table["registers.bytes"]}
