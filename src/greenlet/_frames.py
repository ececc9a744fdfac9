"""Python frames in the memory of a process, for ``_reader.py``."""

from __future__ import annotations

from ._memory import Memory
from ._objects import Code, Objects
from ._table import Record, Table, TornError
from ._view import FrameView

__all__ = ["Frames"]

MOST_FRAMES = 10_000_000


class Frames:
    """The frames of a process. Keeps the code objects that it has read."""

    def __init__(self, memory: Memory, table: Table, objects: Objects) -> None:
        self.memory, self.table, self.objects = memory, table, objects
        fields = {
            "frame__previous": "Q",
            "frame__code": "Q",
            "frame__instruction": "Q",
            "frame__owner": "B",
        }
        self._has_copies = "frame.copy" in table.entries
        if self._has_copies:
            fields["frame__copy"] = "i"
        self._record = Record(table, **fields)
        self._code = Record(
            table,
            object__type="Q",
            code__qualified_name="Q",
            code__file="Q",
            code__lines="Q",
            code__first_line="i",
            code__first_traceable="i",
        )
        self._owners = (table["frame.owner_thread"], table["frame.owner_generator"])
        self._tag_bits = table["frame.code_tag_bits"]
        self._codes: dict[int, tuple[Code, int]] = {}
        self._copies: dict[tuple[int, int], int] = {}

    def of_suspended(self, block: int) -> int:
        """The innermost frame of a suspended greenlet, by its control block; 0 if it has none."""
        state = block + self.table["greenlet.stack_state"]
        if "stack_state.frame" in self.table.entries:
            return self.objects.field(state, "stack_state.frame")
        cframe = self.objects.field(state, "stack_state.cframe")
        return self.objects.field(cframe, "cframe.frame") if cframe else 0

    def of_running(self, thread_state: int) -> int:
        """The innermost frame that a thread runs; 0 if it has none."""
        if "thread_state.frame" in self.table.entries:
            return self.objects.field(thread_state, "thread_state.frame")
        cframe = self.objects.field(thread_state, "thread_state.cframe")
        return self.objects.field(cframe, "cframe.frame") if cframe else 0

    def behind(self, frame: int) -> tuple[FrameView, ...]:
        """The frames from this innermost one on, the outermost first."""
        found: list[FrameView] = []
        seen: set[int] = set()
        unit, generator = self.table["instruction.bytes"], self.table["frame.owner_generator"]
        copy = 0
        while frame:
            if frame in seen or len(seen) > MOST_FRAMES:
                raise TornError
            seen.add(frame)
            fields = self._record.read(self.memory, frame)
            frame, executable, instruction, owner = fields[:4]
            if owner not in self._owners:
                continue  # it has no code
            address = executable & ~self._tag_bits
            code, first = self.code_at(address)
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

    def code_at(self, address: int) -> tuple[Code, int]:
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
