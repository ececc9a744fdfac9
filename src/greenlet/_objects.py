"""Objects of CPython in the memory of a process: strings, dicts, code, and what things are called.

This imports nothing of the package but what lies beside it without an extension module, as
``greenlet/gdb.py`` uses it in the Python of gdb.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress

from ._memory import Memory
from ._table import DAMAGE, Record, Table, TornError
from ._view import FrameView

__all__ = ["Code", "Objects"]

MOST_CHARACTERS = 1 << 16
MOST_BYTES = 1 << 40  # of any object
MOST_KEYS = 1_000_000
MOST_LINES = 16 << 20  # bytes of a location table


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
                    if not table[following] & 64 or shift > 60:
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
        self._str = table.address("PyUnicode_Type")
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

    def is_string(self, address: int) -> bool:
        """Whether it is a str, also of a subclass."""
        kind = self.type_of(address)
        return kind == self._str or bool(
            self.field(kind, "type.flags") & self.table["type.is_string"]
        )

    def string(self, address: int) -> str:
        """A str, also of a subclass. The end of a huge one is left out."""
        kind, length, state = self._string.read(self.memory, address)
        table = self.table
        if kind != self._str and not self.is_string(address):
            raise TornError
        mask = table["string.state_kind"]
        size = (state & mask) // (mask & -mask)
        is_ascii = state & table["string.state_ascii"]
        codecs = {1: "ascii" if is_ascii else "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
        if not 0 <= length <= MOST_BYTES // 4 or size not in codecs:
            raise TornError
        if state & table["string.state_compact"]:
            start = address + table["string.ascii_data" if is_ascii else "string.data"]
        else:
            start = self.field(address, "string.data")  # a subclass has a pointer there
        more = "…" if length > MOST_CHARACTERS else ""
        data = self.memory.read(start, min(length, MOST_CHARACTERS) * size)
        if is_ascii:
            return data.decode("ascii", errors="replace") + more
        # Lone surrogates, as in names of files that are not UTF-8, are escaped.
        text = data.decode(codecs[size], "surrogatepass")
        return text.encode(errors="backslashreplace").decode() + more

    def c_string(self, address: int) -> str:
        found = b""
        while b"\0" not in found and len(found) < 1024:
            # Not beyond the page: the next one may not be there.
            found += self.memory.read(address + len(found), 64 - (address + len(found)) % 64)
        return found.partition(b"\0")[0].decode(errors="replace")

    def data(self, address: int) -> bytes:
        """The contents of a bytes object."""
        length = self.field(address, "bytes.length")
        if length > MOST_LINES:
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
        if not 0 <= count <= min(1 << log2_bytes, MOST_KEYS) or log2_bytes > 40:
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
            if length == len(name) and self.is_string(key) and self.string(key) == name:
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

    # --- threads ---

    def python_threads(self, interpreter: int) -> list[tuple[int, int]]:
        """The threads that the module threading knows: ident and object."""
        modules = self.field(interpreter, "interpreter.modules")
        threading = self.get(modules, "threading")
        if not threading:
            return []
        return [*self.pairs(self.get(self.field(threading, "module.dict"), "_active"))]

    def thread_names(self, threads: list[tuple[int, int]]) -> dict[int, str]:
        """Their names by ident, as far as they can be read."""
        found = {}
        for ident, thread in threads:
            with suppress(*DAMAGE):
                name = self.attribute(thread, "_name")
                if name:
                    found[self.integer(ident)] = self.string(name)
        return found
