"""Greenlets in the memory of a process, found by the debug table of the extension module.

``docs/debug-table.md`` explains the table. It tells all that depends on a version of greenlet or of
CPython, so this reads processes of other versions than its own. A process may go on while it is
read: then pointers lead anywhere. So each one is checked, loops have bounds, and what does not fit
together is read again.

This imports nothing of the package but ``_memory`` and ``_view``, as ``greenlet_gdb.py`` uses it in
the Python of gdb.
"""

from __future__ import annotations

import struct
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

from ._memory import Memory, OutsideError, UnreadableError
from ._view import FrameView, GreenletView, ThreadView

__all__ = ["Reader", "Table"]

T = TypeVar("T")

MAGIC = b"greenlet debug\0\0"
VERSION = 1
MOST_THREADS = 1_000_000
MOST_GREENLETS = 50_000_000
MOST_FRAMES = 10_000_000
MOST_CHARACTERS = 1 << 20
ATTEMPTS = 6
#: Seconds until the next attempt, for a process that goes on.
PAUSE = 0.0005


class TornError(ValueError):
    """What was read does not fit together. Strings that cannot be decoded are ValueErrors, too."""


class Table:
    """The entries of all blocks, by name."""

    def __init__(self, memory: Memory) -> None:
        self.entries: dict[str, int] = {}
        self.greenlet_version = ""
        for address in memory.addresses_of(MAGIC):
            try:
                self._add(memory, address)
            except UnreadableError:
                continue
        if not self.entries:
            if memory.has_extension():
                raise OutsideError(
                    f"the greenlet in {memory.what} has no debug table: it is the published one, "
                    "or an older one than this"
                )
            raise OutsideError(f"there is no greenlet in {memory.what}")
        if not {"threads", "python.version"} <= self.entries.keys():
            raise OutsideError(f"the debug table of greenlet in {memory.what} is not complete")

    def _add(self, memory: Memory, address: int) -> None:
        _, version, size, first, entry_size, itself, name, count = struct.unpack(
            "<16sIIIIQ16sQ", memory.read(address, 64)
        )
        if itself != address or address % 16:
            return  # a copy, such as the one in the file
        if version != VERSION:
            raise OutsideError(
                f"the debug table of greenlet in {memory.what} has version {version}, and this "
                f"greenlet knows version {VERSION}: use the greenlet of that process, or a newer one"
            )
        if size > 1 << 20 or first + count * entry_size > size or entry_size < 40:
            raise OutsideError(f"the debug table of greenlet in {memory.what} is damaged")
        block = memory.read(address, size)
        self.greenlet_version = name.rstrip(b"\0").decode(errors="replace")
        for at in range(first, first + count * entry_size, entry_size):
            key, value = struct.unpack_from("<32sq", block, at)
            self.entries[key.partition(b"\0")[0].decode(errors="replace")] = value

    def __getitem__(self, name: str) -> int:
        try:
            return self.entries[name]
        except KeyError:
            raise OutsideError(f"the debug table of that greenlet has no {name}") from None

    def address(self, name: str) -> int:
        return self[name] & 0xFFFF_FFFF_FFFF_FFFF


class Record:
    """Some fields of a structure that are read at once: their offsets in the table, and formats."""

    def __init__(self, table: Table, **fields: str) -> None:
        names = [name.replace("__", ".") for name in fields]
        self._order: list[int] = []
        offsets = sorted((table[name], index) for index, name in enumerate(names))
        formats = [*fields.values()]
        self._first = offsets[0][0]
        layout, at = "<", self._first
        if offsets[-1][0] - self._first > 1 << 16:
            raise OutsideError("the debug table of that greenlet is damaged")
        for offset, index in offsets:
            if offset < at:
                raise OutsideError("the debug table of that greenlet is damaged")
            layout += f"{offset - at}x{formats[index]}"
            at = offset + struct.calcsize(f"<{formats[index]}")
            self._order.append(index)
        self._struct = struct.Struct(layout)
        self._in_order = self._order == sorted(self._order)

    def read(self, memory: Memory, address: int) -> tuple[int, ...]:
        """Return the values in the order of the fields given."""
        if address % 8 or not address:
            raise TornError
        found = self._struct.unpack(memory.read(address + self._first, self._struct.size))
        if self._in_order:
            return found
        values = [0] * len(found)
        for position, index in enumerate(self._order):
            values[index] = found[position]
        return tuple(values)


