"""Commands of gdb for greenlets, in live processes and core files: ``source`` this file.

``python -m greenlet`` prints where it is. It runs in the Python of gdb (3.9 or newer), which needs
no greenlet of its own, and it never changes the process: it shows the native stack of a suspended
greenlet by an unwinder, which tells gdb that the thread's innermost frame was called from there.

    info greenlets              the greenlets of all threads, with numbers
    greenlet N                  select greenlet N: bt, up, frame and so on show its native stack
    greenlet 0                  select the thread again, as it is
    greenlet py-bt              the Python frames of the selected greenlet
    greenlet apply all COMMAND  run bt, py-bt or another command for each greenlet
    greenlet apply 3 7 COMMAND  the same for some
    greenlet gcore FILE         gcore, and the memory near guard pages that gcore leaves out

What is selected is forgotten when the process goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import struct
import sys
import types
from collections.abc import Iterable, Iterator
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, NamedTuple

import gdb
import gdb.unwinder

if TYPE_CHECKING:
    from greenlet._memory import (
        CoreFile,
        Mapping,
        Memory,
        OutsideError,
        UnreadableError,
        number_inside,
    )
    from greenlet._reader import Reader
    from greenlet._table import DAMAGE
    from greenlet._view import (
        GreenletView,
        Style,
        ThreadView,
        frame_lines,
        place_of_frame,
        printable,
    )
else:
    # The package itself is not imported: its extension module is for another interpreter.
    _package = types.ModuleType("_greenlet_for_gdb")
    _package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[_package.__name__] = _package
    _memory, _reader, _table, _view = (
        importlib.import_module(f"{_package.__name__}.{name}")
        for name in ("_memory", "_reader", "_table", "_view")
    )
    CoreFile, Mapping, Memory = _memory.CoreFile, _memory.Mapping, _memory.Memory
    OutsideError, UnreadableError = _memory.OutsideError, _memory.UnreadableError
    number_inside = _memory.number_inside
    Reader, DAMAGE = _reader.Reader, _table.DAMAGE
    GreenletView, ThreadView = _view.GreenletView, _view.ThreadView
    frame_lines, place_of_frame = _view.frame_lines, _view.place_of_frame
    printable, Style = _view.printable, _view.Style


class Inferior(Memory):
    """The memory of what gdb looks at."""

    def __init__(self) -> None:
        self._inferior = gdb.selected_inferior()
        self.pid = self._inferior.pid
        self.main_thread = number_inside(self.pid)
        self.what = f"process {self.pid}" if self.pid else "this program"
        self._mappings: list[Mapping] | None = None

    def read(self, address: int, size: int) -> bytes:
        if not 0 < address < 1 << 56:
            raise UnreadableError(address)
        if not size:
            return b""
        try:
            return bytes(self._inferior.read_memory(address, size))
        except gdb.MemoryError:
            raise UnreadableError(address) from None

    def mappings(self) -> list[Mapping]:
        if self._mappings is None:
            try:
                text = gdb.execute("info proc mappings", to_string=True)
            except gdb.error as failure:
                raise OutsideError(f"gdb does not tell the mappings: {failure}") from None
            self._mappings = [
                Mapping(int(start, 16), int(end, 16), file.replace(" (deleted)", ""))
                for start, end, file in re.findall(
                    r"^\s*(0x[0-9a-f]+)\s+(0x[0-9a-f]+)\s.*?\s(/.*)$", text, re.MULTILINE
                )
            ]
        return self._mappings


class Found(NamedTuple):
    """A greenlet, with the number that the commands have for it."""

    number: int
    greenlet: GreenletView
    thread: ThreadView


class Selected(NamedTuple):
    """A suspended greenlet whose native stack is shown in place of that of a thread."""

    found: Found
    thread: int  # gdb's number of it
    at: tuple[int, int]  # the stack pointer and the program counter of the thread itself
    registers: dict[str, int]

    @property
    def pc(self) -> int:
        names = ("pc", "rip", "eip")
        return next(self.registers[name] for name in names if name in self.registers)

    def is_shown(self) -> bool:
        """Whether gdb looks at that thread."""
        thread = gdb.selected_thread()
        return thread is not None and thread.num == self.thread


class State:
    """What the commands know while the process stands still."""

    reader: Reader | None = None
    all: list[Found] | None = None
    selected: Selected | None = None

    @classmethod
    def forget(cls, *_: Any) -> None:
        cls.reader = cls.all = None
        cls.select(None)

    @classmethod
    def select(cls, selected: Selected | None) -> None:
        if cls.selected is not selected:
            cls.selected = selected
            gdb.invalidate_cached_frames()

    @classmethod
    def greenlets(cls) -> list[Found]:
        if cls.all is None:
            if not gdb.selected_inferior().threads():
                raise gdb.GdbError("there is no process and no core file")
            try:
                cls.reader = Reader(Inferior())
                cls.all = []
                for thread in cls.reader.snapshot():
                    for greenlet in thread.greenlets:
                        cls.all.append(Found(len(cls.all) + 1, greenlet, thread))
            except OutsideError as failure:
                cls.forget()
                raise gdb.GdbError(str(failure)) from None
            except DAMAGE as failure:
                cls.forget()
                raise gdb.GdbError(f"the greenlets cannot be read: {failure}") from None
        return cls.all

    @classmethod
    def find(cls, text: str) -> Found:
        greenlets = cls.greenlets()
        if not text.isdecimal() or not 0 < int(text) <= len(greenlets):
            raise gdb.GdbError(f"there is no greenlet {text}: info greenlets shows all of them")
        return greenlets[int(text) - 1]


class Unwinder(gdb.unwinder.Unwinder):  # type: ignore[misc,name-defined,unused-ignore]
    """Says that the innermost frame of a thread was called from where a greenlet waits."""

    def __init__(self) -> None:
        super().__init__("greenlet")

    def __call__(self, pending: Any) -> Any:
        selected = State.selected
        if selected is None or not selected.is_shown() or place_of(pending) != selected.at:
            return None
        pointer = gdb.Value(selected.registers["sp"])
        # The stack pointer of the frame is that of the greenlet: gdb checks that stacks go one way.
        info = pending.create_unwind_info(FrameId(pointer - 8, pending.read_register("pc")))
        for name, value in selected.registers.items():
            kind = pending.read_register(name).type
            info.add_saved_register(name, gdb.Value(value).cast(kind))
        return info


def place_of(frame: Any) -> tuple[int, int]:
    return int(frame.read_register("sp")), int(frame.read_register("pc"))


class FrameId:
    def __init__(self, sp: Any, pc: Any) -> None:
        self.sp = sp
        self.pc = pc


class HideThread:
    """A frame filter: without the innermost frame of the thread, if a greenlet is selected."""

    name, enabled, priority = "greenlet", True, 1000

    def __init__(self) -> None:
        gdb.frame_filters[self.name] = self

    def filter(self, frames: Iterator[Any]) -> Iterable[Any]:
        selected = State.selected
        if selected is None or not selected.is_shown():
            return frames
        # Inlined functions may be several frames at one place.
        return dropwhile(lambda frame: frame.inferior_frame().pc() != selected.pc, frames)


def thread_of(found: Found) -> Any:
    threads = gdb.selected_inferior().threads()
    for thread in threads:
        if found.thread.native_id in thread.ptid[1:]:
            return thread
    for thread in threads:  # in a container it has another number; this is the pthread_t
        with contextlib.suppress(gdb.error):
            if int.from_bytes(thread.handle(), sys.byteorder) == found.thread.ident:
                return thread
    raise gdb.GdbError(f"gdb does not know thread {found.thread.native_id} ({found.thread.name})")


def select(found: Found) -> None:
    """Let gdb show the native stack of a greenlet."""
    assert State.reader is not None
    State.select(None)
    thread = thread_of(found)
    thread.switch()
    if found.greenlet.state == "suspended":
        try:
            registers = State.reader.registers(found.greenlet)
        except DAMAGE as failure:
            raise gdb.GdbError(f"its stack cannot be read: {failure}") from None
        selected = Selected(found, thread.num, place_of(gdb.newest_frame()), registers)
        State.select(selected)
        frame = gdb.newest_frame()
        while frame is not None and frame.pc() != selected.pc:
            frame = frame.older()
        if frame is None:
            State.select(None)
            raise gdb.GdbError("gdb does not unwind to it")
        frame.select()


def is_selected(found: Found) -> bool:
    if State.selected is not None:
        return State.selected.found is found
    if found.greenlet.state != "running":
        return False
    with contextlib.suppress(gdb.GdbError):
        return bool(thread_of(found).num == gdb.selected_thread().num)
    return False


def title(found: Found) -> str:
    one = found.greenlet
    kind = "" if one.type == "greenlet" else f" {printable(one.type)}"
    return f"{printable(one.name)}{kind} {one.id:#x} {one.state}"


def print_python_frames(found: Found) -> None:
    for line in frame_lines(found.greenlet.stack, Style(color=False)):
        print(f"  {line}")


class InfoGreenlets(gdb.Command):  # type: ignore[misc,name-defined,unused-ignore]
    """The greenlets of all threads: numbers, names, states, and where they wait."""

    def __init__(self) -> None:
        super().__init__("info greenlets", gdb.COMMAND_STACK)

    def invoke(self, argument: str, from_tty: bool) -> None:
        thread = None
        for found in State.greenlets():
            if found.thread is not thread:
                thread = found.thread
                print(f"thread {thread.native_id} {printable(thread.name)}")
            last = found.greenlet.stack[-1:]
            where = f"  {printable(last[0].function)} {place_of_frame(last[0])}" if last else ""
            mark = "*" if is_selected(found) else " "
            print(f"{mark} {found.number:<4} {title(found)}{where}")


class SelectGreenlet(gdb.Command):  # type: ignore[misc,name-defined,unused-ignore]
    """Select a greenlet by its number: bt, up, frame and so on show its native stack.

    greenlet 0 selects the thread again. Without a number it tells which one is selected.
    """

    def __init__(self) -> None:
        super().__init__("greenlet", gdb.COMMAND_STACK, gdb.COMPLETE_NONE, True)

    def invoke(self, argument: str, from_tty: bool) -> None:
        argument = argument.strip()
        if argument == "0":
            State.select(None)
            gdb.execute("frame 0")
        elif argument:
            found = State.find(argument)
            select(found)
            print(f"[Greenlet {found.number}: {title(found)}, thread {found.thread.native_id}]")
            gdb.execute("frame")
        else:
            chosen = [found for found in State.greenlets() if is_selected(found)]
            for found in chosen:
                print(f"[Greenlet {found.number}: {title(found)}, thread {found.thread.native_id}]")
            if not chosen:
                print("this thread has not used greenlets")


class PythonFrames(gdb.Command):  # type: ignore[misc,name-defined,unused-ignore]
    """The Python frames of the selected greenlet, the outermost first."""

    def __init__(self) -> None:
        super().__init__("greenlet py-bt", gdb.COMMAND_STACK)

    def invoke(self, argument: str, from_tty: bool) -> None:
        for found in State.greenlets():
            if is_selected(found):
                print_python_frames(found)


class Gcore(gdb.Command):  # type: ignore[misc,name-defined,unused-ignore]
    """Write a core file that has the stacks of greenlets: greenlet gcore FILE.

    The kernel has had guard pages inside of mappings since 6.13, and stacks of greenlets have them.
    gcore reads a mapping in large pieces, and leaves out the rest of it if a piece has a guard.
    """

    def __init__(self) -> None:
        super().__init__("greenlet gcore", gdb.COMMAND_DATA, gdb.COMPLETE_FILENAME)

    def invoke(self, argument: str, from_tty: bool) -> None:
        memory = Inferior()
        path = os.path.expanduser(argument.strip()) or f"core.{memory.pid}"
        gdb.execute(f"gcore {path}", to_string=True)
        try:
            print(f"Saved {path}, and {complete(path, memory):,} pages that gcore had left out")
        except (OSError, OutsideError) as failure:
            raise gdb.GdbError(f"{path} is what gcore has written: {failure}") from None


def complete(path: str, memory: Memory) -> int:
    """Add to a core file what gcore has left out; return the number of pages."""
    page, added = os.sysconf("SC_PAGE_SIZE"), 0
    nothing, has_contents = bytes(page), 3 << 62  # in memory or swapped: proc_pid_pagemap(5)
    with open(path, "r+b") as core, open(f"/proc/{memory.pid}/pagemap", "rb") as map_:
        for start, size, offset in CoreFile(path).segments:
            if start >= 1 << 47:  # of the kernel
                continue
            map_.seek(start // page * 8)
            for index, (entry,) in enumerate(struct.iter_unpack("<Q", map_.read(size // page * 8))):
                if not entry & has_contents:
                    continue
                core.seek(offset + index * page)
                if core.read(page) == nothing:
                    with contextlib.suppress(UnreadableError):
                        found = memory.read(start + index * page, page)
                        if found != nothing:
                            core.seek(offset + index * page)
                            core.write(found)
                            added += 1
    return added


class Apply(gdb.Command):  # type: ignore[misc,name-defined,unused-ignore]
    """Run a command for all greenlets, or for those with some numbers: greenlet apply all bt."""

    def __init__(self) -> None:
        super().__init__("greenlet apply", gdb.COMMAND_STACK)

    def invoke(self, argument: str, from_tty: bool) -> None:
        words = argument.split()
        chosen: list[Found] = []
        if words[:1] == ["all"]:
            chosen = State.greenlets()
            words = words[1:]
        else:
            while words and words[0].isdecimal():
                chosen.append(State.find(words.pop(0)))
        command = " ".join(words)
        if not command:
            raise gdb.GdbError("greenlet apply all COMMAND, or greenlet apply N... COMMAND")
        thread, before = gdb.selected_thread(), State.selected
        try:
            for found in chosen:
                print(f"\nGreenlet {found.number}: {title(found)}, thread {found.thread.native_id}")
                try:
                    if command == "py-bt":
                        print_python_frames(found)
                    else:
                        select(found)
                        gdb.execute(command)
                except (gdb.error, gdb.GdbError) as failure:
                    print(failure)
        finally:
            State.select(None)
            thread.switch()
            if before is not None:
                select(before.found)


gdb.unwinder.register_unwinder(None, Unwinder(), replace=True)
HideThread()
for _command in (InfoGreenlets, SelectGreenlet, PythonFrames, Gcore, Apply):
    _command()
for _event in (gdb.events.cont, gdb.events.exited, gdb.events.new_objfile):
    _event.connect(State.forget)
