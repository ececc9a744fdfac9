"""The memory of a process, or of a core file, from outside of it.

This imports nothing of the package, as ``greenlet/gdb.py`` uses it in the Python of gdb.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "CoreFile",
    "Mapping",
    "Memory",
    "OutsideError",
    "Process",
    "UnreadableError",
    "number_inside",
    "status_of",
]


class OutsideError(Exception):
    """A sentence that says why nothing can be shown."""


class UnreadableError(Exception):
    """There is no memory at an address."""

    def __init__(self, address: int) -> None:
        super().__init__(f"there is no memory at {address:#x}")
        self.address = address


class Mapping(NamedTuple):
    """A piece of address space that belongs to a file."""

    start: int
    end: int
    file: str


class Memory:
    """What a reader of structures needs. Subclasses read from a process, a file, or gdb."""

    #: What it is the memory of, as messages name it.
    what: str
    #: The process. 0 if it is not known.
    pid: int = 0
    #: The number of its main thread, as the process itself knows it: in its namespace.
    main_thread: int = 0
    #: True if it changes while it is read.
    is_live: bool = False

    def read(self, address: int, size: int) -> bytes:
        """Return that many bytes; raise UnreadableError if they are not all there."""
        raise NotImplementedError

    def mappings(self) -> list[Mapping]:
        """Return the pieces that belong to files."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """Whether it is the memory of a process that is gone."""
        return False

    def addresses_of(self, pattern: bytes) -> Iterator[int]:
        """Yield where these bytes are in the pieces of the extension module of greenlet."""
        for mapping in self.mappings():
            if is_extension(mapping.file):
                try:
                    found = self.read(mapping.start, min(mapping.end - mapping.start, 16 << 20))
                except UnreadableError:
                    continue
                at = found.find(pattern)
                while at >= 0:
                    yield mapping.start + at
                    at = found.find(pattern, at + 1)

    def has_extension(self) -> bool:
        return any(is_extension(mapping.file) for mapping in self.mappings())

    def has_extension_data(self) -> bool:
        """Whether what the extension module has written can be read, if there is one."""
        return True


def is_extension(file: str) -> bool:
    """Whether a file may be the extension module. Its name says for which interpreter it is."""
    name = os.path.basename(file)
    return name.startswith("_greenlet.") and ".so" in name


#: Above all addresses of programs (five levels of page tables).
END = 1 << 56


class Process(Memory):
    """A process that goes on while it is read."""

    is_live = True

    def __init__(self, pid: int) -> None:
        self.what = f"process {pid}"
        try:
            # It may be the number of one of its threads.
            self.pid = pid = int(status_of(pid, "Tgid")[-1])
            self.main_thread = number_inside(pid)
            with open(f"/proc/{pid}/maps", errors="surrogateescape") as file:
                self._maps = [*_parse_maps(file)]
            self._file = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise OutsideError(f"there is no process {pid}") from None
        except (ProcessLookupError, LookupError):
            raise OutsideError(f"process {pid} has ended") from None
        except PermissionError:
            raise OutsideError(f"may not read process {pid}: {_permission()}") from None

    def read(self, address: int, size: int) -> bytes:
        if not 0 < address < END:
            raise UnreadableError(address)
        try:
            found = os.pread(self._file, size, address)
        except (OSError, OverflowError):
            raise UnreadableError(address) from None
        if len(found) != size:
            raise UnreadableError(address)
        return found

    def mappings(self) -> list[Mapping]:
        return self._maps

    def has_ended(self) -> bool:
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return file.read(2) == "0 "
        except OSError:
            return True

    def has_extension_data(self) -> bool:
        for mapping in self._maps:
            if is_extension(mapping.file):
                try:
                    return bool(self.read(mapping.start, 1))
                except UnreadableError:
                    continue
        return False

    def close(self) -> None:
        os.close(self._file)


def number_inside(pid: int) -> int:
    """The number that a process has for itself. It is another one if it is in a container."""
    try:
        return int(status_of(pid, "NSpid")[-1])
    except (OSError, LookupError):
        return pid


def status_of(pid: int, name: str) -> list[str]:
    """A line of /proc/PID/status. LookupError if there is none."""
    # The name of a program may be any bytes.
    with open(f"/proc/{pid}/status", errors="replace") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return line.split()[1:]
    raise LookupError(name)


def _parse_maps(lines: Iterator[str]) -> Iterator[Mapping]:
    for line in lines:
        # start-end permissions offset device inode path
        fields = line.rstrip("\n").split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            yield Mapping(int(start, 16), int(end, 16), fields[5].removesuffix(" (deleted)"))


def _permission() -> str:
    """Why a process may not be read, and what to do."""
    advice = "run this as root, or as the user of that process"
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            scope = int(file.read())
    except (OSError, ValueError):
        scope = 0
    if scope:
        advice += (
            f"; kernel.yama.ptrace_scope is {scope} here, and only if it is 0 "
            "(sysctl kernel.yama.ptrace_scope=0) may a user read all processes of their own"
        )
    return f"{advice} (in a container: with the capability SYS_PTRACE)"


# --- core files -----------------------------------------------------------------------------------

# Of <elf.h>: the kind of a file, of a segment, and of a note.
_CORE, _LOAD, _NOTE = 4, 1, 4
_PROCESS_INFO, _FILES = 3, 0x46494C45
_MANY_SEGMENTS = 0xFFFF  # then the first section header has the number


class _Segment(NamedTuple):
    start: int
    size: int  # what the file has of it
    offset: int


# How files begin that programs write which collect core files.
_COMPRESSED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
}
_HEADER_BYTES = 56  # of a segment
_PAGE = 4096
_PIECE = 16 << 20  # that is searched at once


class _File:
    """A file whose parts are read when they are needed. It may be cut off meanwhile."""

    def __init__(self, path: str) -> None:
        # Without waiting for who writes to it, if it is a pipe.
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._file)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            is_folder = stat.S_ISDIR(status.st_mode)
            raise OSError(0, "Is a directory" if is_folder else "It is no regular file")

    def read(self, offset: int, size: int) -> bytes:
        """Return what there is of so many bytes."""
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        return os.pread(self._file, size, offset)

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))

    def close(self) -> None:
        os.close(self._file)


class CoreFile(Memory):
    """What was in the memory of a process: an ELF file by the kernel, or by gcore of gdb."""

    def __init__(self, path: str) -> None:
        self.what = f"core file {path}"
        self._path = path
        self._named: list[tuple[Mapping, int]] = []  # and where the piece begins in its file
        self._deleted: set[str] = set()
        self._opened: dict[str, _File | None] = {}
        self._last = _Segment(0, 0, 0)
        try:
            self._file = _File(path)
        except FileNotFoundError:
            raise OutsideError(f"there is no file {path}") from None
        except (OSError, ValueError) as failure:
            why = failure.strerror if isinstance(failure, OSError) else failure
            raise OutsideError(f"cannot read {path}: {why}") from None
        if not self._file.size:
            raise OutsideError(f"{path} is empty")
        try:
            #: The pieces of memory that the file has: address, size, offset in the file.
            self.segments = sorted(self._load())
        except struct.error:
            raise OutsideError(f"{path} is no complete core file: it is cut off") from None

    def _load(self) -> list[_Segment]:
        begin = self._file.read(0, 16)
        for magic, program in _COMPRESSED.items():
            if begin.startswith(magic):
                raise OutsideError(f"{self._path} is compressed by {program}: decompress it first")
        if begin[:4] != b"\x7fELF":
            raise OutsideError(f"{self._path} is not an ELF file, so it is no core file")
        if begin[4:6] != b"\x02\x01":
            raise OutsideError(f"{self._path} is not of a 64-bit little-endian machine")
        (kind,) = self._file.unpack("<H", 16)
        if kind != _CORE:
            raise OutsideError(f"{self._path} is an ELF file, but no core file")
        headers, sections = self._file.unpack("<QQ", 32)
        entry_size, count = self._file.unpack("<HH", 54)
        if count == _MANY_SEGMENTS:
            (count,) = self._file.unpack("<I", sections + 44)
        table = self._file.read(headers, count * entry_size)
        if entry_size != _HEADER_BYTES or len(table) != count * entry_size:
            raise struct.error
        segments = []
        for kind, _, offset, start, _, size, _, _ in struct.iter_unpack("<IIQQQQQQ", table):
            if kind == _LOAD and size:
                segments.append(_Segment(start, size, offset))
            elif kind == _NOTE:
                self._load_notes(self._file.read(offset, size))
        return segments

    def _load_notes(self, notes: bytes) -> None:
        at = 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from("<III", notes, at)
            name = notes[at + 12 : at + 12 + name_size]
            begin = at + 12 + (name_size + 3) // 4 * 4
            if name.startswith(b"CORE"):
                if kind == _FILES:
                    self._load_files(notes[begin : begin + size])
                elif kind == _PROCESS_INFO:
                    (self.pid,) = struct.unpack_from("<i", notes, begin + 24)
                    self.main_thread = self.pid
            at = begin + (size + 3) // 4 * 4

    def _load_files(self, note: bytes) -> None:
        count, page = struct.unpack_from("<QQ", note)
        names = note[16 + 24 * count :].split(b"\0")
        for index, name in enumerate(names[:count]):
            start, end, first = struct.unpack_from("<QQQ", note, 16 + 24 * index)
            file = os.fsdecode(name.removesuffix(b" (deleted)"))
            if name.endswith(b" (deleted)"):
                self._deleted.add(file)
            self._named.append((Mapping(start, end, file), first * page))

    def read(self, address: int, size: int) -> bytes:
        parts = []
        while True:
            segment = self._last
            if not segment.start <= address < segment.start + segment.size:
                found = self._segment_of(address)
                if found is None:
                    parts.append(self._read_file(address, size))
                    break
                segment = self._last = found
            here = min(size, segment.start + segment.size - address)
            data = self._file.read(segment.offset + address - segment.start, here)
            if len(data) != here:
                raise UnreadableError(address)
            parts.append(data)
            if here == size:
                break
            address, size = address + here, size - here
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _segment_of(self, address: int) -> _Segment | None:
        low, high = 0, len(self.segments)
        while low < high:
            middle = (low + high) // 2
            if self.segments[middle].start <= address:
                low = middle + 1
            else:
                high = middle
        if low and address < sum(self.segments[low - 1][:2]):
            return self.segments[low - 1]
        return None

    def _read_file(self, address: int, size: int) -> bytes:
        """Read what core files leave out, because the files on the disk have it."""
        for mapping, first in self._named:
            if mapping.start <= address and address + size <= mapping.end:
                file = self._open(mapping.file)
                if file is not None:
                    data = file.read(first + address - mapping.start, size)
                    if len(data) == size:
                        return data
        raise UnreadableError(address)

    def _open(self, path: str) -> _File | None:
        if path not in self._opened:
            self._opened[path] = None
            try:
                file = _File(path)
            except (OSError, ValueError):
                return None
            if self._is_of_this(path, file):
                self._opened[path] = file
            else:
                file.close()
        return self._opened[path]

    def _is_of_this(self, path: str, file: _File) -> bool:
        """Whether it is the file that the process had: the core file has its first page.

        The page tells the sizes of all parts, and mostly the build id. Another release may have
        been installed since.
        """
        for mapping, first in self._named:
            if mapping.file == path and not first:
                segment = self._segment_of(mapping.start)
                if segment is not None:
                    size = min(_PAGE, segment.start + segment.size - mapping.start)
                    page = self._file.read(segment.offset + mapping.start - segment.start, size)
                    return page == file.read(0, size)
        # Bit 4 of coredump_filter was not set.
        return path not in self._deleted

    def mappings(self) -> list[Mapping]:
        return [mapping for mapping, _ in self._named]

    def has_extension_data(self) -> bool:
        for mapping, first in self._named:
            if first and is_extension(mapping.file):  # not only the page with the headers
                segment = self._segment_of(mapping.start)
                if segment and self._file.read(segment.offset + mapping.start - segment.start, 1):
                    return True
        return False

    def addresses_of(self, pattern: bytes) -> Iterator[int]:
        if self._named:
            yield from super().addresses_of(pattern)
            return
        for start, size, offset in self.segments:  # nothing names the files
            yield from self._addresses_in(start, size, offset, pattern)

    def _addresses_in(self, start: int, size: int, offset: int, pattern: bytes) -> Iterator[int]:
        for first in range(0, size, _PIECE):
            # The pieces overlap by less than the pattern.
            found = self._file.read(offset + first, min(_PIECE + len(pattern) - 1, size - first))
            if not found:
                return
            at = found.find(pattern)
            while at >= 0:
                yield start + first + at
                at = found.find(pattern, at + 1)