class ThreadFound(NamedTuple):
    ident: int
    native_id: int
    interpreter: int
    greenlets: list[GreenletView]


class Code:
    """A code object."""

    def __init__(self, function: str, file: str, first_line: int, table: bytes) -> None:
        self.function = function
        self.file = file
        self.first_line = first_line
        self._table = table
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._views: dict[int, FrameView] = {}

    def frame_at(self, offset: int) -> FrameView:
        """The frame that is at the instruction with this offset, in bytes."""
        view = self._views.get(offset)
        if view is None:
            line = self.line_at(offset)
            view = self._views[offset] = FrameView(self.function, self.file, max(line, 0))
        return view

    def line_at(self, offset: int) -> int:
        if offset < 0:
            return self.first_line
        if not self._starts:
            self._parse()
        index = bisect_right(self._starts, offset) - 1
        return self._lines[index] if index >= 0 else 0

    def _parse(self) -> None:
        """Read the location table: InternalDocs/code_objects.md of CPython."""
        table, at, start, line = self._table, 0, 0, self.first_line
        while at < len(table):
            first = table[at]
            kind = first >> 3 & 15
            delta = 0
            if kind in (13, 14):  # a signed number: six bits a byte, and the sign in the lowest one
                number, shift, following = 0, 0, at + 1
                while following < len(table):
                    number |= (table[following] & 63) << shift
                    if not table[following] & 64:
                        break
                    shift += 6
                    following += 1
                delta = -(number >> 1) if number & 1 else number >> 1
            elif 10 <= kind <= 12:
                delta = kind - 10
            line += delta
            self._starts.append(start)
            self._lines.append(0 if kind == 15 else line)
            start += ((first & 7) + 1) * 2
            at += 1
            while at < len(table) and not table[at] & 128:
                at += 1
        self._starts.append(start)
        self._lines.append(0)


