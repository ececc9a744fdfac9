"""The debug table of the extension module, in the memory of a process.

``docs/internals/debug-table.md`` explains it.

This imports nothing of the package but what lies beside it without an extension module, as
``greenlet/gdb.py`` uses it in the Python of gdb.
"""

from __future__ import annotations

import struct

from ._memory import Memory, OutsideError, UnreadableError

__all__ = ["CUT_OFF", "DAMAGE", "Record", "Table", "TornError"]

MAGIC = b"greenlet debug\0\0"
VERSION = 1


class TornError(ValueError):
    """What was read does not fit together. Strings that cannot be decoded are ValueErrors, too."""


#: Why a core file does not have all memory.
CUT_OFF = "it was cut off (ulimit -c), or /proc/PID/coredump_filter left memory out"
#: What reading raises if the memory, or the table itself, is not what it should be.
DAMAGE = (ValueError, UnreadableError, ArithmeticError, struct.error)


class Table:
    """The entries of all blocks of an extension module, by name."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.greenlet_version = ""

    @classmethod
    def all_in(cls, memory: Memory) -> list[Table]:
        """Return those of all greenlets in a process. It may have loaded several."""
        tables = [cls()]
        for address in sorted(memory.addresses_of(MAGIC)):
            try:
                version, entries = _read_block(memory, address)
            except UnreadableError:
                continue
            # The blocks of a module lie together, and no two of them have the same entries.
            if entries.keys() & tables[-1].entries.keys():
                tables.append(cls())
            tables[-1].entries |= entries
            if version:
                tables[-1].greenlet_version = version
        if not tables[0].entries:
            if not memory.has_extension():
                raise OutsideError(f"there is no greenlet in {memory.what}")
            if not memory.has_extension_data():
                if memory.is_live:
                    raise TornError  # another program runs in the process now, or it has ended
                raise OutsideError(f"{memory.what} lacks the memory of greenlet: {CUT_OFF}")
            raise OutsideError(
                f"the greenlet in {memory.what} has no debug table: it is the published one, "
                "or an older one than this"
            )
        complete = [each for each in tables if {"threads", "python.version"} <= each.entries.keys()]
        if not complete:
            raise OutsideError(f"the debug table of greenlet in {memory.what} is not complete")
        return complete

    def __getitem__(self, name: str) -> int:
        try:
            return self.entries[name]
        except KeyError:
            raise OutsideError(f"the debug table of that greenlet has no {name}") from None

    def address(self, name: str) -> int:
        return self[name] & 0xFFFF_FFFF_FFFF_FFFF


def _read_block(memory: Memory, address: int) -> tuple[str, dict[str, int]]:
    """Return the version of greenlet, and the entries: none if it is a copy of a block."""
    _, version, size, first, entry_size, itself, name, count = struct.unpack(
        "<16sIIIIQ16sQ", memory.read(address, 64)
    )
    if itself != address or address % 16:
        return "", {}  # a copy, such as the one in the file
    if version != VERSION:
        raise OutsideError(
            f"the debug table of greenlet in {memory.what} has version {version}, and this "
            f"greenlet knows version {VERSION}: use the one of that process, or a newer one"
        )
    if size > 1 << 20 or first + count * entry_size > size or entry_size < 40:
        raise OutsideError(f"the debug table of greenlet in {memory.what} is damaged")
    block = memory.read(address, size)
    entries = {}
    for at in range(first, first + count * entry_size, entry_size):
        key, value = struct.unpack_from("<32sq", block, at)
        entries[key.partition(b"\0")[0].decode(errors="replace")] = value
    return name.rstrip(b"\0").decode(errors="replace"), entries


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
