"""Local variables as text, for ``greenlet.inspect``."""

import sys
from contextlib import suppress
from itertools import islice
from types import FrameType

from ._greenlet import GreenletExit
from ._view import FrameView

LONGEST = 200  # characters of a value
_MOST_ITEMS = 20  # of a container
_DEEPEST = 3  # containers in containers
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("{", "}"),
    dict: ("{", "}"),
}


def has_gil() -> bool:
    """Whether no other thread runs while this one looks at a frame."""
    return sys.version_info < (3, 13) or sys._is_gil_enabled()


def of_frames(frame: FrameType | None) -> tuple[FrameView, ...]:
    """A frame and those that called it, the outermost first, with their variables."""
    found = []
    while frame is not None:
        code = frame.f_code
        texts = [(name, _text_of(value)) for name, value in _locals_of(frame)]
        found.append(FrameView(code.co_qualname, code.co_filename, frame.f_lineno or 0, (*texts,)))
        frame = frame.f_back
    return tuple(reversed(found))


def _locals_of(frame: FrameType) -> list[tuple[str, object]]:
    # exec() takes any mapping as the variables, with any keys.
    with suppress(Exception):
        items = [*frame.f_locals.items()]
        return [(name if type(name) is str else _text_of(name), value) for name, value in items]
    return []


def _text_of(value: object) -> str:
    try:
        text = _repr(value, _DEEPEST)
    except (KeyboardInterrupt, GreenletExit):
        raise
    except BaseException as failure:  # of a class of the program
        text = f"<repr() raised {type(failure).__name__}>"
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


# Not reprlib, which sorts the items of sets and dicts, and so calls what the program has written.
def _repr(value: object, depth: int) -> str:
    """The repr() of a value. Its beginning, if it is huge: the program waits meanwhile."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return repr(value[:LONGEST]) + ("…" if len(value) > LONGEST else "")  # type: ignore[arg-type,index]
    if kind not in _BRACKETS or not value:
        return str.__str__(repr(value))
    begin, end = _BRACKETS[kind]
    if not depth:
        return f"{begin}…{end}"
    if isinstance(value, dict):
        texts = [
            f"{_repr(key, depth - 1)}: {_repr(item, depth - 1)}"
            for key, item in islice(value.items(), _MOST_ITEMS)
        ]
    else:
        texts = [_repr(item, depth - 1) for item in islice(value, _MOST_ITEMS)]  # type: ignore[call-overload]
    more = len(value) - _MOST_ITEMS  # type: ignore[arg-type]
    if more > 0:
        texts.append(f"… {more:,} more")
    elif kind is tuple and len(texts) == 1:
        end = ",)"
    text = f"{begin}{', '.join(texts)}{end}"
    return f"frozenset({text})" if kind is frozenset else text