class Objects:
    """Objects of CPython: strings, numbers, tuples, dicts, and what things are called."""

    def __init__(self, memory: Memory, table: Table) -> None:
        self.memory = memory
        self.table = table
        self._string = Record(table, object__type="Q", string__length="q", string__state="I")
        self._type = Record(table, object__type="Q", type__name="Q", type__flags="Q")
        self._keys = Record(table, keys__kind="B", keys__log2_index_bytes="B", keys__count="q")
        self._type_names: dict[int, str] = {}

    def word(self, address: int) -> int:
        if address % 8:
            raise TornError
        return int.from_bytes(self.memory.read(address, 8), "little")

    def field(self, address: int, name: str) -> int:
        """The pointer in a field that the table names."""
        if not address:
            raise TornError
        return self.word(address + self.table[name])

    def type_of(self, address: int) -> int:
        return self.field(address, "object.type")

    def string(self, address: int) -> str:
        kind, length, state = self._string.read(self.memory, address)
        table = self.table
        if kind != table.address("PyUnicode_Type"):
            raise TornError  # a subclass of str has its own layout
        if not 0 <= length <= MOST_CHARACTERS or not state & table["string.state_compact"]:
            raise TornError
        if state & table["string.state_ascii"]:
            data = self.memory.read(address + table["string.ascii_data"], length)
            return data.decode("ascii", errors="replace")
        mask = table["string.state_kind"]
        size = (state & mask) // (mask & -mask)
        codecs = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
        if size not in codecs:
            raise TornError
        data = self.memory.read(address + table["string.data"], length * size)
        # Lone surrogates, as in names of files that are not UTF-8, are escaped.
        return data.decode(codecs[size], "surrogatepass").encode(errors="backslashreplace").decode()

    def c_string(self, address: int) -> str:
        found = b""
        while b"\0" not in found and len(found) < 1024:
            # Not beyond the page: the next one may not be there.
            found += self.memory.read(address + len(found), 64 - (address + len(found)) % 64)
        return found.partition(b"\0")[0].decode(errors="replace")

    def data(self, address: int) -> bytes:
        """The contents of a bytes object."""
        length = self.field(address, "bytes.length")
        if length > 64 << 20:
            raise TornError
        return self.memory.read(address + self.table["bytes.data"], length)

    def integer(self, address: int) -> int:
        """A positive int of at most 64 bits or so."""
        table = self.table
        digits = self.field(address, "int.size") >> table["int.size_shift"]
        if digits > 8:
            raise TornError
        found = self.memory.read(address + table["int.digits"], 4 * digits)
        bits = table["int.digit_bits"]
        return sum(digit << bits * i for i, (digit,) in enumerate(struct.iter_unpack("<I", found)))

    def items(self, address: int, most: int = 1000) -> list[int]:
        """The objects in a tuple."""
        length = self.field(address, "tuple.length")
        if length > most:
            raise TornError
        found = self.memory.read(address + self.table["tuple.items"], 8 * length)
        return [*struct.unpack(f"<{length}Q", found)]

    def type_name(self, address: int) -> str:
        """The __qualname__ of a class."""
        if address not in self._type_names:
            _, name, flags = self._type.read(self.memory, address)
            if flags & self.table["type.is_heap_type"]:
                found = self.string(self.field(address, "heap_type.qualified_name"))
            else:
                found = self.c_string(name).rpartition(".")[2]
            self._type_names[address] = found
        return self._type_names[address]

    # --- dicts and attributes ---

    def _pairs(self, keys: int, values: int) -> Iterator[tuple[int, int]]:
        """The keys, and the values: in the same table, or in an array at `values`."""
        kind, log2_bytes, count = self._keys.read(self.memory, keys)
        group = "string_entry" if kind else "entry"
        size = self.table[f"{group}.bytes"]
        if not 0 <= count <= 10_000_000 or log2_bytes > 40:
            raise TornError
        start = keys + self.table["keys.indices"] + (1 << log2_bytes)
        found = self.memory.read(start, count * size)
        key_at, value_at = self.table[f"{group}.key"], self.table[f"{group}.value"]
        array = self.memory.read(values, 8 * count) if values and count else b""
        for index in range(count):
            (key,) = struct.unpack_from("<Q", found, index * size + key_at)
            (value,) = (
                struct.unpack_from("<Q", array, index * 8)
                if values
                else struct.unpack_from("<Q", found, index * size + value_at)
            )
            if key and value:
                yield key, value

    def pairs(self, address: int) -> Iterator[tuple[int, int]]:
        """The keys and values of a dict."""
        values = self.field(address, "dict.values")
        if values:
            values += self.table["values.first"]
        return self._pairs(self.field(address, "dict.keys"), values)

    def _find(self, pairs: Iterator[tuple[int, int]], name: str) -> int:
        for key, value in pairs:
            _, length, _ = self._string.read(self.memory, key)
            if length == len(name) and self.string(key) == name:
                return value
        return 0

    def get(self, address: int, name: str) -> int:
        """The value in a dict whose keys are strings; 0 if there is none."""
        return self._find(self.pairs(address), name)

    def attribute(self, address: int, name: str) -> int:
        """An attribute that an instance of an ordinary class has for itself; 0 if it has none."""
        table, kind = self.table, self.type_of(address)
        flags = self.field(kind, "type.flags")
        if not flags & table["type.has_managed_dict"]:
            return 0
        pointer, values = self.word(address + table["instance.dict"]), 0
        if "type.has_inline_values" in table.entries:
            if not pointer and flags & table["type.has_inline_values"]:
                values = address + self.field(kind, "type.basic_bytes")
        elif "instance.values_tag" in table.entries:
            if pointer & 1:
                pointer, values = 0, pointer - table["instance.values_tag"]
        elif not pointer:
            values = self.word(address + table["instance.values"])
        if pointer:
            return self.get(pointer, name)
        if not values:
            return 0
        keys = self.field(kind, "heap_type.keys")
        return self._find(self._pairs(keys, values + table["values.first"]), name)

    def callable_name(self, address: int) -> str:
        """The __qualname__ of a callable; empty if only the object itself could tell it."""
        kind = self.type_of(address)
        if self.type_name(kind) == "partial":
            address = self.field(address, "partial.function")
            kind = self.type_of(address)
        for _ in range(2):  # a method of a function
            if kind == self.table.address("PyMethod_Type"):
                address = self.field(address, "method.function")
                kind = self.type_of(address)
        if kind == self.table.address("PyFunction_Type"):
            return self.string(self.field(address, "function.qualified_name"))
        if kind == self.table.address("PyCFunction_Type"):
            definition = self.field(address, "c_function.definition")
            name = self.c_string(self.field(definition, "definition.name"))
            owner = self.field(address, "c_function.self")
            if not owner or self.type_of(owner) == self.table.address("PyModule_Type"):
                return name
            is_type = self.type_of(owner) == self.table.address("PyType_Type")
            return f"{self.type_name(owner if is_type else self.type_of(owner))}.{name}"
        if kind == self.table.address("PyType_Type"):
            return self.type_name(address)
        name = self.type_name(kind)
        # A function that Cython has compiled knows its name, in a place that differs by version.
        return "" if "function" in name else name


