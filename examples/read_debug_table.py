"""Read the greenlets of another process by the debug table alone, as profilers may do.

docs/internals/debug-table.md explains the table. This program needs no greenlet itself, and prints
the name of each function in each greenlet. It reads each thing once: what a profiler needs besides
are checks of what it reads, because the process goes on.

    python read_debug_table.py PID
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

MAGIC = b"greenlet debug\0\0"


class Process:
    """The memory of a process, and the entries of its debug table by name."""

    def __init__(self, pid: int) -> None:
        self.memory: BinaryIO = open(f"/proc/{pid}/mem", "rb", buffering=0)  # noqa: SIM115
        self.table: dict[str, int] = {}
        with open(f"/proc/{pid}/maps") as maps:
            for line in maps:
                fields = line.split()
                if "/_greenlet." in line and "w" in fields[1]:
                    start, end = (int(part, 16) for part in fields[0].split("-"))
                    self.read_blocks(start, self.read(start, end - start))

    def read(self, address: int, size: int) -> bytes:
        self.memory.seek(address)
        return self.memory.read(size)

    def read_blocks(self, start: int, data: bytes) -> None:
        at = data.find(MAGIC)
        while at >= 0:
            version, _, first, size, itself = struct.unpack_from("<IIIIQ", data, at + 16)
            (count,) = struct.unpack_from("<Q", data, at + 56)
            if version == 1 and itself == start + at:
                for entry in range(at + first, at + first + count * size, size):
                    name, value = struct.unpack_from("<32sq", data, entry)
                    self.table[name.rstrip(b"\0").decode()] = value
            at = data.find(MAGIC, at + 1)

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def field(self, address: int, name: str) -> int:
        """The pointer in a field of the structure at an address."""
        return self.word(address + self.table[name])

    def string(self, address: int) -> str:
        """A str of CPython. To keep this short: one of ASCII characters."""
        length = self.field(address, "string.length")
        return self.read(address + self.table["string.ascii_data"], length).decode("latin-1")

    def threads(self) -> Iterator[int]:
        """The Threads of greenlet: one for each thread that has used greenlets, or has ended."""
        thread = self.word(self.table["threads"])
        while thread:
            if self.field(thread, "thread.module"):
                yield thread
            thread = self.field(thread, "thread.next")

    def greenlets(self, thread: int) -> Iterator[int]:
        """The control blocks of the greenlets of a Thread, the main one first."""
        yield self.field(thread, "thread.main")
        block = self.field(thread, "thread.first_started")
        while block:
            yield block
            block = self.field(block, "greenlet.next")

    def frame(self, thread: int, block: int) -> int:
        """The innermost frame. A running greenlet has it in the thread state."""
        table = self.table
        if self.read(block + table["greenlet.state"], 1)[0] == table["state.running"]:
            owner, prefix = self.field(thread, "thread.state"), "thread_state"
        else:
            owner, prefix = block + table["greenlet.stack_state"], "stack_state"
        if f"{prefix}.frame" in table:
            return self.field(owner, f"{prefix}.frame")
        cframe = self.field(owner, f"{prefix}.cframe")  # CPython 3.11 and 3.12
        return self.field(cframe, "cframe.frame") if cframe else 0

    def functions(self, frame: int) -> Iterator[str]:
        """The names of the functions of a chain of frames, the innermost first."""
        table = self.table
        owners = {table["frame.owner_thread"], table["frame.owner_generator"]}
        while frame:
            if self.read(frame + table["frame.owner"], 1)[0] in owners:
                code = self.field(frame, "frame.code") & ~table["frame.code_tag_bits"]
                yield self.string(self.field(code, "code.qualified_name"))
            frame = self.field(frame, "frame.previous")


def main() -> None:
    process = Process(int(sys.argv[1]))
    for thread in process.threads():
        state = process.field(thread, "thread.state")
        print("thread", process.field(state, "thread_state.native_id"))
        for block in process.greenlets(thread):
            names = [*process.functions(process.frame(thread, block))]
            print(f"  {process.field(block, 'greenlet.object'):#x}", *reversed(names))


if __name__ == "__main__":
    main()
