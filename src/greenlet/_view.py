"""Greenlets as plain data, and as text and JSON: what all tools here show.

``greenlet.inspect`` makes these of its own process, ``greenlet._outside`` of the memory of another
one or of a core file.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import IO, Any, NamedTuple

__all__ = [
    "FrameView",
    "GreenletView",
    "ThreadView",
    "as_json",
    "format_list",
    "format_tree",
    "place_of_frame",
    "printable",
]

WIDEST = 40  # column of a table
LONGEST_NAME = 200  # characters of it in a text

# What would end a line, command a terminal, or change the order of what follows; and surrogates.
_UNPRINTABLE = re.compile(
    "[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: str, longest: int = LONGEST_NAME) -> str:
    """A text of the program as one that a terminal shows on one line: with escapes, and cut off."""
    if len(text) > longest:
        text = text[:longest] + "…"
    if text.isprintable():  # mostly
        return text
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class FrameView(NamedTuple):
    """A Python frame."""

    function: str
    """The qualified name of the function."""
    file: str
    """The name of its file, as the code object has it."""
    line: int
    """The line that it is at; 0 if that is not known."""
    variables: tuple[tuple[str, str], ...] = ()
    """Names of local variables, and their values as text, if they were asked for."""


class GreenletView(NamedTuple):
    """A greenlet at one moment."""

    id: int
    """The address of the object, as ``id()`` tells it."""
    name: str
    """What ``get_name()`` says."""
    type: str
    """The name of its class."""
    state: str
    """``running``, ``suspended``, ``new``, ``dead``, or ``abandoned`` if its thread has ended."""
    is_main: bool
    """Whether it is the main greenlet of its thread."""
    parent: int
    """The id of its parent; 0 for a main greenlet."""
    stack: tuple[FrameView, ...] = ()
    """Its frames, the outermost first."""
    stack_in_use: int = 0
    """The bytes of C stack that it uses while it is suspended; otherwise 0."""
    origin: tuple[FrameView, ...] = ()
    """The frames that made it, the outermost first, if origins are tracked."""


class ThreadView(NamedTuple):
    """A thread that has used greenlets."""

    ident: int
    """``threading.get_ident()`` there."""
    native_id: int
    """The number that the operating system has given it."""
    name: str
    """Its name in ``threading``, or what is known instead."""
    greenlets: Sequence[GreenletView]
    """The main greenlet, and the others in the order of their start."""


def as_json(threads: Sequence[ThreadView]) -> list[dict[str, Any]]:
    """Return lists, dicts, strings and numbers: what ``json.dump()`` takes."""

    def frames(stack: Sequence[FrameView]) -> list[dict[str, Any]]:
        found = []
        for frame in stack:
            one = frame._asdict()
            variables = one.pop("variables")
            found.append(one | {"variables": dict(variables)} if variables else one)
        return found

    return [
        {
            **thread._asdict(),
            "greenlets": [
                {**one._asdict(), "stack": frames(one.stack), "origin": frames(one.origin)}
                for one in thread.greenlets
            ],
        }
        for thread in threads
    ]


def wants_color(file: IO[str]) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM") != "dumb"


class Style:
    """How the parts of a text look on a terminal."""

    def __init__(self, color: bool) -> None:
        self.color = color

    def paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.color else text

    def heading(self, text: str) -> str:
        return self.paint("1", text)

    def name(self, text: str) -> str:
        return self.paint("1;36", text)

    def state(self, text: str) -> str:
        return self.paint("1;32" if text == "running" else "2", text)

    def function(self, text: str) -> str:
        return self.paint("33", text)

    def place(self, text: str) -> str:
        return self.paint("2", text)


class Node:
    """A greenlet with its children, or several that look the same and have none."""

    def __init__(self, greenlets: list[GreenletView]) -> None:
        self.greenlets = greenlets
        self.children: list[Node] = []

    @property
    def first(self) -> GreenletView:
        return self.greenlets[0]


def nodes_of(thread: ThreadView, group: bool) -> list[Node]:
    """The greenlets without a parent in this thread, with the others below them."""
    nodes = {one.id: Node([one]) for one in thread.greenlets}
    roots = []
    for one in thread.greenlets:
        parent = nodes.get(one.parent)
        if parent is None or parent is nodes[one.id]:
            roots.append(nodes[one.id])
        else:
            parent.children.append(nodes[one.id])
    roots += cut_circles(nodes, roots)
    if group:
        for node in nodes.values():
            node.children = folded(node.children)
        roots = folded(roots)
    return roots


def cut_circles(nodes: dict[int, Node], roots: list[Node]) -> list[Node]:
    """One node of each circle of parents, cut from its parent.

    There are no circles at any moment. But parents may change while one greenlet after the other is
    looked at.
    """
    reached: set[int] = set()

    def reach(node: Node) -> None:
        ahead = [node]
        while ahead:
            each = ahead.pop()
            reached.add(each.first.id)
            ahead += [child for child in each.children if child.first.id not in reached]

    for node in roots:
        reach(node)
    found = []
    for node in nodes.values():
        if node.first.id in reached:
            continue
        on_path: set[int] = set()
        while node.first.id not in on_path:  # up to one that is in the circle
            on_path.add(node.first.id)
            node = nodes[node.first.parent]
        nodes[node.first.parent].children.remove(node)
        found.append(node)
        reach(node)
    return found


def folded(nodes: list[Node]) -> list[Node]:
    """One node in place of several that have no children, and the same class, state and stack."""
    found: dict[object, Node] = {}
    for node in nodes:
        one = node.first
        key = (one.type, one.state, one.stack, one.origin) if not node.children else node
        if key in found:
            found[key].greenlets += node.greenlets
        else:
            found[key] = node
    return [*found.values()]


SHOWN_NAMES = 3  # of greenlets that are shown together
DEEPEST = 40  # levels that are indented


def title(node: Node, style: Style) -> str:
    one, count = node.first, len(node.greenlets)
    kind = "" if one.type == "greenlet" else f" {printable(one.type)}"
    state = style.state(printable(one.state))
    if count == 1:
        return f"{style.name(printable(one.name))}{kind} {style.place(f'{one.id:#x}')} {state}"
    names = [*dict.fromkeys(printable(each.name) for each in node.greenlets)]
    more = ", …" if len(names) > SHOWN_NAMES else ""
    shown = style.name(", ".join(names[:SHOWN_NAMES])) + more
    return f"{style.heading(f'{count:,} greenlets')} {shown}{kind} {state}"


def frame_lines(stack: Sequence[FrameView], style: Style) -> Iterator[str]:
    """The frames, the outermost first. Runs of the same frame, as recursions have, are one line."""
    for frame, run in groupby(stack):
        count = len([*run])
        times = f" × {count:,}" if count > 1 else ""
        function = style.function(printable(frame.function))
        yield f"{function}  {style.place(place_of_frame(frame))}{times}"
        for name, value in frame.variables:
            yield f"    {printable(name)} = {printable(value, 1000)}"


def place_of_frame(frame: FrameView) -> str:
    """Its file and line."""
    file = printable(frame.file, 4096)
    return f"{file}:{frame.line}" if frame.line else file


def format_tree(
    threads: Sequence[ThreadView], *, group: bool = True, color: bool = False
) -> Iterator[str]:
    """Yield the lines of a tree: threads, their main greenlets, children below their parents."""
    style = Style(color)
    for thread in threads:
        count = len(thread.greenlets)
        number = f"{count:,} greenlet{'' if count == 1 else 's'}"
        name = printable(thread.name)
        yield style.heading(f"thread {thread.native_id} {name}") + f", {number}"
        # Not by recursion: greenlets may be each other's parents for thousands of levels.
        roots = nodes_of(thread, group)
        ahead = [(node, "", node is roots[-1]) for node in reversed(roots)]
        while ahead:
            node, indent, is_last = ahead.pop()
            yield f"{indent}{'└─' if is_last else '├─'} {title(node, style)}"
            below = f"{indent}{'   ' if is_last else '│  '}"
            bar = "│  " if node.children else "   "
            for line in frame_lines(node.first.stack, style):
                yield f"{below}{bar}{line}"
            if node.first.origin:
                yield f"{below}{bar}{style.place('made at')}"
                for line in frame_lines(node.first.origin, style):
                    yield f"{below}{bar}  {line}"
            if below.count(" ") > 3 * DEEPEST:
                below = ""
            ahead += [
                (child, below, child is node.children[-1]) for child in reversed(node.children)
            ]


def format_list(threads: Sequence[ThreadView]) -> Iterator[str]:
    """Yield the lines of a table: a greenlet each, with the frame that it waits in."""
    rows = [("thread", "id", "name", "class", "state", "where")]
    for thread in threads:
        for one in thread.greenlets:
            where = one.stack[-1] if one.stack else None
            rows.append(
                (
                    str(thread.native_id),
                    f"{one.id:#x}",
                    printable(one.name),
                    printable(one.type),
                    printable(one.state),
                    f"{printable(where.function)} {place_of_frame(where)}" if where else "",
                )
            )
    widths = [min(max(len(row[column]) for row in rows), WIDEST) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[5]]).rstrip()