class Reader:
    """All greenlets of a process, as ``greenlet.inspect.snapshot()`` gives them there."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.table = table = Table(memory)
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
            thread__started="Q",
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
            greenlet__name="Q",
            greenlet__origin="Q",
            greenlet__stack_pointer="Q",
            greenlet__stack_boundary="Q",
        )
        frame = {
            "frame__previous": "Q",
            "frame__code": "Q",
            "frame__instruction": "Q",
            "frame__owner": "B",
        }
        self._has_copies = "frame.copy" in table.entries
        if self._has_copies:
            frame["frame__copy"] = "i"
        self._frame = Record(table, **frame)
        self._code = Record(
            table,
            object__type="Q",
            code__qualified_name="Q",
            code__file="Q",
            code__lines="Q",
            code__first_line="i",
            code__first_traceable="i",
        )
        self._ident = Record(
            table,
            thread_state__ident="Q",
            thread_state__native_id="Q",
            thread_state__interpreter="Q",
        )
        self._states = {table[f"state.{name}"]: name for name in ("new", "running", "dead")}
        self._states[table["state.abandoned"]] = "abandoned"
        self._owners = (table["frame.owner_thread"], table["frame.owner_generator"])
        self._tag_bits = table["frame.code_tag_bits"]
        self._codes: dict[int, tuple[Code, int]] = {}
        self._copies: dict[tuple[int, int], int] = {}
        self._return_address = table.entries.get("register.rip") or table["register.pc"]
        self._greenlet_type = 0
        #: How many greenlets the last snapshot shows without their stacks, which it could not read.
        self.without_stack = 0

    # --- the whole ---

    def snapshot(self) -> list[ThreadView]:
        """Return the greenlets of all threads. A process that goes on may change meanwhile."""
        self._codes.clear()
        self._copies.clear()
        self.objects = Objects(self.memory, self.table)
        self.without_stack = 0
        found = []
        names: dict[int, dict[int, str]] = {}
        for address in self._insist(self.threads):
            thread = self._insist(partial(self._read_thread, address))
            if thread is None:
                continue
            if thread.interpreter not in names:
                names[thread.interpreter] = self._thread_names(thread.interpreter)
            # The module threading may not be imported.
            unnamed = "MainThread" if thread.native_id == self.memory.pid else f"{thread.ident:#x}"
            name = names[thread.interpreter].get(thread.ident, unnamed)
            found.append(ThreadView(thread.ident, thread.native_id, name, thread.greenlets))
        found.sort(key=lambda thread: thread.native_id != self.memory.pid)
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

    def _insist(self, look: Callable[[], T]) -> T:
        """What `look` returns, in one of some attempts; raises what the last one raises."""
        for attempt in range(1, ATTEMPTS):
            try:
                return look()
            except (ValueError, UnreadableError):
                if not self.memory.is_live:
                    raise
            time.sleep(PAUSE * attempt)
        return look()

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
        blocks: list[int] = []
        for attempt in range(ATTEMPTS if self.memory.is_live else 1):
            _, _, _, _, block, count = self._thread.read(self.memory, thread)
            if count > MOST_GREENLETS:
                raise TornError
            blocks = []
            seen: set[int] = set()
            while block and len(blocks) < count and block not in seen:
                try:
                    fields = self._greenlet.read(self.memory, block)
                except (ValueError, UnreadableError):
                    if not self.memory.is_live:
                        raise
                    break
                if fields[1] != thread:
                    break  # it has finished, and is in another list or in none
                seen.add(block)
                blocks.append(block)
                block = fields[4]
            if len(blocks) == count:
                break
            time.sleep(PAUSE * attempt)
        return blocks

    # --- a greenlet ---

    def _read_greenlet(self, block: int, thread: int, thread_state: int) -> GreenletView | None:
        """None if it has finished meanwhile."""
        view = None
        for attempt in range(ATTEMPTS if self.memory.is_live else 1):
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
            except (ValueError, UnreadableError):
                time.sleep(PAUSE * attempt)
        if view is not None:
            return view  # one that fits together, though it goes on
        self.without_stack += 1
        try:
            fields = self._greenlet.read(self.memory, block)
            return self._view_of(block, fields, 0) if self._is_in(fields, thread) else None
        except (ValueError, UnreadableError):
            if not self.memory.is_live:
                raise
            return None

    def _is_in(self, fields: tuple[int, ...], thread: int) -> bool:
        return fields[1] == thread and self._states.get(fields[2]) != "dead"

    def _view_of(self, block: int, fields: tuple[int, ...], thread_state: int) -> GreenletView:
        """Without a stack if no thread state is given."""
        number, _, state, is_main, _, parent, run, name, origin, pointer, boundary = fields
        shown = self._states.get(state, "suspended")
        if self.objects.field(number, "greenlet_object.greenlet") != block:
            raise TornError
        stack: tuple[FrameView, ...] = ()
        if thread_state and shown == "running":
            stack = self._insist(lambda: self._frames(self._running_frame(thread_state)))
        elif thread_state and shown == "suspended":
            if not self.objects.word(pointer + self._return_address):
                raise TornError  # its C stack is not there: a core file without it
            stack = self._frames(self._suspended_frame(block))
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

    def _type_name(self, kind: int) -> str:
        try:
            return self.objects.type_name(kind)
        except UnreadableError:  # a core file, and the extension module is not on this machine
            return "greenlet" if kind == self._greenlet_type else f"{kind:#x}"

    def _name(
        self, number: int, kind: int, is_main: bool, run: int, name: int, stack: tuple[FrameView, ...]
    ) -> str:
        objects = self.objects
        if name:
            return objects.string(name)
        if kind != self._greenlet_type:
            try:
                attributes = objects.field(number, "greenlet_object.dict")
                found = objects.get(attributes, "name") if attributes else 0
                if found and objects.type_of(found) == self.table.address("PyUnicode_Type"):
                    return objects.string(found)
            except (ValueError, UnreadableError):
                pass
        if is_main:
            return "main"
        try:
            called = objects.callable_name(run) if run else ""
        except (ValueError, UnreadableError):
            called = ""
        if not called and run and stack:
            called = stack[0].function
        return called or self._type_name(kind)

    def _origin(self, address: int) -> tuple[FrameView, ...]:
        objects, found = self.objects, []
        for item in objects.items(address):
            code, _, line = objects.items(item)
            known, _ = self._code_at(code)
            found.append(FrameView(known.function, known.file, objects.integer(line)))
        return tuple(reversed(found))

    def registers(self, greenlet: GreenletView) -> dict[str, int]:
        """The registers with which a suspended greenlet goes on, by the names of debuggers."""
        block = self.objects.field(greenlet.id, "greenlet_object.greenlet")
        pointer = self.objects.field(block, "greenlet.stack_pointer")
        found = {
            name.partition(".")[2]: self.objects.word(pointer + offset)
            for name, offset in self.table.entries.items()
            if name.startswith("register.")
        }
        return found | {"sp": pointer + self.table["registers.bytes"]}

    # --- frames ---

    def _suspended_frame(self, block: int) -> int:
        state = block + self.table["greenlet.stack_state"]
        if "stack_state.frame" in self.table.entries:
            return self.objects.field(state, "stack_state.frame")
        cframe = self.objects.field(state, "stack_state.cframe")
        return self.objects.field(cframe, "cframe.frame") if cframe else 0

    def _running_frame(self, thread_state: int) -> int:
        if "thread_state.frame" in self.table.entries:
            return self.objects.field(thread_state, "thread_state.frame")
        cframe = self.objects.field(thread_state, "thread_state.cframe")
        return self.objects.field(cframe, "cframe.frame") if cframe else 0

    def _frames(self, frame: int) -> tuple[FrameView, ...]:
        """The frames from this innermost one on, the outermost first."""
        found: list[FrameView] = []
        seen: set[int] = set()
        unit, generator = self.table["instruction.bytes"], self.table["frame.owner_generator"]
        copy = 0
        while frame:
            if frame in seen or len(seen) > MOST_FRAMES:
                raise TornError
            seen.add(frame)
            fields = self._frame.read(self.memory, frame)
            frame, executable, instruction, owner = fields[:4]
            if owner not in self._owners:
                continue  # it has no code
            address = executable & ~self._tag_bits
            code, first = self._code_at(address)
            if self._has_copies:
                copy = fields[4]
            offset = instruction - self._instructions(address, copy)
            if owner != generator and offset < first * unit:
                continue  # it is not complete: its first instructions make its variables
            if offset % unit or offset > 1 << 31:
                raise TornError
            found.append(code.frame_at(offset))
        found.reverse()
        return tuple(found)

    def _code_at(self, address: int) -> tuple[Code, int]:
        """A code object, and its first instruction that can be seen."""
        known = self._codes.get(address)
        if known is None:
            objects = self.objects
            kind, function, file, lines, line, first = self._code.read(self.memory, address)
            if kind != self.table.address("PyCode_Type"):
                raise TornError
            code = Code(objects.string(function), objects.string(file), line, objects.data(lines))
            known = self._codes[address] = (code, first)
        return known

    def _instructions(self, code: int, copy: int) -> int:
        """Where the instructions of a code object are that a frame runs."""
        if not self._has_copies:
            return code + self.table["code.instructions"]
        key = (code, copy)
        if key not in self._copies:
            copies = self.objects.field(code, "code.copies")
            if not 0 <= copy < self.objects.field(copies, "copies.count"):
                raise TornError
            self._copies[key] = self.objects.word(copies + self.table["copies.first"] + 8 * copy)
        return self._copies[key]

    # --- names of threads ---

    def _thread_names(self, interpreter: int) -> dict[int, str]:
        """The names that the module threading knows, by ident."""
        objects, found = self.objects, {}
        try:
            modules = objects.field(interpreter, "interpreter.modules")
            threading = objects.get(modules, "threading")
            if not threading:
                return {}
            active = objects.get(objects.field(threading, "module.dict"), "_active")
            for ident, thread in objects.pairs(active):
                name = objects.attribute(thread, "_name")
                if name:
                    found[objects.integer(ident)] = objects.string(name)
        except (ValueError, UnreadableError):
            pass
        return found
